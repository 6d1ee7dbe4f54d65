"""The parts of DiffusionClassifier against dense references."""

import numpy as np
import pytest
import torch

pytest.importorskip("sklearn", reason="the classifier needs scikit-learn")

from torch_geometric_diff._utils import native
from torch_geometric_diff.estimators.points import neighbors as neighbors
from torch_geometric_diff.estimators.points.fusion import (
    cut,
    folds,
    labels_by_weight,
    learn_weight,
    log_probability,
    refine,
)
from torch_geometric_diff.estimators.points.gaussian import GaussianClasses, Moments
from torch_geometric_diff.estimators.points.neighbors import NearestKnown, among
from torch_geometric_diff.estimators.points.settings import FUSION


@pytest.fixture(params=["compiled", "torch"])
def search(request, monkeypatch):
    if request.param == "torch":
        monkeypatch.setattr(native, "MISSING", "not wanted")
    elif native.MISSING:
        pytest.skip(native.MISSING)


def _nearest(search: NearestKnown, new: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    found = list(search(new, 8))
    rows = [rows for _, rows, _, _ in found]
    assert [r.start for r in rows] == [0, *(r.stop for r in rows[:-1])] and rows[-1].stop == len(
        new
    )
    return torch.cat([f[2] for f in found]), torch.cat([f[3] for f in found])


@pytest.mark.parametrize(
    "known, dim, k", [(500, 3, 8), (700, 32, 8), (50, 12, 7), (9, 2, 9), (300, 80, 20), (3, 1, 1)]
)
@pytest.mark.parametrize("offset", [0.0, 1e6])
def test_nearest_known_points(search, monkeypatch, known, dim, k, offset) -> None:
    monkeypatch.setattr(neighbors, "BLOCK_BYTES", 20_000)  # many blocks
    rng = torch.Generator().manual_seed(0)
    points = torch.randn(known, dim, dtype=torch.float64, generator=rng) + offset
    points[known // 2] = points[0]  # a copy, which comes second
    new = torch.randn(60, dim, dtype=torch.float64, generator=rng) + offset
    new = torch.cat([new, points[:5], 1e4 * new[:5]])
    squared = (new.unsqueeze(1) - points).square().sum(2)
    expected, order = squared.sort(dim=1, stable=True)
    distance, index = _nearest(NearestKnown(points, k), new)
    assert torch.equal(index, order[:, :k])
    ratio = distance / distance[:, -1:].clamp(min=1e-300)
    wanted = (expected[:, :k] / expected[:, k - 1 : k].clamp(min=1e-300)).sqrt()
    torch.testing.assert_close(ratio, wanted, rtol=1e-6, atol=1e-9)


def test_neighbors_among_copies(search) -> None:
    points = torch.tensor([[0.0], [0.0], [0.0], [0.0], [1.0]])
    edge_index, distance = among(points, 2)
    assert edge_index[0].view(-1, 2).tolist() == [[1, 2], [0, 2], [0, 1], [0, 1], [0, 1]]
    assert distance[:4].eq(0).all() and distance[4].gt(0).all()


def test_gaussian_classes_are_those_of_the_definition() -> None:
    rng = np.random.default_rng(0)
    x, share = rng.normal(size=(30, 4)), rng.dirichlet(np.ones(3), size=30)
    mean = share.T @ x / share.sum(0)[:, None]
    within = np.zeros((4, 4))
    for i in range(30):
        for c in range(3):
            within += share[i, c] * np.outer(x[i] - mean[c], x[i] - mean[c]) / 30
    within = 0.8 * within + 0.2 * np.trace(within) / 4 * np.eye(4)
    gap = x[:, None] - mean
    expected = -0.5 * np.einsum("icd,de,ice->ic", gap, np.linalg.inv(within), gap)
    classes = GaussianClasses(torch.from_numpy(x))
    found = classes.fit(torch.from_numpy(share))(classes.x).numpy()
    differences = [values - values[:, :1] for values in (found, expected)]
    np.testing.assert_allclose(*differences, rtol=1e-9, atol=1e-12)
    rotated = classes.moments.leading(4)
    values = rotated.fit(torch.from_numpy(share))(rotated.x).numpy()
    np.testing.assert_allclose(values - values[:, :1], differences[0], rtol=1e-4, atol=1e-4)
    fewer = classes.moments.leading(2)
    assert fewer.x.shape == (30, 2) and fewer.width == 4
    assert fewer.trace == pytest.approx(classes.moments.trace, rel=1e-6)


def test_folds_leave_a_label_of_each_class() -> None:
    label = torch.tensor([0, 1, 1, 2, 2, 2, 2, 2, 2, 2, 1])
    without = folds(label)
    assert without.any(1).all() and without.sum(0).tolist() == [0] + [1] * 10
    for fold in without:
        assert set(label[~fold].tolist()) == {0, 1, 2}
    assert len(folds(torch.tensor([0, 1, 2]))) == 0


@pytest.mark.parametrize("right", ["graph", "features"])
def test_the_weight_follows_the_evidence(right) -> None:
    rng = torch.Generator().manual_seed(0)
    label = torch.arange(200) % 2
    says = label.clone()  # of the graph
    x = torch.randn(200, 2, dtype=torch.float64, generator=rng)
    if right == "features":
        x[:, 0] += 8 * label
        wrong = torch.arange(200) % 5 == 0
        says[wrong] = 1 - says[wrong]
    graph = torch.tensor([[0.9, 0.1], [0.1, 0.9]], dtype=torch.float64)[says]
    given = torch.arange(100)

    def diffuse(kept):
        for mask in kept:
            each = graph.clone()
            each[given[mask]] = torch.eye(2, dtype=torch.float64)[label[given[mask]]]
            yield each

    moments, even = Moments(x), torch.full((2,), 0.5, dtype=torch.float64)
    (known,) = diffuse(torch.ones(1, 100, dtype=torch.bool))
    order = (label if right == "graph" else x[:, 0]).argsort(stable=True)
    edges = torch.stack([order[:-1], order[1:]])  # that cut few
    for count in (100, 2):  # with two, there is nothing to leave out
        weight = learn_weight(
            moments, known, diffuse, given[:count], label[:count], even, edges, torch.zeros_like
        )
        assert weight == 1.0 if right == "features" else weight < 1.0
        share, _ = refine(moments, known, given, weight, even, torch.zeros_like)
        assert (share.argmax(1) == label).double().mean() > 0.98
    assert torch.equal(share[given], known[given])


@pytest.mark.parametrize("weight", [0.3, 1.0])
def test_one_round_is_that_of_the_formula(weight) -> None:
    rng = np.random.default_rng(0)
    x, diffused = rng.normal(size=(30, 4)), rng.dirichlet(np.ones(3), size=30)
    given, proportion = np.array([4, 7]), np.array([0.2, 0.5, 0.3])
    walk = rng.dirichlet(np.ones(30), size=30)
    classes = GaussianClasses(torch.from_numpy(x))
    likelihood = classes.fit(torch.from_numpy(diffused))(classes.x).numpy()
    logits = (1 - weight) * 2 * (np.log(diffused) + walk @ diffused) + weight * likelihood
    expected = np.exp(logits) * proportion / diffused.mean(0)
    expected /= expected.sum(1, keepdims=True)
    expected[given] = diffused[given]
    tensors = (torch.from_numpy(a) for a in (diffused, given))
    share, logits = refine(
        classes.moments,
        *tensors,
        weight,
        torch.from_numpy(proportion),
        lambda values: torch.from_numpy(walk) @ values,
        iterations=1,
    )
    np.testing.assert_allclose(share.numpy(), expected, rtol=1e-9)
    assert logits.weight == weight


def test_weights_side_by_side_are_each_alone() -> None:
    rng = torch.Generator().manual_seed(0)
    x, diffused = torch.randn(90, 4, generator=rng), torch.rand(90, 3, generator=rng) ** 4
    walk = torch.rand(90, 90, generator=rng).softmax(1)
    given, proportion = torch.tensor([4, 7]), torch.tensor([0.2, 0.5, 0.3])
    diffused /= diffused.sum(1, keepdim=True)
    rest = (proportion, lambda values: walk @ values)
    for moments in (Moments(x.double()).leading(4), Moments(x * torch.tensor([0, 0, 0, 1e-9]))):
        found = labels_by_weight(moments, diffused, given, FUSION.weights, *rest)
        for weight, own in zip(FUSION.weights, found.unbind(1), strict=True):
            share, _ = refine(moments, diffused, given, weight, *rest, FUSION.trial_iterations)
            assert torch.equal(own, share.argmax(1))


def test_cut_edges_and_probable_labels() -> None:
    label = torch.tensor([0, 0, 1, 1])
    assert cut(label, torch.tensor([[0, 1, 2, 3], [1, 2, 3, 2]])) == pytest.approx(0.25 / 0.5)
    assert cut(torch.zeros(4, dtype=torch.long), torch.tensor([[0], [1]])) == 0
    logits = torch.tensor([[4.0, 0.0], [0.0, 4.0], [100.0, -100.0]])
    assert log_probability(logits, torch.tensor([0, 1, 0])) == pytest.approx(0, abs=1e-6)
    wrong = log_probability(logits, torch.tensor([0, 1, 1]))
    losses = [2 * np.log1p(np.exp(-4 * s)) + min(30, 200 * s) for s in FUSION.temperatures]
    assert wrong == pytest.approx(-min(losses), rel=1e-5)
