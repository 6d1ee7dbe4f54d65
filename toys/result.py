"""What a toy is and what its run finds."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from numpy.random import RandomState
from torch import Tensor

from .data import Points


@dataclass(frozen=True)
class Toy:
    """A set of points and the constants of the paper for it; 0 updates mean no network."""

    name: str
    draw: Callable[[int, float, RandomState], Points]
    noise: float
    n_top: int
    steps: int
    seed: int
    lr: float = 1.0
    points: int = 1000
    updates: int = 20
    sigma: float = 0.5
    step_size: float = 1.0


class Fit(NamedTuple):
    """A network trained from several starts: the accuracy of each, and the first in detail."""

    accuracy: Tensor
    features: Tensor
    line: tuple[Tensor, float]
    wrong: Tensor


class Moment(NamedTuple):
    """The features after some steps of diffusion."""

    step: int
    features: Tensor
    ratio: float


@dataclass(frozen=True)
class Result:
    """All that a run found; scores are accuracies, or without a network log10 ratios."""

    toy: Toy
    x: Tensor
    y: Tensor
    plain: Fit | None
    diffused: Fit | None
    moments: list[Moment]
    scores: dict[str, list[float]]
