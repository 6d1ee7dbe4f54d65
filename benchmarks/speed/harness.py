"""Timing of candidates in turn, so that a busy machine shifts all of them alike."""

import contextlib
import functools
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from tqdm import tqdm

Row = dict[str, Any]


class Harness:
    """Compares candidates."""

    is_beside = False

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


class BesideHarness(Harness):
    """Times ours alone: on one idle thread, and on all threads beside a process that keeps one core
    busy. Both have to give the same bits.

    Use as a context, in which that process lives.
    """

    is_beside = True

    def __enter__(self) -> "BesideHarness":
        core = max(os.sched_getaffinity(0))
        command = f"import os; os.sched_setaffinity(0, {{{core}}})\nwhile True: pass"
        self._other = subprocess.Popen([sys.executable, "-c", command])
        self._other.send_signal(signal.SIGSTOP)
        self._threads = max(torch.get_num_threads(), 2)
        return self

    def __exit__(self, *_: object) -> None:
        self._other.kill()
        self._other.wait()
        torch.set_num_threads(self._threads)

    @contextlib.contextmanager
    def _busy(self) -> Iterator[None]:
        self._other.send_signal(signal.SIGCONT)
        time.sleep(0.01)
        try:
            yield
        finally:
            self._other.send_signal(signal.SIGSTOP)

    def compare(
        self,
        case: str,
        candidates: Mapping[str, Callable[[], object]],
        *,
        ours: str,
        repeats: int = 5,
    ) -> list[Row]:
        """As :meth:`Harness.compare`; the ratio is the time beside the other process as a multiple
        of that on one idle thread.
        """
        rows = []
        for name, function in candidates.items():
            if name != ours and not name.startswith("ours"):
                continue
            alone, beside, same = [], [], True
            for turn in range(min(max(repeats, 5), 20) + 1):
                torch.set_num_threads(1)
                start = time.perf_counter()
                expected = _tensors(function())
                first = time.perf_counter() - start
                torch.set_num_threads(self._threads)
                with self._busy():
                    start = time.perf_counter()
                    found = _tensors(function())
                    second = time.perf_counter() - start
                same &= all(map(_same_bits, found, expected))
                if turn > 0:
                    alone.append(first)
                    beside.append(second)
            if not same:
                raise AssertionError(f"Expected the same bits on one and two threads: {case}")
            median, ratio = statistics.median(alone), statistics.median
            row = {"case": case, "name": name, "repeats": len(alone), "aim": 1.3}
            row |= {"seconds": median, "bits compared": bool(expected)}
            row["ratio"] = ratio(b / a for a, b in zip(alone, beside, strict=True))
            rows.append(row)
        return rows


def _tensors(found: Any) -> list[torch.Tensor]:
    if isinstance(found, torch.Tensor):
        return [found]
    return [t for t in found if isinstance(t, torch.Tensor)] if isinstance(found, list) else []


def _same_bits(one: torch.Tensor, other: torch.Tensor) -> bool:
    return torch.equal(one.nan_to_num(), other.nan_to_num())


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
