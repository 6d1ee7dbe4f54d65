"""Infinite and undefined features: every form spreads them along edges and nowhere else.

What is held, dropped or has a coefficient of zero is replaced or left out, not multiplied by zero.
"""

import math

import pytest
import torch
from dense import random_graph
from torch.func import vmap

from torch_geometric_diff.nn import APPNP, DiffConv
from torch_geometric_diff.ops import Recurrence, SparseOperator, propagate
from torch_geometric_diff.ops._random import dropout_scale, keep_mask
from torch_geometric_diff.ops._stepwise import propagate_by

N, K, P, SEED = 11, 3, 0.25, 3
HELD = torch.tensor([1, 4, 4])
EDGES, WEIGHT = random_graph(N, 14)
RECURRENCES = {
    "ppr": Recurrence.ppr(K, 0.2),
    "pauses": Recurrence(K, a=[1.0, 0.0, 0.5], c=[0.0, 1.0, 0.0], w=[0.0, 1.0, 0.0, 1.0]),
    "own": Recurrence(K, a=0.5, d=[0.0, 0.5, 0.25]),
    "second order": Recurrence(K, a=2.0, b=[0.0, -1.0, -1.0]),
}


def features(bad: float, row: int) -> torch.Tensor:
    x = torch.randn(N, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    x[row, 0] = bad
    return x


def by_edges(x, recurrence, fixed=None, bounds=None, dropout=0.0, value=WEIGHT):
    """The definition, edge by edge and without a term whose coefficient is zero."""
    a, d, b, c, w = recurrence.table().tolist()
    threshold = round(dropout * 65536)
    rows = torch.zeros(N, 1, dtype=torch.bool).index_fill(0, HELD, True)
    kept = x if bounds is None else x.clamp(*bounds)

    def replaced(z):
        return z if fixed is None else torch.where(rows, kept, z)

    states = [replaced(x)]
    for k in range(1, K + 1):
        u = states[-1]
        if threshold:
            keep = keep_mask(SEED, k - 1, *u.shape, threshold)
            u = torch.where(keep, u * dropout_scale(threshold), 0.0)
        z = torch.zeros_like(x)
        if a[k]:
            z = a[k] * z.index_add(0, EDGES[1], value[:, None] * u[EDGES[0]])
        for factor, term in ((d[k], u), (c[k], x), (b[k], states[-2] if k > 1 else 0)):
            z = z + factor * term if factor else z
        states.append(replaced(z if bounds is None else z.clamp(*bounds)))
    return sum(factor * z for factor, z in zip(w, states, strict=True) if factor)


def operator(value: torch.Tensor = WEIGHT) -> SparseOperator:
    return SparseOperator(EDGES, value, num_nodes=N)


def fused(x, recurrence, **settings):
    return propagate(x, operator(), recurrence, seed=SEED, **settings)


def learned(x, recurrence, **settings):
    weight = WEIGHT.clone().requires_grad_()
    return propagate(x, operator(weight), recurrence, seed=SEED, **settings).detach()


def followed(x, recurrence, **settings):
    return fused(x.clone().requires_grad_(), recurrence, **settings).detach()


def stepwise(x, recurrence, **settings):
    return propagate_by(operator().__matmul__, x, recurrence, seed=SEED, **settings)


def side_by_side(x, recurrence, **settings):
    return vmap(lambda x: fused(x, recurrence, **settings))(torch.stack([x, x]))[1]


@pytest.mark.parametrize("form", [fused, learned, followed, stepwise, side_by_side])
@pytest.mark.parametrize("name", RECURRENCES)
def test_values(kernel, form, name):
    recurrence = RECURRENCES[name]
    for bad in (math.inf, -math.inf, math.nan):
        for row in (0, 1):
            x = features(bad, row)
            for settings in (
                {},
                {"fixed": HELD},
                {"bounds": (-0.5, 0.5)},
                {"fixed": HELD, "bounds": (-0.5, 0.5)},
                {} if recurrence.is_second_order else {"dropout": P},
                {} if recurrence.is_second_order else {"dropout": P, "fixed": HELD},
            ):
                expected = by_edges(x, recurrence, **settings)
                found = form(x, recurrence, **settings)
                torch.testing.assert_close(found, expected, equal_nan=True)


@pytest.mark.parametrize("name", RECURRENCES)
@pytest.mark.parametrize("again", [False, True], ids=["once", "to differentiate again"])
def test_gradients(kernel, name, again):
    recurrence = RECURRENCES[name]
    for settings in ({}, {"fixed": HELD}, {} if name == "second order" else {"dropout": P}):
        for row in (0, 1):
            upstream = features(math.inf, row)
            found = []
            for function in (fused, by_edges):
                x = features(0.5, 0).requires_grad_()
                out = function(x, recurrence, **settings)
                found += torch.autograd.grad(out, x, upstream, create_graph=again)
            torch.testing.assert_close(*found, equal_nan=True)


@pytest.mark.skipif(torch.__version__ < "2.9", reason="compiled by torch 2.9 or newer")
@pytest.mark.parametrize(
    "name, settings", [("ppr", {}), ("ppr", {"bounds": (-0.5, 0.5)}), ("second order", {})]
)
def test_compiled(kernel, name, settings):
    def eager(x):
        return by_edges(x, RECURRENCES[name], fixed=HELD, **settings)

    torch._dynamo.reset()
    function = torch.compile(
        lambda x: fused(x, RECURRENCES[name], fixed=HELD, **settings),
        backend="aot_eager",
        fullgraph=True,
    )
    found = []
    for one in (function, eager):
        x = features(0.5, 0).requires_grad_()
        found += torch.autograd.grad(one(x), x, features(math.inf, 1))
    torch.testing.assert_close(*found, equal_nan=True)
    x = features(math.inf, 0).requires_grad_()
    torch.testing.assert_close(function(x), eager(x), equal_nan=True)


@pytest.mark.parametrize(
    "layer", [DiffConv(K, dropout=P), APPNP(K, 0.2)], ids=["DiffConv", "APPNP"]
)
def test_messages(layer):
    """The form with hooks, dropout included."""
    x = features(math.inf, 0)
    torch.manual_seed(0)
    expected = layer(x, EDGES, WEIGHT)
    layer.register_message_forward_hook(lambda *_: None)
    torch.manual_seed(0)
    torch.testing.assert_close(layer(x, EDGES, WEIGHT).isfinite(), expected.isfinite())


def with_learned(recurrence, requires_grad):
    """The same coefficients as Tensors."""
    numbers = {letter: getattr(recurrence, letter) for letter in "abcdw"}
    numbers["w"] = numbers["w"] or [0.0] * K + [1.0]
    return Recurrence(
        K,
        **{
            letter: torch.tensor(
                value if isinstance(value, (list, tuple)) else [value] * K, dtype=torch.float64
            ).requires_grad_(requires_grad)
            for letter, value in numbers.items()
        },
    )


@pytest.mark.parametrize("weights", [False, True], ids=["", "learned weights"])
@pytest.mark.parametrize("name", RECURRENCES)
def test_learned_coefficients_that_are_zero(kernel, name, weights):
    recurrence = RECURRENCES[name]
    matrix = operator(WEIGHT.clone().requires_grad_(weights))
    each = ({}, {"fixed": HELD}, {"bounds": (-0.5, 0.5)}, {"fixed": HELD, "bounds": (-0.5, 0.5)})
    for settings in each:
        for row in (0, 1):
            for requires_grad in (False, True):
                like = with_learned(recurrence, requires_grad)
                x = features(math.inf, row)
                found = propagate(x, matrix, like, seed=SEED, **settings).detach()
                expected = by_edges(x, recurrence, **settings)
                torch.testing.assert_close(found, expected, equal_nan=True)
            if "bounds" in settings:
                continue
            for again in (False, True):
                found = []
                for function, some in ((propagate, matrix), (by_edges, None)):
                    x = features(0.5, 0).requires_grad_()
                    graph = (x,) if some is None else (x, some)
                    rest = (recurrence,) if some is None else (like,)
                    out = function(*graph, *rest, **settings)
                    found += torch.autograd.grad(out, x, x.detach() / 0, create_graph=again)
                torch.testing.assert_close(*found, equal_nan=True)


@pytest.mark.parametrize("again", [False, True], ids=["once", "to differentiate again"])
def test_infinite_states_that_no_gradient_reaches(kernel, again):
    """The loss looks at nodes that the infinite ones do not reach."""
    edge_index = torch.tensor([[0, 1, 2, 3], [1, 0, 3, 2]])
    x = torch.tensor([[1.0], [2.0], [math.inf], [3.0]], dtype=torch.float64)
    found = []
    for bad in (x, x.nan_to_num(posinf=5.0)):
        w = torch.tensor([0.5, 0.0, 0.25], dtype=torch.float64).requires_grad_()
        a = torch.tensor([0.5, 0.0], dtype=torch.float64).requires_grad_()
        matrix = SparseOperator(edge_index, torch.ones(4, dtype=torch.float64), num_nodes=4)
        out = propagate(bad, matrix, Recurrence(2, a=a, c=0.5, w=w))[:2]
        found.append(torch.autograd.grad(out.square().sum(), (a, w), create_graph=again))
    torch.testing.assert_close(*found)
