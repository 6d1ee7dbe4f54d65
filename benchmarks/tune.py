"""Search the settings of a model by validation accuracy, resumable at any moment.

python -m benchmarks.tune --dataset cora --trials 100 --num_splits 10 --out runs/tune/cora.jsonl
python -m benchmarks.tune --dataset cora --model diff-resnet-words --out runs/tune/words.jsonl
python -m benchmarks.tune --dataset cora --model my_models:Net --space net.toml --out net.jsonl
python -m benchmarks.tune --dataset cora --out runs/tune/cora.jsonl --trials 0 --write

The splits are drawn from another seed than the reported ones and have twice their validation
nodes: one half stops the training, the other judges the settings. (Judged by the half that stops,
settings win whose accuracy fluctuates: the epoch kept is one that happens to fit it.) The labels of
all other nodes are hidden from training and search alike; with ``--judge rest`` they judge.
"""

import re
import time
import warnings
from collections.abc import Iterator, Sequence
from copy import copy
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import flags

if __name__ == "__main__":  # a typo waits for no import
    flags.tune(__doc__).parse_args()

import numpy as np
import optuna
import torch
from torch_geometric.data import Data
from tqdm import tqdm

from benchmarks.common import (
    ResultFile,
    Trial,
    accuracy,
    check_writable,
    command_line,
    draw_trials,
    environment,
    keep_freed_memory,
    write_atomically,
)
from benchmarks.common.splits import per_class_split, split_seeds
from benchmarks.nodes.graphs import (
    drop_small_classes,
    file_name,
    open_graph,
    open_splits,
)
from benchmarks.nodes.own import find_method
from benchmarks.nodes.settings import FOLDER, TRAINING, load_settings
from benchmarks.nodes.spaces import Plan, plan_of
from benchmarks.nodes.variant import mixed_graph
from benchmarks.rows import check_header
from torch_geometric_diff.ops import DiffusionOperator

Row = dict[str, Any]
REPORTED_SEED, REPORTED_SPLITS = 42, 100  # of benchmarks.planetoid


def tuning_trials(
    data: Data,
    seed: int,
    num_splits: int,
    num_train: int = 20,
    num_val: int = 30,
    judge: str = "val",
) -> list[Trial]:
    """Splits that are none of the reported ones; ``test`` are the nodes that judge."""
    common = {*split_seeds(seed, num_splits)} & {*split_seeds(REPORTED_SEED, REPORTED_SPLITS)}
    if common:
        raise ValueError(
            f"'--seed' {seed} draws splits that are reported (split seeds {sorted(common)}); "
            "choose another"
        )
    trials = []
    split = partial(per_class_split, num_train=num_train, num_val=2 * num_val)
    for trial in draw_trials(data.y, seed, num_splits, 1, split):
        stopping, judging = trial.val.view(-1, 2, num_val).unbind(dim=1)  # of every class
        judges = judging.flatten() if judge == "val" else trial.test
        trials.append(replace(trial, val=stopping.flatten(), test=judges))
    return trials


def hide_labels(data: Data, trial: Trial) -> Data:
    """The graph with the labels that training may see: those to learn from and to stop by."""
    hidden = copy(data)
    hidden.y = torch.full_like(data.y, -1)
    for nodes in (trial.train, trial.val):
        hidden.y[nodes] = data.y[nodes]
    return hidden


def to_settings(data: Data, plan: Plan, params: Row, max_epochs: int) -> Row:
    """All settings of a model: a relative step becomes a step size."""
    settings = {**plan.fixed, **params}
    if "max_epochs" in settings:
        settings["max_epochs"] = min(settings["max_epochs"], max_epochs)
    share = settings.pop("relative_step", None)
    if share is not None:
        operator = DiffusionOperator(
            *mixed_graph(data, settings["neighbors"], settings["mix"]),
            num_nodes=data.num_nodes,
            step_size=1e-3,
            normalization=settings["normalization"],
            add_self_loops=settings.get("self_loops", True),
        )
        settings["step_size"] = share * operator.max_stable_step_size
    return {
        name: float(f"{value:.3g}") if isinstance(value, float) else value
        for name, value in settings.items()
    }


def val_accuracies(
    data: Data, model: str, settings: Row, trials: Sequence[Trial]
) -> Iterator[float]:
    """Accuracy of the nodes that judge, on one split after the other."""
    training = {name: value for name, value in settings.items() if name in TRAINING}
    rest = {name: value for name, value in settings.items() if name not in TRAINING}
    method = find_method(model)(data, **rest)
    for trial in trials:
        method.data = hide_labels(data, trial)
        [result] = method.run([trial], **training)
        yield accuracy(result.logits, data.y, trial.test)


class Search:
    """Optuna's TPE, rebuilt from the rows of a file: there is no other state.

    Args:
        model (str): The model whose settings are searched.
        plan (Plan): What is searched, and where it begins.
        rows (list of dict): The settings tried so far.
        seed (int): Seed of the sampler, moved on by the number of rows.
    """

    def __init__(self, model: str, plan: Plan, rows: list[Row], seed: int) -> None:
        self.model, self.plan = model, plan
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            self.study = optuna.create_study(
                direction="maximize",
                sampler=optuna.samplers.TPESampler(n_startup_trials=12, seed=seed + len(rows)),
                # Split by split against the best settings, which saw the same splits.
                pruner=optuna.pruners.WilcoxonPruner(p_threshold=0.2, n_startup_steps=3),
            )
        for row in rows:
            self.study.add_trial(
                optuna.trial.create_trial(
                    state=optuna.trial.TrialState[row["state"]],
                    params=row["params"],
                    distributions=plan.space,
                    value=row["val_acc"],
                    intermediate_values=dict(enumerate(row["val_accs"])),
                )
            )
        if len(rows) < len(plan.starts):
            self.study.enqueue_trial(plan.starts[len(rows)])

    def step(self, data: Data, trials: Sequence[Trial], max_epochs: int) -> Row:
        """Try the next settings and return their row."""
        proposal = self.study.ask(self.plan.space)
        settings = to_settings(data, self.plan, proposal.params, max_epochs)
        start, values, pruned = time.perf_counter(), [], False
        for split, value in enumerate(val_accuracies(data, self.model, settings, trials)):
            values.append(value)
            proposal.report(value, split)
            pruned = split + 1 < len(trials) and proposal.should_prune()
            if pruned:
                break
        state = optuna.trial.TrialState.PRUNED if pruned else optuna.trial.TrialState.COMPLETE
        mean = float(np.mean(values))
        self.study.tell(proposal, None if pruned else mean, state)
        return {
            "number": proposal.number,
            "state": state.name,
            "val_acc": mean,
            "val_accs": values,
            "params": proposal.params,
            "settings": settings,
            "seconds": round(time.perf_counter() - start, 3),
        }


def best(rows: list[Row]) -> Row:
    """The row of the highest validation accuracy among those that saw every split."""
    complete = [row for row in rows if row["state"] == "COMPLETE"]
    if not complete:
        raise ValueError("No settings were tried on every split yet; raise '--trials'")
    return max(complete, key=lambda row: row["val_acc"])


def to_toml(row: Row, rows: list[Row], num_splits: int, seed: int) -> str:
    """The settings of a row as a table, with a comment that says how they were found."""
    values = {
        name: f'"{value}"' if isinstance(value, str) else str(value).lower()
        for name, value in sorted(row["settings"].items())
    }
    date = row["versions"]["date"]
    lines = [
        f"# Found by benchmarks.tune, {date}: best of {len(rows)} settings by validation",
        f"# accuracy ({100 * row['val_acc']:.2f} %, nodes that did not stop the training) on "
        f"{num_splits} splits of seed {seed},",
        "# none of them reported.",
        f"[{table_name(row['model'])}]",
        *(f"{name} = {value}" for name, value in values.items()),
    ]
    return "\n".join(lines) + "\n"


def table_name(model: str) -> str:
    """The name of a model's table in TOML."""
    return model if re.fullmatch(r"[\w-]+", model) else f'"{model}"'


def write_settings(file: Path, model: str, table: str) -> None:
    """Put a model's table into a settings file in place of the one it has, comment included."""
    text = file.read_text(encoding="utf-8") if file.exists() else ""
    name = re.escape(table_name(model))
    old = re.compile(rf"(^#[^\n]*\n)*^\[{name}\][^\n]*\n([\w ]+=[^\n]*\n)*", re.MULTILINE)
    text = old.sub("", text).rstrip("\n")
    text = f"{text}\n\n" if text else ""
    with write_atomically(file) as temporary:
        temporary.write_text(text + table, encoding="utf-8")


def main(argv: list[str] | None = None) -> None:
    """Go on with the search and print the best settings."""
    args = flags.tune(__doc__).parse_args(argv)
    args.source = args.source or flags.SOURCES.get(args.dataset)
    args.fallback, args.device, args.split = None, "cpu", "per_class"
    if args.trials < 0:
        raise ValueError(f"Expected '--trials' to be at least 0 (got {args.trials})")
    keep_freed_memory()
    if args.settings and not args.write:
        raise ValueError("Expected '--write' beside '--settings', which says where to")
    find_method(args.model)
    data = open_graph(args)
    plan = plan_of(args.model, load_settings(data.name, args.model), args.space)
    target = args.settings or FOLDER / f"{file_name(data.name)}.toml"
    if args.write:
        check_writable(target)  # before the search
    left_out = drop_small_classes(data, args.num_train + 2 * args.num_val + 1)
    kind = open_splits(args, data).kind + left_out
    numbers = (args.num_splits, args.num_train, args.num_val)
    trials = tuning_trials(data, args.seed, *numbers, args.judge)
    judges = f"{args.num_val} further val per class judge" if args.judge == "val" else "rest judges"
    header = {
        "dataset": data.name,
        "source": data.source,
        "split_kind": f"{kind}; {judges}",
        "model": args.model,
        "seed": args.seed,
        "num_splits": args.num_splits,
        "max_epochs": args.max_epochs,
        **({} if args.space is None else {"space": plan.text()}),
    }
    file = ResultFile(args.out, key=("number",), resume=True)
    for row in file.rows:
        check_header(args.out, row, header)
    versions = environment()
    with tqdm(range(len(file.rows), args.trials), disable=None, unit="trial") as bar:
        for _ in bar:
            # anew, so that a resumed search is the same
            search = Search(args.model, plan, file.rows, args.seed)
            row = search.step(data, trials, args.max_epochs)
            file.append({**header, **row, "versions": versions})
            bar.set_postfix_str(f"best {100 * best(file.rows)['val_acc']:.2f} %")
    winner = best(file.rows)
    table = to_toml(winner, file.rows, args.num_splits, args.seed)
    print(table, end="")
    if args.write:
        write_settings(target, args.model, table)


if __name__ == "__main__":
    command_line(main)
