"""What the candidate models read of a graph."""

import pytest
import torch

from torch_geometric_diff.estimators.node.inputs import (
    COMPONENTS,
    GraphInputs,
    principal_components,
    random_frequencies,
    structural_features,
)

RING = torch.stack([torch.arange(60), torch.arange(60) // 30 * 30 + (torch.arange(60) + 1) % 30])
RINGS = torch.cat([RING, RING.flip(0)], dim=1)


def test_structural_features_are_degrees_and_triangles() -> None:
    dense = (torch.rand(20, 20, generator=torch.Generator().manual_seed(0)) < 0.2).double()
    both = ((dense + dense.t()) > 0).double().fill_diagonal_(0)
    expected = torch.stack([dense.sum(0), dense.sum(1), (both @ both @ both).diagonal()], dim=1)
    found = structural_features(dense.nonzero().t(), 20)
    torch.testing.assert_close(found, expected.log1p().float())


def test_columns_count_what_diffusion_leaves_of_them() -> None:
    x = torch.randn(60, 3, generator=torch.Generator().manual_seed(0))
    x[:, 0] = 100 * (torch.arange(60) < 30) + 7
    x[:, 2] = 5.0
    deviation = GraphInputs(x, RINGS)._points.square().mean(dim=0).sqrt()
    assert deviation[0] == pytest.approx(1.0) and 0.1 < deviation[1] < 0.6 and deviation[2] == 0


@pytest.mark.parametrize("words", [True, False])
def test_components_are_the_largest_part_of_the_features(words: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(300, 8, generator=generator) @ torch.randn(8, 400, generator=generator)
    x = x + 0.01 * torch.randn(300, 400, generator=generator)
    if words:
        x = (x - 4).relu().to_sparse_csr()
    dense = x.to_dense() if words else x
    mean = dense.mean(dim=0)
    basis = principal_components(x, mean, 8)
    torch.testing.assert_close(basis.t() @ basis, torch.eye(8), atol=1e-5, rtol=0)
    best = torch.linalg.svdvals(dense - mean)[:8].square().sum()
    kept = ((dense - mean) @ basis).square().sum()
    assert float(kept / best) > (0.9 if words else 0.999)
    assert GraphInputs(x, RINGS[:, :0]).components.shape == (300, COMPONENTS)


def test_random_fourier_features_are_gaussian_kernels() -> None:
    x = torch.nn.functional.normalize(torch.randn(200, 5), dim=1)
    frequencies, phase = random_frequencies(x)
    width = torch.nn.functional.pdist(x[:150]).median()
    for half, scale in ((1, 1.0), (0, 0.5)):
        waves = (x @ frequencies[:, half::2] + phase[half::2]).cos() * 2**0.5
        kernel = waves @ waves.t() / waves.size(1)
        expected = torch.exp(-torch.cdist(x, x).square() / (2 * (scale * width) ** 2))
        assert float((kernel - expected).abs().mean()) < 0.1


@pytest.mark.parametrize("kind", ["words", "points"])
def test_sparse_and_dense_and_scaled_features_are_the_same(kind: str) -> None:
    x = torch.randn(60, 40, generator=torch.Generator().manual_seed(0))
    if kind == "words":
        x = (x > 1).float()
    usual = GraphInputs(x, RINGS)
    assert usual.is_words == (kind == "words")
    for other in (x.to_sparse(), x.to_sparse_csr(), x * 2.0**40, x.double(), x.half().float()):
        graph = GraphInputs(other, RINGS)
        for name in ("features", "components", "neighborhood_kernel", "structural_kernel"):
            a, b = (getattr(each, name) for each in (graph, usual))
            a, b = (each if each.layout == torch.strided else each.to_dense() for each in (a, b))
            torch.testing.assert_close(a, b, rtol=1e-2, atol=2e-2)


def test_what_was_learned_is_applied_to_another_graph() -> None:
    x = torch.randn(60, 3, generator=torch.Generator().manual_seed(0))
    first = GraphInputs(x, RINGS)
    expected = first.features, first.neighborhood_kernel, first.structural_kernel
    again = GraphInputs(x, RINGS, learned=first.learned)
    for a, b in zip(
        (again.features, again.neighborhood_kernel, again.structural_kernel), expected, strict=True
    ):
        assert torch.equal(a, b)
    one = GraphInputs(x[:1], RINGS[:, :0], learned=first.learned)
    torch.testing.assert_close(one.features[0], first.features[0])
    assert again.begins_with(first) and not one.begins_with(first)
    assert not GraphInputs(x.flip(0), RINGS).begins_with(first)


def test_an_operator_is_made_once() -> None:
    graph = GraphInputs(torch.randn(60, 3), RINGS)
    assert graph.operator(0.5, "row", 4, 0.5) is graph.operator(0.5, "row", 4, 0.5)
    assert graph.operator(0.5, "row").nnz == 60 * 3 < graph.operator(0.5, "row", 4, 0.5).nnz
