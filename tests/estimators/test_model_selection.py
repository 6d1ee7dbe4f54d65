"""Folds, likelihoods, ridge regression and stacking, against brute force."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from torch_geometric_diff.estimators import model_selection
from torch_geometric_diff.estimators.model_selection import (
    UNIFORM,
    calibrate,
    fit_ridge,
    log_likelihood,
    ridge_path,
    significantly_better,
    stack,
    stratified_folds,
    stratified_sample,
)


def solved(x: Tensor, target: Tensor, weight: Tensor, ridge: float) -> Tensor:
    """The coefficients of a weighted ridge regression, by its normal equations."""
    x, target, weight = x.double(), target.double(), weight.double()
    identity = ridge * torch.eye(x.size(1), dtype=torch.float64)
    return torch.linalg.solve(
        x.t() @ (weight[:, None] * x) + identity, x.t() @ (weight[:, None] * target)
    )


@pytest.mark.parametrize("width", [4, 40])  # fewer and more features than rows
def test_every_score_is_that_of_the_other_rows(width: int) -> None:
    x = torch.randn(15, width)
    target = F.one_hot(torch.arange(15) % 3)
    weight = torch.rand(15).double() + 0.1
    weight[[2, 7, 9]] = 0  # only predicted
    unit = float((weight * x.double().square().sum(dim=1)).sum() / weight.sum())
    for ridge, penalty in zip(
        ridge_path(x, target, weight), model_selection.PENALTIES, strict=True
    ):
        assert ridge.penalty == penalty
        expected = solved(x, target, weight, penalty * unit)
        torch.testing.assert_close(ridge.coefficients, expected, rtol=1e-5, atol=1e-7)
        for i in range(15):
            others = weight.clone()
            others[i] = 0
            own = x[i].double() @ solved(x, target, others, penalty * unit)
            torch.testing.assert_close(ridge.scores[i], own, rtol=1e-5, atol=1e-7)


def test_fitted_ridge_is_the_one_whose_held_out_labels_are_most_likely() -> None:
    labels = torch.arange(60) % 3
    x = torch.randn(60, 8)
    x[:, :3] += 2 * F.one_hot(labels)
    ridge = fit_ridge(x, labels, 3)
    each = {
        (path.penalty, scale): float(log_likelihood(scale * path.scores, labels).mean())
        for path in ridge_path(x, F.one_hot(labels))
        for scale in model_selection.SCALES
    }
    penalty, scale = max(each, key=lambda key: each[key])
    assert ridge.penalty == penalty and scale > 0
    assert float(log_likelihood(ridge.scores, labels).mean()) == pytest.approx(each[penalty, scale])
    [same] = [path for path in ridge_path(x, F.one_hot(labels)) if path.penalty == penalty]
    torch.testing.assert_close(ridge.coefficients, scale * same.coefficients)


def test_no_label_is_impossible() -> None:
    logits = torch.tensor([[100.0, 0.0], [0.0, 0.0]], dtype=torch.float64)
    labels = torch.tensor([1, 1])
    expected = torch.tensor([UNIFORM / 2, 0.5], dtype=torch.float64).log()
    torch.testing.assert_close(log_likelihood(logits, labels), expected)
    assert calibrate(-logits[:1], labels[:1])[0] > 0  # right: a large scale
    assert calibrate(logits[:1], labels[:1]) == (0.0, pytest.approx(-0.6931, abs=1e-4))


@pytest.mark.parametrize("period", [1, 3])
def test_folds_and_samples_keep_the_shares_of_the_classes(period: int) -> None:
    labels = (torch.arange(9000) // (3000 // period) if period == 1 else torch.arange(9000)) % 3
    folds = stratified_folds(labels, 4)
    for fold in range(4):
        assert labels[folds == fold].bincount().tolist() == [750, 750, 750]
    sample = stratified_sample(labels, 1000)
    assert len(sample) == 1000 and bool((sample.diff() > 0).all())
    assert set(labels[sample].bincount().tolist()) <= {333, 334}
    assert torch.equal(stratified_sample(labels, 10_000), torch.arange(9000))


def test_samples_of_unequal_classes_and_folds_of_few_labels() -> None:
    labels = torch.tensor([0] * 800 + [1] * 150 + [2] * 50)
    assert labels[stratified_sample(labels, 100)].bincount().tolist() == [80, 15, 5]
    assert sorted(stratified_folds(torch.zeros(7, dtype=torch.long), 5).tolist()) == [
        0,
        0,
        1,
        1,
        2,
        3,
        4,
    ]
    assert stratified_folds(torch.tensor([0, 1, 2]), 4).tolist() == [0, 1, 2]


def test_what_is_significantly_better() -> None:
    better, worse = torch.zeros(9), torch.full((9,), -1.0)
    assert significantly_better(better, worse) and not significantly_better(worse, better)
    assert not significantly_better(better, better)
    worse[1:] = 0  # one label alone is no evidence
    assert not significantly_better(better, worse)


def test_stacking_makes_the_mixture_most_likely(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_selection, "ADVANCE", 0.0)
    first = torch.tensor([0.8, 0.8, 0.8, 0.2], dtype=torch.float64).log()
    second = torch.tensor([0.2, 0.2, 0.2, 0.8], dtype=torch.float64).log()
    weights = stack({"first": first, "second": second})
    # 3 log(0.2 + 0.6 w) + log(0.8 - 0.6 w) is largest at w = 11/12
    assert weights["first"] == pytest.approx(11 / 12, abs=1e-3)
    assert sum(weights.values()) == pytest.approx(1.0)


def test_the_first_has_an_advance_unless_labels_speak_against_it() -> None:
    even = torch.full((9,), 0.5, dtype=torch.float64).log()
    doubted = even - torch.arange(9) % 2
    assert stack({"first": doubted, "second": even})["first"] > 0.4
    assert stack({"second": even, "first": doubted})["first"] < 0.1
    assert stack({"first": even - 9, "second": even})["first"] < 0.01
