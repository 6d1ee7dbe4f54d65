"""The command of ``python -m benchmarks.ablations``."""

import argparse
import math
from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch_geometric.data import Data
from tqdm import tqdm

from benchmarks import ablations, flags
from benchmarks.ablations.studies import STUDIES, Method, Value, build
from benchmarks.common import device, draw_trials, environment, keep_freed_memory, share_of_rank
from benchmarks.flags import SOURCES, SPLIT_KINDS
from benchmarks.nodes.graphs import open_graph
from benchmarks.nodes.settings import TRAINING
from benchmarks.rows import Results, run_trials
from torch_geometric_diff.metrics import distance_diameter_ratio, separability

Row = dict[str, Any]


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
    args = flags.ablations(ablations.__doc__).parse_args(argv)
    args.device = device(args.device)
    keep_freed_memory()
    args.fallback, args.component, args.words, args.directed = None, "largest", None, False
    for study in args.study:
        for dataset in args.datasets:
            args.dataset, args.source = dataset, SOURCES.get(dataset)
            run(open_graph(args), study, args)
