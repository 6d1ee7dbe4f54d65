"""Linear maps that `accelerate` moves to the side of a sum where fewer columns are summed."""

import copy

import pytest
import torch
import torch_geometric.nn as pyg
from torch.nn import Linear, ReLU, Sequential

from torch_geometric_diff import accelerate
from torch_geometric_diff.acceleration import _exchange, _graphs

NODES, WIDE, NARROW = 60, 40, 6
LAYERS = {
    "SAGE": lambda: pyg.SAGEConv(WIDE, NARROW),
    "SAGE, sums": lambda: pyg.SAGEConv(WIDE, NARROW, aggr="sum", bias=False),
    "SAGE, normalized": lambda: pyg.SAGEConv(WIDE, NARROW, normalize=True, root_weight=False),
    "GraphConv": lambda: pyg.GraphConv(WIDE, NARROW),
    "GraphConv, mean": lambda: pyg.GraphConv(WIDE, NARROW, aggr="mean"),
    "GIN, one map": lambda: pyg.GINConv(Linear(WIDE, NARROW), train_eps=True, eps=0.3),
    "GIN": lambda: pyg.GINConv(Sequential(Linear(WIDE, NARROW), ReLU(), Linear(NARROW, 3))),
    "GCN": lambda: pyg.GCNConv(NARROW, WIDE),
    "GCN, cached, no bias": lambda: pyg.GCNConv(NARROW, WIDE, cached=True, bias=False),
}


@pytest.fixture
def widths(monkeypatch):
    """The columns of every sum of messages by the kernel."""
    monkeypatch.setattr(_graphs, "TINY", 0)
    monkeypatch.setattr(_graphs, "PAYS", 1)
    seen, product = [], _graphs.Graph.product
    monkeypatch.setattr(
        _graphs.Graph, "product", lambda self, x: (seen.append(x.size(-1)), product(self, x))[1]
    )
    return seen


@pytest.fixture
def edge_index():
    return torch.randint(NODES, (2, 300), generator=torch.Generator().manual_seed(0))


def features(name, dtype=torch.float64):
    width = NARROW if name.startswith("GCN") else WIDE
    return torch.randn(NODES, width, generator=torch.Generator().manual_seed(1)).to(dtype)


def both_ways(layer, after, x, *graph):
    """The output of a call and all gradients, before and after."""
    for each in (layer, after):
        leaf = x.clone().requires_grad_(x.requires_grad)
        each.zero_grad()
        out = each(leaf, *graph)
        out.square().sum().backward()
        yield [out.detach(), leaf.grad, *(p.grad for p in each.parameters())]


@pytest.mark.parametrize("learned", [False, True])
@pytest.mark.parametrize("name", LAYERS)
def test_values_and_gradients(name, learned, widths, edge_index):
    torch.manual_seed(2)
    layer = LAYERS[name]().double()
    after = accelerate(copy.deepcopy(layer)).model
    x = features(name).requires_grad_(learned)
    for _ in range(2):  # the second time with what was cached
        expected, found = both_ways(layer, after, x, edge_index)
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    assert set(widths) == {NARROW}


@pytest.mark.parametrize("kind", [pyg.SAGEConv, pyg.GraphConv])
def test_of_a_bipartite_graph(kind, widths, edge_index):
    layer = kind((WIDE, 5), NARROW).double()
    after = accelerate(copy.deepcopy(layer)).model
    edge_index = torch.stack([edge_index[0], edge_index[1] % 11])
    ends = features("SAGE"), torch.rand(11, 5, dtype=torch.float64)
    expected = layer(ends, edge_index)
    torch.testing.assert_close(after(ends, edge_index), expected, rtol=1e-12, atol=1e-12)
    assert widths == [NARROW]


def test_gin_of_two_kinds_of_nodes(widths, edge_index):
    layer = pyg.GINConv(Linear(WIDE, NARROW), eps=0.2).double()
    after = accelerate(copy.deepcopy(layer)).model
    edge_index = torch.stack([edge_index[0], edge_index[1] % 11])
    for target in (features("GIN")[:11] + 1, None):
        ends, size = (features("GIN"), target), (NODES, 11)
        expected = layer(ends, edge_index, size=size)
        found = after(ends, edge_index, size=size)
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    assert set(widths) == {NARROW}


def test_weights_of_edges_in_double_precision(widths, edge_index):
    weight = torch.rand(300, dtype=torch.float64)
    layer = pyg.GCNConv(NARROW, WIDE)
    after = accelerate(copy.deepcopy(layer)).model
    x = features("GCN", torch.float32)
    expected, found = (each(x, edge_index, weight) for each in (layer, after))
    assert found.dtype == expected.dtype == torch.float64
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def _patched(lin, seen):
    forward = lin.forward
    lin.forward = lambda x: (seen.append(x.clone()), forward(x))[1]


def _hooked(lin, seen):
    lin.register_forward_pre_hook(lambda _, given: seen.append(given[0].clone()))


def _hooked_behind(lin, seen):
    lin.register_full_backward_hook(lambda _, grads, __: seen.append(grads[0].clone()))


@pytest.mark.parametrize("watch", [_patched, _hooked, _hooked_behind])
@pytest.mark.parametrize("name", ["SAGE", "GraphConv", "GIN, one map", "GIN", "GCN"])
def test_who_looks_at_a_map_sees_what_pyg_shows(name, watch, widths, edge_index):
    layer, seen = LAYERS[name]().double(), {}
    layers = {"before": layer, "after": accelerate(copy.deepcopy(layer)).model}
    for key, each in layers.items():
        lin = next(m for m in each.modules() if hasattr(m, "weight"))
        watch(lin, seen.setdefault(key, []))
        each(features(name).requires_grad_(), edge_index).sum().backward()
    assert len(seen["before"]) == 1
    torch.testing.assert_close(seen["after"], seen["before"], rtol=1e-12, atol=1e-12)


def test_a_map_of_its_own_stays(widths, edge_index):
    class Doubled(Linear):
        def forward(self, x):
            return super().forward(2 * x) + x.square().mean()  # not linear

    torch.manual_seed(3)
    layer = pyg.GINConv(Doubled(WIDE, NARROW)).double()
    after = accelerate(copy.deepcopy(layer)).model
    x = features("GIN")
    torch.testing.assert_close(after(x, edge_index), layer(x, edge_index), rtol=1e-12, atol=1e-12)
    assert widths == [WIDE]


def test_a_bias_before_the_sums_stays(widths, edge_index):
    layer = pyg.GCNConv(NARROW, WIDE).double()
    layer.lin = Linear(NARROW, WIDE).double()
    after = accelerate(copy.deepcopy(layer)).model
    x = features("GCN")
    torch.testing.assert_close(after(x, edge_index), layer(x, edge_index), rtol=1e-12, atol=1e-12)
    assert widths == [WIDE]


def test_which_side_sums_fewer_columns():
    lin = pyg.Linear(10, 4)
    x = torch.rand(3, 10)
    assert _exchange.summed_columns(lin, x) == (10, 8)  # the gradient of the weight sums again
    assert _exchange.summed_columns(lin, x.clone().requires_grad_()) == (20, 8)
    with torch.no_grad():
        assert _exchange.summed_columns(lin, x) == (10, 4)
    assert _exchange.summed_columns(lin, x.double()) is None
    assert _exchange.summed_columns(pyg.Linear(-1, 4), x) is None
    with torch.autocast("cpu"):
        assert _exchange.summed_columns(lin, x) is None
