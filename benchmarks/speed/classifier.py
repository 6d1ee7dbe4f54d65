"""DiffusionClassifier against scikit-learn's LabelSpreading on neighbors: fit and predict.

Ten Gaussian classes, one label in fifty points, as many new points as given ones, in double
precision as scikit-learn's users have them.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.semi_supervised import LabelSpreading

from torch_geometric_diff import DiffusionClassifier

if TYPE_CHECKING:
    from benchmarks.speed.harness import Harness

OURS = "DiffusionClassifier"
CASES = ((5_000, 32), (50_000, 32))
QUICK = ((1_000, 16),)
CLASSES = 10


def points(count: int, dim: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Points, their labels (-1 for most) and new points."""
    rng = np.random.default_rng(0)
    means = rng.normal(size=(CLASSES, dim))
    y = rng.integers(CLASSES, size=count)
    X, new = (means[y] + rng.normal(size=(count, dim)) for _ in range(2))
    return X, np.where(np.arange(count) % 50 == 0, y, -1), new


def run(harness: Harness, quick: bool) -> list[dict[str, Any]]:
    """The rows of the suite."""
    rows = []
    for count, dim in QUICK if quick else CASES:
        X, few, new = points(count, dim)
        models = {
            OURS: DiffusionClassifier(),
            "graph alone": DiffusionClassifier(feature_weight=0),
            "LabelSpreading": LabelSpreading(kernel="knn", n_neighbors=8),
        }
        shape = f"{count} x {dim}"
        fits = {name: partial(model.fit, X, few) for name, model in models.items()}
        rows += harness.compare(f"fit, {shape}", fits, ours=OURS, repeats=3)
        guesses = {name: partial(model.predict, new) for name, model in models.items()}
        rows += harness.compare(f"predict, {shape}", guesses, ours=OURS, repeats=3)
    return rows
