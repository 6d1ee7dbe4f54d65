"""Few-shot tasks: drawing them from features, and what is done to the features before a method."""

from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Tasks:
    """Some tasks side by side; classes are numbered ``0 ... way - 1`` inside each task."""

    support: Tensor  # [tasks, way * shot, F], class by class
    query: Tensor  # [tasks, queries, F]
    support_labels: Tensor  # [way * shot], the same for all tasks
    query_labels: Tensor  # [tasks, queries]
    seeds: tuple[int, ...]  # one per task, for methods that draw numbers

    @property
    def way(self) -> int:
        return int(self.support_labels[-1]) + 1

    @property
    def points(self) -> Tensor:
        """Support and queries, [tasks, way * shot + queries, F]."""
        return torch.cat([self.support, self.query], dim=1)

    @property
    def prototypes(self) -> Tensor:
        """The mean support feature of each class, [tasks, way, F]."""
        return self.support.unflatten(1, (self.way, -1)).mean(2)

    def split(self, size: int) -> "list[Tasks]":
        """The same tasks in groups of ``size``."""
        return [
            Tasks(
                support=self.support[i : i + size],
                query=self.query[i : i + size],
                support_labels=self.support_labels,
                query_labels=self.query_labels[i : i + size],
                seeds=self.seeds[i : i + size],
            )
            for i in range(0, len(self.seeds), size)
        ]

    def to(self, device: torch.device | str) -> "Tasks":
        tensors = ("support", "query", "support_labels", "query_labels")
        return replace(self, **{name: getattr(self, name).to(device) for name in tensors})


class TaskSampler:
    """Draws task number ``t`` from the features; it depends on ``seed`` and ``t`` only.

    Args:
        features (Tensor): One row per image, ``[N, F]``.
        labels (Tensor): The class of each image, ``[N]``.
        way, shot (int): Classes per task, labeled images per class.
        query_per_class (int): Images to classify per class; with ``unbalanced`` their mean.
        seed (int): Seed of all draws.
        unbalanced (bool): Draw the classes' shares of the ``way * query_per_class`` queries from a
            Dirichlet distribution with parameter 2 (Veilleux et al., 2021).

    Raises:
        ValueError: If there are fewer classes than ``way`` or a class has too few images.
    """

    def __init__(
        self,
        features: Tensor,
        labels: Tensor,
        *,
        way: int = 5,
        shot: int = 1,
        query_per_class: int = 15,
        seed: int = 0,
        unbalanced: bool = False,
    ) -> None:
        for name, value, least in (
            ("way", way, 2),
            ("shot", shot, 1),
            ("query_per_class", query_per_class, 1),
        ):
            if value < least:
                raise ValueError(f"'{name}' must be at least {least} (got {value})")
        classes, counts = labels.unique(return_counts=True)
        if len(classes) < way:
            raise ValueError(f"'way' is {way}, but the features hold only {len(classes)} classes")
        needed = shot + query_per_class * (way if unbalanced else 1)
        if counts.min() < needed:
            smallest = int(classes[counts.argmin()])
            raise ValueError(
                f"a task needs {needed} images per class ({shot} support and {needed - shot} query"
                f"{', when all queries fall on one class' if unbalanced else ''}), but class "
                f"{smallest} has only {int(counts.min())}"
            )
        self.features = features
        self.images = [(labels == c).nonzero().flatten().numpy() for c in classes]
        self.way, self.shot, self.query_per_class = way, shot, query_per_class
        self.seed, self.unbalanced = seed, unbalanced

    def _draw(self, number: int) -> tuple[np.ndarray, np.ndarray, int]:
        """Image indices (support, then queries), labels of the queries, and the task's own seed."""
        rng = np.random.default_rng([self.seed, number])
        counts = np.full(self.way, self.query_per_class)
        if self.unbalanced:
            counts = rng.multinomial(counts.sum(), rng.dirichlet(np.full(self.way, 2.0)))
        classes = rng.choice(len(self.images), self.way, replace=False)
        drawn = [
            rng.choice(self.images[c], self.shot + n, replace=False)
            for c, n in zip(classes, counts, strict=True)
        ]
        support = [images[: self.shot] for images in drawn]
        query = [images[self.shot :] for images in drawn]
        labels = np.repeat(np.arange(self.way), counts)
        return np.concatenate(support + query), labels, int(rng.integers(2**63))

    def __call__(self, first: int, count: int) -> Tasks:
        """The tasks ``first ... first + count - 1``."""
        drawn = [self._draw(number) for number in range(first, first + count)]
        points = self.features[torch.from_numpy(np.stack([indices for indices, _, _ in drawn]))]
        support, query = points.split(
            [self.way * self.shot, self.way * self.query_per_class], dim=1
        )
        return Tasks(
            support=support,
            query=query,
            support_labels=torch.arange(self.way).repeat_interleave(self.shot),
            query_labels=torch.from_numpy(np.stack([labels for _, labels, _ in drawn])),
            seeds=tuple(seed for _, _, seed in drawn),
        )


def center_and_normalize(tasks: Tasks, base_mean: Tensor) -> Tasks:
    """Subtract the mean feature of the base classes, then scale every feature to length 1."""
    return replace(
        tasks,
        support=F.normalize(tasks.support - base_mean, dim=-1),
        query=F.normalize(tasks.query - base_mean, dim=-1),
    )


def shift_queries(tasks: Tasks) -> Tasks:
    """Move the queries so that their mean is the mean of the support."""
    shift = tasks.support.mean(1, keepdim=True) - tasks.query.mean(1, keepdim=True)
    return replace(tasks, query=tasks.query + shift)


def power_transform(tasks: Tasks, exponent: float = 0.5) -> Tasks:
    """``sign(x) |x|^exponent``, then length 1: takes the skew out of a ReLU network's features."""

    def transform(x: Tensor) -> Tensor:
        return F.normalize(x.sign() * (x.abs() + 1e-6) ** exponent, dim=-1)

    return replace(tasks, support=transform(tasks.support), query=transform(tasks.query))


def rectified_prototypes(tasks: Tasks, temperature: float = 10.0) -> Tensor:
    """Prototypes from all points of a task, [tasks, way, F] (Liu et al., BD-CSPN, 2020).

    ``p = softmax(temperature * cosine to the support prototypes)``; for each class the mean of
    ``p * feature`` over the points predicted as that class. A class that no point is predicted as
    keeps its support prototype.
    """
    points, prototypes = tasks.points, tasks.prototypes
    cosine = F.normalize(points, dim=-1) @ F.normalize(prototypes, dim=-1).mT
    weight = (temperature * cosine).softmax(-1)
    predicted = F.one_hot(weight.argmax(-1), tasks.way).to(weight.dtype)
    count = predicted.sum(1).unsqueeze(-1)
    rectified = (predicted * weight).mT @ points / count.clamp(min=1)
    return torch.where(count > 0, rectified, prototypes)
