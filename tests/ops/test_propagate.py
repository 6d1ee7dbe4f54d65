"""Recurrences against dense float64, on every kernel: values, gradients, second derivatives."""

import pytest
import torch
from dense import dense_weight, random_graph

from torch_geometric_diff.nn import APPNP, DiffConv, GPRConv
from torch_geometric_diff.ops import Recurrence, SparseOperator, propagate
from torch_geometric_diff.ops._random import dropout_scale, keep_mask
from torch_geometric_diff.ops.recurrence import transposed

N, K = 13, 5


def dense_propagate(x, p, table, dropout=0.0, seed=0, bounds=None):
    """The recurrence of the module's docstring, word for word."""
    a, d, b, c, *w = table
    threshold = round(dropout * 65536)

    def masked(z, k):
        if not threshold:
            return z
        keep = keep_mask(seed, k, *z.shape, threshold)
        return z * keep * dropout_scale(threshold)

    states = [x]
    for k in range(1, len(a)):
        u = masked(states[-1], k - 1)
        z = a[k] * (p @ u) + d[k] * u + c[k] * x
        if k > 1:
            z = z + b[k] * states[-2]
        states.append(z if bounds is None else z.clamp(*bounds))
    return torch.stack([sum(f * z for f, z in zip(row, states, strict=True)) for row in w])


RECURRENCES = {
    "power": Recurrence.power(K),
    "none": Recurrence.power(0),
    "one": Recurrence(1, a=0.5, c=2.0, d=0.25, w=[0.5, 3.0]),
    "ppr": Recurrence.ppr(K, 0.2),
    "ssgc": Recurrence.ssgc(K, 0.1),
    "states": Recurrence.states([0, 3, 1, K]),
    "shifted": Recurrence(K, a=0.5, d=[0.1, 0.2, 0.3, 0.4, 0.5]),
    "second order": Recurrence(
        K, a=[1, 2, 2, 2, 2.0], b=[0, -1, -1, -1, -1.0], d=-0.3, w=[1, 2, 3, 4, 5, 6.0]
    ),
    "all": Recurrence(K, a=0.7, b=0.1, c=[1, 0, 2, 0, 3.0], d=0.2, w=[1, 0, 0, 2, 0, 3.0]),
}


def graph(undirected=True, dtype=torch.float64, requires_grad=False):
    edge_index, weight = random_graph(N, 40, undirected=undirected)
    weight = weight.to(dtype).requires_grad_(requires_grad)
    operator = SparseOperator(edge_index, weight, num_nodes=N)
    return operator, dense_weight(edge_index, weight.double(), N), weight


@pytest.mark.parametrize("name", RECURRENCES)
@pytest.mark.parametrize("undirected", [True, False])
@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("dtype, tolerance", [(torch.float64, 1e-11), (torch.float32, 2e-5)])
@pytest.mark.parametrize("width", [1, 21])
def test_values_and_gradients(kernel, name, undirected, dropout, dtype, tolerance, width):
    recurrence = RECURRENCES[name]
    if dropout and bool(recurrence.table()[2, 2:].any()):
        pytest.skip("refused: see test_bad_input")
    operator, p, _ = graph(undirected, dtype)
    torch.manual_seed(0)
    x = torch.randn(N, width, dtype=torch.float64)
    ours, theirs = x.to(dtype, copy=True).requires_grad_(), x.clone().requires_grad_()
    out = propagate(ours, operator, recurrence, dropout=dropout, seed=7)
    expected = dense_propagate(theirs, p, recurrence.table(), dropout, 7)
    if recurrence.steps is None:
        expected = expected[0]
    assert out.shape == expected.shape and out.dtype == dtype
    upstream = torch.randn_like(expected)
    out.backward(upstream.to(dtype))
    expected.backward(upstream)
    scale = float(expected.detach().abs().max())
    torch.testing.assert_close(out.double(), expected, atol=tolerance * scale, rtol=0)
    scale = float(theirs.grad.abs().max())
    torch.testing.assert_close(ours.grad.double(), theirs.grad, atol=tolerance * scale, rtol=0)


@pytest.mark.parametrize("dropout", [0.0, 0.4])
@pytest.mark.parametrize("second", [False, True])
def test_what_is_learned(kernel, dropout, second):
    """Entries and every coefficient at once, against finite differences; twice, too."""
    torch.manual_seed(1)
    edge_index, weight = random_graph(6, 8, undirected=False)
    values = {name: torch.rand(3).double() for name in "acd"}
    if not dropout:
        values["b"] = torch.rand(3).double()
    values["w"] = torch.rand(4).double()
    x = torch.randn(6, 2).double()

    def function(x, weight, *values):
        recurrence = Recurrence(3, **dict(zip(names, values, strict=True)))
        operator = SparseOperator(edge_index, weight, num_nodes=6)
        return propagate(x, operator, recurrence, dropout=dropout, seed=3)

    names = list(values)
    inputs = [t.requires_grad_() for t in (x, weight, *values.values())]
    assert torch.autograd.gradcheck(function, inputs)
    if second:
        assert torch.autograd.gradgradcheck(function, inputs, fast_mode=True)


def test_fused_gradients_equal_those_that_differentiate_again(kernel):
    operator, _, weight = graph(False, requires_grad=True)
    x = torch.randn(2, N, 19, dtype=torch.float64, requires_grad=True)
    w = torch.rand(K + 1, dtype=torch.float64, requires_grad=True)
    out = propagate(x, operator, Recurrence(K, a=0.9, c=0.1, w=w), dropout=0.2, seed=1)
    upstream = torch.randn_like(out)
    inputs = (x, weight, w)
    fused = torch.autograd.grad(out, inputs, upstream, retain_graph=True)
    again = torch.autograd.grad(out, inputs, upstream, create_graph=True)
    for one, other in zip(fused, again, strict=True):
        torch.testing.assert_close(one, other.detach(), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_forward_mode(kernel, dropout):
    torch.manual_seed(2)
    _operator, _, weight = graph(False, requires_grad=True)
    edge_index, _ = random_graph(N, 40, undirected=False)
    x = torch.randn(N, 3, dtype=torch.float64)
    w = torch.rand(K + 1, dtype=torch.float64)

    def function(x, weight, w):
        operator = SparseOperator(edge_index, weight, num_nodes=N)
        return propagate(x, operator, Recurrence(K, a=w[:K], w=w), dropout=dropout, seed=1)

    inputs = tuple(t.detach().requires_grad_() for t in (x, weight, w))
    assert torch.autograd.gradcheck(function, inputs, check_forward_ad=True, fast_mode=True)
    assert torch.autograd.gradgradcheck(
        function, inputs, check_fwd_over_rev=True, check_rev_over_rev=True, fast_mode=True
    )


def test_the_transpose_of_a_table_is_its_adjoint(kernel):
    _operator, _, _ = graph(False)
    table = RECURRENCES["all"].table()
    twice = transposed(transposed(table, 1), 1)
    read = torch.ones_like(table, dtype=torch.bool)
    read[:3, 0] = read[2, 1] = False
    torch.testing.assert_close(twice[read], table[read])


@pytest.mark.parametrize("name", ["power", "ppr", "all"])
@pytest.mark.parametrize("bounds", [None, (-0.5, 0.7)])
def test_held_rows_and_bounds(kernel, name, bounds):
    recurrence = RECURRENCES[name]
    operator, p, _ = graph(False)
    x = torch.randn(N, 4, dtype=torch.float64)
    a, d, b, c, w = recurrence.table()
    held = torch.tensor([2, 5, 11])

    def dense(x):
        kept = x[held] if bounds is None else x[held].clamp(*bounds)
        z = x.index_copy(0, held, kept)
        before, total = torch.zeros_like(x), w[0] * z
        for k in range(1, K + 1):
            new = a[k] * (p @ z) + d[k] * z + (b[k] * before if k > 1 else 0) + c[k] * x
            new = new.index_copy(0, held, kept)
            before, z = z, new if bounds is None else new.clamp(*bounds)
            total = total + w[k] * z
        return total

    for rows in (held, torch.zeros(N, dtype=torch.bool).index_fill(0, held, True)):
        ours, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
        out = propagate(ours, operator, recurrence, fixed=rows, bounds=bounds)
        torch.testing.assert_close(out, dense(theirs))
        with torch.no_grad():
            torch.testing.assert_close(
                propagate(x, operator, recurrence, fixed=rows, bounds=bounds), out.detach()
            )
        upstream = torch.randn_like(out)
        out.backward(upstream)
        dense(theirs).backward(upstream)
        torch.testing.assert_close(ours.grad, theirs.grad)


def test_bounds_against_dense(kernel):
    operator, p, _ = graph(False)
    recurrence, bounds = RECURRENCES["all"], (-0.5, 0.7)
    x = torch.randn(N, 4, dtype=torch.float64)
    ours, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
    out = propagate(ours, operator, recurrence, bounds=bounds)
    expected = dense_propagate(theirs, p, recurrence.table(), bounds=bounds)[0]
    torch.testing.assert_close(out, expected)
    torch.testing.assert_close(propagate(x, operator, recurrence, bounds=bounds), out.detach())
    out.square().sum().backward()
    expected.square().sum().backward()
    torch.testing.assert_close(ours.grad, theirs.grad)


def test_memory_does_not_grow_with_the_steps():
    operator, _, _ = graph()
    x = torch.randn(N, 4, dtype=torch.float64, requires_grad=True)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(
        lambda t: kept.append(t.numel()) or t, lambda t: t
    ):
        propagate(x, operator, Recurrence.ppr(50, 0.1))
        constant = sum(kept)
        kept.clear()
        w = torch.rand(51, requires_grad=True)
        propagate(x, operator, Recurrence(50, w=w))
    assert constant == 0
    assert sum(kept) <= 5 * 51 + x.numel()


BAD = [
    (lambda: Recurrence(2.0), TypeError, "num_steps"),
    (lambda: Recurrence(True), TypeError, "num_steps"),
    (lambda: Recurrence(-1), ValueError, "num_steps"),
    (lambda: Recurrence(3, a=[1.0, 2.0]), ValueError, "'a' of length 3"),
    (lambda: Recurrence(3, b=torch.ones(4)), ValueError, "'b' of shape"),
    (lambda: Recurrence(3, c=float("nan")), ValueError, "'c'"),
    (lambda: Recurrence(3, d="one"), TypeError, "'d'"),
    (lambda: Recurrence(3, w=[1.0] * 3), ValueError, "'w' of length 4"),
    (lambda: Recurrence(3, w=torch.ones(3)), ValueError, "'w' of shape"),
    (lambda: Recurrence(3, w=torch.ones(4, dtype=torch.long)), TypeError, "'w'"),
    (lambda: Recurrence(3, steps=[1, 4]), ValueError, "'steps'"),
    (lambda: Recurrence(3, steps=[]), ValueError, "'steps'"),
    (lambda: Recurrence(3, steps=[-1]), ValueError, "'steps'"),
    (lambda: Recurrence(3, steps=[1], w=[1.0] * 4), ValueError, "'w' or 'steps'"),
    (lambda: Recurrence.ssgc(0, 0.1), ValueError, "num_steps"),
]


@pytest.mark.parametrize("make, error, text", BAD)
def test_bad_coefficients(make, error, text):
    with pytest.raises(error, match=text):
        make()


@pytest.mark.parametrize(
    "keywords, error, text",
    [
        ({"fixed": torch.tensor([N])}, ValueError, "fixed"),
        ({"fixed": torch.tensor([-1])}, ValueError, "fixed"),
        ({"fixed": torch.ones(N + 1, dtype=torch.bool)}, ValueError, "fixed"),
        ({"fixed": torch.tensor([0.5])}, TypeError, "fixed"),
        ({"fixed": [1]}, TypeError, "fixed"),
        ({"bounds": (1.0, 0.0)}, ValueError, "bounds"),
        ({"bounds": (0.0, float("nan"))}, ValueError, "bounds"),
        ({"bounds": 1.0}, TypeError, "bounds"),
        ({"dropout": 1.0}, ValueError, "dropout"),
        ({"dropout": True}, TypeError, "dropout"),
        ({"dropout": 0.1}, ValueError, "dropout"),
        ({"seed": -1}, ValueError, "seed"),
        ({"seed": 0.5}, TypeError, "seed"),
    ],
)
def test_bad_input(keywords, error, text):
    operator, _, _ = graph()
    with pytest.raises(error, match=text):
        propagate(torch.randn(N, 2).double(), operator, RECURRENCES["all"], **keywords)


def test_held_rows_of_a_learned_operator(kernel):
    operator, p, weight = graph(requires_grad=True)
    x, held = torch.randn(N, 2).double(), torch.tensor([0, 3])
    found, z = propagate(x, operator, Recurrence.ppr(2, 0.2), fixed=held), x
    for _ in range(2):
        z = (0.8 * (p @ z) + 0.2 * x).index_copy(0, held, x[held])
    torch.testing.assert_close(found, z)
    expected = torch.autograd.grad(z.square().sum(), weight)
    torch.testing.assert_close(torch.autograd.grad(found.square().sum(), weight), expected)


@pytest.mark.skipif(torch.__version__ < "2.9", reason="compiled by torch 2.9 or newer")
@pytest.mark.parametrize("layer", ["coefficients", "entries and a step"])
def test_learned_and_compiled(kernel, layer):
    """On every kernel, also those that have no fused gradients."""
    edge_index, weight = random_graph(N, 40)
    learns = layer != "coefficients"
    module = DiffConv(K, learn_step_size=True, dropout=0.2) if learns else GPRConv(K)
    x = torch.randn(N, 3).double().requires_grad_()
    weight.requires_grad_(learns)
    inputs = [x, *module.double().parameters(), *([weight] if learns else [])]
    torch._dynamo.reset()
    found = []
    for one in (module, torch.compile(module, backend="aot_eager", fullgraph=True)):
        torch.manual_seed(0)
        out = one(x, edge_index, weight)
        found.append([out, *torch.autograd.grad(out.square().sum(), inputs)])
    torch.testing.assert_close(*found)


@pytest.mark.skipif(torch.__version__ < "2.9", reason="compiled by torch 2.9 or newer")
def test_a_graph_that_leaves_sizes_and_numbers_open():
    """With dynamic=True a float of a layer is a symbol, which can be compared and no more."""
    torch._dynamo.reset()
    layer = APPNP(K, 0.2, feature_dropout=0.3)
    compiled = torch.compile(layer, backend="aot_eager", dynamic=True, fullgraph=True)
    for nodes in (N, 7):
        edge_index, _ = random_graph(nodes, 2 * nodes)
        x = torch.randn(nodes, 3)
        torch.manual_seed(0)
        expected = layer(x, edge_index)
        torch.manual_seed(0)
        torch.testing.assert_close(compiled(x, edge_index), expected)
