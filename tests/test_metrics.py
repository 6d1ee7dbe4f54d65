"""Metrics against closed forms and loops over pairs."""

import math

import pytest
import torch

from torch_geometric_diff import DiffusionOperator
from torch_geometric_diff.graph import gaussian_knn_graph
from torch_geometric_diff.metrics import dirichlet_energy, distance_diameter_ratio, separability

SQUARE = torch.tensor([[0.0, 0.0], [0.0, 3.0], [4.0, 0.0], [4.0, 3.0]])


def points(n=50, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, 3, generator=generator), torch.arange(n) % 3


def test_ratio_of_a_rectangle():
    assert distance_diameter_ratio(SQUARE, torch.tensor([0, 0, 1, 1])) == pytest.approx(4 / 3)
    assert distance_diameter_ratio(SQUARE, torch.tensor([5, 9, 5, 9])) == pytest.approx(3 / 4)


def test_ratio_equals_loops():
    x, y = points()
    pairs = [(i, j) for i in range(50) for j in range(i)]
    between = min(float((x[i] - x[j]).norm()) for i, j in pairs if y[i] != y[j])
    within = max(float((x[i] - x[j]).norm()) for i, j in pairs if y[i] == y[j])
    for block_bytes in (1, 5000, 2**26):
        ratio = distance_diameter_ratio(x, y, block_bytes)
        assert ratio == pytest.approx(between / within, rel=1e-6)


def test_ratio_of_points_far_from_the_origin():
    shifted = SQUARE.double() + 1e6
    assert distance_diameter_ratio(shifted, torch.tensor([0, 0, 1, 1])) == pytest.approx(4 / 3)


def test_classes_of_one_point():
    x = torch.tensor([[0.0], [0.0], [1.0]])
    assert distance_diameter_ratio(x, torch.tensor([0, 0, 1])) == math.inf
    assert math.isnan(distance_diameter_ratio(torch.ones(3, 1), torch.tensor([0, 0, 1])))
    assert separability(x, torch.tensor([0, 0, 1])) == 1.0
    assert math.isnan(separability(torch.ones(3, 1), torch.tensor([0, 0, 1])))


def test_separability():
    # means 0 and 4 along the first axis, spread 1.5 along the second
    assert separability(SQUARE, torch.tensor([0, 0, 1, 1])) == pytest.approx(4 / (4 + 2.25))
    assert separability(SQUARE, torch.tensor([0, 1, 1, 0])) == pytest.approx(0.0)
    x, y = points()
    moved = separability(7 * x - 2, y)  # invariant to shift and scale
    assert moved == pytest.approx(separability(x, y), rel=1e-4)


def test_dirichlet_energy_is_a_quadratic_form():
    x, _ = points()
    edge_index, weight = gaussian_knn_graph(x, 6, 1.0, symmetrize="mean")
    matrix = torch.zeros(50, 50).index_put((edge_index[1], edge_index[0]), weight)
    laplacian = torch.diag(matrix.sum(dim=1)) - matrix
    expected = torch.trace(x.t() @ laplacian @ x)
    torch.testing.assert_close(dirichlet_energy(x, edge_index, weight), expected)
    torch.testing.assert_close(dirichlet_energy(x, matrix.to_sparse()), expected)
    x.requires_grad_()
    dirichlet_energy(x, edge_index, weight).backward()
    torch.testing.assert_close(x.grad, 2 * laplacian @ x.detach())


def test_diffusion_lowers_the_energy():
    x, _ = points()
    edge_index, weight = gaussian_knn_graph(x, 6, 1.0, symmetrize="mean")
    step = DiffusionOperator(edge_index, weight, num_nodes=50, step_size=0.1, normalization=None)
    energies = []
    for _ in range(5):
        energies.append(float(dirichlet_energy(x, edge_index, weight)))
        x = step @ x
    assert energies == sorted(energies, reverse=True) and energies[-1] < 0.7 * energies[0]


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (torch.rand(4), torch.arange(4), r"shape \[N, F\]"),
        (torch.rand(4, 2), torch.arange(3), r"\[4, 2\] and \[3\]"),
        (torch.full((4, 2), float("nan")), torch.arange(4), "finite"),
        (torch.rand(4, 2), torch.zeros(4), "two classes .got 1"),
        (torch.rand(0, 2), torch.zeros(0), "two classes .got 0"),
    ],
)
@pytest.mark.parametrize("metric", [distance_diameter_ratio, separability])
def test_bad_input_is_refused(metric, x, y, message):
    with pytest.raises(ValueError, match=message):
        metric(x, y)


def test_energy_refuses_another_graph():
    with pytest.raises(ValueError, match=r"\[0, 3\]"):
        dirichlet_energy(torch.rand(4, 2), torch.tensor([[0], [9]]))
    with pytest.raises(ValueError, match="'x'"):
        dirichlet_energy(torch.rand(4), torch.tensor([[0], [1]]))


@pytest.mark.parametrize("scale", [5e-324, 1e-200, 1e200, 1e307])
def test_ratios_do_not_depend_on_the_scale(scale):
    x, y = torch.tensor([[0.0], [2.0], [4.0], [8.0]], dtype=torch.float64), torch.arange(4) // 2
    assert distance_diameter_ratio(scale * x, y) == distance_diameter_ratio(x, y) == 0.5
    assert separability(scale * x, y) == pytest.approx(separability(x, y))


@pytest.mark.parametrize("dtype", [torch.int8, torch.int64, torch.float16, torch.bfloat16])
def test_energies_do_not_overflow_on_the_way(dtype):
    x, edge_index = torch.tensor([[0], [100], [-100]]).to(dtype), torch.tensor([[0, 1], [1, 2]])
    out = dirichlet_energy(x, edge_index, torch.ones(2).to(dtype))
    assert out.dtype == (dtype if dtype.is_floating_point else torch.float32)
    torch.testing.assert_close(out.float(), torch.tensor(25000.0), rtol=1e-2, atol=0)
