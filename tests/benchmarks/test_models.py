"""The peers: what makes them fast changes nothing else."""

from functools import partial
from typing import Any

import pytest
import torch
from torch_geometric.data import Data
from torch_geometric.nn import APPNP
from torch_geometric.utils import add_self_loops

from benchmarks.common import draw_trials
from benchmarks.common.splits import per_class_split
from benchmarks.nodes.models import METHODS, Method
from benchmarks.nodes.peers import SortedGraph, SymmetricAPPNP, _Derivative

SETTINGS: dict[str, dict[str, Any]] = {
    "mlp": {"hidden": 8, "dropout": 0.0},
    "gcn": {"hidden": 8, "dropout": 0.0},
    "sage": {"hidden": 8, "dropout": 0.0},
    "gat": {"hidden": 4, "heads": 2, "output_heads": 1, "dropout": 0.0, "attention_dropout": 0.0},
    "sgc": {"layer_num": 2},
    "diff-linear": {
        "step_size": 0.5,
        "layer_num": 3,
        "normalization": "row",
        "rare_words": True,
        "neighbors": 3,
        "mix": 0.5,
    },
    "correct-and-smooth": {
        "hidden": 8,
        "dropout": 0.0,
        "layer_num": 5,
        "correction_alpha": 0.9,
        "smoothing_alpha": 0.8,
    },
}


def sparse_graph(num_nodes: int = 400) -> Data:
    """A ring with some chords: two hops from a node are a handful."""
    generator = torch.Generator().manual_seed(0)
    ring = torch.stack([torch.arange(num_nodes), torch.arange(1, num_nodes + 1) % num_nodes])
    chords = torch.randint(num_nodes, (2, num_nodes // 10), generator=generator)
    edge_index = torch.cat([ring, chords[:, chords[0] != chords[1]]], dim=1)
    data = Data(y=torch.arange(num_nodes) * 2 // num_nodes)
    data.edge_index = torch.cat([edge_index, edge_index.flip(0)], dim=1).unique(dim=1)
    words = torch.rand(num_nodes, 30, generator=generator) < 0.1 + 0.2 * data.y[:, None]
    data.x = words.float() / words.sum(1, keepdim=True).clamp(min=1)
    return data


class Whole(Method):
    """Mixed in before a method: it trains on all nodes."""

    hops = None


@pytest.mark.parametrize("name", SETTINGS)
def test_training_near_the_nodes_equals_training_on_all(name: str) -> None:
    data, seen = sparse_graph(), []

    method: Any = METHODS[name]

    class Near(method):
        def near(self, model: Any, nodes: torch.Tensor) -> tuple[Any, ...]:
            seen.append(nodes.numel())
            return super().near(model, nodes)

    whole = type("WholeMethod", (Whole, METHODS[name]), {})(data, **SETTINGS[name])
    near = Near(data, **SETTINGS[name])
    trials = list(draw_trials(data.y, 42, 2, 1, partial(per_class_split, num_train=4, num_val=4)))
    options = {"lr": 0.02, "max_epochs": 12, "patience": 5}
    for trial in trials:
        [expected], [result] = whole.run([trial], **options), near.run([trial], **options)
        assert result.epochs == expected.epochs and result.best_epoch == expected.best_epoch
        torch.testing.assert_close(result.logits, expected.logits, rtol=1e-4, atol=1e-5)
    assert len(seen) == 4 and seen[0] < 200 and seen[1] == 400


@pytest.mark.parametrize("name", ["gcn", "gat"])
def test_training_on_all_where_near_is_most_of_it(name: str) -> None:
    data = sparse_graph()
    settings = {key: 0.5 if "dropout" in key else value for key, value in SETTINGS[name].items()}
    near = METHODS[name](data, **settings)
    whole = type("WholeMethod", (Whole, METHODS[name]), {})(data, **settings)
    [trial] = draw_trials(data.y, 42, 1, 1, partial(per_class_split, num_train=60, num_val=60))
    [expected], [result] = (m.run([trial], max_epochs=5) for m in (whole, near))
    assert torch.equal(result.logits, expected.logits)  # the random numbers are the same too


def test_symmetric_appnp_equals_pyg() -> None:
    data = sparse_graph(60)
    adj = METHODS["appnp"](data, hidden=4, layer_num=3, alpha=0.1, dropout=0.0).inputs[1]
    results = []
    for layer in (APPNP(3, 0.1, normalize=False), SymmetricAPPNP(3, 0.1, normalize=False)):
        x = torch.randn(60, 2, generator=torch.Generator().manual_seed(1)).requires_grad_()
        out = layer(x, adj)
        results.append((out, *torch.autograd.grad(out.square().sum(), x)))
    assert all(torch.equal(*pair) for pair in zip(*results, strict=True))


def test_grand_derivative_gradients() -> None:
    edge_index, _ = add_self_loops(sparse_graph(12).edge_index, num_nodes=12)
    graph = SortedGraph(edge_index, 12)
    generator = torch.Generator().manual_seed(1)
    weight = torch.rand(edge_index.size(1), dtype=torch.double, generator=generator)
    x, constant = torch.randn(2, 12, 3, dtype=torch.double, generator=generator)
    dense = torch.zeros(12, 12, dtype=torch.double)
    dense[graph.target, graph.source] = weight
    out = _Derivative.apply(weight, x, constant, graph)
    torch.testing.assert_close(out, dense @ x + constant)
    inputs = [tensor.clone().requires_grad_() for tensor in (weight, x, constant)]
    assert torch.autograd.gradcheck(lambda *args: _Derivative.apply(*args, graph), inputs)


def test_grand_equals_its_equation() -> None:
    """Euler steps of 1 of sigmoid(alpha) (A x - x) + beta x(0), written densely."""
    torch.manual_seed(3)
    data = sparse_graph(12)
    settings = {"hidden": 4, "heads": 1, "attention_dim": 4, "input_dropout": 0.0, "dropout": 0.0}
    method = METHODS["grand-l"](data, **settings, time=2.5, solver="euler")
    model = method.model()
    with torch.no_grad():
        model.alpha.fill_(0.3)
        model.beta.fill_(-0.2)
        start = x = model.first(method.inputs[0])
        score = model.query(start) @ model.key(start).t() / 2
        adjacency = torch.eye(12).bool()
        adjacency[data.edge_index[1], data.edge_index[0]] = True
        a = score.masked_fill(~adjacency, -torch.inf).softmax(dim=-1)
        for step in (1.0, 1.0, 0.5):
            x = x + step * (model.alpha.sigmoid() * (a @ x - x) + model.beta * start)
        torch.testing.assert_close(model(*method.inputs), model.last(x.relu()))
