"""Nearest neighbors within sets of any sizes: who searches which set."""

from collections.abc import Iterator
from itertools import groupby, pairwise

import torch
from torch import Tensor

from .._utils import native
from .._utils.functorch import in_memory, uncompiled
from .._utils.native import _C
from .distances import nearest_by_length
from .points import Points
from .ranking import nearest
from .search import BACKENDS, TorchCluster

NAMES = ("compiled", *BACKENDS)
SMALL = 256  # points of a set that is searched as a padded matrix, together with others


def missing(backend: str) -> str | None:
    """Why a backend cannot run, or :obj:`None`."""
    return native.MISSING if backend == "compiled" else BACKENDS[backend].missing()


def nearest_in_sets(index: Tensor, points: Points, backend: str, block_bytes: int) -> None:
    """Write the nearest others of each point to its row of ``index``, which holds -1."""
    sets = [
        (begin, end, _searcher(points, end - begin, wide, index.size(1), backend))
        for (begin, end), wide in zip(pairwise(points.start), points.wide, strict=True)
    ]
    for name, same in groupby(sets, key=lambda found: found[2]):
        run = [(begin, end) for begin, end, _ in same]
        if name == "compiled":
            _compiled(index, points, run)
        elif name == "padded":
            _padded(index, points, run, block_bytes)
        else:
            for begin, end in run:
                rows, k = points.rows[begin:end], min(index.size(1), end - begin - 1)
                if name == "length":
                    found = nearest_by_length(rows, k, block_bytes)
                else:
                    found = nearest(k, BACKENDS[name](rows, points.single, block_bytes))
                index[begin:end, :k] = found + begin


def _searcher(points: Points, size: int, wide: bool, k: int, backend: str) -> str:
    if size == 1 and backend != "compiled":
        return "padded"
    if wide:
        return "length"
    if backend != "auto":
        return backend
    dim, on_cpu = points.rows.size(1), points.rows.device.type == "cpu"
    if on_cpu and native.MISSING is None and (dim <= 64 or size <= 1024):
        return "compiled"
    if size <= SMALL:
        return "padded"
    if points.rows.is_cuda and dim <= 32 and k <= 64 and TorchCluster.missing() is None:
        return "torch_cluster"
    return "kdtree" if on_cpu and dim <= 8 else "blocked"


def _compiled(index: Tensor, points: Points, run: list[tuple[int, int]]) -> None:
    if torch.compiler.is_compiling():
        return _uncompiled(index, points, run)
    first, last = run[0][0], run[-1][1]
    rows = in_memory(points.rows[first:last].cpu())
    start = torch.tensor([begin - first for begin, _ in run] + [last - first], device="cpu")
    found = torch.empty(last - first, index.size(1), dtype=torch.long, device="cpu")
    _C.knn(
        found.data_ptr(),
        rows.data_ptr(),
        rows.size(1),
        start.data_ptr(),
        len(run),
        found.size(1),
        points.single,
        torch.get_num_threads(),
        "",  # the best instruction set
    )
    index[first:last] = torch.where(found < 0, found, found + first)


_uncompiled = uncompiled(_compiled)


def nearest_known(asked: Tensor, known: Tensor, k: int, single: bool) -> Tensor:
    """The ``k`` known points nearest to each asked one, nearest first, by the C++ extension.

    Both in double precision, entries of up to 1 in size, and squares of differences in range. With
    ``single`` most pairs are dismissed in single precision, which does not change the result.
    """
    if torch.compiler.is_compiling():
        return _nearest_known(asked, known, k, single)
    asked, known = in_memory(asked.cpu()), in_memory(known.cpu())
    found = torch.empty(len(asked), k, dtype=torch.long, device="cpu")
    _C.knn_of(
        found.data_ptr(),
        known.data_ptr(),
        len(known),
        asked.data_ptr(),
        len(asked),
        known.size(1),
        k,
        single,
        torch.get_num_threads(),
        "",  # the best instruction set
    )
    return found


_nearest_known = uncompiled(nearest_known)


def _padded(index: Tensor, points: Points, run: list[tuple[int, int]], block_bytes: int) -> None:
    """Search sets of about the same size as one stack of distance matrices."""
    for bucket in _buckets(run):
        width = max(end - begin for begin, end in bucket)
        size = max(1, block_bytes // (48 * width**2))
        for i in range(0, len(bucket), size):
            _padded_block(index, points.rows, bucket[i : i + size], width)


def _buckets(run: list[tuple[int, int]]) -> Iterator[list[tuple[int, int]]]:
    bucket: list[tuple[int, int]] = []
    for begin, end in sorted(run, key=lambda bounds: bounds[1] - bounds[0]):
        if bucket and end - begin > 1.25 * (bucket[0][1] - bucket[0][0]):
            yield bucket
            bucket = []
        bucket.append((begin, end))
    yield bucket


def _padded_block(index: Tensor, rows: Tensor, sets: list[tuple[int, int]], width: int) -> None:
    begin, end = torch.tensor(sets, device=rows.device).t().unsqueeze(2)
    place = begin + torch.arange(width, device=rows.device)
    there = place < end
    x = rows[place.clamp(max=len(rows) - 1)]
    squared = torch.zeros(len(sets), width, width, dtype=rows.dtype, device=rows.device)
    for column in x.unbind(dim=2):
        gap = column.unsqueeze(2) - column.unsqueeze(1)
        squared += gap.square_()  # rounded as SquaredDistances does
    squared.masked_fill_(~there.unsqueeze(1), torch.inf)
    squared.diagonal(dim1=1, dim2=2).fill_(torch.inf)
    near = squared[there].sort(dim=1, stable=True)
    k = min(index.size(1), width - 1)
    found = near.indices[:, :k] + begin.expand(-1, width)[there].unsqueeze(1)
    index[place[there], :k] = found.masked_fill_(near.values[:, :k].isinf(), -1)
