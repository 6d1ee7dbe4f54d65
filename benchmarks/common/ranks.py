"""Ranks of ``torchrun`` that end together: whatever ends one of them ends all, with one line."""

import os
import re
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch.distributed as dist

from benchmarks.common.cli import command_name

_PATIENCE = 10.0  # seconds until a rank that says nothing counts as dead
_LOST = re.compile(r"by peer|Connection|connection|Socket|Broken pipe|Timed out|timed out")


class _Stopped(BaseException):
    """torchrun asks this rank to end, because another has."""


@contextmanager
def joined_ranks() -> Iterator[tuple[int, int]]:
    """The rank and the number of the ranks that ``torchrun`` started, with a process group of gloo.

    What one of them raises ends them all. The one that met it prints it; of a rank that was killed,
    one of the others says so.
    """
    if "RANK" not in os.environ:
        yield 0, 1
        return
    signal.signal(signal.SIGTERM, _stop)
    store, rank, size = next(iter(dist.rendezvous("env://")))
    own = dist.PrefixStore("ranks", store)
    dist.init_process_group("gloo", store=own, rank=rank, world_size=size)
    try:
        yield rank, size
        dist.barrier()
    except (Exception, _Stopped) as error:
        _end(error, dist.PrefixStore("ends", store), rank, size)
    dist.destroy_process_group()


def _stop(*_: Any) -> None:
    raise _Stopped


def _end(error: BaseException, store: Any, rank: int, size: int) -> None:
    """Say once why all ranks end, and end."""
    lost = isinstance(error, _Stopped) or (
        isinstance(error, RuntimeError) and _LOST.search(str(error)) is not None
    )
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # there is a line to be said
    store.set(f"{'lost' if lost else 'met'}/{rank}", "1")
    if not lost:
        if store.add("told", 1) == 1:
            raise error
        raise SystemExit(2) from None
    silent = set(range(size)) - {rank}
    until = time.monotonic() + _PATIENCE
    while silent and time.monotonic() < until:
        if any(store.check([f"met/{other}"]) for other in range(size)):
            raise SystemExit(2) from None  # that rank tells
        silent = {other for other in silent if not store.check([f"lost/{other}"])}
        time.sleep(0.1)
    if store.add("told", 1) == 1:
        who = ", ".join(map(str, sorted(silent))) or "unknown"
        line = f"{command_name()}: error: rank {who} was killed or lost; all ranks end"
        print(line, file=sys.stderr, flush=True)
    raise SystemExit(2) from None
