"""Accuracy on citation graphs over random splits and initialisations.

python -m benchmarks.planetoid --dataset cora --step_size 0.25 --layer_num 20 --dropout 0.25
"""

import argparse
import inspect
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import Data
from tqdm import tqdm

from benchmarks.models import METHODS
from benchmarks.settings import DATASETS, SETTINGS, load_settings
from torch_geometric_diff.data import (
    data_root,
    development_split,
    load_graph,
    per_class_split,
)
from torch_geometric_diff.experiment import (
    ResultFile,
    Trial,
    accuracy,
    command_line,
    draw_trials,
    environment,
    fit,
    keep_freed_memory,
    read_rows,
    share_of_rank,
    world,
)

Row = dict[str, Any]
SPLITS = {"per_class": per_class_split, "development": development_split}
SPLIT_KINDS = {
    "per_class": "random, 20 train and 30 val per class, largest component",
    "development": "random, 20 train per class and 1500 less those val, largest component",
}
GPU_BATCH = 10
TRAINING = {
    name
    for name, parameter in inspect.signature(fit).parameters.items()
    if parameter.kind is parameter.KEYWORD_ONLY
}


def device(name: str) -> torch.device:
    """A device that works here."""
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise argparse.ArgumentTypeError(f"'{name}' is no device here ({reason})") from error
    return torch.device(name)


def parser() -> argparse.ArgumentParser:
    """The flags; those of the original implementation keep their names."""
    p = argparse.ArgumentParser(
        description=__doc__, usage=argparse.SUPPRESS, formatter_class=argparse.RawTextHelpFormatter
    )
    p.add_argument("--dataset", default="cora", choices=DATASETS)
    p.add_argument(
        "--source",
        choices=["planetoid", "shchur"],
        help="files to read the graph from (default: shchur where DATA_ROOT has it)",
    )
    p.add_argument("--model", default="diff-resnet", choices=list(METHODS))
    p.add_argument(
        "--split",
        default="per_class",
        choices=list(SPLITS),
        help="per_class: the paper's; development: that of GDC and GRAND",
    )
    p.add_argument("--num_splits", type=int, default=100)
    p.add_argument("--num_inits", type=int, default=20)
    p.add_argument("--seed", type=int, default=42, help="seed of the split seeds")
    p.add_argument("--device", type=device, default="cuda" if torch.cuda.is_available() else "cpu")
    p.add_argument(
        "--batch_inits",
        type=int,
        metavar="B",
        help=f"trials to train side by side (default: {GPU_BATCH} on a GPU where the model can,"
        "\nelse 1); the rows do not depend on it",
    )
    p.add_argument("--data_root", type=Path, help="folder of data sets (default: DATA_ROOT)")
    p.add_argument("--out", type=Path, help="result file (default: a new one in runs/planetoid)")
    p.add_argument("--resume", action="store_true", help="go on with the result file --out")
    p.add_argument(
        "--fallback",
        choices=["digits"],
        help="run on this graph if the data set is unreachable;\nits rows go to OUT-digits",
    )
    settings = p.add_argument_group("settings (default: benchmarks/settings/DATASET.toml)")
    for name, kind in SETTINGS.items():
        settings.add_argument(f"--{name}", type=kind)
    return p


def default_source(dataset: str, root: Path) -> str:
    """Shchur's graphs are the paper's; where the file is missing, Planetoid's are taken."""
    return "shchur" if (root / "shchur" / f"{dataset}.npz").is_file() else "planetoid"


def open_graph(args: argparse.Namespace) -> Data:
    """Load the graph that the flags ask for, or the fallback."""
    root = args.data_root or data_root()
    try:
        data = load_graph(args.dataset, args.source or default_source(args.dataset, root), root)
    except FileNotFoundError as error:
        if args.fallback is None:
            raise
        print(f"{error}; running on the embedded graph '{args.fallback}' instead", file=sys.stderr)
        data = load_graph(args.fallback)
    return data.to(args.device)


def choose_settings(dataset: str, model: str, overrides: Row) -> Row:
    """The published settings of a model, with the flags that were given laid over them."""
    allowed = TRAINING | METHODS[model].settings()
    unknown = sorted(set(overrides) - allowed)
    if unknown:
        raise ValueError(
            f"Model '{model}' has no setting {unknown}; it has {sorted(allowed & set(SETTINGS))}"
        )
    return {**load_settings(dataset, model), **overrides}


def check_header(out: Path, row: Row, header: Row) -> None:
    """Refuse a row of another experiment."""
    for name, value in header.items():
        if row.get(name) != value:
            raise ValueError(
                f"'{out}' holds rows of another experiment: {name} is {row.get(name)} there and "
                f"{value} here; choose another '--out'"
            )


def batch_size(args: argparse.Namespace) -> int:
    """How many trials are trained side by side."""
    independent = METHODS[args.model].independent
    if args.batch_inits is None:
        return GPU_BATCH if independent and args.device.type == "cuda" else 1
    if args.batch_inits < 1:
        raise ValueError(f"Expected '--batch_inits' to be at least 1 (got {args.batch_inits})")
    if args.batch_inits > 1 and not independent:
        able = [name for name, method in METHODS.items() if method.independent]
        raise ValueError(
            f"Model '{args.model}' trains one initialisation at a time, '--batch_inits' is for "
            f"{able} (got {args.batch_inits})"
        )
    return args.batch_inits


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


def main(argv: list[str] | None = None) -> None:
    """Run the trials that are not yet in the result file and print the accuracy over all."""
    args = parser().parse_args(argv)
    if args.out is None and (args.resume or world()[1] > 1):
        raise ValueError("'--resume' and 'torchrun' need '--out', the result file to go on with")
    batch = batch_size(args)
    keep_freed_memory()
    data = open_graph(args)
    dataset = data.name
    given = {name: getattr(args, name) for name in SETTINGS if getattr(args, name) is not None}
    settings = choose_settings(dataset, args.model, given)
    training = {name: settings[name] for name in settings if name in TRAINING}
    method = METHODS[args.model](
        data, **{name: value for name, value in settings.items() if name not in TRAINING}
    )
    header = {
        "dataset": dataset,
        "source": data.source,
        "split_kind": SPLIT_KINDS[args.split],
        "model": args.model,
        "seed": args.seed,
        "settings": settings,
    }
    stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
    out = args.out or Path("runs/planetoid") / f"{dataset}-{data.source}-{args.model}-{stamp}.jsonl"
    if dataset != args.dataset:  # the fallback's rows must not stand in the way of the real ones
        out = out.with_stem(f"{out.stem}-{dataset}")
    results = Results(out, header, args.resume)
    print(
        f"{args.model} on {dataset} ({data.source}): {data.num_nodes} nodes, "
        f"{data.num_edges // 2} edges; rows go to {results.file.path}"
    )

    trials = list(
        draw_trials(data.y, args.seed, args.num_splits, args.num_inits, SPLITS[args.split])
    )
    finished = results.finished
    mine = [t for t in share_of_rank(trials) if (t.split, t.init) not in finished]
    versions = environment()
    with tqdm(total=len(mine), disable=None, unit="trial") as bar:
        for first in range(0, len(mine), batch):
            rows = run_trials(data, method, mine[first : first + batch], training)
            for row in rows:
                results.file.append({**header, **row, "versions": versions})
            bar.update(len(rows))
            mean = np.mean([row["test_acc"] for row in results.file.rows])
            bar.set_postfix_str(f"mean test accuracy {100 * mean:.2f} %")

    done = {(row["split"], row["init"]): row for row in results.rows()}
    rows = [done[t.split, t.init] for t in trials if (t.split, t.init) in done]
    if len(rows) == len(trials):
        print(summary(rows))
    else:
        print(f"{len(rows)} of {len(trials)} trials are done; other ranks are still running")


if __name__ == "__main__":
    command_line(main)
