import doctest
import subprocess
import sys

import numpy as np
import pytest
import torch

pytest.importorskip("sklearn", reason="the classifier needs scikit-learn")

from sklearn.datasets import load_digits, make_blobs, make_moons
from sklearn.utils.estimator_checks import parametrize_with_checks

from torch_geometric_diff import DiffusionClassifier
from torch_geometric_diff.estimators.points.graph import HeatGraph


@parametrize_with_checks([DiffusionClassifier()])
def test_scikit_learn_checks(estimator, check):
    check(estimator)


@pytest.mark.parametrize("num_steps", [1, 2, 7, 100])
def test_heat_is_that_of_the_dense_matrix(num_steps):
    edge_index = torch.tensor([[1, 0, 2, 1, 3], [0, 1, 1, 2, 2]])
    weight = torch.rand(5, dtype=torch.float64)
    dense = torch.zeros(4, 4, dtype=torch.float64)
    dense[edge_index[1], edge_index[0]] = weight
    dense = dense + dense.T
    degree = dense.sum(1, keepdim=True)
    heat = torch.rand(2, 3, dtype=torch.float64)
    source = torch.zeros(4, 3, dtype=torch.float64)
    source[[3, 0]] = heat
    walk = dense / degree
    expected = sum(
        torch.linalg.matrix_power(walk, k) @ (source / degree) for k in range(num_steps + 1)
    )
    graph = HeatGraph(edge_index, weight, 4)
    torch.testing.assert_close(graph.heat(torch.tensor([3, 0]), heat, num_steps), expected)
    torch.testing.assert_close(graph.mean(source), walk @ source)


def test_label_distributions_by_hand():
    """Four points on a line, each joined to its nearest."""
    X = np.array([[0.0], [1.0], [3.0], [5.5]])
    model = DiffusionClassifier(n_neighbors=1, num_steps=3, feature_weight=0).fit(
        X, np.array([3, -1, -1, 7])
    )
    # every r is the last, so all weights are e^-8; 0 and 1 choose each other
    w = np.exp(-8.0) * np.array([[0, 2, 0, 0], [2, 0, 1, 0], [0, 1, 0, 1], [0, 0, 1, 0]])
    degree = w.sum(1, keepdims=True)
    y = np.array([[1.0, 0], [0, 0], [0, 0], [0, 1]])
    u = sum(np.linalg.matrix_power(w / degree, k) @ (y / degree) for k in range(4))
    u[[0, 3]] = y[[0, 3]]  # given labels are kept
    assert np.allclose(model.label_distributions_, u / u.sum(1, keepdims=True))
    assert model.transduction_.tolist() == [3, 3, 7, 7] and model.classes_.tolist() == [3, 7]


def test_one_label_per_moon_is_enough():
    X, y = make_moons(400, noise=0.05, random_state=0)
    few = np.full(400, -1)
    for c in (0, 1):
        few[np.flatnonzero(y == c)[0]] = c
    model = DiffusionClassifier().fit(X, few)
    assert (model.transduction_ == y).mean() > 0.98
    assert np.array_equal(model.transduction_[few != -1], few[few != -1])
    new, target = make_moons(200, noise=0.05, random_state=1)
    assert (model.predict(new) == target).mean() > 0.97
    assert np.array_equal(model.predict(new), model.classes_[model.predict_proba(new).argmax(1)])


def test_points_that_no_source_reaches_follow_their_neighbors():
    X, y = make_blobs(90, centers=[[0, 0], [50, 0], [0, 200]], cluster_std=0.5, random_state=0)
    few = np.full(90, -1)
    few[np.flatnonzero(y == 0)[0]], few[np.flatnonzero(y == 1)[0]] = 0, 1
    model = DiffusionClassifier().fit(X, few)
    assert np.isfinite(model.label_distributions_).all()
    assert np.allclose(model.label_distributions_.sum(1), 1)
    assert (model.transduction_[y == 2] == 0).all(), "the blob at (0, 200) lies nearer to (0, 0)"
    assert (model.transduction_[y != 2] == y[y != 2]).all()


def test_duplicates_cosine_and_single_precision():
    X, y = load_digits(return_X_y=True)
    X, y = X[:300].astype(np.float32), y[:300]
    few = np.where(np.arange(300) < 60, y, -1)
    plain = DiffusionClassifier().fit(X, few)
    assert plain.label_distributions_.dtype == np.float32
    double = DiffusionClassifier().fit(X.astype(np.float64), few)
    assert np.allclose(plain.label_distributions_, double.label_distributions_, atol=1e-4)
    cosine = DiffusionClassifier(metric="cosine")
    scale = np.random.default_rng(0).uniform(0.1, 10, size=(300, 1)).astype(np.float32)
    assert np.array_equal(cosine.fit_predict(X, few), cosine.fit_predict(X * scale, few))
    assert (cosine.transduction_ == y).mean() > 0.9
    assert (cosine.predict(X * scale) == y).mean() > 0.85
    copies = np.repeat(X[:40], 8, axis=0)
    labels = np.where(np.arange(320) % 8 == 0, np.repeat(y[:40], 8), -1)
    assert np.array_equal(DiffusionClassifier().fit_predict(copies, labels), np.repeat(y[:40], 8))


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"n_neighbors": 0}, "'n_neighbors' to be a positive integer"),
        ({"num_steps": 2.5}, "'num_steps' to be a positive integer"),
        ({"device": "abacus"}, "'device' to be one that computes"),
        ({"device": "meta"}, "'device' to be one that computes"),
        ({"metric": "manhattan"}, "'metric' to be 'euclidean', 'cosine', 'precomputed'"),
        ({"feature_weight": 1.5}, "'feature_weight' to be 'auto' or a number from 0 to 1"),
        ({"feature_weight": -0.1}, "'feature_weight' to be 'auto' or a number from 0 to 1"),
        ({"feature_weight": float("nan")}, "'feature_weight' to be 'auto' or a number"),
        ({"feature_weight": True}, "'feature_weight' to be 'auto' or a number"),
        ({"feature_weight": "learned"}, "'feature_weight' to be 'auto' or a number"),
    ],
)
def test_bad_parameters_are_named(parameters, message):
    with pytest.raises(ValueError, match=message):
        DiffusionClassifier(**parameters).fit(np.eye(4), [0, 1, -1, -1])


def test_minus_one_and_one_alone_are_two_classes():
    X, y = make_blobs(60, centers=2, random_state=0)
    assert (DiffusionClassifier().fit_predict(X, 2 * y - 1) == 2 * y - 1).all()
    model = DiffusionClassifier().fit(X, np.where(np.arange(60) < 20, 2 * y - 1, 0))
    assert model.classes_.tolist() == [0, 1], "with a third number, -1 stands for no label"


def test_no_label_at_all_is_refused():
    with pytest.raises(ValueError, match="'y' to hold a label"):
        DiffusionClassifier().fit(np.eye(4), [-1] * 4)


def test_the_package_does_without_scikit_learn():
    code = (
        "import sys; sys.modules['sklearn'] = None\n"
        "import torch_geometric_diff as p\n"
        "try: p.DiffusionClassifier\n"
        "except ImportError: print('on demand')"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "on demand"


def test_new_points_far_from_the_origin() -> None:
    X, y = make_blobs(800, centers=4, n_features=2, cluster_std=0.3, random_state=0)
    few = np.full(400, -1)
    few[:40] = y[:40]
    for offset in (0.0, 1e4, 1e5):
        moved = (X + offset).astype(np.float32)
        model = DiffusionClassifier().fit(moved[:400], few)
        assert (model.predict(moved[400:]) == y[400:]).mean() > 0.95


def test_the_examples_of_the_docstring():
    pytest.importorskip("pandas", reason="pandas is not installed")
    from torch_geometric_diff.estimators.points import diffusion_classifier as estimator

    found = doctest.testmod(estimator)
    assert found.attempted > 15 and found.failed == 0
