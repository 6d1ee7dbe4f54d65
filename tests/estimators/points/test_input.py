"""What DiffusionClassifier is given: labels of any type, far and tiny points, numbers, devices."""

import numpy as np
import pytest
import scipy.sparse
import torch

pytest.importorskip("sklearn", reason="the classifier needs scikit-learn")

from sklearn.datasets import load_digits, make_blobs
from sklearn.model_selection import GridSearchCV

from torch_geometric_diff import DiffusionClassifier
from torch_geometric_diff.estimators.points.labels import read_labels

LINE = np.array([[0.0], [0.1], [0.2], [5.0], [5.1], [5.2]])


@pytest.mark.parametrize(
    "y",
    [
        ["a", -1, -1, "b", -1, -1],
        ["a", None, None, "b", None, None],
        ["a", np.nan, None, "b", -1, -1.0],
        np.array(["a", -1, -1, "b", -1, -1], dtype=object),
        np.array(["a", None, np.nan, "b", -1, None], dtype=object),
        np.ma.array(list("axxbxx"), mask=[0, 1, 1, 0, 1, 1]),
        np.array([["a"], [None], [None], ["b"], [None], [None]], dtype=object).ravel(),
    ],
)
def test_texts_without_a_label(y) -> None:
    model = DiffusionClassifier(n_neighbors=2).fit(LINE, y)
    assert model.classes_.tolist() == ["a", "b"]
    assert model.transduction_.tolist() == list("aaabbb")


@pytest.mark.parametrize(
    "y",
    [
        [3, -1, -1, 7, -1, -1],
        [3.0, np.nan, np.nan, 7.0, np.nan, np.nan],
        np.array([3, np.nan, -1, 7, np.nan, -1]),
        [3, None, None, 7, None, None],
        np.ma.array([3, 0, 0, 7, 0, 0], mask=[0, 1, 1, 0, 1, 1]),
        torch.tensor([3, -1, -1, 7, -1, -1]),
    ],
)
def test_numbers_without_a_label(y) -> None:
    model = DiffusionClassifier(n_neighbors=2).fit(LINE, y)
    assert model.classes_.tolist() == [3, 7]
    assert model.transduction_.tolist() == [3, 3, 3, 7, 7, 7]


def test_booleans_without_a_label() -> None:
    model = DiffusionClassifier(n_neighbors=2).fit(LINE, [False, None, None, True, None, None])
    assert model.transduction_.tolist() == [False] * 3 + [True] * 3


@pytest.mark.parametrize("kind", ["str", "string", "category", "object", "Int64", "boolean"])
def test_pandas_columns_with_gaps(kind) -> None:
    pd = pytest.importorskip("pandas", reason="pandas is not installed")
    low, high = {"Int64": (3, 7), "boolean": (False, True)}.get(kind, ("a", "b"))
    y = pd.Series([low, None, None, high, None, None], dtype=kind)
    for given in (y, y.array, y.to_frame()["y"] if y.name else y):
        model = DiffusionClassifier(n_neighbors=2).fit(pd.DataFrame(LINE, columns=["x"]), given)
        assert model.transduction_.tolist() == [low] * 3 + [high] * 3


@pytest.mark.parametrize(
    "y, error, message",
    [
        (np.array(["a", -1, -1, "b"]), ValueError, "'y' to hold labels .got the text '-1'"),
        (np.array(["a", np.nan, "b"]), ValueError, "'y' to hold labels .got the text 'nan'"),
        ([1, "a", None], ValueError, "'y' to hold either texts or numbers"),
        ([-1, -1], ValueError, "'y' to hold a label"),
        ([None, None], ValueError, "'y' to hold a label"),
        ([], ValueError, "'y' to hold a label"),
        ([0, np.inf], ValueError, "'y' to hold classes: .*infinity"),
        ([0.5, 1.2, np.nan], ValueError, "Unknown label type: continuous"),
        (None, ValueError, "requires y to be passed"),
        ([[0, 1]], ValueError, "1d array"),
    ],
)
def test_labels_that_cannot_be_read(y, error, message) -> None:
    with pytest.raises(error, match=message):
        read_labels(y)


def test_one_label_a_class_is_no_regression() -> None:
    """scikit-learn warns of more than half as many classes as labels, and warnings are errors."""
    model = DiffusionClassifier(n_neighbors=2).fit(np.arange(40.0)[:, None], np.arange(40))
    assert (model.predict(np.arange(40.0)[:, None]) == np.arange(40)).all()


def test_minus_one_and_one_alone_are_two_classes() -> None:
    X, y = make_blobs(60, centers=2, random_state=0)
    assert (DiffusionClassifier().fit_predict(X, 2 * y - 1) == 2 * y - 1).all()
    model = DiffusionClassifier().fit(X, np.where(np.arange(60) < 20, 2 * y - 1, 0))
    assert model.classes_.tolist() == [0, 1], "with a third number, -1 stands for no label"
    model = DiffusionClassifier(n_neighbors=2).fit(LINE, [-1, None, None, 1, None, None])
    assert model.transduction_.tolist() == [-1] * 3 + [1] * 3


@pytest.mark.parametrize("feature_weight", [0, "auto"])
@pytest.mark.parametrize("far", [1e3, 1e155, 1e300, 1.7e308])
def test_far_points(far, feature_weight) -> None:
    X, y = np.array([[0], [0.1], [5], [5.1]]), [0, -1, 1, -1]
    model = DiffusionClassifier(n_neighbors=1, feature_weight=feature_weight).fit(X, y)
    found = model.predict_proba([[far], [-far]])
    assert np.isfinite(found).all() and np.allclose(found.sum(1), 1)
    assert found.argmax(1).tolist() == [1, 0]


@pytest.mark.parametrize("feature_weight", [0, "auto"])
@pytest.mark.parametrize("scale", [1e-300, 1e-200, 1e-30, 1e30, 1e150, 3e307])
def test_the_scale_of_all_points_does_not_matter(scale, feature_weight) -> None:
    X, y = np.array([[0], [0.1], [5], [5.1], [2.5]]), [0, -1, 1, -1, -1]
    new = np.array([[0.04], [4.0], [5.09], [-3.0]])
    model = DiffusionClassifier(n_neighbors=2, feature_weight=feature_weight)
    expected = [model.fit(X, y).label_distributions_, model.predict_proba(new)]
    found = [model.fit(X * scale, y).label_distributions_, model.predict_proba(new * scale)]
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)


def test_a_far_point_among_those_of_fit() -> None:
    X = np.array([[0], [0.1], [5], [5.1], [1e100]])
    model = DiffusionClassifier(n_neighbors=1).fit(X, [0, -1, 1, -1, -1])
    assert model.transduction_[:4].tolist() == [0, 0, 1, 1]
    X[4] = 1e300
    with pytest.raises(ValueError, match="to hold no neighbors so close beside the largest entry"):
        DiffusionClassifier(n_neighbors=1).fit(X, [0, -1, 1, -1, -1])


@pytest.mark.parametrize("form", ["dense", "sparse"])
def test_cosine_does_not_see_the_scale_of_rows(form) -> None:
    X, y = load_digits(return_X_y=True)
    X, y = X[:200], np.where(np.arange(200) < 60, y[:200], -1)
    rng = np.random.default_rng(0)
    scale = 10.0 ** rng.choice([-300, -160, -13, 0, 13, 160, 300], size=(200, 1))
    convert = scipy.sparse.csr_matrix if form == "sparse" else np.asarray
    model = DiffusionClassifier(metric="cosine")
    plain = model.fit(convert(X), y).label_distributions_
    new = model.predict_proba(convert(X[:50] + 1))
    scaled = model.fit(convert(X * scale), y).label_distributions_
    np.testing.assert_allclose(scaled, plain, atol=1e-6)
    np.testing.assert_allclose(
        model.predict_proba(convert((X[:50] + 1) * scale[:50])), new, atol=1e-6
    )


def test_cosine_with_rows_of_zeros() -> None:
    X = np.array([[1.0, 0], [2, 0.1], [0, 1], [0.1, 3], [0, 0]])
    model = DiffusionClassifier(n_neighbors=2, metric="cosine").fit(X, [0, -1, 1, -1, -1])
    assert model.transduction_[:4].tolist() == [0, 0, 1, 1]
    assert np.isfinite(model.label_distributions_).all()
    assert np.isfinite(model.predict_proba([[0.0, 0.0]])).all()


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_sparse_points(metric) -> None:
    sparse = scipy.sparse.random(300, 40, 0.3, format="csr", random_state=0)
    X, y = sparse.toarray(), np.arange(300) % 3
    few = np.where(np.arange(300) < 60, y, -1)
    dense, model = (
        DiffusionClassifier(metric=metric, feature_weight=0).fit(points, few)
        for points in (X, sparse)
    )
    np.testing.assert_allclose(model.label_distributions_, dense.label_distributions_, atol=1e-9)
    new = sparse[:50] + 0.1 * sparse[50:100]
    expected = dense.predict_proba(new.toarray())
    for one, points in ((model, new.toarray()), (model, new), (dense, new)):
        np.testing.assert_allclose(one.predict_proba(points), expected, atol=1e-9)


def test_sparse_points_with_features() -> None:
    X, y = load_digits(return_X_y=True)
    X, few = X[:400], np.where(np.arange(400) < 80, y[:400], -1)
    model = DiffusionClassifier().fit(scipy.sparse.coo_array(X), few)
    assert (model.transduction_ == y[:400]).mean() > 0.9
    assert (model.predict(scipy.sparse.csr_matrix(X)) == y[:400]).mean() > 0.9


def test_many_columns_are_seen_through_their_leading_directions() -> None:
    X, y = load_digits(return_X_y=True)
    X, few = X[:300], np.where(np.arange(300) < 60, y[:300], -1)
    wide = X @ np.linalg.qr(np.random.default_rng(0).normal(size=(1100, 64)))[0].T
    plain, model = (DiffusionClassifier().fit(points, few) for points in (X, wide))
    assert (model.transduction_ == plain.transduction_).mean() > 0.98
    assert (model.predict(wide) == plain.predict(X)).mean() > 0.98


def test_priors() -> None:
    X, y = make_blobs(300, centers=2, cluster_std=3.0, random_state=0)
    few = np.where(np.arange(300) < 30, y, -1)
    share = [
        (DiffusionClassifier(priors=[p, 1 - p]).fit(X, few).transduction_ == 0).mean()
        for p in (0.1, 0.5, 0.9)
    ]
    assert share[0] < share[1] < share[2]
    for features, tolerance in (("auto", 0.004), (0, 0.02)):  # ties without features
        for p in (0.3, 0.5, 0.6):
            model = DiffusionClassifier(priors=[p, 1 - p], feature_weight=features).fit(X, few)
            assert abs((model.transduction_ == 0).mean() - p) <= tolerance
            assert (model.transduction_[:30] == y[:30]).all()
            assert np.allclose(model.predict_proba(X).sum(1), 1)
    for bad in ([1.0], [0.5, 0.6], [1.0, 0.0], [np.nan, 1], "ab"):
        with pytest.raises(ValueError, match="'priors'"):
            DiffusionClassifier(priors=bad).fit(X, few)


def test_numbers_of_numpy_in_a_grid_search() -> None:
    X, y = make_blobs(60, centers=3, random_state=0)
    search = GridSearchCV(
        DiffusionClassifier(num_steps=np.int32(50)), {"n_neighbors": np.arange(3, 6)}, cv=3
    )
    assert search.fit(X, y).best_score_ > 0.8


@pytest.mark.parametrize("name", ["n_neighbors", "num_steps"])
@pytest.mark.parametrize("value", [True, np.True_, 0, -1, 2.0, "3", None])
def test_what_is_no_number_is_refused(name, value) -> None:
    with pytest.raises(ValueError, match=f"'{name}' to be a positive integer"):
        DiffusionClassifier(**{name: value}).fit(LINE, [0, -1, -1, 1, -1, -1])


def test_the_default_device_does_not_matter() -> None:
    X, y = make_blobs(60, centers=3, random_state=0)
    few = np.where(np.arange(60) < 15, y, -1)
    expected = DiffusionClassifier().fit(X, few)
    with torch.device("meta"):
        model = DiffusionClassifier().fit(X, few)
        found = model.predict_proba(X)
    np.testing.assert_array_equal(model.label_distributions_, expected.label_distributions_)
    np.testing.assert_array_equal(found, expected.predict_proba(X))


def test_memory_of_predict_is_bounded() -> None:
    psutil = pytest.importorskip("psutil", reason="psutil is not installed")
    from benchmarks.speed.knn import peak_bytes

    del psutil
    rng = np.random.default_rng(0)
    model = DiffusionClassifier().fit(rng.normal(size=(100, 2)), np.arange(100) % 40)
    new = rng.normal(size=(100_000, 2))
    model.predict_proba(new[:10_000])
    result = 100_000 * 40 * 8
    assert peak_bytes(lambda: model.predict_proba(new)) < result + 250 * 2**20


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.parametrize("form", ["csr_matrix", "csr_array", "csc_matrix", "coo_matrix"])
def test_repeated_entries_of_a_sparse_matrix_are_summed(metric, form):
    rng = np.random.default_rng(0)
    dense = np.where(rng.random((60, 12)) < 0.4, rng.random((60, 12)) + 0.2, 0)
    y = np.where(np.arange(60) < 12, np.arange(60) % 3, -1)
    row, col = dense.nonzero()
    value = dense[row, col]
    parts = np.concatenate([value / 2, value / 2]), (np.tile(row, 2), np.tile(col, 2))
    if form.startswith("csr"):  # from its arrays, which keeps repeated entries
        order = np.argsort(parts[1][0], kind="stable")
        bounds = np.concatenate([[0], np.bincount(parts[1][0], minlength=60).cumsum()])
        arrays = parts[0][order], parts[1][1][order], bounds
        repeated = getattr(scipy.sparse, form)(arrays, shape=dense.shape)
        assert repeated.nnz == 2 * len(value)
    else:
        repeated = getattr(scipy.sparse, form)(parts, shape=dense.shape)
    plain = scipy.sparse.csr_matrix(dense)
    one, other = (
        DiffusionClassifier(metric=metric).fit(X, y).predict_proba(X) for X in (plain, repeated)
    )
    np.testing.assert_allclose(one, other, atol=1e-9)
