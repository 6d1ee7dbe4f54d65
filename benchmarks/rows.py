"""Rows of results that all studies share: measured, checked, resumed, summed up."""

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from torch import Tensor
from torch_geometric.data import Data

from torch_geometric_diff.experiment import ResultFile, Trial, accuracy, read_rows, world

Row = dict[str, Any]
RESULTS = Path(__file__).parent / "results"


def check_header(out: Path, row: Row, header: Row) -> None:
    """Refuse a row of another experiment."""
    for name, value in header.items():
        if row.get(name) != value:
            raise ValueError(
                f"'{out}' holds rows of another experiment: {name} is {row.get(name)} there and "
                f"{value} here; choose another '--out'"
            )


class Results:
    """The rows of an experiment: the file ``out``, or one file per rank beside it.

    Args:
        out (Path): The result file; under ``torchrun``, rank R appends to ``NAME.rankR.jsonl``.
        header (dict): Fields that all rows share, checked against the rows found.
        resume (bool): Go on with rows that are there.
        key (sequence of str, optional): The fields that identify a trial.
            (default: ``('split', 'init')``)
    """

    def __init__(
        self, out: Path, header: Row, resume: bool, key: Sequence[str] = ("split", "init")
    ) -> None:
        self.header = header
        self.out = out
        self.key = key
        rank, size = world()
        own = out if size == 1 else out.with_suffix(f".rank{rank}{out.suffix}")
        self.file = ResultFile(own, key, resume)
        self.others = self.rows() if resume else []

    def rows(self) -> list[Row]:
        """All rows, those of other ranks included."""
        files = [self.out, *sorted(self.out.parent.glob(f"{self.out.stem}.rank*{self.out.suffix}"))]
        rows = read_rows(path for path in files if path.exists())
        for row in rows:
            check_header(self.out, row, self.header)
        return rows

    @property
    def finished(self) -> set[tuple[Any, ...]]:
        """Trials that need not be run again."""
        return self.file.finished | {tuple(row[name] for name in self.key) for row in self.others}


def run_trials(
    data: Data,
    method: Any,
    trials: Sequence[Trial],
    training: Row,
    measures: Mapping[str, Callable[[Tensor, Tensor], float | None]] = MappingProxyType({}),
) -> list[Row]:
    """Run trials side by side and measure each; ``measures`` are more, of logits and classes.

    The seconds of a trial are its share of the time of all.
    """
    start = time.perf_counter()
    results = method.run(trials, **training)
    seconds = (time.perf_counter() - start) / len(trials)
    return [
        {
            "split": trial.split,
            "init": trial.init,
            "split_seed": trial.split_seed,
            "init_seed": trial.init_seed,
            "test_acc": accuracy(result.logits, data.y, trial.test),
            "val_acc": accuracy(result.logits, data.y, trial.val),
            "best_epoch": result.best_epoch,
            "epochs": result.epochs,
            "seconds": round(seconds, 3),
            **{name: measure(result.logits, data.y) for name, measure in measures.items()},
        }
        for trial, result in zip(trials, results, strict=True)
    ]


def summary(rows: list[Row]) -> str:
    """Mean and standard deviation over all runs, in the form of the paper."""
    values = 100 * np.array([row["test_acc"] for row in rows])
    splits = len({row["split"] for row in rows})
    inits = len({row["init"] for row in rows})
    return (
        f"test accuracy: {values.mean():.2f} ± {values.std():.2f} % "
        f"({len(rows)} runs: {splits} splits x {inits} inits)"
    )
