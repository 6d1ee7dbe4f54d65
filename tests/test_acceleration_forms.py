"""Accelerated layers on every form in which PyG holds a graph."""

import copy
import gc
import warnings

import pytest
import torch
import torch_geometric.nn as pyg
from dense import as_form, random_graph
from torch.nn import Linear, ModuleList
from torch_geometric import EdgeIndex
from torch_geometric.nn import MessagePassing
from torch_geometric.nn.conv.gcn_conv import gcn_norm
from torch_geometric.utils import spmm

from torch_geometric_diff import accelerate
from torch_geometric_diff.acceleration import _graphs

N, CHANNELS, C = 61, 6, 3
SPARSE = ("SparseTensor", "coo", "csr", "csc")


class Unfused(MessagePassing):
    """A layer without a product of its own."""

    def forward(self, x, edge_index, edge_weight=None):
        for _ in range(2):
            x = x + 0.5 * self.propagate(edge_index, x=x, edge_weight=edge_weight)
        return x

    def message(self, x_j, edge_weight):
        return x_j if edge_weight is None else edge_weight.view(-1, 1) * x_j


class Normalized(Unfused):
    def forward(self, x, edge_index, edge_weight=None):
        if isinstance(edge_index, torch.Tensor) and edge_index.layout == torch.strided:
            edge_index, edge_weight = gcn_norm(edge_index, edge_weight, x.size(0))
        return super().forward(x, edge_index, edge_weight)


class Fused(Unfused):
    def message_and_aggregate(self, adj_t, x):
        return spmm(adj_t, x, reduce=self.aggr)


class Doubled(Unfused):
    def message_and_aggregate(self, adj_t, x):
        return 2 * spmm(adj_t, x.relu(), self.aggr)


LAYERS = {
    "GCNConv": lambda: pyg.GCNConv(CHANNELS, C),
    "GraphConv": lambda: pyg.GraphConv(CHANNELS, C),
    "GraphConv, mean": lambda: pyg.GraphConv(CHANNELS, C, aggr="mean"),
    "SAGEConv": lambda: pyg.SAGEConv(CHANNELS, C, project=True),
    "GINConv": lambda: pyg.GINConv(Linear(CHANNELS, C)),
    "LGConv": lambda: pyg.LGConv(),
    "SimpleConv": lambda: pyg.SimpleConv("mean"),
    "TAGConv": lambda: pyg.TAGConv(CHANNELS, C),
    "ARMAConv": lambda: pyg.ARMAConv(CHANNELS, C, 2, 2),
    "MixHopConv": lambda: pyg.MixHopConv(CHANNELS, C),
    "ClusterGCNConv": lambda: pyg.ClusterGCNConv(CHANNELS, C),
    "APPNP": lambda: pyg.APPNP(4, 0.2),
    "APPNP, cached": lambda: pyg.APPNP(4, 0.2, cached=True),
    "SGConv": lambda: pyg.SGConv(CHANNELS, C, 3),
    "SSGConv": lambda: pyg.SSGConv(CHANNELS, C, 0.1, 3),
    "unfused": Unfused,
    "normalized": Normalized,
    "fused": Fused,
    "fused otherwise": Doubled,
}
NO_WEIGHTS = {"SAGEConv", "GINConv", "ClusterGCNConv"}


@pytest.fixture(autouse=True)
def at_once(monkeypatch):
    monkeypatch.setattr(_graphs, "TINY", 0)
    monkeypatch.setattr(_graphs, "PAYS", 1)


@pytest.fixture
def products(monkeypatch):
    calls, plain = [], _graphs.Graph.matrix
    monkeypatch.setattr(_graphs.Graph, "matrix", lambda *each: calls.append(1) or plain(*each))
    return calls


def weighted(seed=0, dtype=torch.float32):
    edge_index, weight = random_graph(N, 300, seed)
    return edge_index, weight.to(dtype)


def given(form, name, dtype=torch.float32, seed=0):
    graph, weight = as_form(form, *weighted(seed, dtype), N)
    return [graph] if name in NO_WEIGHTS or weight is None else [graph, weight]


def results(layer, x, *graph):
    """The output and the gradients, or what PyG refuses a form with."""
    x = x.detach().requires_grad_()
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Converting sparse tensor to CSR")
            out = layer(x, *graph)
    except (RuntimeError, NotImplementedError, ValueError, TypeError) as error:
        return type(error)
    scale = torch.linspace(-1, 2, out.numel(), dtype=out.dtype).view_as(out)
    return [out, *torch.autograd.grad((out * scale).sum(), [x, *layer.parameters()])]


def assert_same(found, expected):
    if isinstance(expected, type):
        assert found is expected
        return
    for one, other in zip(found, expected, strict=True):
        assert one.dtype == other.dtype
        tolerance = 1e-5 if one.dtype == torch.float32 else 1e-12
        size = float(other.detach().abs().max())
        torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance * size)


@pytest.mark.parametrize("name", LAYERS)
def test_values_and_gradients(name, form, products):
    layer = LAYERS[name]()
    plain = copy.deepcopy(layer)
    assert accelerate(layer).replaced
    for dtype in (torch.float32, torch.float64):
        x, graph = torch.rand(N, CHANNELS, dtype=dtype) - 0.3, given(form, name, dtype)
        if "cached" in name:
            layer._cached_edge_index = layer._cached_adj_t = None
            plain._cached_edge_index = plain._cached_adj_t = None
        expected = results(plain.to(dtype), x, *graph)
        for _ in range(2):
            assert_same(results(layer.to(dtype), x, *graph), expected)
    assert products or isinstance(expected, type)


@pytest.mark.parametrize("name", ["GCNConv", "APPNP", "SAGEConv", "unfused", "fused"])
def test_learned_entries(name, form):
    """As PyG differentiates them, where it does."""
    x, layer = torch.rand(N, CHANNELS), LAYERS[name]()
    plain, found = copy.deepcopy(layer), []
    accelerate(layer)
    for each in (layer, plain):
        edge_index, weight = weighted()
        weight.requires_grad_()
        try:
            graph = as_form(form, edge_index, weight, N)
            out = each(x, *graph[: 1 if name in NO_WEIGHTS else 2])
            grads = torch.autograd.grad(out.square().sum(), weight, allow_unused=True)
            found.append([out, *(g for g in grads if g is not None)])
        except (RuntimeError, NotImplementedError, ValueError, UserWarning) as error:
            found.append(type(error))
    if isinstance(found[1], list):
        assert_same(*found)
    else:
        assert found[0] is found[1]


def test_label_propagation(form, products):
    edge_index, weight = weighted()
    if form == "csc":
        pytest.skip("PyG normalizes no CSC")
    graph = as_form(form, edge_index, torch.ones_like(weight), N)[0]
    y = torch.randint(C, (N,))
    layers = pyg.LabelPropagation(4, 0.9), accelerate(pyg.LabelPropagation(4, 0.9)).model
    mask = torch.arange(N) % 2 == 0
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Converting sparse tensor to CSR")
        expected, found = (layer(y, graph, mask) for layer in layers)
    assert_same([found], [expected])
    assert len(products) == 1


def test_steps_are_one_recurrence(form, products):
    if form == "csc":
        pytest.skip("PyG normalizes no CSC")
    graph = given(form, "APPNP")
    layer = accelerate(pyg.APPNP(10, 0.1)).model
    layer(torch.rand(N, 2), *graph)
    assert len(products) == 1


def test_a_matrix_is_made_once(form, monkeypatch):
    if form == "csc":
        pytest.skip("PyG normalizes no CSC")
    made, plain = [], _graphs.Graph._build
    monkeypatch.setattr(_graphs.Graph, "_build", lambda *each: made.append(1) or plain(*each))
    layers = accelerate(
        ModuleList([pyg.GCNConv(4, 4), pyg.SAGEConv(4, 4), pyg.GCNConv(4, 4)])
    ).model
    graph = given(form, "SAGEConv")
    x = torch.rand(N, 4)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Converting sparse tensor to CSR")
        for _ in range(3):
            for layer in layers:
                layer(x, *graph)
    assert len(made) <= 2 + (form == "SparseTensor")  # which finds its rows after the first sight


def changes(form, graph):
    """Ways to change a graph in place."""
    if form == "SparseTensor":
        storage = graph.storage
        yield lambda: storage.value().mul_(2)
        yield lambda: graph.set_value_(torch.rand(graph.nnz()), layout="coo")
        yield lambda: graph.fill_value_(0.3)
        return
    if form == "EdgeIndex":
        yield lambda: graph.as_tensor()[0, 3].fill_(7)
        return
    if form == "edge_index":
        yield lambda: graph[0, 3].fill_(7)
        return
    value = graph._values() if form == "coo" else graph.values()
    yield lambda: value.mul_(2)
    yield lambda: value.numpy().__imul__(3)  # torch counts no change
    index = {"csr": "col_indices", "csc": "row_indices", "coo": "_indices"}[form]
    index = getattr(graph, index)()
    yield lambda: index[..., -1].fill_(N - 1)
    yield lambda: graph.mul_(0.5)


@pytest.mark.parametrize("name", ["GCNConv", "APPNP", "GraphConv", "normalized"])
def test_a_graph_that_changes_is_noticed(name, form):
    layer, x = LAYERS[name](), torch.rand(N, CHANNELS)
    plain = copy.deepcopy(layer)
    accelerate(layer)
    graph = given(form, name)
    for change in [lambda: None, *changes(form, graph[0])]:
        for _ in range(2):
            assert_same(results(layer, x, *graph), results(plain, x, *graph))
        change()
        assert_same(results(layer, x, *graph), results(plain, x, *graph))


def test_memory_shared_with_a_csr():
    """Tensors that a matrix was made of count their changes for themselves."""
    edge_index, weight = weighted()
    made = as_form("csr", edge_index, weight, N)[0]
    parts = [part.clone() for part in (made.crow_indices(), made.col_indices(), made.values())]
    graph = torch.sparse_csr_tensor(*parts, (N, N))
    layer, x = pyg.GraphConv(CHANNELS, C), torch.rand(N, CHANNELS)
    plain = copy.deepcopy(layer)
    accelerate(layer)
    for _ in range(3):
        assert_same(results(layer, x, graph), results(plain, x, graph))
        parts[2].mul_(2)
        parts[1][5] = (parts[1][5] + 1) % N


def test_another_matrix_at_the_same_place():
    torch_sparse = pytest.importorskip("torch_sparse", reason="torch-sparse is not installed")
    layer, x = pyg.GraphConv(CHANNELS, C), torch.rand(N, CHANNELS)
    plain = copy.deepcopy(layer)
    accelerate(layer)
    row, col = torch.arange(N), torch.arange(N).flip(0)
    graph = torch_sparse.SparseTensor(row=row, col=col, sparse_sizes=(N, N))
    for seed in range(5):
        graph.set_value_(torch.full((N,), float(seed)), layout="coo")
        assert_same(results(layer, x, graph), results(plain, x, graph))


def test_what_is_made_ends_with_its_graph(form):
    layers = accelerate(ModuleList([pyg.GraphConv(2, 2), pyg.SAGEConv(2, 2), Fused()])).model
    others = accelerate(ModuleList([pyg.GCNConv(2, 2), pyg.APPNP(2, 0.1)])).model
    gc.collect()
    before = len(_graphs._STATES)
    for seed in range(3):
        graph = given(form, "SAGEConv", seed=seed)
        for layer in (*layers, *(() if form == "csc" else others)):
            results(layer, torch.rand(N, 2), *graph)
        del graph
    gc.collect()
    assert len(_graphs._STATES) <= before


@pytest.mark.parametrize("aggr", ["sum", "mean"])
@pytest.mark.parametrize("sparse", SPARSE)
def test_both_ends(sparse, aggr, products):
    torch_sparse = pytest.importorskip("torch_sparse", reason="torch-sparse is not installed")
    generator = torch.Generator().manual_seed(0)
    row, col = torch.randint(9, (60,), generator=generator), torch.randint(20, (60,))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sparse CS")
        graph = torch.sparse_coo_tensor(torch.stack([row, col]), torch.rand(60), (9, 20))
        graph = graph.coalesce()
        if sparse == "SparseTensor":
            graph = torch_sparse.SparseTensor(row=row, col=col, sparse_sizes=(9, 20))
        elif sparse != "coo":
            graph = graph.to_sparse_csr() if sparse == "csr" else graph.to_sparse_csc()
    x = torch.rand(20, CHANNELS), torch.rand(9, CHANNELS)
    layer = pyg.GraphConv(CHANNELS, C, aggr=aggr)
    plain = copy.deepcopy(layer)
    accelerate(layer)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Converting sparse tensor to CSR")
        assert_same([layer(x, graph)], [plain(x, graph)])
        wrong = torch.rand(19, CHANNELS), x[1]
        for each in (layer, plain):
            with pytest.raises((RuntimeError, ValueError, IndexError)):
                each(wrong, graph)
    assert products


def test_what_pyg_makes_of_other_arguments():
    """Types, reductions, hooks and flows that are left to it."""
    edge_index, weight = weighted()
    graph = as_form("csr", edge_index, weight, N)[0]
    x = torch.rand(N, 2)
    seen = []
    layer = accelerate(Fused()).model
    layer.register_message_and_aggregate_forward_hook(lambda *each: seen.append(1))
    layer(x, graph)
    assert len(seen) == 2
    for each in (Fused(flow="target_to_source"), accelerate(Fused(flow="target_to_source")).model):
        with pytest.raises(ValueError, match="Flow direction"):
            each(x, graph)
    for each in (Fused(), accelerate(Fused()).model):
        with pytest.raises(RuntimeError):
            each(x.double(), graph)
    left = Fused(aggr="max")
    assert accelerate(left).left


@pytest.mark.parametrize("name", ["GATConv", "GATv2Conv"])
def test_attention(name, form):
    torch.manual_seed(0)
    layer = getattr(pyg, name)(CHANNELS, C, heads=2)
    plain, x = copy.deepcopy(layer), torch.rand(N, CHANNELS)
    accelerate(layer)
    graph = given(form, "SAGEConv")
    assert_same(*(results(each, x, *graph) for each in (layer, plain)))


def test_an_edge_index_that_is_sorted(products):
    edge_index, weight = weighted()
    graph, order = EdgeIndex(edge_index, sparse_size=(N, N)).sort_by("col")
    layer, x = pyg.GraphConv(CHANNELS, C), torch.rand(N, CHANNELS)
    plain = copy.deepcopy(layer)
    accelerate(layer)
    found, expected = (results(each, x, graph, weight[order]) for each in (layer, plain))
    assert_same(found, expected)
    assert products
