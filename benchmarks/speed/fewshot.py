"""Tasks per second of the diffusion method: ours, and the original form of its training.

All forms get the same features (5 way, 15 queries per class, 512 numbers, 100 epochs), threads and
initial networks, and do the same work: weights, initial numbers, training, labels.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from fewshot.methods import Diffusion
from fewshot.methods.plain import train_plain
from fewshot.methods.training import Network
from fewshot.tasks import Tasks, TaskSampler

if TYPE_CHECKING:
    from benchmarks.speed.harness import Harness


def _tasks(method: Diffusion, shot: int, count: int) -> Tasks:
    """Tasks from synthetic features like a ReLU network's."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(20).repeat_interleave(40)
    features = torch.randn(20, 512, generator=generator)[labels]
    features = (features + 2 * torch.randn(800, 512, generator=generator)).relu()
    return method.prepare(TaskSampler(features, labels, shot=shot)(0, count), features.mean(0))


def _plain(method: Diffusion, task: Tasks) -> Tensor:
    network = Network.draw(task.seeds, task.way, task.query)
    logits = train_plain(method.problem(task), network)
    return logits[:, len(task.support_labels) :].argmax(-1)


def run(harness: Harness, quick: bool) -> list[dict[str, Any]]:
    """The rows of the suite; ``seconds`` are per ``tasks`` tasks."""
    method, count, rows = Diffusion(), 2 if quick else 6, []
    for shot in (1,) if quick else (1, 5):
        tasks = _tasks(method, shot, count)

        def in_turn(tasks: Tasks = tasks) -> Tensor:
            return torch.cat([_plain(method, task) for task in tasks.split(1)])

        def in_threads(tasks: Tasks = tasks) -> Tensor:
            threads = torch.get_num_threads()
            try:
                with ThreadPoolExecutor(threads, "task", torch.set_num_threads, (1,)) as pool:
                    return torch.cat(list(pool.map(lambda t: _plain(method, t), tasks.split(1))))
            finally:
                torch.set_num_threads(threads)

        def ours(tasks: Tasks = tasks) -> Tensor:
            return method.predict(tasks)

        agree = (ours() == in_turn()).float().mean().item()
        found = harness.compare(
            f"5-way {shot}-shot, 512 features, 100 epochs, {count} tasks",
            {
                "ours": ours,
                "original form, one task at a time": in_turn,
                "original form, a task per thread": in_threads,
            },
            ours="ours",
            repeats=3,
        )
        for row in found:
            row["suite"] = "fewshot"
            row["tasks_per_second"] = count / row["seconds"]
            row["same_labels"] = agree
        rows += found
    return rows
