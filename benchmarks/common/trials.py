"""The trials of the protocol: random splits times initializations, each with its own seed."""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from numpy.random import RandomState
from torch import Tensor

from benchmarks.common.splits import draw_seeds, per_class_split, random_state, split_seeds

T = TypeVar("T")
Nodes = tuple[Tensor, Tensor, Tensor]
Split = Callable[[Tensor, RandomState], Nodes]


@dataclass(frozen=True)
class Trial:
    """One split and one initialization of it.

    The nodes can be drawn again from ``split_seed`` by the function that drew them.

    Example:
        >>> nodes = torch.arange(3)
        >>> Trial(0, 1, 7, 8, train=nodes[:1], val=nodes[1:2], test=nodes[2:]).init
        1
    """

    split: int
    init: int
    split_seed: int
    init_seed: int
    train: Tensor
    val: Tensor
    test: Tensor


def draw_trials(
    y: Tensor,
    seed: int,
    num_splits: int,
    num_inits: int,
    split: Split | Sequence[Nodes] = per_class_split,
) -> Iterator[Trial]:
    """Draw every split and, from the same stream after it, the seeds of its initializations.

    Fewer splits or initializations are the beginning of more, so an experiment can be extended.

    Args:
        y (torch.Tensor): Class of every node.
        seed (int): Seed that the seeds of the splits are drawn from.
        num_splits (int): Number of splits.
        num_inits (int): Initializations per split.
        split (callable or sequence, optional): Draws train, val and test from the classes and a
            generator; or the splits themselves, as those of masks, which are taken in their order.
            (default: :func:`~torch_geometric_diff.data.per_class_split` with its 20 and 30)

    Raises:
        ValueError: If more splits are asked for than there are.

    Example:
        >>> y = torch.arange(200) % 2
        >>> [(trial.split, trial.init) for trial in draw_trials(y, 0, num_splits=2, num_inits=2)]
        [(0, 0), (0, 1), (1, 0), (1, 1)]
    """
    if not callable(split) and num_splits > len(split):
        raise ValueError(f"Expected at most {len(split)} splits, all there are (got {num_splits})")
    for number, split_seed in enumerate(split_seeds(seed, num_splits)):
        generator = random_state(split_seed)
        nodes = split(y, generator) if callable(split) else split[number]
        for init, init_seed in enumerate(draw_seeds(generator, num_inits)):
            yield Trial(number, init, split_seed, init_seed, *nodes)


def world() -> tuple[int, int]:
    """Rank and number of the processes that ``torchrun`` started; ``(0, 1)`` without it.

    Example:
        >>> world()  # one process
        (0, 1)
    """
    return int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))


def share_of_rank(items: Sequence[T]) -> Sequence[T]:
    """Every ``WORLD_SIZE``-th item, from ``RANK`` on. No communication is needed.

    Example:
        >>> share_of_rank(["a", "b"])  # all of it, in one process
        ['a', 'b']
    """
    rank, size = world()
    return items[rank::size]
