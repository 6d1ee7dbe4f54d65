"""The command of ``python -m benchmarks.nodes``."""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch_geometric.data import Data
from tqdm import tqdm

from benchmarks import flags, nodes, report
from benchmarks.common import (
    Trial,
    device,
    draw_trials,
    environment,
    keep_freed_memory,
    new_path,
    share_of_rank,
    world,
)
from benchmarks.flags import DATASETS, NONE, SETTINGS, given
from benchmarks.nodes.graphs import Protocol, file_name, open_graph, open_splits
from benchmarks.nodes.models import METHODS, Method
from benchmarks.nodes.own import find_method
from benchmarks.nodes.settings import TRAINING, choose_settings
from benchmarks.rows import Results, run_trials, summary

Row = dict[str, Any]
GPU_BATCH = 10


def batch_size(args: argparse.Namespace, name: str) -> int:
    """How many trials of a model are trained side by side."""
    independent = find_method(name).independent
    if args.batch_inits is None:
        return GPU_BATCH if independent and args.device.type == "cuda" else 1
    if args.batch_inits < 1:
        raise ValueError(f"Expected '--batch_inits' to be at least 1 (got {args.batch_inits})")
    if args.batch_inits > 1 and not independent:
        able = [name for name, method in METHODS.items() if method.independent]
        raise ValueError(
            f"Model '{name}' trains one initialization at a time, '--batch_inits' is for "
            f"{able} (got {args.batch_inits})"
        )
    return args.batch_inits


def prepare(data: Data, name: str, settings: Row, args: argparse.Namespace) -> Method:
    """The method of a model on the graph.

    Raises:
        ValueError: If its settings do not fit.
    """
    own = {name: value for name, value in settings.items() if name not in TRAINING}
    try:
        return find_method(name)(data, **own)
    except (TypeError, ValueError) as error:
        where = f" of '{args.settings}'" if args.settings else ""
        raise ValueError(f"Model '{name}' with the settings{where}: {error}") from error


def run(
    data: Data,
    name: str,
    settings: Row,
    protocol: Protocol,
    args: argparse.Namespace,
) -> list[Row]:
    """Run the trials of a model that the result file lacks; the rows of all trials so far."""
    method = prepare(data, name, settings, args)
    header = {
        "dataset": data.name,
        "source": data.source,
        "split_kind": protocol.kind,
        "model": name,
        "seed": args.seed,
        "settings": settings,
        **({} if args.metric == "accuracy" else {"metric": args.metric}),
    }
    if data.name not in DATASETS or args.words or args.directed:
        header["form"] = data.form
    trials = list(
        draw_trials(data.y, args.seed, protocol.num_splits, args.num_inits, protocol.split)
    )
    results = Results(args.out, header, args.resume)
    edges = f"{data.num_edges // 2} edges" if data.is_undirected() else f"{data.num_edges} arcs"
    print(
        f"{name} on {data.name} ({data.source}): {data.num_nodes} nodes, {edges}; "
        f"rows go to {results.file.path}"
    )
    _measure(data, method, trials, results, args)
    done = {(row["split"], row["init"]): row for row in results.rows()}
    rows = [done[t.split, t.init] for t in trials if (t.split, t.init) in done]
    if len(rows) == len(trials):
        print(summary(rows, args.metric))
    else:
        print(f"{len(rows)} of {len(trials)} trials are done; other ranks are still running")
    return rows


def _measure(
    data: Data, method: Method, trials: Sequence[Trial], results: Results, args: argparse.Namespace
) -> None:
    """Append the rows that are missing."""
    header, finished, versions = results.header, results.finished, environment()
    batch = batch_size(args, header["model"])
    training = {name: value for name, value in header["settings"].items() if name in TRAINING}
    mine = [t for t in share_of_rank(trials) if (t.split, t.init) not in finished]
    with tqdm(total=len(mine), disable=None, unit="trial") as bar:
        for first in range(0, len(mine), batch):
            part = mine[first : first + batch]
            rows = run_trials(data, method, part, training, metric=args.metric)
            for row in rows:
                results.file.append({**header, **row, "versions": versions})
            bar.update(len(rows))
            mean = np.mean([row["test_acc"] for row in results.own])
            bar.set_postfix_str(f"mean test accuracy {100 * mean:.2f} %")


def all_settings(dataset: str, args: argparse.Namespace) -> dict[str, Row]:
    """The settings of every model; a flag goes to those that have it.

    Raises:
        ValueError: If a flag is a setting of none of them, or a model does not take the graph.
    """
    for name in args.model:
        batch_size(args, name)
    found = choose_settings(dataset, args.model, given(args, SETTINGS), args.settings)
    for name, settings in found.items():
        if settings.get("layer_num") == 0:
            raise ValueError("Expected '--layer_num' of at least 1 (got 0)")
        if args.directed and find_method(name).symmetric:
            raise ValueError(f"Model '{name}' needs an undirected graph (got '--directed')")
    return found


def main(argv: list[str] | None = None, defaults: Mapping[str, Any] = NONE) -> None:
    """Run every model on the same trials and print the accuracy over all."""
    p = flags.nodes(nodes.__doc__, defaults)
    args = p.parse_args(argv)
    flags.check_split_flags(p, args)
    if args.out is None and (args.resume or world()[1] > 1):
        raise ValueError("'--resume' and 'torchrun' need '--out', the result file to go on with")
    for name in args.model:
        find_method(name)
    args.device = device(args.device)
    keep_freed_memory()
    data = open_graph(args)
    protocol = open_splits(args, data)
    settings = all_settings(data.name, args)
    models = [file_name(name) for name in args.model[:1] if len(args.model) == 1]
    name = "-".join([file_name(data.name), file_name(data.source), *models])
    args.out = args.out or new_path(Path("runs", defaults.get("name", "nodes")), name)
    if data.name == args.fallback != args.dataset:  # not among the rows of the real graph
        args.out = args.out.with_stem(f"{args.out.stem}-{data.name}")
    found = []
    for place, (name, own) in enumerate(settings.items()):
        args.resume = args.resume or place > 0  # the models share a file
        found += run(data, name, own, protocol, args)
    if args.format or len(settings) > 1:
        metric = "acc" if args.metric == "accuracy" else args.metric
        print(report.comparison(found, args.model[0], args.format, metric))
