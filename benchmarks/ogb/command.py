"""The command of ``python -m benchmarks.ogb``."""

import argparse
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import Data
from tqdm import tqdm

from benchmarks import flags, ogb, report
from benchmarks.common import (
    Trial,
    accuracy,
    device,
    environment,
    new_path,
    refuse_unused,
    share_of_rank,
    world,
)
from benchmarks.flags import OGB_SETTINGS, OGB_TRAINING, given
from benchmarks.ogb.decoupled import DiffusedMLPMethod
from benchmarks.ogb.models import PEERS, Method, settings_of
from benchmarks.ogb.partitioned import train_in_parts
from benchmarks.rows import Results, summary
from torch_geometric_diff.data.ogb import load_ogb, undirected

Row = dict[str, Any]
METHODS: dict[str, type[Method]] = {**PEERS, "diffused-mlp": DiffusedMLPMethod}


def choose_settings(args: argparse.Namespace, name: str) -> tuple[Row, Row]:
    """The settings of a model and of its training, flags laid over the defaults.

    Raises:
        ValueError: If a flag is a setting of none of the models that are asked for.
    """
    chosen = given(args, (*OGB_SETTINGS, *OGB_TRAINING))
    known = {*OGB_TRAINING}.union(*(settings_of(METHODS[each]) for each in args.model))
    if unknown := sorted(chosen.keys() - known):
        raise ValueError(
            f"Model '{' '.join(args.model)}' has no setting {unknown}; it has {sorted(known)}"
        )
    model = {n: chosen.get(n, v) for n, v in settings_of(METHODS[name]).items()}
    usual = {**OGB_TRAINING, **METHODS[name].training}
    return model, {n: chosen.get(n, v) for n, v in usual.items()}


def open_set(dataset: str, root: Path, device: torch.device) -> Data:
    """Read a set and make its graph undirected, as the leaderboard's models do."""
    data = load_ogb(dataset, root)
    if data.x is None:
        raise ValueError(f"'{dataset}' has no node features, which every model here needs")
    data.x = data.x.float()
    data.edge_index = undirected(data.edge_index, data.num_nodes)
    return data.to(device)


def open_diffused(dataset: str, root: Path, device: torch.device, features: Path) -> Data:
    """The labeled nodes of a set with features that ``benchmarks.ogb_features`` wrote.

    Neither the graph nor the other nodes are read: of ogbn-papers100M, 1.4 % have a label.
    """
    data = load_ogb(dataset, root, features=False, edges=False)
    written = np.load(features, mmap_mode="r", allow_pickle=False)
    if written.ndim not in (2, 3) or written.shape[-2] != data.num_nodes:
        raise ValueError(
            f"'{features}' has shape {list(written.shape)}, expected [{data.num_nodes}, F] or "
            f"[S, {data.num_nodes}, F]"
        )
    parts = [f"{part}_index" for part in ("train", "valid", "test")]
    nodes = torch.cat([data[part] for part in parts]).sort().values
    steps = written if written.ndim == 3 else written[None]
    x = torch.from_numpy(np.concatenate([step[nodes.numpy()] for step in steps], axis=1)).float()
    index = {part: torch.searchsorted(nodes, data[part]) for part in parts}
    known = {name: data[name] for name in ("num_classes", "name", "split")}
    return Data(x=x, y=data.y[nodes], **index, **known).to(device)


def scorer(name: str) -> tuple[str, Callable[[Tensor, Tensor, Tensor], float]]:
    """OGB's ``Evaluator`` for an official set where ``ogb`` is installed, else accuracy itself."""
    if not name.startswith("ogbn-"):
        return "accuracy", accuracy
    try:
        from ogb.nodeproppred import Evaluator
    except ImportError:
        return "accuracy", accuracy
    evaluator = Evaluator(name)

    def score(logits: Tensor, y: Tensor, nodes: Tensor) -> float:
        true, predicted = y[nodes, None], logits[nodes].argmax(dim=-1, keepdim=True)
        return float(evaluator.eval({"y_true": true, "y_pred": predicted})["acc"])

    return f"ogb {version('ogb')}", score


def run_trial(data: Data, method: Method, trial: Trial, training: Row, score: Any) -> Row:
    """Train from one seed and measure."""
    start = time.perf_counter()
    result = method.run(trial, **training)
    seconds = time.perf_counter() - start
    return {
        "split": trial.split,
        "init": trial.init,
        "init_seed": trial.init_seed,
        "test_acc": score(result.logits, data.y, trial.test),
        "val_acc": score(result.logits, data.y, trial.val),
        "best_epoch": result.best_epoch,
        "epochs": result.epochs,
        "seconds": round(seconds, 3),
    }


def run(data: Data, name: str, settings: tuple[Row, Row], args: argparse.Namespace) -> list[Row]:
    """Run the seeds of a model that the result file lacks and print the accuracy over all."""
    model, training = settings
    evaluator, score = scorer(data.name)
    header = {
        "dataset": data.name,
        "source": "ogb layout",
        "split_kind": f"official, {data.split}",
        "model": name,
        "seed": args.seed,
        "features": None if args.features is None else args.features.name,
        "evaluator": evaluator,
        "settings": {**model, **training},
    }
    results = Results(args.out, header, args.resume)
    print(
        f"{name} on {data.name}: {data.num_nodes} nodes; rows go to {results.file.path}",
        flush=True,
    )
    split = (data.train_index, data.valid_index, data.test_index)
    trials = [Trial(0, init, 0, args.seed + init, *split) for init in range(args.num_inits)]
    finished = results.finished
    mine = [trial for trial in share_of_rank(trials) if (0, trial.init) not in finished]
    if mine:
        method = METHODS[name](data, **model)
    for trial in tqdm(mine, disable=None, unit="seed"):
        row = run_trial(data, method, trial, training, score)
        results.file.append({**header, **row, "versions": environment()})

    done = {row["init"]: row for row in results.rows()}
    rows = [done[trial.init] for trial in trials if trial.init in done]
    if len(rows) == len(trials):
        print(summary(rows))
    else:
        print(f"{len(rows)} of {len(trials)} seeds are done; other ranks are still running")
    return rows


def main(argv: list[str] | None = None) -> None:
    """Run one model after the other."""
    p = flags.ogb(ogb.__doc__)
    args = p.parse_args(argv)
    if args.out is None and (args.resume or world()[1] > 1):
        raise ValueError("'--resume' and 'torchrun' need '--out', the result file to go on with")
    if args.num_inits < 1:
        raise ValueError(f"Expected '--num_inits' to be positive (got {args.num_inits})")
    if args.features is not None and args.model != ["mlp"]:
        raise ValueError(f"'--features' is for the model 'mlp' (got '{' '.join(args.model)}')")
    settings = {name: choose_settings(args, name) for name in args.model}
    if not args.partition:
        refuse_unused(p, args, ["order"], "one graph a rank, without '--partition'")
    args.device = device(args.device)
    if args.partition:
        if args.out is None or args.features is not None:
            raise ValueError("'--partition' needs '--out', the result file, and no '--features'")
        return train_in_parts(args, settings)
    if args.features is None:
        data = open_set(args.dataset, args.root, args.device)
    else:
        data = open_diffused(args.dataset, args.root, args.device, args.features)
    args.out = args.out or new_path("runs/ogb", "-".join([data.name, *args.model[:1]]))
    found = []
    for place, name in enumerate(args.model):
        args.resume = args.resume or place > 0  # the models share a file
        found += run(data, name, settings[name], args)
    if args.format or len(args.model) > 1:
        print(report.comparison(found, args.model[0], args.format))
