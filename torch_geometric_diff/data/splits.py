"""Random splits with a fixed number of nodes per class, drawn in the order of the original."""

import numpy as np
import torch
from numpy.random import RandomState
from torch import Tensor


def split_seeds(seed: int, num_splits: int) -> list[int]:
    """Draw the seeds of ``num_splits`` splits; fewer splits are the beginning of more.

    Args:
        seed (int): Seed of the whole experiment.
        num_splits (int): Number of splits.

    Raises:
        ValueError: If ``num_splits`` is not positive or ``seed`` is no 32-bit seed.
    """
    return draw_seeds(random_state(seed), num_splits)


def random_state(seed: int) -> RandomState:
    """The generator of NumPy's frozen legacy stream, which the protocol is defined by."""
    if not 0 <= seed < 2**32:
        raise ValueError(f"Expected 'seed' to be between 0 and 2**32 - 1 (got {seed})")
    return RandomState(seed)


def draw_seeds(generator: RandomState, count: int) -> list[int]:
    """Draw ``count`` seeds below one million; advances ``generator``."""
    if count < 1:
        raise ValueError(f"Expected a positive number of seeds (got {count})")
    return generator.randint(0, 1_000_000, count).tolist()


def per_class_split(
    y: Tensor,
    seed: int | RandomState,
    num_train: int = 20,
    num_val: int = 30,
) -> tuple[Tensor, Tensor, Tensor]:
    r"""Draw training and validation nodes class by class; all the rest is the test set.

    The protocol of `"Pitfalls of Graph Neural Network Evaluation"
    <https://arxiv.org/abs/1811.05868>`_. Classes are visited in ascending order, first for the
    training set and then, among the nodes left, for the validation set.

    Args:
        y (torch.Tensor): Class of every node.
        seed (int or numpy.random.RandomState): Seed, or a generator to draw from (and to draw the
            seeds of the initialisations from afterwards).
        num_train (int, optional): Training nodes per class. (default: ``20``)
        num_val (int, optional): Validation nodes per class. (default: ``30``)

    Shapes:
        - **input:** labels :math:`(|\mathcal{V}|)`
        - **output:** three index tensors: train in drawing order
          :math:`(C \cdot \text{num\_train})`, val in drawing order
          :math:`(C \cdot \text{num\_val})`, test in ascending order

    Raises:
        ValueError: If ``y`` is no vector of class numbers, a number is negative, or a class has no
            node left for the test.
    """
    if y.dim() != 1 or y.numel() == 0 or y.is_floating_point():
        raise ValueError(
            f"Expected 'y' to be a non-empty vector of class numbers "
            f"(got shape {tuple(y.shape)}, {y.dtype})"
        )
    if num_train < 1 or num_val < 0:
        raise ValueError(
            f"Expected 'num_train' >= 1 and 'num_val' >= 0 (got {num_train} and {num_val})"
        )
    generator = seed if isinstance(seed, RandomState) else random_state(seed)
    labels = y.cpu().numpy()
    classes, counts = np.unique(labels, return_counts=True)
    if counts.min() < num_train + num_val:
        raise ValueError(
            f"Expected at least num_train + num_val = {num_train + num_val} nodes in every class "
            f"(class {classes[counts.argmin()]} has {counts.min()})"
        )

    left = np.ones(len(labels), dtype=bool)

    def draw(number: int) -> Tensor:
        parts = []
        for label in classes:
            candidates = np.flatnonzero((labels == label) & left)
            parts.append(generator.choice(candidates, number, replace=False))
        drawn = np.concatenate(parts)
        left[drawn] = False
        return torch.from_numpy(drawn).to(y.device)

    train, val = draw(num_train), draw(num_val)
    test = torch.from_numpy(np.flatnonzero(left)).to(y.device)
    return train, val, test
