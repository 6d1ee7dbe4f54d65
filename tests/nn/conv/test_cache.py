"""Cached layers: what is the same graph, what is learned, and who looks at the cache."""

import copy
import pickle
from collections.abc import Callable

import pytest
import torch
import torch_geometric.nn as pyg
from dense import FORMS, as_form, random_graph
from torch import Tensor
from torch.func import functional_call, grad, stack_module_state, vmap

from torch_geometric_diff import SparseOperator, nn
from torch_geometric_diff.nn.conv import _cache

N, F, C = 13, 6, 3
EDGES, WEIGHT = random_graph(N, 30)
EDGES, WEIGHT = EDGES[:, EDGES[0] != EDGES[1]].contiguous(), WEIGHT[EDGES[0] != EDGES[1]]
X = torch.randn(N, F, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

CACHED = {
    "APPNP": lambda: nn.APPNP(3, 0.1, cached=True),
    "DiffConv": lambda: nn.DiffConv(3, cached=True),
    "HeatConv": lambda: nn.HeatConv(cached=True),
    "SGConv": lambda: nn.SGConv(F, C, 3, cached=True).double(),
}


@pytest.mark.parametrize("name", CACHED)
def test_the_same_graph_in_another_form_or_order(name: str, form: str) -> None:
    layer, order = CACHED[name](), torch.randperm(EDGES.size(1))
    expected = layer(X, EDGES, WEIGHT)
    graphs = [as_form(form, EDGES, WEIGHT, N), (EDGES[:, order], WEIGHT[order])]
    for graph in [*graphs, (EDGES.int(), WEIGHT), (EDGES.clone(), WEIGHT)]:
        for _ in range(2):
            torch.testing.assert_close(layer(X, *graph), expected)
    other = as_form(form, EDGES.flip(0).contiguous(), WEIGHT, N)
    with pytest.raises(ValueError, match="another graph than the one in its cache"):
        layer(X, *other)


def test_the_arrays_of_a_matrix_in_another_layout_are_another_graph() -> None:
    csr = as_form("csr", EDGES, WEIGHT, N)[0]
    arrays = csr.crow_indices(), csr.col_indices(), csr.values()
    layer = nn.APPNP(3, 0.1, cached=True)
    layer(X, csr)
    with pytest.raises(ValueError, match="another graph"):
        layer(X, torch.sparse_csc_tensor(*arrays, (N, N)))


@pytest.mark.parametrize("form", FORMS)
def test_a_graph_that_is_the_same_object_is_not_read(
    form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    layer, graph = nn.APPNP(3, 0.1, cached=True), as_form(form, EDGES, WEIGHT, N)
    expected = [layer(X, *graph) for _ in range(2)][1]  # a SparseTensor makes its rows at the first
    monkeypatch.setattr(_cache, "_parts", None)
    assert torch.equal(layer(X, *graph), expected)


def test_changes_in_place_are_seen() -> None:
    edges, weight = EDGES.clone(), WEIGHT.clone()
    for change in (lambda: weight.mul_(2), lambda: edges[0].copy_(edges[0].flip(0))):
        layer = nn.APPNP(3, 0.1, cached=True, normalize=False)
        layer(X, edges, weight)
        change()
        with pytest.raises(ValueError, match="another graph"):
            layer(X, edges, weight)
    operator = SparseOperator.gcn_norm(EDGES, WEIGHT, num_nodes=N)
    layer = nn.SGConv(F, C, 2, cached=True, bias=False).double()
    before = layer(X, operator)
    operator.value.mul_(2)
    torch.testing.assert_close(layer(X, operator), 4 * before)


def test_a_learned_coefficient_behind_a_cache() -> None:
    ours = nn.SSGConv(F, C, 0.2, K=3, cached=True).double()
    theirs = pyg.SSGConv(F, C, 0.2, K=3).double()
    theirs.load_state_dict(ours.state_dict())
    for layer in (ours, theirs):
        layer.alpha = torch.nn.Parameter(torch.tensor(0.2, dtype=torch.float64))
    for _ in range(2):
        for layer in (ours, theirs):
            layer.zero_grad()
            layer(X, EDGES, WEIGHT).square().sum().backward()
        for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
            torch.testing.assert_close(a.grad, b.grad)
    for other in (copy.deepcopy(ours), pickle.loads(pickle.dumps(ours))):
        torch.testing.assert_close(other(X, EDGES, WEIGHT), theirs(X, EDGES, WEIGHT))


def test_learned_weights_behind_a_cache() -> None:
    learned = WEIGHT.clone().requires_grad_()
    layer = nn.SGConv(F, C, 2, cached=True).double()
    layer(X, EDGES, WEIGHT)
    with pytest.raises(ValueError, match="does not go with learned 'edge_weight'"):
        layer(X, EDGES, learned)  # of the values that it knows
    for form in ("coo", "csr", "SparseTensor"):
        with pytest.raises(ValueError, match="does not go with learned 'edge_weight'"):
            nn.APPNP(3, 0.1, cached=True)(X, *as_form(form, EDGES, learned, N))
    layer(X, SparseOperator.gcn_norm(EDGES, learned, num_nodes=N)).square().sum().backward()
    given, learned.grad = learned.grad, None
    layer.cached = False
    layer(X, EDGES, learned).square().sum().backward()
    torch.testing.assert_close(given, learned.grad)


@pytest.mark.skipif(torch.__version__ < "2.9", reason="torch.func wants torch 2.9 or newer")
def test_an_ensemble_of_cached_layers() -> None:
    layers = [nn.SGConv(F, C, 2, cached=True).double() for _ in range(3)]
    parameters, _ = stack_module_state(layers)

    def call(parameters: dict[str, Tensor]) -> Tensor:
        return functional_call(layers[0], parameters, (X, EDGES, WEIGHT))

    expected = torch.stack([layer(X, EDGES, WEIGHT) for layer in layers])
    for _ in range(2):
        torch.testing.assert_close(vmap(call)(parameters), expected)
    gradients = vmap(grad(lambda p: call(p).square().sum()))(parameters)
    expected[1].square().sum().backward()
    torch.testing.assert_close(gradients["lin.weight"][1], layers[1].lin.weight.grad)


@pytest.mark.skipif(torch.__version__ < "2.9", reason="torch.func wants torch 2.9 or newer")
@pytest.mark.parametrize("name", CACHED)
def test_the_first_call_within_vmap(name: str) -> None:
    layer, batch = CACHED[name](), torch.stack([X, 2 * X])
    found = vmap(lambda x: layer(x, EDGES, WEIGHT))(batch)
    for x, out in zip(batch, found, strict=True):
        torch.testing.assert_close(layer(x, EDGES, WEIGHT), out)
    torch.testing.assert_close(vmap(lambda x: layer(x, EDGES, WEIGHT))(batch), found)


@pytest.mark.parametrize("factor", [2.0, 1 + 3e-6])
@pytest.mark.parametrize(
    "make",
    [
        lambda: nn.HeatConv(1.0, normalization=None, cached=True),
        lambda: nn.HeatConv(1.0, cached=True),
        lambda: nn.DiffConv(2, 0.1, normalization=None, cached=True),
        lambda: nn.APPNP(2, 0.1, cached=True),
        lambda: nn.GPRConv(2, normalize=False, cached=True),
    ],
)
def test_scaled_weights_are_another_graph(make: Callable, factor: float) -> None:
    """I - L / d is the same matrix for all scales of weights."""
    layer, weight = make().double(), torch.rand(EDGES.size(1), dtype=torch.float64)
    layer(X, EDGES, weight)
    with pytest.raises(ValueError, match="another graph"):
        layer(X, EDGES, factor * weight)


@pytest.mark.parametrize("first", [1e-6, 0.25])
def test_learned_step_without_edges(first: float) -> None:
    loop, x = torch.tensor([[0, 1], [0, 1]]), torch.rand(2, 3)
    conv = nn.DiffConv(4, first, normalization=None, learn_step_size=True)
    with torch.no_grad():
        conv.step_size.fill_(0.3)
    for call in (conv, torch.compile(conv, backend="eager", fullgraph=True)):
        out = call(x, loop)
        assert torch.equal(out, x)
        assert torch.autograd.grad(out.sum(), conv.step_size)[0].abs() < 1e-20
    weight = torch.zeros(1, requires_grad=True)  # whose gradient is not 0
    out = conv(x, torch.tensor([[0], [1]]), weight)
    (grad,) = torch.autograd.grad(out[1].sum(), weight)
    torch.testing.assert_close(grad, 4 * 0.3 * (x[0] - x[1]).sum().reshape(1))
