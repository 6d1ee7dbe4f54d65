"""Rows of results that all studies share: measured, checked, resumed, summed up."""

import json
import re
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.common import ResultFile, metrics, read_rows

if TYPE_CHECKING:
    from torch import Tensor
    from torch_geometric.data import Data

    from benchmarks.common import Trial

Row = dict[str, Any]
RESULTS = Path(__file__).parent / "results"


def parts(out: Path) -> list[Path]:
    """The files that hold the rows of ``out``: what was folded, the file itself, that of each rank.

    ``NAME.jsonl.gz``, ``NAME.jsonl`` and ``NAME.rankR.jsonl``, those that exist.
    """
    ranks = re.compile(rf"{re.escape(out.stem)}\.rank\d+{re.escape(out.suffix)}")
    folder = out.parent
    of_ranks = sorted(path for path in folder.glob("*.rank*") if ranks.fullmatch(path.name))
    return [p for p in (out.with_name(f"{out.name}.gz"), out, *of_ranks) if p.exists()]


def check_header(out: Path, row: Row, header: Row) -> None:
    """Refuse a row of another experiment."""
    for name, value in header.items():
        if row.get(name) != value:
            raise ValueError(
                f"'{out}' holds rows of another experiment: {name} is {row.get(name)} there and "
                f"{value} here; choose another '--out'"
            )


class Results:
    """The rows of an experiment in a file, which may hold other experiments beside it.

    Args:
        out (Path): The result file; under ``torchrun``, rank R appends to ``NAME.rankR.jsonl``.
            Rows that were folded into ``NAME.jsonl.gz`` count too.
        header (dict): Fields that all rows of the experiment share.
        resume (bool): Go on with rows that are there.
        key (sequence of str, optional): The fields that identify a trial.
            (default: ``('split', 'init')``)
        identity (sequence of str, optional): The fields of the header by which rows belong to this
            experiment and not to one beside it; theirs must have the rest of the header, too.
            (default: ``('dataset', 'source', 'split_kind', 'model')``)

    Raises:
        ValueError: If the file holds rows and ``resume`` is false, or rows of the same experiment
            with another header.
    """

    def __init__(
        self,
        out: Path,
        header: Row,
        resume: bool,
        key: Sequence[str] = ("split", "init"),
        identity: Sequence[str] = ("dataset", "source", "split_kind", "model"),
    ) -> None:
        self.out, self.header, self.key, self.identity = out, header, key, identity
        from benchmarks.common import world

        rank, size = world()
        own = out if size == 1 else out.with_suffix(f".rank{rank}{out.suffix}")
        if not resume and out.with_name(f"{out.name}.gz").exists():
            raise ValueError(f"'{out}.gz' already holds results; choose another '--out'")
        self.file = ResultFile(own, (*identity, *key), resume)
        self.others = self.rows() if resume else []

    def rows(self) -> list[Row]:
        """All rows of the experiment, those of other ranks included."""
        rows = [row for row in read_rows(parts(self.out)) if self._belongs(row)]
        for row in rows:
            check_header(self.out, row, self.header)
        return rows

    def _belongs(self, row: Row) -> bool:
        return all(row.get(name) == self.header[name] for name in self.identity)

    @property
    def own(self) -> list[Row]:
        """The rows of the experiment in the file of this rank."""
        return [row for row in self.file.rows if self._belongs(row)]

    @property
    def finished(self) -> set[tuple[Any, ...]]:
        """Trials that need not be run again."""
        return {tuple(row[name] for name in self.key) for row in [*self.own, *self.others]}


def run_trials(
    data: "Data",
    method: Any,
    trials: "Sequence[Trial]",
    training: Row,
    measures: "Mapping[str, Callable[[Tensor, Tensor], float | None]]" = MappingProxyType({}),
    metric: str = "accuracy",
) -> list[Row]:
    """Run trials side by side and measure each; ``measures`` are more, of logits and classes, and
    ``metric`` one of :mod:`benchmarks.common.metrics` beside accuracy, at the nodes of the trial.

    The seconds of a trial are its share of the time of all.
    """
    from benchmarks.common import accuracy

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
            **_measured(metric, result.logits, data.y, trial),
        }
        for trial, result in zip(trials, results, strict=True)
    ]


def _measured(metric: str, logits: "Tensor", y: "Tensor", trial: "Trial") -> Row:
    """A metric beside accuracy at the nodes of a trial."""
    if metric == "accuracy":
        return {}
    score = metrics.measure(metric)
    nodes = {"test": trial.test, "val": trial.val}
    return {f"{name}_{metric}": score(logits, y, of) for name, of in nodes.items() if len(of)}


def speed_rows(suite: str) -> list[Row]:
    """The rows of a speed suite in the repository."""
    path = RESULTS / "speed" / f"{suite}.json"
    if not path.exists():
        raise ValueError(f"Expected rows of a speed suite in '{path}' (got no such file)")
    return json.loads(path.read_text(encoding="utf-8"))["rows"]


def summary(rows: list[Row], metric: str = "accuracy") -> str:
    """Mean and standard deviation over all runs, in the form of the paper."""
    field = "test_acc" if metric == "accuracy" else f"test_{metric}"
    values = 100 * np.array([row[field] for row in rows])
    splits = len({row["split"] for row in rows})
    inits = len({row["init"] for row in rows})
    return (
        f"test {metric.replace('_', ' ')}: {values.mean():.2f} ± {values.std():.2f} % "
        f"({len(rows)} runs: {splits} splits x {inits} inits)"
    )
