"""What a toy is and what its run finds."""

from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from .command import Toy


class Fit(NamedTuple):
    """A network trained from several starts: the accuracy of each, and one in detail."""

    accuracy: Tensor
    features: Tensor
    line: tuple[Tensor, float]
    wrong: Tensor
    shown: int  # which of the starts


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
