"""How likely labels are, and what is weighed by it."""

import pytest
import torch

from torch_geometric_diff.estimators.model_selection import (
    BLUR,
    calibrated,
    left_out,
    log_likelihood,
    regressed,
    stacked,
    surely_better,
)


def test_left_out_is_the_ridge_regression_of_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch_geometric_diff.estimators.model_selection.RIDGES", (0.1,))
    monkeypatch.setattr("torch_geometric_diff.estimators.model_selection.SCALES", (1.0,))
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(30, 5, generator=generator, dtype=torch.float64)
    target = torch.nn.functional.one_hot(torch.arange(30) % 3).double()
    x[:, :3] += target
    ridge = 0.1 * x.square().sum(1).mean() * torch.eye(5, dtype=torch.float64)
    found = left_out(x, target)
    for i in range(30):
        others = torch.arange(30) != i
        a, b = x[others], target[others]
        expected = x[i] @ torch.linalg.solve(a.t() @ a + ridge, a.t() @ b)
        torch.testing.assert_close(found[i], expected)


def test_likelihood_is_never_certain() -> None:
    logits = torch.tensor([[100.0, 0.0], [0.0, 0.0]], dtype=torch.float64)
    known = torch.tensor([1, 1])
    expected = torch.tensor([BLUR / 2, 0.5], dtype=torch.float64).log()
    torch.testing.assert_close(log_likelihood(logits, known), expected)
    assert calibrated(-logits[:1], known[:1])[0] > 0
    assert calibrated(logits[:1], known[:1]) == (0.0, pytest.approx(-0.6931, abs=1e-4))


def test_what_is_surely_better() -> None:
    better, worse = torch.zeros(9), torch.full((9,), -1.0)
    assert surely_better(better, worse) and not surely_better(worse, better)
    assert not surely_better(better, better)
    worse[1:] = 0  # one label alone is no evidence
    assert not surely_better(better, worse)


def test_weights_make_the_mixture_most_likely(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch_geometric_diff.estimators.model_selection.ASSUMED", 0.0)
    first = torch.tensor([0.8, 0.8, 0.8, 0.2], dtype=torch.float64).log()
    second = torch.tensor([0.2, 0.2, 0.2, 0.8], dtype=torch.float64).log()
    weights = stacked({"first": first, "second": second})
    # 3 log(0.2 + 0.6 w) + log(0.8 - 0.6 w) is largest at w = 11/12
    assert weights["first"] == pytest.approx(11 / 12, abs=1e-3)
    assert sum(weights.values()) == pytest.approx(1.0)


def test_the_first_has_an_advance_unless_labels_speak_against_it() -> None:
    even = torch.full((9,), 0.5, dtype=torch.float64).log()
    doubted = even - torch.arange(9) % 2
    assert stacked({"first": doubted, "second": even})["first"] > 0.4
    assert stacked({"second": even, "first": doubted})["first"] < 0.1
    assert stacked({"first": even - 9, "second": even})["first"] < 0.01


def test_regressed_nodes_are_told_by_the_others_and_all_by_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("torch_geometric_diff.estimators.model_selection.RIDGES", (0.1,))
    monkeypatch.setattr("torch_geometric_diff.estimators.model_selection.SCALES", (1.0,))
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(40, 5, generator=generator, dtype=torch.float64)
    nodes = torch.arange(39, 9, -1)
    target = torch.nn.functional.one_hot(torch.arange(30) % 3).double()
    x[nodes, :3] += target
    logits, scores = regressed(x, nodes, target)
    torch.testing.assert_close(scores, left_out(x[nodes], target))
    seen = x[nodes]
    ridge = 0.1 * seen.square().sum(1).mean() * torch.eye(5, dtype=torch.float64)
    expected = x @ torch.linalg.solve(seen.t() @ seen + ridge, seen.t() @ target)
    torch.testing.assert_close(logits, expected)
