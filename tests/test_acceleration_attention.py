"""GATConv and GATv2Conv by the kernel: values, and whatever PyG's own methods have to do."""

import copy
import pickle

import pytest
import torch
import torch_geometric.nn as pyg

from torch_geometric_diff import accelerate
from torch_geometric_diff.acceleration import _attention

N, E = 50, 300
SETTINGS = [
    {},
    {"heads": 8},
    {"heads": 3, "concat": False},
    {"heads": 2, "add_self_loops": False},
    {"negative_slope": 0.05, "bias": False},
    {"residual": True},
]

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def graph():
    return torch.randn(N, 6, dtype=torch.float64), torch.randint(0, N, (2, E))


def pair(conv, **settings):
    """A layer, and an accelerated copy that counts what its kernel does."""
    layer = conv(6, 8, **settings).double()
    other = copy.deepcopy(layer)
    assert accelerate(other).replaced
    return layer, other


@pytest.fixture
def calls(monkeypatch):
    """How often the kernel was called."""
    count = []
    kernel = _attention.edge_attention
    monkeypatch.setattr(
        _attention, "edge_attention", lambda *a, **k: (count.append(1), kernel(*a, **k))[1]
    )
    return count


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize("conv", [pyg.GATConv, pyg.GATv2Conv])
def test_values_and_gradients(conv, settings, graph, calls):
    layer, other = pair(conv, **settings)
    x, edge_index = graph
    outs = [each(x.requires_grad_(), edge_index) for each in (layer, other)]
    assert len(calls) == 1
    torch.testing.assert_close(*outs, rtol=1e-12, atol=1e-12)
    g = torch.randn_like(outs[0])
    grads = [
        torch.autograd.grad(out, [x, *each.parameters()], g)
        for out, each in zip(outs, (layer, other), strict=True)
    ]
    torch.testing.assert_close(*grads, rtol=1e-10, atol=1e-10)
    assert layer.state_dict().keys() == other.state_dict().keys()
    edge_index[0, 0] = (edge_index[0, 0] + 1) % N  # a changed graph is noticed
    torch.testing.assert_close(layer(x, edge_index), other(x, edge_index))


@pytest.mark.parametrize("conv", [pyg.GATConv, pyg.GATv2Conv])
def test_what_pyg_has_to_do(conv, graph, calls):
    layer, other = pair(conv, heads=2, edge_dim=3)
    x, edge_index = graph
    edge_attr = torch.randn(E, 3, dtype=torch.float64)
    torch.testing.assert_close(layer(x, edge_index, edge_attr), other(x, edge_index, edge_attr))
    for asked in (True, False):
        found = other(x, edge_index, return_attention_weights=asked)
        torch.testing.assert_close(layer(x, edge_index, return_attention_weights=asked), found)
    assert not calls
    layer, other = pair(conv, heads=2)
    handles = [
        other.register_edge_update_forward_hook(lambda module, args, out: 2 * out),
        other.register_message_forward_hook(lambda module, args, out: out + 1),
    ]
    layer.register_edge_update_forward_hook(lambda module, args, out: 2 * out)
    layer.register_message_forward_hook(lambda module, args, out: out + 1)
    torch.testing.assert_close(layer(x, edge_index), other(x, edge_index))
    assert not calls
    for handle in handles:
        handle.remove()
    other(x, edge_index)
    assert len(calls) == 1


@pytest.mark.parametrize("conv", [pyg.GATConv, pyg.GATv2Conv])
def test_copies_compile_and_func(conv, graph):
    layer, other = pair(conv, heads=2)
    x, edge_index = graph
    want = layer(x, edge_index)
    for each in (copy.deepcopy(other), pickle.loads(pickle.dumps(other))):
        torch.testing.assert_close(each(x, edge_index), want)
        each.load_state_dict(layer.state_dict())
    compiled = torch.compile(other, backend="eager")
    with torch.no_grad():  # else torch warns, of PyG's own layer too
        torch.testing.assert_close(compiled(x, edge_index), want.detach())
    jacobians = [
        torch.func.jacrev(lambda x, m=m: m(x, edge_index).sum(0))(x) for m in (layer, other)
    ]
    torch.testing.assert_close(*jacobians)


@pytest.mark.parametrize("conv", [pyg.GATConv, pyg.GATv2Conv])
def test_second_derivatives_and_autocast(conv, graph, calls):
    layer, other = pair(conv, heads=2)
    x, edge_index = graph
    x.requires_grad_()
    seconds = []
    for each in (layer, other):
        (first,) = torch.autograd.grad(each(x, edge_index).square().sum(), x, create_graph=True)
        seconds.append(torch.autograd.grad(first.square().sum(), [x, *each.parameters()]))
    torch.testing.assert_close(*seconds)
    assert len(calls) == 1
    x = x.detach().float()
    with torch.autocast("cpu", torch.bfloat16):
        outs = [each.float()(x, edge_index) for each in (layer, other)]
    assert outs[0].dtype == outs[1].dtype
    torch.testing.assert_close(*outs)


@pytest.mark.parametrize("conv", [pyg.GATConv, pyg.GATv2Conv])
def test_bipartite(conv, graph):
    layer = conv((6, 4), 8, heads=2, add_self_loops=False).double()
    other = copy.deepcopy(layer)
    accelerate(other)
    x, edge_index = graph
    small = torch.randn(20, 4, dtype=torch.float64)
    edge_index = torch.stack([edge_index[0], edge_index[1] % 20])
    torch.testing.assert_close(layer((x, small), edge_index), other((x, small), edge_index))


def test_dropout_in_training_is_of_the_same_law(graph):
    layer, other = pair(pyg.GATConv, heads=2, dropout=0.5)
    x, edge_index = graph
    assert not torch.equal(other(x, edge_index), other(x, edge_index))
    means = [torch.stack([m(x, edge_index) for _ in range(600)]) for m in (layer, other)]
    torch.testing.assert_close(means[0].mean(0), means[1].mean(0), rtol=0.0, atol=0.3)
    torch.testing.assert_close(means[0].std(0), means[1].std(0), rtol=0.3, atol=0.05)
    torch.testing.assert_close(layer.eval()(x, edge_index), other.eval()(x, edge_index))


class Cosine(pyg.GATConv):
    def edge_update(self, alpha_j, alpha_i, edge_attr, index, ptr, dim_size):
        return torch.cos(alpha_j + alpha_i)


class Squared(pyg.GATv2Conv):
    def message(self, x_j, alpha):
        return alpha.unsqueeze(-1) * x_j.square()


class Renamed(pyg.GATConv):
    pass


class Halved(pyg.GATConv):
    def propagate(self, edge_index, size=None, **kwargs):
        return 0.5 * super().propagate(edge_index, size=size, **kwargs)


def test_subclasses(graph, calls):
    x, edge_index = graph
    layer = Renamed(6, 4).double()
    want = layer(x, edge_index)
    assert accelerate(layer).replaced
    torch.testing.assert_close(layer(x, edge_index), want)
    assert len(calls) == 1
    layer = Halved(6, 4).double()
    want = layer(x, edge_index)
    assert "has a 'propagate' of its own" in repr(accelerate(layer))
    torch.testing.assert_close(layer(x, edge_index), want)


def test_attention_of_others_is_left():
    for layer, why in (
        (Cosine(4, 4), "left: has a 'edge_update' of its own"),
        (Squared(4, 4), "left: has a 'message' of its own"),
        (pyg.GATConv(4, 4, aggr="max"), "aggregates by 'max'"),
        (pyg.TransformerConv(4, 4), "'node_dim' 0"),
    ):
        report = accelerate(layer)
        assert not report.replaced
        assert why in repr(report)
