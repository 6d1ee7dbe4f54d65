"""Accuracy of a few-shot method over many tasks.

``python -m fewshot.train --dataset mini --backbone resnet18 --shot 1 --method diffusion
--step_size 0.5 --layer_num 6``

Reads a features file of ``python -m fewshot.embed`` and appends one JSON line per 100 tasks to
``--out``: a killed run resumes, and task number t is the same for every method and setting. A line
tells the seconds that the method took, on the CPU those of all threads together.
"""

import argparse
import math
import time
from collections.abc import Callable
from itertools import chain
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from benchmarks.common import ResultFile, add_device_flag, command_line, environment, refuse_unused

from . import methods
from .features import load_features
from .tasks import Tasks, TaskSampler

BLOCK = 100  # tasks per line of results

METHODS: dict[str, Callable[[argparse.Namespace], methods.Method]] = {
    "simple": lambda args: methods.SimpleShot(),
    "laplacian": lambda args: methods.LaplacianShot(args.lamda, args.knn, rectify=not args.raw),
    "diffusion": lambda args: methods.Diffusion(
        args.step_size, args.layer_num, args.n_top, args.sigma, args.alpha, args.mu
    ),
    "heat": lambda args: methods.HeatPrototypes(prior=args.prior),
    "power": lambda args: methods.PowerPrototype(),
    "bdcspn": lambda args: methods.BDCSPN(),
    "tim": lambda args: methods.TIM(),
    "alpha-tim": lambda args: methods.AlphaTIM(),
    "ptmap": lambda args: methods.PTMAP(),
    "ptmap-free": lambda args: methods.PriorFreePTMAP(),
    "propagation": lambda args: methods.LabelPropagation(n_top=args.n_top, sigma=args.sigma),
    "logistic": lambda args: methods.LogisticRegression(),
}
OWN = {  # the options of single methods
    "diffusion": ("step_size", "layer_num", "n_top", "sigma", "alpha", "mu"),
    "propagation": ("n_top", "sigma"),
    "laplacian": ("lamda", "knn"),
    "heat": ("prior",),
}


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "python -m fewshot.train", description="Accuracy of a few-shot method over many tasks."
    )
    parser.add_argument("--dataset", required=True)
    parser.add_argument("--backbone", required=True)
    parser.add_argument("--split", default="test", help="classes to draw from (default: test)")
    parser.add_argument(
        "--features", help="(default: runs/fewshot/features/DATASET_BACKBONE_SPLIT.safetensors)"
    )
    parser.add_argument("--method", choices=METHODS, default="diffusion")
    parser.add_argument("--way", type=int, default=5)
    parser.add_argument("--shot", type=int, default=1)
    parser.add_argument("--query_per_class", type=int, default=15)
    parser.add_argument("--test_iter", type=int, help="tasks (default: 10000, with --raw 1000)")
    parser.add_argument(
        "--raw",
        action="store_true",
        help="features as they are (the paper's Table 2); otherwise as each method wants them: "
        "centered, normalized, and shifted and rectified where it does so (Table 3)",
    )
    parser.add_argument("--unbalanced", action="store_true", help="class shares ~ Dirichlet(2)")
    parser.add_argument("--seed", type=int, default=0)
    diffusion = parser.add_argument_group("diffusion (n_top and sigma: propagation too)")
    diffusion.add_argument("--step_size", type=float, default=0.5)
    diffusion.add_argument("--layer_num", type=int, default=6, help="diffusion steps")
    diffusion.add_argument("--n_top", type=int, default=8, help="neighbors + 1, itself counted")
    diffusion.add_argument("--sigma", type=int, default=4, help="neighbor that sets the width")
    diffusion.add_argument("--alpha", type=float, default=0.0, help="distance term of the loss")
    diffusion.add_argument("--mu", type=float, default=0.0, help="smoothness term of the loss")
    laplacian = parser.add_argument_group("laplacian")
    laplacian.add_argument("--lamda", type=float, default=0.5)
    laplacian.add_argument("--knn", type=int, default=3, help="neighbors, itself counted")
    heat = parser.add_argument_group("heat")
    heat.add_argument(
        "--prior",
        choices=methods.heat.PRIORS,
        default="learned",
        help="of the classes' sizes among the queries (default: learned from each task)",
    )
    parser.add_argument("--out", help="(default: runs/fewshot/results/..., one file per setting)")
    parser.add_argument("--resume", action="store_true", help="go on with an existing --out")
    parser.add_argument("--threads", type=int, help="CPU threads (default: torch's)")
    add_device_flag(parser)
    parser.add_argument("--silent", action="store_true", help="print the last line only")
    return parser


def _settings(args: argparse.Namespace, method: methods.Method, meta: dict[str, Any]) -> dict:
    """All that the accuracies depend on."""
    names = ("method", "shot", "way", "query_per_class", "unbalanced", "raw", "seed")
    own = {k: v._asdict() if hasattr(v, "_asdict") else v for k, v in vars(method).items()}
    return {"features": meta, **{name: getattr(args, name) for name in names}, "own": own}


def mean_and_interval(accuracies: np.ndarray) -> tuple[float, float]:
    """Mean and half the 95 % interval, 1.96 std / sqrt(n), in percent."""
    half = 1.96 * accuracies.std() / math.sqrt(len(accuracies))
    return 100 * float(accuracies.mean()), 100 * float(half)


def each_task_once(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows of one setting by their first task, without those of tasks that others have."""
    told, rows = 0, sorted(rows, key=lambda row: (row["first"], -len(row["correct"])))
    found = []
    for row in rows:
        if row["first"] >= told:
            found.append(row)
            told = row["first"] + len(row["correct"])
    return found


def missing_blocks(rows: list[dict[str, Any]], test_iter: int) -> list[tuple[int, int]]:
    """The first task and the number of tasks of each row that is to be added."""
    begin, blocks = 0, []
    ends = [(row["first"], row["first"] + len(row["correct"])) for row in each_task_once(rows)]
    for first, end in [*ends, (test_iter, test_iter)]:
        gap = range(begin, min(first, test_iter), BLOCK)
        blocks += [(start, min(BLOCK, gap.stop - start)) for start in gap]
        begin = end
    return blocks


def accuracies(rows: list[dict[str, Any]]) -> np.ndarray:
    """Accuracy of each task in the rows of one setting."""
    return np.concatenate([np.array(row["correct"]) / row["queries"] for row in rows])


def evaluate(
    method: methods.Method,
    tasks: Tasks,
    base_mean: torch.Tensor,
    *,
    raw: bool = False,
) -> tuple[list[int], float]:
    """Queries labeled correctly in each task, and the seconds it took."""
    # other processes do not disturb the processor's own clock
    clock = time.process_time if tasks.query.device.type == "cpu" else time.perf_counter
    start = clock()
    if not raw:
        tasks = method.prepare(tasks, base_mean)
    correct = (method.predict(tasks) == tasks.query_labels).sum(1).tolist()
    return correct, clock() - start


def main(argv: list[str] | None = None) -> None:
    args = parser().parse_args(argv)
    others = sorted({*chain(*OWN.values())} - {*OWN.get(args.method, ())})
    refuse_unused(parser(), args, others, f"'--method {args.method}'")
    test_iter = args.test_iter
    if test_iter is None:
        test_iter = 1000 if args.raw else 10_000
    for name, value in (("test_iter", test_iter), ("threads", args.threads)):
        if value is not None and value < 1:
            raise ValueError(f"'--{name}' must be at least 1 (got {value})")
    if args.threads:
        torch.set_num_threads(args.threads)

    method = METHODS[args.method](args)
    name = f"{args.dataset}_{args.backbone}_{args.split}"
    path = args.features or f"runs/fewshot/features/{name}.safetensors"
    data = load_features(path, args.dataset, args.backbone, args.split)
    base_mean = data.base_mean.to(args.device)
    sampler = TaskSampler(
        data.features,
        data.labels,
        way=args.way,
        shot=args.shot,
        query_per_class=args.query_per_class,
        seed=args.seed,
        unbalanced=args.unbalanced,
    )
    flags = "_raw" * args.raw + "_unbalanced" * args.unbalanced
    out = args.out or f"runs/fewshot/results/{name}_{args.shot}shot{flags}_{args.method}.jsonl"
    results = ResultFile(out, key=("first",), resume=args.resume)
    settings = _settings(args, method, data.meta)
    if any(row["settings"] != settings for row in results.rows):
        raise ValueError(
            f"'{out}' holds results of other settings or features; choose another '--out'"
        )

    bar = tqdm(
        missing_blocks(results.rows, test_iter),
        desc=f"{args.method}, {BLOCK} tasks",
        leave=False,
        disable=True if args.silent else None,
    )
    for first, count in bar:
        tasks = sampler(first, count).to(args.device)
        correct, seconds = evaluate(method, tasks, base_mean, raw=args.raw)
        results.append(
            {
                "first": first,
                "correct": correct,
                "queries": args.way * args.query_per_class,
                "seconds": round(seconds, 4),
                "settings": settings,
                "environment": environment(),
            }
        )
    per_task = accuracies(each_task_once(results.rows))
    mean, half = mean_and_interval(per_task)
    print(
        f"{name} {args.way}-way {args.shot}-shot{flags.replace('_', ' ')} {args.method}: "
        f"{mean:.2f} ± {half:.2f} % over {len(per_task)} tasks"
    )


if __name__ == "__main__":
    command_line(main)
