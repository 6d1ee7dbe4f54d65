"""What each part of the diffusion does: one study at a time, resumable at any moment.

python -m benchmarks.ablations                                    # all studies on Cora
torchrun --nproc-per-node 2 -m benchmarks.ablations               # trials shared by two
python -m benchmarks.ablations --study steps dropout --num_splits 10
python -m benchmarks.ablations.report benchmarks/results/ablations/*    # tables

Every study changes one thing of the published Diff-ResNet and compares with its base on the same
splits. ``ddr`` (the distance-diameter ratio) and ``separability`` are those of the logits of all
nodes in evaluation, the last linear image of what was diffused: every model has them, in the same
width, and it is they that argmax classifies.

CPU minutes of 20 splits on Cora, estimated from the time of an epoch: steps 60 (of which 15 for 100
and 200 steps, on 5 splits), step_size 70, dropout 42, diffuse 15, learned 10, encoders 10.
"""

import argparse
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import Tensor
from torch_geometric.data import Data
from tqdm import tqdm

from benchmarks.ablations.studies import STUDIES, Method, Value, build
from benchmarks.common import device, draw_trials, environment, keep_freed_memory, share_of_rank
from benchmarks.nodes.graphs import DATASETS, SOURCES, SPLIT_KINDS, open_graph
from benchmarks.nodes.settings import TRAINING
from benchmarks.rows import RESULTS, Results, run_trials
from torch_geometric_diff.metrics import distance_diameter_ratio, separability

Row = dict[str, Any]


def parser() -> argparse.ArgumentParser:
    """The flags."""
    p = argparse.ArgumentParser(
        description=__doc__, usage=argparse.SUPPRESS, formatter_class=argparse.RawTextHelpFormatter
    )
    p.add_argument("--study", nargs="+", choices=list(STUDIES), default=list(STUDIES))
    p.add_argument("--datasets", nargs="+", choices=DATASETS, default=["cora"])
    p.add_argument("--num_splits", type=int, default=20)
    p.add_argument("--num_inits", type=int, default=1)
    p.add_argument("--seed", type=int, default=42, help="seed of the split seeds")
    p.add_argument("--device", type=device, default="cpu")
    p.add_argument("--max_epochs", type=int, help="for a quick look (default: as published)")
    p.add_argument("--data_root", type=Path, help="folder of data sets (default: DATA_ROOT)")
    p.add_argument(
        "--results", type=Path, default=RESULTS / "ablations", help="folder of the result files"
    )
    return p


def finite(measure: Callable[[Tensor, Tensor], float]) -> Callable[[Tensor, Tensor], float | None]:
    """JSON has no infinity and no NaN: no number stands for both (all points in one place)."""

    def measured(logits: Tensor, y: Tensor) -> float | None:
        value = measure(logits, y)
        return value if math.isfinite(value) else None

    return measured


MEASURES = {"ddr": finite(distance_diameter_ratio), "separability": finite(separability)}


def run(data: Data, study: str, args: argparse.Namespace) -> None:
    """Run the trials of a study that are not yet in its file."""
    variants = STUDIES[study](data)
    if args.max_epochs is not None:
        for variant in variants:
            variant.settings["max_epochs"] = args.max_epochs
    header = {
        "dataset": data.name,
        "source": data.source,
        "split_kind": SPLIT_KINDS["per_class"],
        "seed": args.seed,
        "study": study,
    }
    out = args.results / f"{data.name}.jsonl"
    key, identity = ("variant", "split", "init"), ("dataset", "source", "split_kind", "study")
    results = Results(out, header, True, key, identity)
    known = {variant.value: variant.settings for variant in variants}
    for row in results.rows():
        if row["settings"] != known.get(row["variant"], row["settings"]):
            raise ValueError(
                f"'{out}' holds rows of variant {row['variant']} with other settings; choose "
                "another '--results'"
            )
    # Split by split through all variants, so that an unfinished study is still paired.
    pairs = [
        (variant, trial)
        for trial in draw_trials(data.y, args.seed, args.num_splits, args.num_inits)
        for variant in variants
        if variant.most_splits is None or trial.split < variant.most_splits
    ]
    finished, versions = results.finished, environment()
    mine = [
        (variant, trial)
        for variant, trial in share_of_rank(pairs)
        if (variant.value, trial.split, trial.init) not in finished
    ]
    print(f"{study} on {data.name}: {len(mine)} of {len(pairs)} trials to run, rows in {out}")
    methods: dict[Value, Method] = {}
    for variant, trial in tqdm(mine, disable=None, unit="trial", desc=study):
        if variant.value not in methods:
            methods[variant.value] = build(data, variant)
        training = {k: v for k, v in variant.settings.items() if k in TRAINING}
        method = methods[variant.value]
        [row] = run_trials(data, method, [trial], training, MEASURES)
        if variant.settings.get("learn_step_size"):
            row["learned_step_size"] = method.trained.get_parameter("conv.step_size").item()
        kind = {"variant": variant.value, "base": variant.base, "model": variant.model}
        results.file.append(
            {**header, **kind, "settings": variant.settings, **row, "versions": versions}
        )


def main(argv: list[str] | None = None) -> None:
    """Run every pair of a study and a graph."""
    args = parser().parse_args(argv)
    keep_freed_memory()
    args.fallback, args.component, args.words, args.directed = None, "largest", None, False
    for study in args.study:
        for dataset in args.datasets:
            args.dataset, args.source = dataset, SOURCES.get(dataset)
            run(open_graph(args), study, args)
