"""DiffusionRegressor against scikit-learn's regressors, from 5 to 50 targets in all.

Diabetes (442 patients, 10 standardized features) and a function that is smooth along each of two
spirals. Every model sees the same draws; the error is the root mean square over points without a
target. The peers are there by default settings and by a search of their own over the targets given
(leave-one-out for ridge and neighbors, the marginal likelihood for the Gaussian process), and
ridge also at the penalty that is best in hindsight.
"""

import argparse
import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from sklearn.datasets import load_diabetes
from sklearn.exceptions import ConvergenceWarning
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel
from sklearn.linear_model import Ridge, RidgeCV
from sklearn.model_selection import GridSearchCV, LeaveOneOut
from sklearn.neighbors import KNeighborsRegressor
from sklearn.preprocessing import StandardScaler
from tqdm import tqdm

from benchmarks.common import ResultFile, environment, mean_and_interval, tables
from torch_geometric_diff import DiffusionRegressor

OURS = "diffusion"
DATA = ("diabetes", "spirals")
TARGETS = (5, 10, 20, 50)


def load(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Points and targets."""
    if name == "diabetes":
        X, y = load_diabetes(return_X_y=True)
        return StandardScaler().fit_transform(X), y
    rng = np.random.default_rng(0)
    radius, arm = np.sqrt(rng.random(800)), rng.integers(2, size=800)
    angle = 3 * np.pi * radius + np.pi * arm
    X = radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    along = 2 * np.pi * radius
    y = np.where(arm == 0, np.sin(along), np.cos(along) + 1)
    return X + 0.02 * rng.normal(size=X.shape), y


def _neighbors(count: int) -> Any:
    grid = {"n_neighbors": [k for k in (1, 2, 3, 5, 7) if k < count], "weights": ["distance"]}
    return GridSearchCV(
        KNeighborsRegressor(), grid, cv=LeaveOneOut(), scoring="neg_mean_squared_error"
    )


def _gaussian_process(count: int) -> Any:
    kernel = ConstantKernel() * RBF() + WhiteKernel(0.1)
    return GaussianProcessRegressor(
        kernel, normalize_y=True, n_restarts_optimizer=3, random_state=0
    )


MODELS: dict[str, Callable[[int], Any]] = {
    OURS: lambda count: DiffusionRegressor(),
    "diffusion, harmonic": lambda count: DiffusionRegressor(form="harmonic"),
    "diffusion, poisson": lambda count: DiffusionRegressor(form="poisson"),
    "kNN": lambda count: KNeighborsRegressor(min(5, count)),
    "kNN, searched": _neighbors,
    "Gaussian process": _gaussian_process,
    "ridge": lambda count: Ridge(),
    "ridge, searched": lambda count: RidgeCV(np.logspace(-2, 3, 16)),
    "ridge, penalty 10": lambda count: Ridge(10.0),
}


def error(model: Any, X: np.ndarray, y: np.ndarray, known: np.ndarray) -> tuple[float, float]:
    """The error without a target, and the share of errors below a standard deviation if known."""
    rest = np.setdiff1d(np.arange(len(y)), known)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # bounds of the kernel's parameters
        if isinstance(model, DiffusionRegressor):
            few = np.full(len(y), np.nan)
            few[known] = y[known]
            mean = model.fit(X, few).transduction_
            inside = float((np.abs(mean - y) < model.transduction_std_)[rest].mean())
        else:
            mean, inside = model.fit(X[known], y[known]).predict(X), float("nan")
    return float(np.sqrt(np.square(mean - y)[rest].mean())), inside


def table(rows: list[dict[str, Any]], dataset: str, form: str = "markdown") -> str:
    """Mean error and 95 % interval, and what ours is below each, draw by draw."""
    cells = {(row["model"], row["labels"]): row for row in rows if row["dataset"] == dataset}
    counts = sorted({labels for _, labels in cells})
    lines = []
    for name in dict.fromkeys(model for model, _ in cells):
        line = [name]
        for n in counts:
            values = np.array(cells[name, n]["error"])
            text = "{:.3g} ± {:.2g}".format(*mean_and_interval(values))
            if name != OURS and (OURS, n) in cells:
                gain = mean_and_interval(values - np.array(cells[OURS, n]["error"]))
                text += " (ours {:+.2g} ± {:.2g} lower)".format(*gain)
            line.append(text)
        lines.append(line)
    return tables.table(["targets", *map(str, counts)], lines, form)


def run(args: argparse.Namespace, draws: int) -> None:
    """Append the rows that the file lacks and print the tables."""
    results = ResultFile(args.out, key=("dataset", "model", "labels"), resume=args.resume)
    for dataset in DATA:
        X, y = load(dataset)
        todo = [(name, n) for name in MODELS for n in TARGETS]
        for name, n in tqdm(todo, desc=dataset, disable=None, leave=False):
            if (dataset, name, n) in results.finished:
                continue
            start = time.perf_counter()
            pairs = []
            for d in range(draws):
                known = np.random.default_rng([d, n]).choice(len(y), n, replace=False)
                pairs.append(error(MODELS[name](n), X, y, known))
            inside = float(np.mean([pair[1] for pair in pairs]))
            results.append(
                {
                    "dataset": dataset,
                    "model": name,
                    "labels": n,
                    "error": [pair[0] for pair in pairs],
                    "within_one_std": None if np.isnan(inside) else inside,
                    "settings": str(MODELS[name](n)),
                    "seconds_per_draw": (time.perf_counter() - start) / draws,
                    "environment": environment(),
                }
            )
        print(f"\n{dataset}:\n\n{table(results.rows, dataset, args.format)}")
