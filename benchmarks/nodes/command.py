"""Accuracy on citation graphs over random splits and initialisations.

python -m benchmarks.planetoid --dataset cora --step_size 0.25 --layer_num 20 --dropout 0.25
"""

import argparse
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from benchmarks.nodes.graphs import SPLIT_KINDS, SPLITS, open_graph
from benchmarks.nodes.models import METHODS
from benchmarks.nodes.settings import DATASETS, SETTINGS, TRAINING, choose_settings
from benchmarks.rows import Results, run_trials, summary
from torch_geometric_diff.experiment import (
    draw_trials,
    environment,
    keep_freed_memory,
    share_of_rank,
    world,
)

Row = dict[str, Any]
GPU_BATCH = 10


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
    settings = p.add_argument_group("settings (default: benchmarks/nodes/settings/DATASET.toml)")
    for name, kind in SETTINGS.items():
        settings.add_argument(f"--{name}", type=kind)
    return p


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
            mean = np.mean([row["test_acc"] for row in results.own])
            bar.set_postfix_str(f"mean test accuracy {100 * mean:.2f} %")

    done = {(row["split"], row["init"]): row for row in results.rows()}
    rows = [done[t.split, t.init] for t in trials if (t.split, t.init) in done]
    if len(rows) == len(trials):
        print(summary(rows))
    else:
        print(f"{len(rows)} of {len(trials)} trials are done; other ranks are still running")
