"""DiffusionRegressor against dense float64 algebra."""

import doctest

import numpy as np
import pytest
import torch

pytest.importorskip("sklearn", reason="the regressor needs scikit-learn")

from sklearn.base import clone
from sklearn.datasets import load_diabetes
from sklearn.linear_model import Ridge
from sklearn.neighbors import kneighbors_graph
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from torch_geometric_diff import DiffusionRegressor
from torch_geometric_diff.estimators.points.graph import (
    HeatGraph,
    ResolventKernel,
    inverse_root,
)
from torch_geometric_diff.estimators.points.kernel_regression import Candidate


@parametrize_with_checks([DiffusionRegressor(), DiffusionRegressor(form="harmonic")])
def test_scikit_learn_checks(estimator, check):
    check(estimator)


def ring(count: int = 60) -> tuple[np.ndarray, np.ndarray]:
    angle = 2 * np.pi * np.arange(count) / count
    return np.stack([np.cos(angle), np.sin(angle)], axis=1), np.sin(angle) + 0.3 * np.cos(2 * angle)


def dense_graph(seed: int = 0, count: int = 12) -> tuple[HeatGraph, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    weight = torch.rand(count, count, generator=generator, dtype=torch.float64).triu(1)
    weight = torch.where(weight > 0.5, weight, 0) + torch.diag(torch.ones(count - 1).double(), 1)
    edge_index = weight.nonzero().t()
    return HeatGraph(edge_index, weight[edge_index[0], edge_index[1]], count), weight + weight.T


@pytest.mark.parametrize("horizon", [1.5, 10.0, 1000.0])
def test_the_kernel_is_that_of_the_dense_matrix(horizon):
    graph, dense = dense_graph()
    degree = dense.sum(1)
    resolvent = torch.linalg.inv(torch.diag(degree) - (1 - 1 / horizon) * dense)
    expected = resolvent - horizon / degree.sum()  # without the constant functions
    kernel = ResolventKernel(graph, horizon, 1e-9, torch.eye(12, dtype=torch.float64))
    nodes = torch.tensor([3, 0, 7])
    torch.testing.assert_close(
        kernel.scale * kernel.columns(nodes), expected[:, nodes], rtol=1e-6, atol=1e-7
    )
    torch.testing.assert_close(
        kernel.scale * kernel.variance, expected.diagonal(), rtol=1e-6, atol=1e-7
    )


def test_the_polynomial_is_an_inverse_root():
    x = np.linspace(-1, 1, 101)
    for gamma in (0.0, 0.5, 0.999):
        recurrence = inverse_root(gamma, 1e-9)
        value = np.polynomial.chebyshev.chebval(x, list(recurrence.w))
        np.testing.assert_allclose(value, (1 - gamma * x) ** -0.5, rtol=1e-6)


def test_probes_estimate_the_variances():
    X, y = ring(900)
    few = np.where(np.arange(900) % 90 == 0, y, np.nan)
    std = DiffusionRegressor().fit(X, few).transduction_std_
    # the ring looks the same from each target
    near, far = std.reshape(10, 90)[:, 0], std.reshape(10, 90)[:, 45]
    assert (near < far).all() and far.std() < 0.2 * far.mean()


@pytest.mark.parametrize("seed", range(3))
def test_harmonic_targets_solve_the_dense_system(seed):
    rng = np.random.default_rng(seed)
    weight = np.triu(rng.random((20, 20)) * (rng.random((20, 20)) < 0.3), 1)
    weight[np.arange(19), np.arange(1, 20)] = 1
    weight += weight.T
    y = np.full(20, np.nan)
    y[[2, 9, 15]] = rng.normal(size=3)
    model = DiffusionRegressor(form="harmonic", metric="precomputed_affinity").fit(weight, y)
    laplacian = np.diag(weight.sum(1)) - weight
    known = ~np.isnan(y)
    expected = y.copy()
    expected[~known] = np.linalg.solve(
        laplacian[np.ix_(~known, ~known)], -laplacian[np.ix_(~known, known)] @ y[known]
    )
    np.testing.assert_allclose(model.transduction_, expected, atol=2e-3)
    assert (model.transduction_std_[known] < model.transduction_std_[~known].min()).all()


def test_a_candidate_is_the_closed_form():
    rng = np.random.default_rng(0)
    features = rng.normal(size=(9, 4))
    kernel, target, weight = features @ features.T, rng.normal(size=6), rng.random(6) + 0.5
    signal = 0.7
    covariance = signal * kernel[:6, :6] + np.diag((1 - signal) / weight)
    inverse = np.linalg.inv(covariance)
    mean = inverse.sum(0) @ target / inverse.sum()
    scale = (target - mean) @ inverse @ (target - mean) / 3
    cross = signal * kernel[6:, :6]
    expected = mean + cross @ inverse @ (target - mean)
    variance = signal * np.diag(kernel)[6:] - np.einsum("ij,jk,ik->i", cross, inverse, cross)
    variance += 1 - signal + (1 - cross @ inverse.sum(1)) ** 2 / inverse.sum()
    tensors = [torch.from_numpy(a) for a in (kernel, target, weight)]
    candidate = Candidate(0, 1.0, signal).fit(tensors[0][:6, :6], *tensors[1:])
    found = candidate.predict(tensors[0][6:, :6], tensors[0].diagonal()[6:])
    np.testing.assert_allclose(found[0], expected, rtol=1e-6)
    np.testing.assert_allclose(found[1], scale * variance, rtol=1e-6)


def test_poisson_is_the_sum_of_sources():
    X, y = ring()
    few = np.where(np.arange(60) % 6 == 0, y, np.nan)
    model = DiffusionRegressor(form="poisson").fit(X, few)
    poisson = model._outputs[0].model
    nodes = np.flatnonzero(~np.isnan(few))
    kernel = model._kernels[poisson.horizon].columns(torch.from_numpy(nodes)).numpy()
    expected = y[nodes].mean() + poisson.scale * kernel @ (y[nodes] - y[nodes].mean())
    np.testing.assert_allclose(model.transduction_, expected, rtol=1e-9)
    assert np.corrcoef(model.transduction_, y)[0, 1] > 0.9


def test_outputs_are_each_alone_and_may_lack_other_targets():
    X, y = ring()
    both = np.stack([y, np.roll(y, 7)], axis=1)
    both[np.arange(60) % 5 > 0, 0] = np.nan
    both[np.arange(60) % 7 > 0, 1] = np.nan
    model = DiffusionRegressor().fit(X, both)
    mean, std = model.predict(X + 0.01, return_std=True)
    assert mean.shape == std.shape == model.transduction_.shape == (60, 2)
    for column in (0, 1):
        alone = clone(model).fit(X, both[:, column])
        np.testing.assert_allclose(alone.transduction_, model.transduction_[:, column])
        own = alone.predict(X + 0.01, return_std=True)
        np.testing.assert_allclose(own, (mean[:, column], std[:, column]))


@pytest.mark.parametrize("factor, shift", [(1e-200, 0.0), (1e200, 0.0), (1.0, 1e6), (-3.0, 5.0)])
def test_targets_of_any_scale(factor, shift):
    X, y = ring()
    few = np.where(np.arange(60) % 6 == 0, y, np.nan)
    plain = DiffusionRegressor().fit(X, few)
    model = DiffusionRegressor().fit(X, factor * few + shift)
    np.testing.assert_allclose(
        (model.transduction_ - shift) / factor, plain.transduction_, rtol=1e-4, atol=1e-4
    )
    np.testing.assert_allclose(
        model.transduction_std_ / abs(factor), plain.transduction_std_, rtol=1e-4
    )


def test_missing_targets_in_all_their_forms():
    X, y = ring()
    known = np.arange(60) % 6 == 0
    expected = DiffusionRegressor().fit(X, np.where(known, y, np.nan)).transduction_
    forms = [
        [value if k else None for value, k in zip(y, known, strict=True)],
        np.ma.masked_array(y, ~known),
        torch.from_numpy(np.where(known, y, np.nan)),
    ]
    for form in forms:
        np.testing.assert_array_equal(DiffusionRegressor().fit(X, form).transduction_, expected)


@pytest.mark.parametrize(
    ("y", "message"),
    [
        ([np.nan] * 60, "'y' to hold a target"),
        ([np.inf] * 60, "'y' to hold finite numbers"),
        (["a"] * 60, "'y' to hold numbers"),
        (None, "Expected 'y'"),
    ],
)
def test_bad_targets_are_named(y, message):
    with pytest.raises(ValueError, match=message):
        DiffusionRegressor().fit(ring()[0], y)


def test_bad_form_is_named():
    with pytest.raises(ValueError, match="'form' to be 'auto', 'harmonic' or 'poisson'"):
        DiffusionRegressor(form="laplace").fit(*ring())


def test_a_precomputed_graph_is_that_of_points_without_features():
    X, y = ring()
    few = np.where(np.arange(60) % 6 == 0, y, np.nan)
    distances = kneighbors_graph(X, 8, mode="distance")
    model = DiffusionRegressor(form="harmonic", metric="precomputed").fit(distances, few)
    plain = DiffusionRegressor(form="harmonic").fit(X, few)
    np.testing.assert_allclose(model.transduction_, plain.transduction_, atol=1e-6)


def test_two_and_one_targets():
    X, y = ring()
    for count in (1, 2, 3):
        few = np.where(np.arange(60) < count, y, np.nan)
        model = DiffusionRegressor().fit(X, few)
        assert np.isfinite(model.transduction_).all()
        assert np.isinf(model.transduction_std_).all() == (count == 1)


def test_errors_are_covered_and_below_those_of_ridge():
    X, y = load_diabetes(return_X_y=True)
    X = StandardScaler().fit_transform(X)
    error, other, covered = [], [], []
    for seed in range(8):
        known = np.random.default_rng([seed, 7]).choice(len(y), 20, replace=False)
        few = np.full(len(y), np.nan)
        few[known] = y[known]
        rest = np.isnan(few)
        model = DiffusionRegressor().fit(X, few)
        gap = (model.transduction_ - y)[rest]
        error.append(np.square(gap).mean())
        covered.append((np.abs(gap) < 2 * model.transduction_std_[rest]).mean())
        ridge = Ridge().fit(X[known], y[known]).predict(X)
        other.append(np.square(ridge - y)[rest].mean())
    assert np.mean(error) < np.mean(other) and 0.88 < np.mean(covered) < 0.995


def test_the_examples_of_the_docstring():
    from torch_geometric_diff.estimators.points import diffusion_regressor as estimator

    result = doctest.testmod(estimator)
    assert result.attempted > 6 and result.failed == 0
