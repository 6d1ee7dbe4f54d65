"""Nearest neighbors within sets: by the C++ extension, or proposed in blocks and ranked exactly."""

import importlib.util
import math
from collections.abc import Iterator
from itertools import pairwise

import torch
from torch import Tensor

from .._utils import native
from .._utils.functorch import in_memory, uncompiled
from .._utils.native import _C
from .points import Points

BACKENDS = ("compiled", "torch_cluster", "blocked")
COMPILED_DIMENSIONS = 384  # from here on matrix products are as fast (benchmarks.speed, suite knn)


def missing(backend: str) -> str | None:
    """Why a backend cannot run, or :obj:`None`."""
    if backend == "compiled":
        return native.MISSING
    if backend == "torch_cluster" and importlib.util.find_spec(backend) is None:
        return f"it needs the package '{backend}', which is not installed"
    return None


def nearest(points: Points, k: int, backend: str, block_bytes: int) -> Tensor:
    """The ``k`` known points nearest to each asked one, by (squared distance, index).

    Returns:
        Indices :math:`(M, k)`, followed by -1 where a set has fewer.
    """
    if backend == "auto":
        backend = _choose(points, k)
    if backend == "compiled":
        return _compiled(points, k)
    limited = points.known.is_cuda and k > 80  # its kernel finds 100 at most
    search = TorchCluster if backend == "torch_cluster" and not limited else Blocks
    return _ranked(points, k, block_bytes, search(points, points.single))


def _choose(points: Points, k: int) -> str:
    dim, on_cpu = points.known.size(1), points.known.device.type == "cpu"
    largest = max((b - a for a, b in pairwise(points.known_start)), default=0)
    if on_cpu and missing("compiled") is None and (dim <= COMPILED_DIMENSIONS or largest <= 1024):
        return "compiled"
    few = points.known.is_cuda and dim <= 32 and k <= 64
    return "torch_cluster" if few and missing("torch_cluster") is None else "blocked"


def _compiled(points: Points, k: int) -> Tensor:
    if points.mutual:
        return _within_sets(points, k)
    index = torch.full((len(points.asked), k), -1, device=points.asked.device)
    starts = zip(pairwise(points.known_start), pairwise(points.asked_start), strict=True)
    for (low, high), (begin, end) in starts:
        if high > low and end > begin:
            asked, known = points.asked[begin:end], points.known[low:high]
            near = nearest_known(asked, known, min(k, high - low), points.single)
            index[begin:end, : near.size(1)] = near.to(index.device) + low
    return index


def _within_sets(points: Points, k: int) -> Tensor:
    """The nearest others of all sets at once."""
    rows = in_memory(points.known.cpu())
    start = torch.tensor(points.known_start, device="cpu")
    near = torch.empty(len(rows), k, dtype=torch.long, device="cpu")
    _C.knn(near, rows, start, points.single, torch.get_num_threads(), "")
    return near.to(points.known.device)


def nearest_known(asked: Tensor, known: Tensor, k: int, single: bool) -> Tensor:
    """The ``k`` known points nearest to each asked one, nearest first, by the C++ extension.

    Both in double precision, entries of up to 1 in size, and squares of differences in range. With
    ``single`` most pairs are dismissed in single precision, which does not change the result.
    """
    if torch.compiler.is_compiling():
        return _nearest_known(asked, known, k, single)
    asked, known = in_memory(asked.cpu()), in_memory(known.cpu())
    near = torch.empty(len(asked), k, dtype=torch.long, device="cpu")
    _C.knn_of(near, known, asked, single, torch.get_num_threads(), "")
    return near


_nearest_known = uncompiled(nearest_known)


class Blocks:
    r"""Proposes by blocks of :math:`|b|^2 - 2 a \cdot b` and the smallest of each row.

    Attributes:
        relative (float): A relative error of squared distances: no point that is left out is
            nearer than ``(1 - relative)`` times the farthest candidate, less the slack.
    """

    def __init__(self, points: Points, single: bool) -> None:
        self.points = points
        self.dtype = torch.float32 if single else torch.float64
        dim = points.known.size(1)
        self.unit = (dim + 16) * torch.finfo(self.dtype).eps + (_product_error() if single else 0.0)
        self.relative = 8 * self.unit
        self.span: tuple[int, int] | None = None

    def _read(self, low: int, high: int) -> None:
        """Take known points, a central one moved to the origin, far from which scores cancel."""
        self.span = low, high
        known = self.points.known[low:high]
        self.origin = center(known)
        self.x = (known - self.origin).to(self.dtype)
        self.norm = self.x.square().sum(dim=1)

    def propose(self, rows: Tensor, low: int, high: int, count: int) -> tuple[Tensor, Tensor]:
        """Candidates of asked ``rows`` among the known points from ``low`` to ``high``.

        Returns:
            Indices, -1 for none, and the slack (R,) of squared distances.
        """
        if self.span != (low, high):
            self._read(low, high)
        points = self.points
        asked = (points.asked[rows] - self.origin).to(self.dtype)
        with torch.autocast(asked.device.type, enabled=False):
            score = torch.addmm(self.norm, asked, self.x.t(), alpha=-2)
        if len(points.known_start) > 2:
            other = points.known_set[low:high] != points.asked_set[rows].unsqueeze(1)
            score.masked_fill_(other, math.inf)
        column = _smallest(score, min(count, high - low))
        index = (column + low).masked_fill_(score.gather(1, column).isinf(), -1)
        # error of a score: unit * (5 |a|^2 + 4 d^2), the second part being relative
        slack = 10 * self.unit * asked.double().square().sum(dim=1)
        return index, slack + _floor(self.x)


class TorchCluster:
    """Proposes what ``torch_cluster.knn`` finds: a tree on the CPU, one kernel on the GPU."""

    def __init__(self, points: Points, single: bool) -> None:
        same = [torch.equal(x, x.float().double()) for x in (points.known, points.asked)]
        dtype = torch.float32 if single and all(same) else torch.float64
        self.points, self.x, self.y = points, points.known.to(dtype), points.asked.to(dtype)
        # (D + 2) units for a sum of squared differences, and more for the bounds of a tree
        self.relative = 8 * (self.x.size(1) + 32) * torch.finfo(dtype).eps

    def propose(self, rows: Tensor, low: int, high: int, count: int) -> tuple[Tensor, Tensor]:
        """The same as that of :class:`Blocks`."""
        from torch_cluster import knn

        points = self.points
        count = min(count, high - low)
        index = rows.new_full((len(rows), count), -1)
        sets = points.known_set[low:high], points.asked_set[rows]
        row, found = knn(self.x[low:high], self.y[rows], count, *(s - sets[0][0] for s in sets))
        start = torch.searchsorted(row, torch.arange(len(rows), device=row.device))
        index[row, torch.arange(len(row), device=row.device) - start[row]] = found + low
        # of a set without known points it finds those of others
        index.masked_fill_(points.known_set[index.clamp(min=0)] != sets[1].unsqueeze(1), -1)
        return index, self.x.new_full((len(rows),), _floor(self.x), dtype=torch.float64)


def _ranked(points: Points, k: int, block_bytes: int, search: Blocks | TorchCluster) -> Tensor:
    """Rank candidates exactly, and ask for more where a point left out could enter."""
    index = torch.full((len(points.asked), k), -1, device=points.asked.device)
    rows, count = torch.arange(len(points.asked), device="cpu"), k + 6 + k // 8
    rows = _sweep(index, rows, search, count, block_bytes)
    if len(rows) > 0:
        search = Blocks(_without_copies(points, k), single=False)
    while len(rows) > 0:
        count *= 4
        rows = _sweep(index, rows, search, count, block_bytes)
    return index


def _sweep(
    index: Tensor, rows: Tensor, search: Blocks | TorchCluster, count: int, block_bytes: int
) -> Tensor:
    """Write the nearest of ``count`` candidates of ``rows``; the rows that others could enter."""
    points, left = search.points, [rows[:0]]
    columns = points.known.t().contiguous()
    size = points.asked_set.new_tensor(points.known_start).diff()[points.asked_set]
    for part, low, high in _blocks(rows, points, count, block_bytes):
        near, slack = search.propose(part, low, high, count)
        settled = (near >= 0).sum(dim=1) == size[part]
        squared = _squared_distances(columns, points.asked[part], near)
        farthest = squared.masked_fill(near < 0, 0.0).amax(dim=1)
        near = torch.where(near < 0, -1, points.number[near])
        if points.mutual:
            squared.masked_fill_(near == part.unsqueeze(1), math.inf)
        near, squared = _order(near, squared)
        k = min(index.size(1), near.size(1))
        index[part, :k] = near[:, :k].masked_fill_(squared[:, :k].isinf(), -1)
        settled |= squared[:, k - 1] < farthest * (1 - search.relative) - slack
        left.append(part[~settled].cpu())
    return torch.cat(left)


def _without_copies(points: Points, k: int) -> Points:
    """The points without known ones that have more than k copies before them in their set: these
    come first in every ranking.
    """
    rows = torch.cat([points.known_set.double().unsqueeze(1), points.known], dim=1)
    _, group, size = rows.unique(dim=0, return_inverse=True, return_counts=True)
    order = group.argsort(stable=True)
    start = size.cumsum(0) - size
    copy = torch.arange(len(order), device=order.device) - start[group[order]]
    few = order[copy <= k].sort().values
    start = torch.searchsorted(few, few.new_tensor(points.known_start)).tolist()
    return points._replace(
        known=points.known[few],
        known_start=start,
        known_set=points.known_set[few],
        number=points.number[few],
    )


def _blocks(
    rows: Tensor, points: Points, count: int, block_bytes: int
) -> Iterator[tuple[Tensor, int, int]]:
    """Rows in blocks of bounded memory, and the known points of all their sets."""
    begin = 0
    start = torch.tensor(points.known_start, device="cpu")
    number = torch.bucketize(rows, torch.tensor(points.asked_start[1:], device="cpu"), right=True)
    while begin < len(rows):
        size = min(2048, len(rows) - begin)
        while True:
            low, high = int(start[number[begin]]), int(start[number[begin + size - 1] + 1])
            if size == 1 or size * (16 * (high - low) + 64 * count) <= block_bytes:
                break
            size = (size + 1) // 2
        if high > low:
            yield rows[begin : begin + size].to(points.known.device), low, high
        begin += size


def _squared_distances(columns: Tensor, asked: Tensor, index: Tensor) -> Tensor:
    """The sums of squared differences in the order of the columns; infinity for the index -1."""
    squared = torch.zeros(index.shape, dtype=torch.float64, device=index.device)
    known = index.clamp(min=0)
    for column, value in zip(columns, asked.t().unsqueeze(2), strict=True):
        gap = column[known] - value
        squared += gap.square_()  # rounded on its own: the compiled search does the same
    return squared.masked_fill_(index < 0, math.inf)


def _order(index: Tensor, squared: Tensor) -> tuple[Tensor, Tensor]:
    """Sort each row by squared distance and index."""
    index, order = index.sort(dim=1)
    squared, again = squared.gather(1, order).sort(dim=1, stable=True)
    return index.gather(1, again), squared


def _floor(points: Tensor) -> float:
    # squares below the smallest normal number may have been flushed to 0
    return 16 * points.size(1) * torch.finfo(points.dtype).tiny


def _smallest(score: Tensor, count: int) -> Tensor:
    """The columns of the ``count`` smallest entries of each row."""
    width = score.size(1) // 32
    if width < 4 * count:
        return score.topk(count, largest=False, sorted=False).indices
    # they lie in the groups of 32 with the smallest minima, or behind the last group
    minima = score[:, : 32 * width].view(-1, 32, width).amin(dim=1)
    group = minima.topk(count, largest=False, sorted=False).indices
    member = torch.arange(32, device=score.device) * width
    rest = torch.arange(32 * width, score.size(1), device=score.device)
    column = (group.unsqueeze(2) + member).flatten(1)
    column = torch.cat([column, rest.expand(len(score), -1)], dim=1)
    nearest = score.gather(1, column).topk(count, largest=False, sorted=False).indices
    return column.gather(1, nearest)


def _product_error() -> float:
    """The rounding of the factors of a float32 product, which users may have allowed."""
    try:
        precision = torch.get_float32_matmul_precision()
    except RuntimeError:  # set for single backends through the newer interface
        precision = "medium"
    return {"highest": 0.0, "high": 2.0**-10}.get(precision, 2.0**-7)


def center(points: Tensor) -> Tensor:
    """A central point that stays with the many where a few lie far off: a median of some."""
    seeded = torch.Generator().manual_seed(0)
    some = torch.randint(len(points), (128,), generator=seeded, device="cpu")
    return points[some.to(points.device)].median(dim=0).values
