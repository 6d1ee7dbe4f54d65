"""Features near the largest and the smallest number of their type."""

import re

import pytest
import torch
from dense import random_graph

from torch_geometric_diff.nn import APPNP, DiffConv, GPRConv, HeatConv
from torch_geometric_diff.ops import (
    DiffusionOperator,
    Recurrence,
    SparseOperator,
    heat,
    propagate,
)

N = 9
EDGES, WEIGHT = random_graph(N, 20, undirected=True)
X = torch.randn(N, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
X = X / X.abs().amax(0)
LARGEST = {torch.float64: 1.79e308, torch.float32: 3.4e38, torch.bfloat16: 3.38e38}
LARGEST[torch.float16] = 65500.0


def by(recurrence):
    def function(x):
        operator = SparseOperator.gcn_norm(EDGES, WEIGHT, num_nodes=N)
        return propagate(x, operator, recurrence).detach()

    return function


def heated(t):
    return lambda x: heat(x, DiffusionOperator(EDGES, WEIGHT, num_nodes=N), t).detach()


def layer(module):
    return lambda x: module.to(x.dtype)(x, EDGES, WEIGHT.to(x.dtype)).detach()


FUNCTIONS = {
    "heat": heated(2.0),
    "heat for long": heated(50.0),
    "heat, learned time": heated(torch.tensor(2.0, requires_grad=True)),
    "HeatConv": layer(HeatConv(0.5)),
    "DiffConv": layer(DiffConv(3)),
    "APPNP": layer(APPNP(5, 0.1)),
    "GPRConv": layer(GPRConv(3)),
    "SGConv": by(Recurrence.power(3)),
    "SSGConv": by(Recurrence.ssgc(3, 0.1)),
    "weights that cancel": by(Recurrence(3, w=[3.0, -4.0, 2.0, -0.5])),
    "learned weights that cancel": by(
        Recurrence(3, w=torch.tensor([3.0, -4.0, 2.0, -0.5]).requires_grad_())
    ),
    "second order": by(Recurrence(3, a=2.0, b=[0.0, -1.0, -1.0], w=[0.1] * 4)),
    "large states of small weight": by(Recurrence(3, a=1e3, w=[0.0, 0.0, 0.0, 1e-10])),
}


@pytest.mark.parametrize("dtype", LARGEST, ids=str)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_what_can_be_represented_is_right(kernel, name, dtype):
    function, largest = FUNCTIONS[name], LARGEST[dtype]
    x = (X * largest).to(dtype)
    expected = function(x.double() / largest)
    fits = expected.abs() < 0.999
    assert fits.sum() > 10
    found = function(x).double() / largest
    tolerance = max(1e-5, 4 * torch.finfo(dtype).eps)  # of heat too
    torch.testing.assert_close(found[fits], expected[fits], atol=tolerance, rtol=0)


NEGATIVE = re.compile("[Hh]eat|cancel|second|large")


@pytest.mark.parametrize("dtype", LARGEST, ids=str)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_of_the_smallest_numbers_few_units_are_lost(kernel, name, dtype):
    function, unit = FUNCTIONS[name], torch.finfo(dtype).smallest_normal * torch.finfo(dtype).eps
    x = (100 * unit * X).to(dtype)
    expected = function(x.double() / unit)
    units = 0.6 if NEGATIVE.search(name) else 6  # half a one a step, where nothing cancels
    assert (function(x).double() / unit - expected).abs().max() < units


def test_a_small_component_beside_a_large_one_keeps_its_values(kernel):
    edge_index = torch.tensor([[0, 1, 2, 3], [1, 0, 3, 2]])
    x = torch.tensor([[3.4e38], [-3.4e38], [3e-20], [1e-20]])
    out = heat(x, DiffusionOperator(edge_index, num_nodes=4), 1.0)
    expected = heat(x[2:], DiffusionOperator(edge_index[:, :2], num_nodes=2), 1.0)
    torch.testing.assert_close(out[2:], expected, rtol=1e-5, atol=0)
    assert out.isfinite().all()


def test_gradients_of_large_features_and_large_gradients(kernel):
    operator = DiffusionOperator(EDGES, WEIGHT.float(), num_nodes=N)
    x = (X * 3.4e38).float().requires_grad_()
    upstream = (X * 3.4e38).float()
    (found,) = torch.autograd.grad(heat(x, operator, 2.0), x, upstream)
    expected = heat(X, DiffusionOperator(EDGES, WEIGHT, num_nodes=N), 2.0)
    torch.testing.assert_close(found.double() / 3.4e38, expected, atol=1e-5, rtol=0)


@pytest.mark.skipif(torch.__version__ < "2.9", reason="compiled by torch 2.9 or newer")
def test_compiled(kernel):
    operator = SparseOperator.gcn_norm(EDGES, WEIGHT.float(), num_nodes=N)
    recurrence = Recurrence(3, a=2.0, b=[0.0, -1.0, -1.0], w=[0.1] * 4)
    function = torch.compile(
        lambda x: propagate(x, operator, recurrence), backend="aot_eager", fullgraph=True
    )
    x = (X * 3.4e38).float()
    assert torch.equal(function(x), propagate(x, operator, recurrence))
