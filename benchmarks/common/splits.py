"""Splits of the nodes: so many of a class, shares of all, or the masks of the graph."""

import numpy as np
import torch
from numpy.random import RandomState
from torch import Tensor
from torch_geometric.data import Data

from torch_geometric_diff.data.features import number_classes


def split_seeds(seed: int, num_splits: int) -> list[int]:
    """Draw the seeds of ``num_splits`` splits; fewer splits are the beginning of more.

    Args:
        seed (int): Seed of the whole experiment.
        num_splits (int): Number of splits.

    Raises:
        ValueError: If ``num_splits`` is not positive or ``seed`` is no 32-bit seed.

    Example:
        >>> split_seeds(0, 3) == split_seeds(0, 5)[:3]
        True
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
        y (torch.Tensor): Class of every node; below 0 for none, such a node is in no part.
        seed (int or numpy.random.RandomState): Seed, or a generator to draw from (and to draw the
            seeds of the initializations from afterwards).
        num_train (int, optional): Training nodes per class. (default: ``20``)
        num_val (int, optional): Validation nodes per class. (default: ``30``)

    Shapes:
        - **input:** labels :math:`(|\mathcal{V}|)`
        - **output:** three index tensors: train in drawing order
          :math:`(C \cdot \text{num\_train})`, val in drawing order
          :math:`(C \cdot \text{num\_val})`, test in ascending order

    Raises:
        ValueError: If ``y`` is no vector of class numbers, or a class has fewer nodes than are
            drawn.

    Example:
        >>> y = torch.arange(300) % 3
        >>> [len(part) for part in per_class_split(y, seed=0)]
        [60, 90, 150]
    """
    if num_train < 1 or num_val < 0:
        raise ValueError(
            f"Expected 'num_train' >= 1 and 'num_val' >= 0 (got {num_train} and {num_val})"
        )
    labels = _class_numbers(y)
    generator = random_state(seed)
    nodes = np.flatnonzero(labels >= 0)
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
        y (torch.Tensor): Class of every node; below 0 for none, such a node is in no part.
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

    Example:
        >>> y = torch.arange(2000) % 4
        >>> [len(part) for part in development_split(y, seed=0)]
        [80, 1420, 500]
    """
    labels = _class_numbers(y)
    nodes = np.flatnonzero(labels >= 0)
    if num_train < 1 or not 0 < num_development < len(nodes):
        raise ValueError(
            f"Expected 'num_train' >= 1 and 'num_development' between 1 and {len(nodes) - 1}, "
            f"less than the nodes (got {num_train} and {num_development})"
        )
    generator = random_state(seed)
    development = np.sort(generator.choice(nodes, num_development, replace=False))
    _check_classes(labels, development, num_train)
    train = _draw_per_class(labels, development, num_train, generator)
    val, test = np.setdiff1d(development, train), np.setdiff1d(nodes, development)
    return _as_tensors((train, val, test), y)


def fraction_split(
    y: Tensor, seed: int | RandomState, train: float = 0.6, val: float = 0.2
) -> tuple[Tensor, Tensor, Tensor]:
    r"""Draw shares of all nodes, whatever their class; the rest is the test set.

    The protocol of `"Geom-GCN" <https://arxiv.org/abs/2002.05287>`_ and of the data sets that
    follow it.

    Args:
        y (torch.Tensor): Class of every node, or its labels; below 0 for none, such a node is in no
            part.
        seed (int or numpy.random.RandomState): Seed, or a generator to draw from.
        train (float, optional): Share of the training nodes. (default: ``0.6``)
        val (float, optional): Share of the validation nodes. (default: ``0.2``)

    Shapes:
        - **input:** labels :math:`(|\mathcal{V}|)`
        - **output:** three index tensors in ascending order

    Raises:
        ValueError: If ``y`` is no vector of class numbers, the shares are no positive numbers that
            sum to less than one, or a part would be empty.

    Example:
        >>> y = torch.arange(100) % 4
        >>> [len(part) for part in fraction_split(y, seed=0)]
        [60, 20, 20]
    """
    labels = _class_numbers(y if y.dim() == 1 else y.amin(dim=1))
    if not (train > 0 and val > 0 and train + val < 1):
        raise ValueError(
            f"Expected positive shares of training and validation nodes that sum to less than 1 "
            f"(got {train} and {val})"
        )
    nodes = random_state(seed).permutation(np.flatnonzero(labels >= 0))
    ends = [round(train * len(nodes)), round((train + val) * len(nodes))]
    parts = np.split(nodes, ends)
    if any(len(part) == 0 for part in parts):
        raise ValueError(f"Shares {train} and {val} of {len(nodes)} nodes leave a part empty")
    return _as_tensors((np.sort(parts[0]), np.sort(parts[1]), np.sort(parts[2])), y)


def mask_splits(data: Data) -> list[tuple[Tensor, Tensor, Tensor]]:
    r"""The splits that come with a graph.

    Args:
        data (torch_geometric.data.Data): A graph with ``train_mask``, ``val_mask`` and
            ``test_mask`` of shape :math:`(|\mathcal{V}|)`, or with a column a split; a mask of
            one column belongs to every split.

    Returns:
        Index tensors train, val and test, in ascending order, of every split; nodes without a
        label are left out.

    Raises:
        ValueError: If a mask is missing, the masks overlap or differ in their splits, or a part is
            empty.

    Example:
        >>> from torch_geometric.data import Data
        >>> first = torch.tensor([True, False, False])
        >>> data = Data(y=torch.tensor([0, 1, 1]), train_mask=first, val_mask=first.roll(1))
        >>> data.test_mask = first.roll(2)
        >>> mask_splits(data)
        [(tensor([0]), tensor([1]), tensor([2]))]
    """
    masks, y = [], data.y if data.y.dim() == 1 else data.y.amin(dim=1)
    for name in ("train_mask", "val_mask", "test_mask"):
        mask = data.get(name, None)
        if mask is None:
            raise ValueError(f"The graph has no '{name}'; choose another kind of splits")
        mask = mask[:, None] if mask.dim() == 1 else mask
        masks.append(mask.bool() & (y >= 0)[:, None])
    number = max(mask.size(1) for mask in masks)
    if any(mask.size(1) not in (1, number) for mask in masks):
        raise ValueError(f"The masks hold {[mask.size(1) for mask in masks]} splits")
    train, val, test = (mask.expand(-1, number) for mask in masks)
    if bool((train & val | train & test | val & test).any()):
        raise ValueError("The masks that come with the graph overlap")
    splits = []
    for i in range(number):
        parts = [mask[:, i].nonzero().view(-1) for mask in (train, val, test)]
        if any(part.numel() == 0 for part in parts):
            raise ValueError(f"Split {i} of the masks has a part without a labeled node")
        splits.append((parts[0], parts[1], parts[2]))
    return splits


def leave_out_small_classes(y: Tensor, least: int) -> tuple[Tensor, dict[int, int]]:
    """The classes of at least ``least`` nodes, numbered anew; other nodes lose their label.

    They stay in the graph, but neither train nor test: what the authors of the protocol do.

    Args:
        y (torch.Tensor): Class of every node; below 0 for none.
        least (int): Fewest nodes of a class.

    Returns:
        The classes, and of each class that is left out the number of its nodes.

    Raises:
        ValueError: If fewer than two classes are left.

    Example:
        >>> leave_out_small_classes(torch.tensor([0, 0, 0, 1, 2, 2]), least=2)
        (tensor([ 0,  0,  0, -1,  1,  1]), {1: 1})
    """
    sizes = y[y >= 0].bincount()
    small = ((sizes > 0) & (sizes < least)).nonzero().view(-1)
    if int((sizes >= least).sum()) < 2:
        raise ValueError(
            f"Expected at least 2 classes of {least} nodes or more (got sizes {sizes.tolist()})"
        )
    kept = torch.where(torch.isin(y, small), -1, y)
    return number_classes(kept), {int(c): int(sizes[c]) for c in small}


def _class_numbers(y: Tensor) -> np.ndarray:
    if y.dim() != 1 or y.numel() == 0 or y.is_floating_point():
        raise ValueError(
            f"Expected 'y' to be a non-empty vector of class numbers "
            f"(got shape {tuple(y.shape)}, {y.dtype})"
        )
    return y.cpu().numpy()


def _check_classes(labels: np.ndarray, nodes: np.ndarray, number: int) -> None:
    for label in np.unique(labels[labels >= 0]):
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
        for label in np.unique(labels[labels >= 0])
    ]
    return np.concatenate(parts)


def _as_tensors(
    parts: tuple[np.ndarray, np.ndarray, np.ndarray], y: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    train, val, test = (torch.from_numpy(part).to(y.device) for part in parts)
    return train, val, test
