"""Random splits with a fixed number of training nodes per class."""

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


def random_state(seed: int | RandomState) -> RandomState:
    """The generator of NumPy's frozen legacy stream, which the protocol is defined by.

    A generator is taken as it is.
    """
    if isinstance(seed, RandomState):
        return seed
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
        ValueError: If ``y`` is no vector of class numbers, a number is negative, or a class has
            fewer nodes than are drawn.
    """
    if num_train < 1 or num_val < 0:
        raise ValueError(
            f"Expected 'num_train' >= 1 and 'num_val' >= 0 (got {num_train} and {num_val})"
        )
    labels = _class_numbers(y)
    generator = random_state(seed)
    nodes = np.arange(len(labels))
    _check_classes(labels, nodes, num_train + num_val)
    train = _draw_per_class(labels, nodes, num_train, generator)
    val = _draw_per_class(labels, np.setdiff1d(nodes, train), num_val, generator)
    test = np.setdiff1d(nodes, np.concatenate([train, val]))
    return _as_tensors((train, val, test), y)


def development_split(
    y: Tensor,
    seed: int | RandomState,
    num_train: int = 20,
    num_development: int = 1500,
) -> tuple[Tensor, Tensor, Tensor]:
    r"""Draw a development set; of it some nodes per class train and all others validate.

    The protocol of the code of `"GRAND: Graph Neural Diffusion" <https://arxiv.org/abs/2106.10934>`_,
    where every split draws its own development set, and of `"Diffusion Improves Graph Learning"
    <https://arxiv.org/abs/1911.05485>`_, where one serves all splits.

    Args:
        y (torch.Tensor): Class of every node.
        seed (int or numpy.random.RandomState): Seed, or a generator to draw from.
        num_train (int, optional): Training nodes per class. (default: ``20``)
        num_development (int, optional): Nodes that train or validate. (default: ``1500``)

    Shapes:
        - **input:** labels :math:`(|\mathcal{V}|)`
        - **output:** three index tensors: train in drawing order
          :math:`(C \cdot \text{num\_train})`, val in ascending order, test in ascending order

    Raises:
        ValueError: If ``y`` is no vector of class numbers, the development set leaves no node to
            test, or a class has too few nodes in it.
    """
    labels = _class_numbers(y)
    if num_train < 1 or not 0 < num_development < len(labels):
        raise ValueError(
            f"Expected 'num_train' >= 1 and 'num_development' between 1 and {len(labels) - 1}, "
            f"less than the nodes (got {num_train} and {num_development})"
        )
    generator = random_state(seed)
    nodes = np.arange(len(labels))
    development = np.sort(generator.choice(nodes, num_development, replace=False))
    _check_classes(labels, development, num_train)
    train = _draw_per_class(labels, development, num_train, generator)
    val, test = np.setdiff1d(development, train), np.setdiff1d(nodes, development)
    return _as_tensors((train, val, test), y)


def _class_numbers(y: Tensor) -> np.ndarray:
    if y.dim() != 1 or y.numel() == 0 or y.is_floating_point():
        raise ValueError(
            f"Expected 'y' to be a non-empty vector of class numbers "
            f"(got shape {tuple(y.shape)}, {y.dtype})"
        )
    return y.cpu().numpy()


def _check_classes(labels: np.ndarray, nodes: np.ndarray, number: int) -> None:
    for label in np.unique(labels):
        count = np.count_nonzero(labels[nodes] == label)
        if count < number:
            raise ValueError(
                f"Expected at least {number} nodes of every class to draw from "
                f"(class {label} has {count})"
            )


def _draw_per_class(
    labels: np.ndarray, nodes: np.ndarray, number: int, generator: RandomState
) -> np.ndarray:
    """Draw ``number`` of ``nodes``, which ascend, from every class, the classes in order."""
    parts = [
        generator.choice(nodes[labels[nodes] == label], number, replace=False)
        for label in np.unique(labels)
    ]
    return np.concatenate(parts)


def _as_tensors(
    parts: tuple[np.ndarray, np.ndarray, np.ndarray], y: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    train, val, test = (torch.from_numpy(part).to(y.device) for part in parts)
    return train, val, test
