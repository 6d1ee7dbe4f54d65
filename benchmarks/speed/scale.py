"""Nanoseconds per edge, step and 16 columns, from 10^4 to 10^8 edges, on one thread and on all."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from benchmarks.speed.harness import Harness
from torch_geometric_diff.ops import Recurrence
from torch_geometric_diff.ops.kernels import cpu, reference

DEGREE, CHANNELS = 10, 16


def matrix(num_edges: int, reach: int | None) -> tuple[Tensor, Tensor, Tensor]:
    """CSR with DEGREE entries a row, at any column, or at most ``reach`` from the diagonal."""
    size = num_edges // DEGREE
    index = torch.int32 if num_edges < 2**31 else torch.int64
    generator = torch.Generator().manual_seed(0)
    rowptr = torch.arange(size + 1, dtype=index) * DEGREE
    col = torch.empty(size * DEGREE, dtype=index)
    if reach is None:
        col.random_(0, size, generator=generator)
    else:
        col.random_(-reach, reach + 1, generator=generator)
        col.view(size, DEGREE).add_(torch.arange(size, dtype=index).view(-1, 1)).remainder_(size)
    return rowptr, col, torch.full((size * DEGREE,), 1 / DEGREE)


def run(harness: Harness, quick: bool) -> list[dict[str, Any]]:
    """The rows of the suite; the ratio is to all threads."""
    kernel = cpu if cpu.available() is None else reference
    all_threads = torch.get_num_threads()

    def on(threads: int, arguments: tuple[Any, ...]) -> Callable[[], None]:
        def call() -> None:
            torch.set_num_threads(threads)
            kernel.propagate(*arguments)

        return call

    rows: list[dict[str, Any]] = []
    for power in (4, 5, 6) if quick else (4, 5, 6, 7, 8):
        num_edges, num_steps = 10**power, 20 if power < 7 else 4
        for reach in (100, None):
            csr = matrix(num_edges, reach)
            x = torch.rand(csr[0].numel() - 1, CHANNELS)
            table, seeds = Recurrence.power(num_steps).table(), torch.zeros(1).long()
            arguments = (x[None, None], *csr, table, 0, seeds, False)
            order = "anywhere" if reach is None else f"within {reach} rows"
            ours = f"threads: {all_threads}"
            candidates: dict[str, Callable[[], object]] = {
                ours: on(all_threads, arguments),
                "threads: 1": on(1, arguments),
            }
            try:
                more = harness.compare(
                    f"10^{power} edges, {x.size(0)} nodes, neighbors {order}, K = {num_steps}",
                    candidates,
                    ours=ours,
                    repeats=20 if power < 6 else 5 if power < 8 else 3,
                )
            finally:
                torch.set_num_threads(all_threads)
            work = num_edges * num_steps * CHANNELS / 16
            rows += [{**row, "ns per edge and step": 1e9 * row["seconds"] / work} for row in more]
    return rows
