"""What all few-shot methods have in common."""

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor

from ..tasks import Tasks, center_and_normalize, shift_queries


class Method(ABC):
    """Labels the queries of many tasks; its settings are the arguments of its constructor."""

    shifted: ClassVar[bool]  # whether the queries are moved onto the support mean

    def prepare(self, tasks: Tasks, base_mean: Tensor) -> Tasks:
        """The features as this method wants them; by default centerd and normalized ("Table 3").

        Shifting looks at all queries at once, so methods that label one query at a time do without.
        """
        tasks = center_and_normalize(tasks, base_mean)
        return shift_queries(tasks) if self.shifted else tasks

    @abstractmethod
    def predict(self, tasks: Tasks) -> Tensor:
        """The label of each query, [tasks, queries]."""


def at_least(least: float, **values: float) -> None:
    """Raise a ValueError for a setting below ``least`` or NaN."""
    for name, value in values.items():
        if not value >= least:
            raise ValueError(f"'{name}' must be at least {least} (got {value})")


def nearest(query: Tensor, prototypes: Tensor) -> Tensor:
    """Index of the nearest prototype, [tasks, queries, F], [tasks, way, F] -> [tasks, queries]."""
    return torch.cdist(query, prototypes).argmin(-1)
