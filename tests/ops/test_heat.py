"""Heat at its edges: no weights, no time, very long times, tiny steps, changed entries."""

import pytest
import torch
from dense import dense_step, dense_weight, random_graph
from torch import Tensor

from torch_geometric_diff.nn import HeatConv
from torch_geometric_diff.ops import DiffusionOperator, diffuse, heat

PATH = torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]])
X = torch.tensor([[1.0], [2.0], [4.0]], dtype=torch.float64)


def laplacian_of_path(weight: Tensor) -> Tensor:
    matrix = dense_weight(PATH, weight, 3)
    return torch.diag(matrix.sum(1)) - matrix


@pytest.mark.parametrize("scale", [0.0, 1e-12, 1.0])
def test_derivatives_by_weights(scale):
    weight = (torch.arange(4.0, dtype=torch.float64) * scale).requires_grad_()
    found = heat(X, DiffusionOperator(PATH, weight, normalization=None), 1.0).square().sum()
    right = (torch.linalg.matrix_exp(-laplacian_of_path(weight)) @ X).square().sum()
    for _ in range(2):
        (found,) = torch.autograd.grad(found.sum(), weight, create_graph=True)
        (right,) = torch.autograd.grad(right.sum(), weight, create_graph=True)
        torch.testing.assert_close(found, right, atol=1e-4, rtol=1e-4)
    if scale == 0:
        weight = torch.zeros(4, dtype=torch.float64, requires_grad=True)
        found = heat(X, DiffusionOperator(PATH, weight, normalization=None), 1.0).square().sum()
        (grad,) = torch.autograd.grad(found, weight)
        torch.testing.assert_close(grad, torch.tensor([-4.0, 2, -16, 8], dtype=torch.float64))


@pytest.mark.parametrize("time", [0.0, 1e-3, 0.5, 7.0])
def test_derivatives_in_the_time(time):
    operator = DiffusionOperator(PATH, normalization=None, dtype=torch.float64)
    t = torch.tensor(time, dtype=torch.float64, requires_grad=True)
    matrix = laplacian_of_path(torch.ones(4, dtype=torch.float64))
    found = heat(X, operator, t).square().sum()
    right = (torch.linalg.matrix_exp(-t * matrix) @ X).square().sum()
    for _ in range(4):
        (found,) = torch.autograd.grad(found, t, create_graph=True)
        (right,) = torch.autograd.grad(right, t, create_graph=True)
        torch.testing.assert_close(found, right, atol=1e-4, rtol=1e-4)
    with pytest.raises(NotImplementedError, match="'heat' has no more than 4 derivatives"):
        torch.autograd.grad(found, t)


@pytest.mark.parametrize("undirected", [True, False])
@pytest.mark.parametrize("step_size", [1e-4, 1e-6, 1e-8, 1e-20])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_tiny_steps_lose_nothing(undirected, step_size, dtype):
    edge_index, _ = random_graph(30, 90, undirected=undirected)
    matrix = dense_step(dense_weight(edge_index, torch.ones(edge_index.size(1)), 30).double(), 1.0)
    laplacian = torch.eye(30, dtype=torch.float64) - matrix
    x = torch.randn(30, 2)
    expected = (torch.linalg.matrix_exp(-3 * laplacian) @ x.double()).float()
    operator = DiffusionOperator(edge_index, num_nodes=30, step_size=step_size, dtype=dtype)
    torch.testing.assert_close(heat(x, operator, 3.0), expected, atol=1e-5, rtol=0)
    again = operator.to(torch.float32).with_step_size(0.3)
    expected = ((torch.eye(30) - 0.3 * laplacian) @ x.double()).float()
    torch.testing.assert_close(diffuse(x, again, 1), expected, atol=1e-5, rtol=0)


def test_a_learned_step_that_grows_in_place():
    edge_index, _ = random_graph(30, 90, undirected=True)
    step_size = torch.tensor(1e-8, requires_grad=True)
    operator = DiffusionOperator(edge_index, num_nodes=30, step_size=step_size)
    x = torch.randn(30, 2)
    expected = heat(x, DiffusionOperator(edge_index, num_nodes=30), 2.0)
    with torch.no_grad():
        step_size.fill_(0.5)
    torch.testing.assert_close(heat(x, operator, 2.0), expected, atol=1e-5, rtol=0)
    right = DiffusionOperator(edge_index, num_nodes=30, step_size=0.5)
    found = operator.with_step_size(step_size)
    torch.testing.assert_close(diffuse(x, found, 3), diffuse(x, right, 3), atol=1e-5, rtol=0)


@pytest.mark.parametrize("num_nodes", [12, 600])
@pytest.mark.parametrize("directed", [False, True])
@pytest.mark.parametrize("time", [1e3, 1e5, 1e6, 1e8])
def test_long_times(num_nodes, directed, time):
    nodes = torch.arange(num_nodes)
    ring = torch.stack([nodes, nodes.roll(-1)])
    edge_index = ring if directed else torch.cat([ring, ring.flip(0)], 1)
    operator = DiffusionOperator(edge_index, num_nodes=num_nodes)
    x = torch.randn(num_nodes, 2) + 1
    if num_nodes > 512 and time > (1e5 if directed else 1e6):
        if time > 1e6:
            with pytest.raises(ValueError, match="Expected 't' to be at most"):
                heat(x, operator, time)
        return
    ones = heat(torch.ones(num_nodes, 1), operator, time)
    torch.testing.assert_close(ones, torch.ones(num_nodes, 1), atol=3e-7, rtol=0)
    if num_nodes < 512 or time >= 1e6:
        mean = x.mean(0).expand_as(x)  # all eigenvalues but one have gone
        torch.testing.assert_close(heat(x, operator, time), mean, atol=1e-5, rtol=0)


def test_a_long_learned_time():
    weight = torch.tensor([1e4, 1e4, 1.0, 1.0], dtype=torch.float64)  # a fast edge and a slow one
    operator = DiffusionOperator(PATH, weight, normalization=None, step_size=1e-5)
    t = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
    found = heat(X, operator, t)[0, 0]
    right = (torch.linalg.matrix_exp(-t * laplacian_of_path(weight)) @ X)[0, 0]
    for _ in range(2):
        torch.testing.assert_close(found, right, atol=1e-6, rtol=1e-6)
        (found,) = torch.autograd.grad(found, t, create_graph=True)
        (right,) = torch.autograd.grad(right, t, create_graph=True)


@pytest.mark.parametrize("undirected", [True, False])
def test_entries_that_were_changed(undirected):
    edge_index, weight = random_graph(20, 60, undirected=undirected)
    operator = DiffusionOperator(edge_index, weight, num_nodes=20, step_size=0.2)
    x = torch.randn(20, 2, dtype=torch.float64)
    eye = torch.eye(20, dtype=torch.float64)
    for change in (
        lambda: operator.value.mul_(1.5),
        lambda: operator.value.add_(torch.linspace(-0.1, 0.1, operator.nnz).double()),
        lambda: setattr(operator, "value", operator.value * 0.5),
    ):
        heat(x, operator, 0.5), operator.t(), operator.max_stable_step_size
        change()
        laplacian = (eye - operator.to_dense()) / 0.2
        for matrix, other in ((laplacian, operator), (laplacian.t(), operator.t())):
            expected = torch.linalg.matrix_exp(-0.5 * matrix) @ x
            torch.testing.assert_close(heat(x, other, 0.5), expected, atol=1e-5, rtol=1e-5)
            step = other.with_step_size(0.1).to_dense()
            torch.testing.assert_close(step, eye - 0.1 * matrix)


@pytest.mark.skipif(torch.__version__ < "2.9", reason="compiled by torch 2.9 or newer")
@pytest.mark.parametrize("learn_t", [False, True])
@pytest.mark.parametrize("cached", [False, True])
def test_compiled_layer_is_not_the_identity(learn_t, cached):
    edge_index, _ = random_graph(20, 60)
    x = torch.randn(20, 2)
    conv = HeatConv(1.0, learn_t, cached=cached)
    torch._dynamo.reset()
    expected = HeatConv(1.0)(x, edge_index)
    assert (expected - x).abs().max() > 0.1
    for _ in range(2):
        found = torch.compile(conv, backend="aot_eager")(x, edge_index)
        torch.testing.assert_close(found, expected)
    torch._dynamo.reset()
    with pytest.raises(Exception, match="the number of its steps depends on values"):
        torch.compile(conv, backend="aot_eager", fullgraph=True)(x, edge_index)
    with pytest.raises(NotImplementedError, match="cannot be part of an exported graph"):
        torch.export.export(conv, (x, edge_index))


@pytest.mark.skipif(torch.__version__ < "2.9", reason="compiled by torch 2.9 or newer")
def test_an_operator_that_was_built_while_compiling():
    edge_index, weight = random_graph(20, 60)  # with loops, which have entries of their own there
    x, weight = torch.randn(20, 2), weight.float()

    def function(weight):
        return DiffusionOperator(edge_index, weight, num_nodes=20)

    torch._dynamo.reset()
    operator, right = torch.compile(function, backend="aot_eager")(weight), function(weight)
    assert operator.gershgorin_step_size == pytest.approx(right.gershgorin_step_size)
    assert operator.max_stable_step_size == pytest.approx(right.max_stable_step_size, rel=1e-2)
    torch.testing.assert_close(heat(x, operator, 1.0), heat(x, right, 1.0))
    scaled = [op.with_step_size(0.1).to_dense() for op in (operator, right)]
    torch.testing.assert_close(*scaled)
