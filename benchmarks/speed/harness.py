"""Timing of candidates in turn, so that a busy machine shifts all of them alike."""

import functools
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
from tqdm import tqdm

Row = dict[str, Any]


class Harness:
    """Compares candidates."""

    @functools.cached_property
    def bandwidth(self) -> float:
        """Bytes a second that this machine copies, measured once."""
        return copy_bandwidth()

    def compare(
        self,
        case: str,
        candidates: Mapping[str, Callable[[], object]],
        *,
        ours: str,
        repeats: int = 5,
    ) -> list[Row]:
        """Time every candidate once a round, after one round to warm up.

        Args:
            case (str): What is done, for the table.
            candidates (dict): Name and function; each does the same work.
            ours (str): The name that ratios refer to.
            repeats (int, optional): The number of rounds. (default: ``5``)

        Returns:
            list: A row a candidate: case, name, median ``seconds`` and ``ratio``, the median over
            rounds of its seconds divided by ours.
        """
        if ours not in candidates:
            raise ValueError(f"Expected 'ours' to be one of {list(candidates)} (got {ours!r})")
        times: dict[str, list[float]] = {name: [] for name in candidates}
        for turn in tqdm(range(repeats + 1), desc=case, disable=None, leave=False):
            for name, function in candidates.items():
                start = time.perf_counter()
                function()
                if torch.cuda.is_available():
                    torch.cuda.synchronize()
                if turn > 0:
                    times[name].append(time.perf_counter() - start)
        reference = times[ours]
        return [
            {
                "case": case,
                "name": name,
                "seconds": statistics.median(taken),
                "ratio": statistics.median(a / b for a, b in zip(taken, reference, strict=True)),
                "repeats": repeats,
            }
            for name, taken in times.items()
        ]


def copy_bandwidth(size: int = 1 << 26) -> float:
    """Bytes a second of a large copy on all threads of torch, read and write counted."""
    source = torch.ones(size)
    target = torch.empty(size)
    best = float("inf")
    for _ in range(5):
        start = time.perf_counter()
        target.copy_(source)
        best = min(best, time.perf_counter() - start)
    return 2 * source.nbytes / best
