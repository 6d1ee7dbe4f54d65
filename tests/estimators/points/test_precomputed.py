"""Graphs in place of points, weights of labels and several labels for each point."""

import numpy as np
import pytest
import scipy.sparse
import torch

pytest.importorskip("sklearn", reason="the classifier needs scikit-learn")

from sklearn.datasets import load_digits, make_blobs
from sklearn.metrics import pairwise_distances
from sklearn.metrics.pairwise import rbf_kernel
from sklearn.model_selection import cross_val_score

from torch_geometric_diff import DiffusionClassifier


@pytest.fixture(scope="module")
def digits():
    X, y = load_digits(return_X_y=True)
    return X[:300], np.where(np.arange(300) < 60, y[:300], -1), X[300:400]


def nearest_eight(distances):
    """The eight smallest of every row, of equal ones the first, as the classifier takes them."""
    near = np.argsort(distances, axis=1, kind="stable")[:, :8]
    row = np.repeat(np.arange(len(near)), 8)
    parts = distances[row, near.ravel()], (row, near.ravel())
    return scipy.sparse.csr_matrix(parts, shape=distances.shape)


@pytest.mark.parametrize("form", ["csr", "csc", "coo", "dense", "torch", "torch sparse"])
def test_distances_are_those_of_points(digits, form):
    X, few, new = digits
    fit, asked = pairwise_distances(X), pairwise_distances(new, X)
    if form not in ("dense", "torch"):
        fit, asked = nearest_eight(fit + np.diag(np.full(len(X), np.inf))), nearest_eight(asked)
    if form in ("csc", "coo"):
        fit, asked = fit.asformat(form), asked.asformat(form)
    if form == "torch":
        fit, asked = torch.from_numpy(fit), torch.from_numpy(asked)
    if form == "torch sparse":
        fit, asked = (
            torch.sparse_coo_tensor(np.stack(m.nonzero()), m.data, m.shape) for m in (fit, asked)
        )
    plain = DiffusionClassifier(feature_weight=0).fit(X, few)
    model = DiffusionClassifier(metric="precomputed").fit(fit, few)
    np.testing.assert_allclose(model.label_distributions_, plain.label_distributions_, atol=1e-6)
    np.testing.assert_allclose(model.predict_proba(asked), plain.predict_proba(new), atol=1e-6)


def test_distances_of_zero_are_copies():
    X = np.array([[0.0], [0.0], [1.0], [5.0], [5.0], [6.0]])
    distances = pairwise_distances(X)
    labels = [0, -1, -1, 1, -1, -1]
    model = DiffusionClassifier(n_neighbors=2, metric="precomputed")
    assert model.fit(distances, labels).transduction_.tolist() == [0, 0, 0, 1, 1, 1]
    assert model.predict(distances[[1, 4]]).tolist() == [0, 1]


@pytest.mark.parametrize("is_sparse", [True, False])
def test_affinities_are_the_weights_of_the_dense_walk(is_sparse):
    rng = np.random.default_rng(0)
    weight = np.triu(rng.random((12, 12)) * (rng.random((12, 12)) < 0.5), 1)
    weight += weight.T
    labels = np.array([0, 1, 2] + [-1] * 9)
    model = DiffusionClassifier(num_steps=4, metric="precomputed_affinity")
    X = scipy.sparse.csr_array(weight) if is_sparse else weight + np.diag(rng.random(12))
    model.fit(X, labels)
    degree = weight.sum(1, keepdims=True)
    source = np.eye(12)[:, :3] / degree
    total = sum(np.linalg.matrix_power(weight / degree, k) @ source for k in range(5))
    total[:3] = np.eye(3)
    expected = total / total.sum(1, keepdims=True)
    np.testing.assert_allclose(model.label_distributions_, expected, rtol=1e-9)
    rows = rng.random((3, 12))
    wanted = rows @ expected / rows.sum(1, keepdims=True)
    np.testing.assert_allclose(model.predict_proba(rows), wanted, rtol=1e-9)


def test_rows_without_neighbors_take_what_is_known_of_all():
    weight = np.zeros((5, 5))
    weight[0, 1] = weight[1, 0] = weight[2, 3] = weight[3, 2] = 1
    model = DiffusionClassifier(metric="precomputed_affinity").fit(weight, [0, -1, 1, -1, -1])
    np.testing.assert_allclose(model.label_distributions_[[1, 3, 4]], [[1, 0], [0, 1], [0.5, 0.5]])
    np.testing.assert_allclose(model.predict_proba(np.zeros((1, 5))), [[0.5, 0.5]])


def test_cross_validation_cuts_rows_and_columns():
    X, y = make_blobs(90, centers=3, random_state=0)
    model = DiffusionClassifier(metric="precomputed_affinity")
    assert cross_val_score(model, rbf_kernel(X), y, cv=3).mean() > 0.8
    model = DiffusionClassifier(metric="precomputed")
    assert cross_val_score(model, pairwise_distances(X), y, cv=3).mean() > 0.8


@pytest.mark.parametrize(
    ("metric", "X", "message"),
    [
        ("precomputed", np.zeros((3, 2)), "'X' of a precomputed 'metric' to be square"),
        ("precomputed", np.eye(3), "zeros on its diagonal; affinities take"),
        ("precomputed", np.array([[0, -1, 1], [1, 0, 1], [1, 1, 0.0]]), "distances to be at least"),
        ("precomputed_affinity", -np.ones((3, 3)), "affinities to be at least 0"),
    ],
)
def test_bad_matrices_are_named(metric, X, message):
    with pytest.raises(ValueError, match=message):
        DiffusionClassifier(metric=metric).fit(X, [0, 1, -1])


def test_a_graph_has_no_features():
    with pytest.raises(ValueError, match="'feature_weight' to be 'auto' or 0"):
        DiffusionClassifier(metric="precomputed", feature_weight=0.5).fit(1 - np.eye(3), [0, 1, -1])


# weights of labels ################################################################################


def test_weights_are_copies(digits):
    X, few, new = digits
    weight = np.where(few >= 0, 1 + np.arange(300) % 3, 7)
    copies = np.repeat(np.arange(300), np.where(few >= 0, weight, 1))
    weighted = DiffusionClassifier().fit(X, few, sample_weight=weight)
    repeated = DiffusionClassifier().fit(X[copies], few[copies])
    np.testing.assert_allclose(weighted.predict_proba(new), repeated.predict_proba(new), rtol=1e-6)


def test_a_labeled_point_of_weight_zero_is_left_out(digits):
    X, few, new = digits
    weight = np.where(np.arange(300) < 5, 0.0, 1.0)
    model = DiffusionClassifier().fit(X, few, sample_weight=weight)
    plain = DiffusionClassifier().fit(X[5:], few[5:])
    np.testing.assert_array_equal(model.predict_proba(new), plain.predict_proba(new))
    assert model.transduction_.shape == (300,) and (model.transduction_[:5] == few[:5]).all()
    matrix = pairwise_distances(X)
    model = DiffusionClassifier(metric="precomputed").fit(matrix, few, weight)
    plain = DiffusionClassifier(metric="precomputed").fit(matrix[5:, 5:], few[5:])
    rows = pairwise_distances(new, X)
    np.testing.assert_array_equal(model.predict_proba(rows), plain.predict_proba(rows[:, 5:]))


def test_heavier_labels_win():
    X = np.linspace(0, 1, 21)[:, None]
    few = np.full(21, -1)
    few[[0, 20]] = 0, 1
    share = [
        (
            DiffusionClassifier(2, feature_weight=0).fit_predict(X, few, np.where(few == 1, w, 1.0))
            == 1
        ).mean()
        for w in (0.2, 1.0, 5.0)
    ]
    assert share[0] < share[1] < share[2]


@pytest.mark.parametrize(
    ("weight", "message"),
    [(np.zeros(300), "non-zero|to leave a labeled point"), (-np.ones(300), "egative")],
)
def test_bad_weights_are_named(digits, weight, message):
    X, few, _ = digits
    with pytest.raises(ValueError, match=message):
        DiffusionClassifier().fit(X, few, sample_weight=weight)


def test_copies_with_different_labels():
    X = np.repeat(np.arange(6.0)[:, None], 2, axis=0)
    labels = [0, 1, -1, -1, -1, -1, -1, -1, 1, 1, -1, -1]
    model = DiffusionClassifier(2, feature_weight=0).fit(X, labels)
    assert model.transduction_[:2].tolist() == [0, 1] and (model.transduction_[8:] == 1).all()


# several labels for each point ####################################################################


def test_columns_are_each_alone(digits):
    X, few, new = digits
    both = np.stack([few, np.where(few < 0, -1, few % 2)], axis=1)
    both[70:90, 1] = 1  # a label of one column alone
    model = DiffusionClassifier().fit(X, both)
    assert model.transduction_.shape == (300, 2) and model.predict(new).shape == (100, 2)
    assert [classes.tolist() for classes in model.classes_] == [list(range(10)), [0, 1]]
    for column in (0, 1):
        alone = DiffusionClassifier().fit(X, both[:, column])
        np.testing.assert_array_equal(alone.transduction_, model.transduction_[:, column])
        np.testing.assert_array_equal(alone.predict_proba(new), model.predict_proba(new)[column])


@pytest.mark.parametrize("form", ["list", "frame", "sparse", "tensor", "float"])
def test_forms_of_indicators(digits, form):
    X, few, _ = digits
    y = np.stack([few % 2, few % 3 == 0, few > 4], axis=1).astype(int)
    expected = DiffusionClassifier(feature_weight=0).fit(X, y).transduction_
    if form == "frame":
        y = pytest.importorskip("pandas", reason="pandas is not installed").DataFrame(y)
    else:
        y = {
            "list": y.tolist(),
            "sparse": scipy.sparse.csr_matrix(y),
            "tensor": torch.from_numpy(y),
            "float": y.astype(float),
        }[form]
    found = DiffusionClassifier(feature_weight=0).fit(X, y).transduction_
    np.testing.assert_array_equal(found, expected)


def test_a_column_without_labels_is_named(digits):
    X, few, _ = digits
    with pytest.raises(ValueError, match="'y' to hold a label"):
        DiffusionClassifier().fit(X, np.stack([few, np.full(300, -1)], axis=1))


def test_priors_are_of_one_column(digits):
    X, few, _ = digits
    with pytest.raises(ValueError, match="'priors' to be None for 'y' of several columns"):
        DiffusionClassifier(priors=[0.5, 0.5]).fit(X, np.stack([few, few], axis=1))


@pytest.mark.parametrize("metric", ["euclidean", "precomputed"])
def test_given_shares_are_those_of_the_labels(metric):
    X, y = make_blobs([60, 30, 90], cluster_std=2.0, random_state=0)
    few = np.full(180, -1)
    for c in range(3):
        few[np.flatnonzero(y == c)[:3]] = c
    shares = np.array([1 / 3, 1 / 6, 1 / 2])
    data = X if metric == "euclidean" else pairwise_distances(X)
    model = DiffusionClassifier(metric=metric, priors=shares).fit(data, few)
    np.testing.assert_allclose(np.bincount(model.transduction_) / 180, shares, atol=0.03)
    plain = DiffusionClassifier(metric=metric).fit(data, few)
    assert (model.transduction_ == y).mean() >= (plain.transduction_ == y).mean()
    assert (model.predict(data) == y).mean() > 0.7
