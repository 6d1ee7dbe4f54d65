"""Accuracy on any node-classification graph over random splits and initializations.

python -m benchmarks.planetoid --dataset cora --step_size 0.25 --layer_num 20 --dropout 0.25
python -m benchmarks.nodes --dataset Amazon:Photo --model gcn --num_splits 20
python -m benchmarks.nodes --dataset my_graph.npz --split masks --settings mine.toml
python -m benchmarks.nodes --dataset WikiCS --model my_models:Net
"""

import argparse
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from tqdm import tqdm

from benchmarks.common import (
    add_device_flag,
    draw_trials,
    environment,
    keep_freed_memory,
    new_path,
    share_of_rank,
    world,
)
from benchmarks.common.metrics import METRICS
from benchmarks.nodes.graphs import (
    DATASETS,
    add_graph_flags,
    add_split_flags,
    check_split_flags,
    file_name,
    open_graph,
    open_splits,
    path,
)
from benchmarks.nodes.models import METHODS
from benchmarks.nodes.own import find_method
from benchmarks.nodes.settings import SETTINGS, TRAINING, choose_settings
from benchmarks.rows import Results, run_trials, summary

Row = dict[str, Any]
GPU_BATCH = 10
NONE: Mapping[str, Any] = MappingProxyType({})


def model(name: str) -> str:
    """The name of a model that can be built."""
    try:
        find_method(name)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return name


def parser(defaults: Mapping[str, Any]) -> argparse.ArgumentParser:
    """The flags; those of the original implementation keep their names."""
    p = argparse.ArgumentParser(
        description=__doc__, usage=argparse.SUPPRESS, formatter_class=argparse.RawTextHelpFormatter
    )
    add_graph_flags(p, defaults.get("dataset"))
    p.add_argument(
        "--model",
        type=model,
        default="diff-resnet",
        help=f"(default: diff-resnet)\n{', '.join(METHODS)},\n"
        "or module:function, which builds a model of (x, edge_index) from the numbers of\n"
        "features and classes",
    )
    add_split_flags(p)
    p.add_argument(
        "--metric",
        choices=METRICS,
        default="accuracy",
        help="what to report beside accuracy, which training watches (default: accuracy)",
    )
    p.add_argument("--num_inits", type=int, default=defaults.get("num_inits", 1))
    p.add_argument("--seed", type=int, default=42, help="seed of the split seeds")
    add_device_flag(p)
    p.add_argument(
        "--batch_inits",
        type=int,
        metavar="B",
        help=f"trials to train side by side (default: {GPU_BATCH} on a GPU where the model can,"
        "\nelse 1); the rows do not depend on it",
    )
    p.add_argument("--out", type=path, help="result file (default: a new one in runs)")
    p.add_argument("--resume", action="store_true", help="go on with the result file --out")
    p.add_argument(
        "--fallback",
        choices=["digits"],
        help="run on this graph if the data set is unreachable;\nits rows go to OUT-digits",
    )
    p.add_argument("--settings", type=path, metavar="FILE", help="TOML file, a table a model")
    settings = p.add_argument_group(
        "settings (default: of FILE, benchmarks/nodes/settings/DATASET.toml or default.toml)"
    )
    for name, kind in SETTINGS.items():
        settings.add_argument(f"--{name}", type=kind)
    return p


def batch_size(args: argparse.Namespace) -> int:
    """How many trials are trained side by side."""
    independent = find_method(args.model).independent
    if args.batch_inits is None:
        return GPU_BATCH if independent and args.device.type == "cuda" else 1
    if args.batch_inits < 1:
        raise ValueError(f"Expected '--batch_inits' to be at least 1 (got {args.batch_inits})")
    if args.batch_inits > 1 and not independent:
        able = [name for name, method in METHODS.items() if method.independent]
        raise ValueError(
            f"Model '{args.model}' trains one initialization at a time, '--batch_inits' is for "
            f"{able} (got {args.batch_inits})"
        )
    return args.batch_inits


def main(argv: list[str] | None = None, defaults: Mapping[str, Any] = NONE) -> None:
    """Run the trials that are not yet in the result file and print the accuracy over all."""
    flags = parser(defaults)
    args = flags.parse_args(argv)
    check_split_flags(flags, args)
    if args.out is None and (args.resume or world()[1] > 1):
        raise ValueError("'--resume' and 'torchrun' need '--out', the result file to go on with")
    batch = batch_size(args)
    keep_freed_memory()
    data = open_graph(args)
    dataset, fallback = data.name, data.name == args.fallback != args.dataset
    protocol = open_splits(args, data)
    given = {name: getattr(args, name) for name in SETTINGS if getattr(args, name) is not None}
    settings = choose_settings(dataset, args.model, given, args.settings)
    if settings.get("layer_num") == 0:
        raise ValueError("Expected '--layer_num' of at least 1 (got 0)")
    training = {name: settings[name] for name in settings if name in TRAINING}
    kind = find_method(args.model)
    if args.directed and kind.symmetric:
        raise ValueError(f"Model '{args.model}' needs an undirected graph (got '--directed')")
    try:
        method = kind(data, **{n: value for n, value in settings.items() if n not in TRAINING})
    except (TypeError, ValueError) as error:
        where = f" of '{args.settings}'" if args.settings else ""
        raise ValueError(f"Model '{args.model}' with the settings{where}: {error}") from error
    header = {
        "dataset": dataset,
        "source": data.source,
        "split_kind": protocol.kind,
        "model": args.model,
        "seed": args.seed,
        "settings": settings,
        **({} if args.metric == "accuracy" else {"metric": args.metric}),
    }
    if dataset not in DATASETS or args.words or args.directed:
        header["form"] = data.form
    name = f"{file_name(dataset)}-{file_name(data.source)}-{file_name(args.model)}"
    out = args.out or new_path(Path("runs", defaults.get("name", "nodes")), name)
    if fallback:  # its rows must not stand in the way of the real ones
        out = out.with_stem(f"{out.stem}-{dataset}")
    trials = list(
        draw_trials(data.y, args.seed, protocol.num_splits, args.num_inits, protocol.split)
    )
    results = Results(out, header, args.resume)
    edges = f"{data.num_edges // 2} edges" if data.is_undirected() else f"{data.num_edges} arcs"
    print(
        f"{args.model} on {dataset} ({data.source}): {data.num_nodes} nodes, {edges}; "
        f"rows go to {results.file.path}"
    )

    finished = results.finished
    mine = [t for t in share_of_rank(trials) if (t.split, t.init) not in finished]
    versions = environment()
    with tqdm(total=len(mine), disable=None, unit="trial") as bar:
        for first in range(0, len(mine), batch):
            rows = run_trials(
                data, method, mine[first : first + batch], training, metric=args.metric
            )
            for row in rows:
                results.file.append({**header, **row, "versions": versions})
            bar.update(len(rows))
            mean = np.mean([row["test_acc"] for row in results.own])
            bar.set_postfix_str(f"mean test accuracy {100 * mean:.2f} %")

    done = {(row["split"], row["init"]): row for row in results.rows()}
    rows = [done[t.split, t.init] for t in trials if (t.split, t.init) in done]
    if len(rows) == len(trials):
        print(summary(rows, args.metric))
    else:
        print(f"{len(rows)} of {len(trials)} trials are done; other ranks are still running")
