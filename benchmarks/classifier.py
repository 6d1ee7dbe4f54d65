"""DiffusionClassifier against scikit-learn's classifiers, from 1 to 10 labels per class.

``python -m benchmarks.classifier`` on sets that scikit-learn bundles and on embeddings of Omniglot;
``--features FILE`` on other embeddings, a file of ``python -m fewshot.embed``. Every model sees the
same 100 draws of labels; accuracy is that on the points without a label. ``--tune`` compares
settings, on other draws than the reported ones: the peers have their best of each set, ours has one
for all. ``--peers`` adds graphlearning's and scikit-network's classifiers on a kNN graph of their
authors' form, with and without the true shares of the classes (``--out`` of its own).
``--task regression`` compares DiffusionRegressor with scikit-learn's regressors instead.
"""

import argparse
import json
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import flags

if __name__ == "__main__":  # a typo waits for no import
    flags.classifier(__doc__).parse_args()

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.datasets import load_breast_cancer, load_digits, load_wine
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import ParameterGrid
from sklearn.preprocessing import StandardScaler
from sklearn.semi_supervised import LabelPropagation, LabelSpreading, SelfTrainingClassifier
from tqdm import tqdm

from benchmarks import classifier_peers, classifier_regression
from benchmarks.common import ResultFile, command_line, environment, mean_and_interval, tables
from torch_geometric_diff import DiffusionClassifier

OURS = "diffusion"


def _self_training(C: float, threshold: float) -> SelfTrainingClassifier:
    return SelfTrainingClassifier(LogisticRegression(C=C, max_iter=300), threshold=threshold)


KNN = {"kernel": ["knn"], "n_neighbors": [5, 7, 10], "max_iter": [300]}
GAUSSIAN = {"gamma": [0.03, 0.1, 0.3, 1.0, 3.0, 5.0, 10.0, 20.0, 50.0], "max_iter": [100]}
RESULTS = "benchmarks/results/classifier.jsonl"

# name: (constructor, settings that --tune compares). Ours has its defaults.
MODELS: dict[str, tuple[Callable[..., BaseEstimator], list[dict[str, Any]]]] = {
    OURS: (
        DiffusionClassifier,
        list(ParameterGrid({"n_neighbors": [5, 8, 12], "num_steps": [75, 150, 300]})),
    ),
    "graph alone": (
        lambda **settings: DiffusionClassifier(feature_weight=0, **settings),
        list(ParameterGrid({"n_neighbors": [5, 8, 12], "num_steps": [75, 150, 300]})),
    ),
    "label spreading, kNN": (
        LabelSpreading,
        list(ParameterGrid(KNN | {"alpha": [0.2, 0.8, 0.95, 0.99]})),
    ),
    "label spreading, Gaussian": (
        LabelSpreading,
        list(ParameterGrid(GAUSSIAN | {"alpha": [0.2, 0.8, 0.95, 0.99]})),
    ),
    "label propagation, kNN": (LabelPropagation, list(ParameterGrid(KNN))),
    "label propagation, Gaussian": (LabelPropagation, list(ParameterGrid(GAUSSIAN))),
    "self-training": (
        _self_training,
        list(ParameterGrid({"C": [1.0, 10.0, 100.0], "threshold": [0.6, 0.75, 0.9]})),
    ),
    "logistic regression": (
        lambda C: LogisticRegression(C=C, max_iter=300),
        list(ParameterGrid({"C": [0.1, 1.0, 10.0, 100.0]})),
    ),
}
SETTINGS_FILE = Path(__file__).with_name("classifier_settings.json")


OMNIGLOT = "fewshot/results/features/omniglot_conv4_test.safetensors"


def load(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Points and labels of a set of ``flags.POINTS`` or of a features file."""
    if name == "digits":
        X, y = load_digits(return_X_y=True)
        return X / 16, y
    if name in ("wine", "breast cancer"):
        X, y = (load_wine if name == "wine" else load_breast_cancer)(return_X_y=True)
        return StandardScaler().fit_transform(X), y
    from fewshot.features import load_features

    data = load_features(OMNIGLOT if name == "omniglot" else name)
    X = (data.features - data.base_mean).numpy()
    return X / np.linalg.norm(X, axis=1, keepdims=True), data.labels.numpy()


def draw(y: np.ndarray, per_class: int, number: int) -> np.ndarray:
    """``y`` with all but ``per_class`` labels of each class replaced by -1."""
    rng = np.random.default_rng([number, per_class])
    few = np.full(len(y), -1)
    for c in np.unique(y):
        members = np.flatnonzero(y == c)
        if len(members) <= per_class:
            raise ValueError(f"class {c} has {len(members)} points, too few for {per_class} labels")
        few[rng.choice(members, per_class, replace=False)] = c
    return few


def accuracy(model: BaseEstimator, X: np.ndarray, y: np.ndarray, few: np.ndarray) -> float:
    """Share of the points without a label that get the right one."""
    known = few != -1
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # max_iter bounds the peers' time
        warnings.simplefilter("ignore", RuntimeWarning)  # points that no label reaches: 0 / 0
        warnings.simplefilter("ignore", UserWarning)  # self-training: none left, or none added
        if isinstance(model, LogisticRegression):
            guess = model.fit(X[known], few[known]).predict(X)
        else:
            model.fit(X, few)
            is_transductive = hasattr(model, "label_distributions_")
            is_transductive |= isinstance(model, classifier_peers.Peer)
            guess = model.transduction_ if is_transductive else None
            guess = model.predict(X) if guess is None else guess
    return float((guess[~known] == y[~known]).mean())


def tune(dataset: str, names: list[str], labels: list[int], draws: int) -> None:
    """Print the accuracy of all settings, averaged over draws 1000, 1001, ..., the best at last."""
    X, y = load(dataset)
    cases = {n: [draw(y, n, 1000 + d) for d in range(draws)] for n in labels}
    for name in names:
        build, grid = MODELS[name]
        found = []
        for settings in grid:
            means = [
                np.mean([accuracy(build(**settings), X, y, few) for few in cases[n]])
                for n in labels
            ]
            found.append((np.mean(means), settings))
            shown = " ".join(f"{100 * mean:.2f}" for mean in means)
            print(f"{name} {settings}: {100 * np.mean(means):.2f} ({shown})", flush=True)
        best = max(found, key=lambda pair: pair[0])[1]
        print(json.dumps({"dataset": dataset, "model": name, "settings": best}), flush=True)


def settings_of(dataset: str, name: str) -> dict[str, Any]:
    """The best of ``--tune`` for a peer (of embeddings, those of Omniglot's); ours has defaults."""
    if name in (OURS, "graph alone"):
        return {}
    tuned = json.loads(SETTINGS_FILE.read_text())
    return tuned.get(dataset, tuned["omniglot"])[name]


def table(rows: list[dict[str, Any]], dataset: str, form: str = "markdown") -> str:
    """Mean and 95 % interval, and for the peers what we gain, draw by draw."""
    cells = {(row["model"], row["labels"]): row for row in rows if row["dataset"] == dataset}
    counts = sorted({labels for _, labels in cells})
    lines = []
    for name in dict.fromkeys(model for model, _ in cells):
        line = [name]
        for n in counts:
            if (name, n) not in cells:
                line.append("-")
                continue
            values = 100 * np.array(cells[name, n]["accuracy"])
            mean, half = mean_and_interval(values)
            text = f"{mean:.2f} ± {half:.2f}"
            ours = cells.get((OURS, n))
            if name != OURS and ours and len(ours["accuracy"]) == len(values):
                gain, half = mean_and_interval(100 * np.array(ours["accuracy"]) - values)
                text += f" (ours {gain:+.2f} ± {half:.2f})"
            line.append(text)
        lines.append(line)
    return tables.table(["labels per class", *map(str, counts)], lines, form)


def measure(results: ResultFile, dataset: str, args: argparse.Namespace, draws: int) -> None:
    """Append the rows of a data set that the file lacks."""
    X, y = load(dataset)
    draw(y, max(args.labels), 0)  # enough points? fail now
    peers = classifier_peers.peers() if args.peers else {}
    shares = np.bincount(y) / len(y)
    names = [*args.models, *peers]
    for name in peers:
        reason = classifier_peers.missing(name)
        if reason is not None:
            print(f"skipped: {reason}")
            names.remove(name)
    todo = [(name, n) for name in names for n in args.labels]
    for row in results.rows:
        mine = row["dataset"] == dataset and (row["model"], row["labels"]) in todo
        if mine and len(row["accuracy"]) != draws:
            raise ValueError(
                f"'{args.out}' holds {len(row['accuracy'])} draws of '{row['model']}' at "
                f"{row['labels']} labels (got '--draws' {draws}); choose another '--out'"
            )
    for name, n in tqdm(todo, desc=dataset, disable=None, leave=False):
        if (dataset, name, n) in results.finished:
            continue
        if name in peers:
            build = peers[name]
            settings = {"shares": shares} if name.endswith(classifier_peers.SHARES) else {}
        else:
            build, settings = MODELS[name][0], settings_of(dataset, name)
        described = settings or ({} if name in peers else build().get_params())
        start = time.perf_counter()
        values = [accuracy(build(**settings), X, y, draw(y, n, d)) for d in range(draws)]
        results.append(
            {
                "dataset": dataset,
                "model": name,
                "labels": n,
                "accuracy": values,
                "settings": str(build(**settings)) if name in peers else described,
                "seconds_per_draw": (time.perf_counter() - start) / draws,
                "environment": environment(),
            }
        )


def default_file(suffix: str | None) -> str:
    """The file of results of the committed rows, or the one of other tables beside it."""
    return RESULTS if suffix is None else RESULTS.replace(".jsonl", f"-{suffix}.jsonl")


def run_regression(args: argparse.Namespace, draws: int) -> None:
    """``--task regression``, which knows no classes."""
    if args.tune or args.peers or args.features:
        raise ValueError("'--task regression' takes '--draws', '--out' and '--resume' alone")
    args.out = args.out or default_file("regression")
    classifier_regression.run(args, draws)


def main(argv: list[str] | None = None) -> None:
    """Run as the command line says."""
    args = flags.classifier(__doc__).parse_args(argv)
    draws = args.draws if args.draws is not None else 20 if args.tune else 100
    if draws < 1 or min(args.labels) < 1:
        raise ValueError(f"'--draws' and '--labels' must be positive (got {draws}, {args.labels})")
    if args.task == "regression":
        run_regression(args, draws)
        return
    datasets = args.data if args.features is None else [args.features]
    if args.tune:
        if args.out is not None or args.resume:
            given = "--out" if args.out is not None else "--resume"
            raise ValueError(f"'{given}' does not go with '--tune', which writes nothing")
        for dataset in datasets:
            tune(dataset, args.models, args.labels, draws)
        return
    args.out = args.out or default_file("peers" if args.peers else None)
    results = ResultFile(args.out, key=("dataset", "model", "labels"), resume=args.resume)
    for dataset in datasets:
        measure(results, dataset, args, draws)
        print(f"\n{dataset}:\n\n{table(results.rows, dataset, args.format)}")


if __name__ == "__main__":
    command_line(main)
