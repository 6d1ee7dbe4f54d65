"""Accuracy of a few-shot method over many tasks.

``python -m fewshot.train --dataset mini --backbone resnet18 --shot 1 --method diffusion
--step_size 0.5 --layer_num 6``

Reads a features file of ``python -m fewshot.embed`` and appends one JSON line per 100 tasks to
``--out``: a killed run resumes, and task number t is the same for every method and setting. A line
tells the seconds that the method took, on the CPU those of all threads together.
"""

import argparse
import time
from collections.abc import Callable
from itertools import chain
from typing import Any

from . import flags

if __name__ == "__main__":  # a typo waits for no import
    flags.train(__doc__).parse_args()

import torch
from tqdm import tqdm

from benchmarks.common import ResultFile, command_line, device, environment, refuse_unused

from . import methods
from .features import load_features
from .rows import accuracies, each_task_once, mean_and_interval
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


def _settings(args: argparse.Namespace, method: methods.Method, meta: dict[str, Any]) -> dict:
    """All that the accuracies depend on."""
    names = ("method", "shot", "way", "query_per_class", "unbalanced", "raw", "seed")
    own = {k: v._asdict() if hasattr(v, "_asdict") else v for k, v in vars(method).items()}
    return {"features": meta, **{name: getattr(args, name) for name in names}, "own": own}


def missing_blocks(rows: list[dict[str, Any]], test_iter: int) -> list[tuple[int, int]]:
    """The first task and the number of tasks of each row that is to be added."""
    begin, blocks = 0, []
    ends = [(row["first"], row["first"] + len(row["correct"])) for row in each_task_once(rows)]
    for first, end in [*ends, (test_iter, test_iter)]:
        gap = range(begin, min(first, test_iter), BLOCK)
        blocks += [(start, min(BLOCK, gap.stop - start)) for start in gap]
        begin = end
    return blocks


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
    p = flags.train(__doc__)
    args = p.parse_args(argv)
    others = sorted({*chain(*OWN.values())} - {*OWN.get(args.method, ())})
    refuse_unused(p, args, others, f"'--method {args.method}'")
    test_iter = args.test_iter
    if test_iter is None:
        test_iter = 1000 if args.raw else 10_000
    for name, value in (("test_iter", test_iter), ("threads", args.threads)):
        if value is not None and value < 1:
            raise ValueError(f"'--{name}' must be at least 1 (got {value})")
    if args.threads:
        torch.set_num_threads(args.threads)

    args.device = device(args.device)
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
    form = "_raw" * args.raw + "_unbalanced" * args.unbalanced
    out = args.out or f"runs/fewshot/results/{name}_{args.shot}shot{form}_{args.method}.jsonl"
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
        f"{name} {args.way}-way {args.shot}-shot{form.replace('_', ' ')} {args.method}: "
        f"{mean:.2f} ± {half:.2f} % over {len(per_task)} tasks"
    )


if __name__ == "__main__":
    command_line(main)
