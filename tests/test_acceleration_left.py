"""Layers that only look like sums of weighted neighbors."""

import math
import random

import pytest
import torch
import torch.nn.functional as F
import torch_geometric.nn as pyg
from torch import Tensor
from torch.nn import Linear, ModuleList, Parameter
from torch_geometric.nn import MessagePassing

from torch_geometric_diff import accelerate
from torch_geometric_diff.acceleration import _graphs

SWITCH = False


def relu(x):
    return x.relu()


class Base(MessagePassing):
    def __init__(self, aggr="add", **kwargs):
        super().__init__(aggr=aggr, **kwargs)
        self.scale = 2.0
        self.lin = Linear(4, 4)

    def forward(self, x, edge_index, norm):
        return self.propagate(edge_index, x=x, norm=norm)

    def message(self, x_j, norm):
        return norm.view(-1, 1) * x_j


class Relu(Base):
    def message(self, x_j, norm):
        return norm.view(-1, 1) * x_j.relu()


class Sigmoid(Base):
    def message(self, x_j, norm):
        return norm.view(-1, 1) * torch.sigmoid(x_j)


class Functional(Base):
    def message(self, x_j, norm):
        return F.leaky_relu(x_j)


class Helper(Base):
    def message(self, x_j, norm):
        return relu(x_j)


class Square(Base):
    def message(self, x_j, norm):
        return norm.view(-1, 1) * x_j * x_j


class Power(Base):
    def message(self, x_j, norm):
        return x_j**2


class Shifted(Base):
    def message(self, x_j, norm):
        return norm.view(-1, 1) * x_j + 1


class WeightAlone(Base):
    def message(self, x_j, norm):
        return norm.view(-1, 1)


class Both(Base):
    def message(self, x_i, x_j, norm):
        return norm.view(-1, 1) * (x_j - x_i)


class Target(Base):
    def message(self, x_i, norm):
        return norm.view(-1, 1) * x_i


class Dropped(Base):
    def message(self, x_j, norm):
        return F.dropout(norm.view(-1, 1) * x_j, 0.5, self.training)


class Stochastic(Base):
    def message(self, x_j, norm):
        if torch.rand(1) > 0.5:
            return norm.view(-1, 1) * x_j
        return x_j


class PythonRandom(Base):
    def message(self, x_j, norm):
        return random.random() * x_j


class DataBranch(Base):
    def message(self, x_j, norm):
        if norm.sum() > 10:
            return norm.view(-1, 1) * x_j
        return x_j


class CaughtBranch(Base):
    def message(self, x_j, norm):
        try:
            if x_j:
                return x_j
        except Exception:
            pass
        return norm.view(-1, 1) * x_j


class SizeBranch(Base):
    def message(self, x_j, norm):
        return x_j if x_j.size(0) > 100 else norm.view(-1, 1) * x_j


class GlobalBranch(Base):
    def message(self, x_j, norm):
        return x_j.relu() if SWITCH else x_j


class TypeBranch(Base):
    def message(self, x_j, norm):
        return x_j.relu() if isinstance(norm, Tensor) else x_j


class TrainingBranch(Base):
    def message(self, x_j, norm):
        return x_j if self.training else norm.view(-1, 1) * x_j


class SelfBranch(Base):
    def message(self, x_j, norm):
        return 2 * x_j if self else x_j


class State(Base):
    def message(self, x_j, norm):
        return self.scale * x_j


class Learned(Base):
    def message(self, x_j, norm):
        return self.lin(x_j)


class Index(Base):
    def message(self, x_j, norm, index):
        return norm.view(-1, 1) * x_j


class Softmax(Base):
    def message(self, x_j, norm, index, ptr, size_i):
        return pyg.utils.softmax(norm, index, ptr, size_i).view(-1, 1) * x_j


class Columns(Base):
    def message(self, x_j, norm):
        return norm.view(1, -1) * x_j


class Rows(Base):
    def message(self, x_j, norm):
        return norm.view(-1, 1) * x_j.view(-1, 4)


class InPlace(Base):
    def message(self, x_j, norm):
        x_j *= norm.view(-1, 1)
        return x_j


class Mean(Base):
    def message(self, x_j, norm):
        return x_j.mean(-1, keepdim=True) * norm.view(-1, 1)


class Normalized(Base):
    def message(self, x_j, norm):
        return x_j / norm.sum()


class Flipped(Base):
    def message(self, x_j, norm):
        return norm.view(-1, 1) * x_j.flip(-1)


class Sliced(Base):
    def message(self, x_j, norm):
        return norm.view(-1, 1) * x_j[:, :2]


class Detached(Base):
    def message(self, x_j, norm):
        return norm.view(-1, 1) * x_j.detach()


class Constant(Base):
    def message(self, x_j, norm, extra=3.0):
        return extra * x_j


class Update(Base):
    def update(self, aggr_out):
        return aggr_out.tanh()


class UpdateBranch(Base):
    def update(self, aggr_out):
        return aggr_out if math.pi > 3 else aggr_out.relu()


class Aggregate(Base):
    def aggregate(self, inputs, index, ptr=None, dim_size=None):
        return super().aggregate(inputs.exp(), index, ptr, dim_size).log()


class Select(Base):
    def _index_select(self, src, index):
        return src.index_select(self.node_dim, index).relu()


class Propagate(Base):
    def propagate(self, edge_index, **kwargs):
        return super().propagate(edge_index, **kwargs).relu()


class BelowPropagate(Propagate):
    pass


class Closure(Base):
    pass


def _closed(factor):
    def message(self, x_j, norm):
        return factor * x_j

    return message


Closure.message = _closed([2.0][0])

CLASSES = [
    each for each in globals().values() if isinstance(each, type) and issubclass(each, Base)
][1:]


@pytest.fixture(autouse=True)
def at_once(monkeypatch):
    monkeypatch.setattr(_graphs, "TINY", 0)
    monkeypatch.setattr(_graphs, "PAYS", 1)


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_left(cls):
    layer = cls()
    report = accelerate(ModuleList([layer, Base()]))
    assert [x.name for x in report.replaced] == ["1"]
    assert type(layer) is cls
    (left,) = report.left
    assert left.name == "0" and left.why is not None and 5 < len(left.why) < 100


def test_there_are_many():
    assert len(CLASSES) >= 30


@pytest.mark.parametrize(
    ("layer", "why"),
    [
        (lambda: Base("max"), "by 'max', not by sums or means"),
        (lambda: Base(["add", "max"]), r"by \['add', 'max'\]"),
        (lambda: Base("mul"), "by 'mul'"),
        (lambda: Base(node_dim=0), "'node_dim' 0"),
        (lambda: pyg.GATConv(4, 4, aggr="mean"), "by 'mean', not by sums"),
        (lambda: pyg.GINEConv(Linear(4, 4)), "its 'message' uses"),
        (lambda: pyg.EdgeConv(Linear(8, 4)), "by 'max'"),
        (lambda: pyg.GatedGraphConv(4, 1), None),
        (lambda: pyg.SAGEConv(4, 4, aggr="max"), "by 'max'"),
        (lambda: pyg.TransformerConv(4, 4), "'node_dim' 0"),
        (lambda: pyg.FAConv(4), "its 'message' uses 'F'"),
        (lambda: pyg.ResGatedGraphConv(4, 4), "more than one neighbor|uses"),
    ],
)
def test_aggregations_and_layers_of_pyg(layer, why):
    report = accelerate(layer())
    if why is None:
        assert len(report.replaced) == 1
    else:
        with pytest.raises(AssertionError, match=why):
            raise AssertionError(report.left[0].why)


def test_a_layer_with_methods_of_its_own():
    edge_index, x, norm = torch.randint(9, (2, 30)), torch.rand(9, 4), torch.rand(30)
    for name in ("message", "update", "aggregate", "propagate"):
        layer = Base()
        setattr(layer, name, lambda *args, **kwargs: torch.zeros(9, 4))
        assert f"has a {name!r} of its own" in accelerate(layer).left[0].why
        if name == "propagate":
            assert not layer(x, edge_index, norm).any()


WEIGHTS = {
    "of every column": torch.rand(30, 4),
    "of a column": torch.rand(30, 1),
    "one number": torch.tensor([2.0]),
    "as many as columns": torch.rand(4),
    "complex": torch.rand(30, dtype=torch.complex64),
    "a number": 0.5,
}


class Raw(Base):
    def message(self, x_j, norm):
        return norm * x_j


class Unsqueezed(Base):
    def message(self, x_j, norm=None):
        return x_j if norm is None else norm.unsqueeze(1) * x_j


@pytest.mark.parametrize("weight", WEIGHTS)
@pytest.mark.parametrize("cls", [Raw, Unsqueezed, Base])
def test_weights_that_are_no_scalars_of_the_edge(cls, weight):
    edge_index, x = torch.randint(9, (2, 30)), torch.rand(9, 4)
    results = []
    for layer in (cls(), accelerate(cls()).model):
        try:
            results.append(layer(x, edge_index, WEIGHTS[weight]))
        except (RuntimeError, AttributeError, IndexError) as error:
            results.append(type(error))
    if isinstance(results[0], Tensor):
        torch.testing.assert_close(*results)
    else:
        assert results[0] == results[1]


def test_a_class_that_is_patched_later():
    class Patched(Base):
        pass

    edge_index, x, norm = torch.randint(9, (2, 30)), torch.rand(9, 4), torch.rand(30)
    layer = accelerate(Patched()).model
    layer(x, edge_index, norm)
    Patched.message = Relu.message
    torch.testing.assert_close(layer(-x, edge_index, norm), torch.zeros(9, 4))


def test_learned_scale_outside_of_the_message():
    class Outside(Base):
        def __init__(self):
            super().__init__()
            self.temp = Parameter(torch.tensor(3.0))

        def forward(self, x, edge_index, norm):
            return self.temp * super().forward(x, edge_index, norm)

    edge_index, x, norm = torch.randint(9, (2, 30)), torch.rand(9, 4), torch.rand(30)
    layer = Outside()
    expected = layer(x, edge_index, norm)
    assert len(accelerate(layer).replaced) == 1
    torch.testing.assert_close(layer(x, edge_index, norm), expected)
