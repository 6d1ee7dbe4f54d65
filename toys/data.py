"""Points of two classes in the plane that no line separates, as the paper lays them out."""

import numpy as np
import torch
from numpy.random import RandomState
from numpy.typing import NDArray
from torch import Tensor

Array = NDArray[np.float64]
Points = tuple[Tensor, Tensor]


def _halves(points: int, turn: float) -> tuple[Array, Array]:
    """Evenly spaced angles for each of the two classes."""
    return np.linspace(0, turn, points - points // 2), np.linspace(0, turn, points // 2)


def _polar(radius: Array | float, angle: Array) -> Array:
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)])


def _tensors(groups: list[Array], noise: float, random: RandomState) -> Points:
    """Points with noise, and the group of each."""
    x = np.concatenate(groups, axis=1)
    x = x + noise * random.randn(*x.shape)
    y = np.repeat(np.arange(len(groups)), [group.shape[1] for group in groups])
    return torch.from_numpy(x.T.copy()).float(), torch.from_numpy(y)


def two_moon(points: int, noise: float, random: RandomState) -> Points:
    """Two half circles, each ending inside the other."""
    upper, lower = _halves(points, np.pi)
    return _tensors([_polar(1, upper), np.array([[1], [0.5]]) - _polar(1, lower)], noise, random)


def two_circle(points: int, noise: float, random: RandomState) -> Points:
    """A circle of radius 2 around one of radius 1."""
    outer, inner = _halves(points, 2 * np.pi)
    return _tensors([_polar(2, outer), _polar(1, inner)], noise, random)


def two_spiral(points: int, noise: float, random: RandomState) -> Points:
    """The spiral r = 1 + theta over one turn, and its mirror image."""
    first, second = _halves(points, 2 * np.pi)
    return _tensors([_polar(1 + first, first), -_polar(1 + second, second)], noise, random)


def xor(points: int, noise: float, random: RandomState) -> Points:
    """Four discs of diameter 1.5 at the corners of a square; groups 0, 2 and 1, 3 are classes."""
    radius = np.sqrt(random.uniform(0, 0.75**2, points))
    discs = _polar(radius, np.pi * random.uniform(0, 2, points))
    centers = np.array([[0, 0], [2, 0], [2, 2], [0, 2]])[..., None]
    parts = np.array_split(discs, 4, axis=1)
    return _tensors([c + part for c, part in zip(centers, parts, strict=True)], noise, random)
