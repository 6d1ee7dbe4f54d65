"""k nearest neighbours: one function, exact and reproducible on every backend."""

import math
from typing import Literal, overload

import torch
from torch import Tensor

from .distances import SquaredDistances
from .search import BACKENDS, Search, TorchCluster

BLOCK_BYTES = 64 * 2**20


@overload
def knn_graph(
    x: Tensor,
    k: int,
    batch: Tensor | None = None,
    loop: bool = False,
    cosine: bool = False,
    *,
    return_distances: Literal[False] = False,
    backend: str = "auto",
    block_bytes: int = BLOCK_BYTES,
) -> Tensor: ...


@overload
def knn_graph(
    x: Tensor,
    k: int,
    batch: Tensor | None = None,
    loop: bool = False,
    cosine: bool = False,
    *,
    return_distances: Literal[True],
    backend: str = "auto",
    block_bytes: int = BLOCK_BYTES,
) -> tuple[Tensor, Tensor]: ...


def knn_graph(
    x: Tensor,
    k: int,
    batch: Tensor | None = None,
    loop: bool = False,
    cosine: bool = False,
    *,
    return_distances: bool = False,
    backend: str = "auto",
    block_bytes: int = BLOCK_BYTES,
) -> Tensor | tuple[Tensor, Tensor]:
    r"""Connect every point to its :math:`k` nearest neighbours.

    Edges point from the neighbour to the point, as in ``torch_cluster.knn_graph``. Every point gets
    exactly :math:`k` of them, whatever duplicates there are, nearest first. The point itself is
    told apart by its index, and of points at the same distance the lowest index comes first.
    Backends only propose candidates; these are ranked by squared distances in double precision,
    :math:`\sum_c (x_{ic} - x_{jc})^2`, and rows in which a point left out could belong to the
    neighbours are searched again. So every backend but ``"pynndescent"`` gives the same edges.

    ================= ============================================ =================================
    ``backend``       what it is                                   ``"auto"`` takes it
    ================= ============================================ =================================
    ``torch_cluster`` tree on the CPU, brute force on the GPU      if installed: on a GPU up to 32
                                                                   dimensions and 64 neighbours, on
                                                                   the CPU up to 8 dimensions and
                                                                   10,000 points
    ``kdtree``        scipy's ``cKDTree``, on the CPU              else: on the CPU up to 8
                                                                   dimensions
    ``blocked``       matrix products and top-k, any device        everywhere else
    ``pynndescent``   approximate (most neighbours are right),     never: pays off past about
                      on the CPU; an extra                         100,000 points in high dimension
    ================= ============================================ =================================

    Args:
        x (Tensor): Finite floating points of shape :math:`(N, D)`. Half precision is searched as
            single.
        k (int): The number of neighbours of each point.
        batch (Tensor, optional): Sorted vector :math:`(N,)` that assigns each point to one of
            several sets, among which there are no edges. Numbers may be left out. (default:
            :obj:`None`)
        loop (bool, optional): Count the point itself as its first neighbour.
            (default: :obj:`False`)
        cosine (bool, optional): Use :math:`1 - \cos(x_i, x_j)` in place of the Euclidean distance.
            (default: :obj:`False`)
        return_distances (bool, optional): Return distances as well. They carry gradients to
            :obj:`x` (0 between coincident points), which takes memory :math:`O(N k D)`; under
            ``torch.no_grad()`` it does not. (default: :obj:`False`)
        backend (str, optional): :obj:`"auto"` or a name of the table. (default: :obj:`"auto"`)
        block_bytes (int, optional): Bound on the intermediates, beside copies of the input and the
            output: rows go through in blocks of this size, of one row at least.
            (default: 64 MiB)

    Raises:
        ValueError: On entries that are not finite, ``k`` below 1 or above the points there are, a
            ``batch`` that is not sorted or does not match, ``cosine`` with a row of zeros, an
            unknown backend or one that is not installed.
        TypeError: If :obj:`x` is not a floating Tensor or ``k`` not an integer.

    Shapes:
        - **output:** ``edge_index`` :math:`(2, N k)`, sorted by target; with ``return_distances``
          also the distances :math:`(N k,)`, of the type of :obj:`x`.
    """
    sizes = _check(x, k, batch, loop, backend, block_bytes)
    with torch.no_grad():
        points, scale = _prepare(x.detach(), cosine)
        index = torch.empty(x.size(0), k, dtype=torch.long, device=x.device)
        squared = torch.zeros(x.size(0), k, dtype=torch.float64, device=x.device)
        if loop:
            index[:, 0] = torch.arange(x.size(0), device=x.device)
        start = 0
        for size in sizes:
            part = slice(start, start + size)
            name = _automatic(points[part], k) if backend == "auto" else backend
            search = BACKENDS[name](points[part], block_bytes)
            found, squared[part, loop:] = _neighbours(k - loop, search)
            index[part, loop:] = found + start
            start += size
        target = torch.arange(x.size(0), device=x.device).repeat_interleave(k)
        edge_index = torch.stack([index.flatten(), target])
    if not return_distances:
        return edge_index
    if x.requires_grad and torch.is_grad_enabled():
        return edge_index, _distances(x, edge_index, cosine)
    squared = squared.flatten() / scale**2
    return edge_index, (squared / 2 if cosine else squared.sqrt()).to(x.dtype)


def _check(
    x: Tensor, k: int, batch: Tensor | None, loop: bool, backend: str, block_bytes: int
) -> list[int]:
    """Refuse bad input; the sizes of the sets that hold points."""
    if not isinstance(x, Tensor) or not x.is_floating_point():
        got = x.dtype if isinstance(x, Tensor) else type(x).__name__
        raise TypeError(f"Expected 'x' to be a floating Tensor (got {got})")
    if x.dim() != 2 or x.size(1) == 0:
        raise ValueError(f"Expected 'x' of shape [N, D] with D > 0 (got {list(x.shape)})")
    finite = torch.isfinite(x.detach()).all(dim=1)
    if not finite.all():
        row = int((~finite).nonzero()[0])
        raise ValueError(f"Expected 'x' to be finite (got NaN or infinity in row {row})")
    if backend != "auto" and backend not in BACKENDS:
        names = ", ".join(repr(name) for name in ("auto", *BACKENDS))
        raise ValueError(f"Expected 'backend' to be one of {names} (got {backend!r})")
    if backend != "auto" and (reason := BACKENDS[backend].missing()):
        raise ValueError(f"Expected 'backend' to be installed (got {backend!r}: {reason})")
    if block_bytes < 1:
        raise ValueError(f"Expected 'block_bytes' to be positive (got {block_bytes})")
    sizes = [x.size(0)] if batch is None else _set_sizes(batch, x.size(0))
    sizes = [size for size in sizes if size > 0]
    if isinstance(k, bool) or not isinstance(k, int):
        raise TypeError(f"Expected 'k' to be an integer (got {type(k).__name__})")
    smallest = min(sizes, default=k + 1)
    if not 1 <= k <= smallest - (not loop):
        where = "'x'" if batch is None else "each set of 'batch'"
        raise ValueError(
            f"Expected 'k' to be at least 1 and, {'with' if loop else 'without'} 'loop', to need "
            f"no more than the points of {where} (got k = {k} and {smallest} points)"
        )
    return sizes


def _set_sizes(batch: Tensor, num_points: int) -> list[int]:
    if batch.dtype != torch.long or batch.shape != (num_points,):
        raise ValueError(
            f"Expected 'batch' to be int64 of shape [{num_points}], one number a point "
            f"(got {batch.dtype} of shape {list(batch.shape)})"
        )
    if (batch.diff() < 0).any():
        raise ValueError("Expected 'batch' to be sorted (got a number below its predecessor)")
    return torch.unique_consecutive(batch, return_counts=True)[1].tolist()


def _prepare(x: Tensor, cosine: bool) -> tuple[Tensor, float]:
    """The points to search, scaled by a power of two into [-1, 1], and that scale."""
    if x.dtype not in (torch.float32, torch.float64):
        x = x.float()
    if cosine:
        norm = torch.linalg.vector_norm(x, dim=1, keepdim=True, dtype=torch.float64)
        if (norm == 0).any():
            row = int((norm == 0).nonzero()[0, 0])
            raise ValueError(f"Expected 'x' to have no row of zeros with 'cosine' (got row {row})")
        x = (x / norm).to(x.dtype)
    # exact, and it keeps the squares of far and of tiny points in range
    exponent = math.frexp(float(x.abs().max()) if x.numel() else 0.0)[1]
    limit = 126 if x.dtype == torch.float32 else 1022
    scale = 2.0 ** max(-limit, min(limit, -exponent))
    return x * scale, scale


def _automatic(x: Tensor, k: int) -> str:
    num_points, dim = x.shape
    small = (dim <= 32 and k <= 64) if x.is_cuda else (dim <= 8 and num_points <= 10_000)
    if small and TorchCluster.missing() is None:
        return "torch_cluster"
    return "kdtree" if dim <= 8 and x.device.type == "cpu" else "blocked"


def _neighbours(k: int, search: Search) -> tuple[Tensor, Tensor]:
    """The ``k`` others nearest to each point, by (squared distance, index), and those distances."""
    num_points = search.points.size(0)
    near, squared = _empty(search, k + 1)
    rows = _sweep(search.order, search, k + 5 + k // 8, near, squared)
    if rows.numel() > 0:
        near[rows], squared[rows] = _settle(rows, k + 1, search)
    # drop the point itself; among more coincident points than k it may not be listed
    other = near != torch.arange(num_points, device=near.device).unsqueeze(1)
    other[:, k] &= ~other.all(dim=1)
    return near[other].view(num_points, k), squared[other].view(num_points, k)


def _empty(search: Search, size: int) -> tuple[Tensor, Tensor]:
    shape, device = (search.points.size(0), size), search.points.device
    near = torch.empty(shape, dtype=torch.long, device=device)
    return near, torch.empty(shape, dtype=torch.float64, device=device)


def _sweep(rows: Tensor, search: Search, count: int, near: Tensor, squared: Tensor) -> Tensor:
    """Write the nearest of ``count`` candidates of ``rows``; the rows that others could enter."""
    num_points, size = near.shape
    count = min(count, num_points)
    distances = SquaredDistances(search.points, search.block_bytes)
    unsettled = []
    for part in rows.split(max(1, search.block_bytes // search.row_bytes(count))):
        index, slack = search(part, count)
        index, gap = _rank(part, index, distances)
        near[part], squared[part] = index[:, :size], gap[:, :size]
        if search.exact and count < num_points:
            settled = gap[:, size - 1] < gap[:, -1] * (1 - search.relative) - slack
            settled &= gap[:, -1].isfinite()
        else:
            settled = gap[:, size - 1].isfinite()
        unsettled.append(part[~settled])
    return torch.cat(unsettled)


def _rank(rows: Tensor, index: Tensor, distances: SquaredDistances) -> tuple[Tensor, Tensor]:
    """The candidates by (squared distance, index), those of index -1 at the end."""
    known = index.clamp(min=0)
    if not distances.by_product:
        return _order(index, distances.differences(rows, known).masked_fill_(index < 0, math.inf))
    gap, error = distances.products(rows, known)
    index, gap = _order(index, gap.masked_fill_(index < 0, math.inf))
    # rounding decides between neighbours, or makes up too much of the smallest distance
    error = error.unsqueeze(1)
    close = (gap.diff(dim=1) <= 2 * error).any(dim=1)
    close |= (gap[:, 1:2] * torch.finfo(torch.float32).eps < error).any(dim=1)
    again = close.nonzero().flatten()
    if again.numel() > 0:
        known = index[again].clamp(min=0)
        exact = distances.differences(rows[again], known).masked_fill_(index[again] < 0, math.inf)
        index[again], gap[again] = _order(index[again], exact)
    return index, gap


def _order(index: Tensor, squared: Tensor) -> tuple[Tensor, Tensor]:
    """Sort each row by squared distance and index."""
    step = squared.diff(dim=1)
    behind = (step < 0) | ((step == 0) & (index.diff(dim=1) < 0))
    mixed = behind.any(dim=1).nonzero().flatten()  # a tree has sorted most rows
    if mixed.numel() > 0:
        by_index, place = index[mixed].sort(dim=1)
        by_distance, order = squared[mixed].gather(1, place).sort(dim=1, stable=True)
        index[mixed], squared[mixed] = by_index.gather(1, order), by_distance
    return index, squared


def _settle(rows: Tensor, size: int, search: Search) -> tuple[Tensor, Tensor]:
    """The ``size`` nearest of ``rows``, by ever more candidates among the distinct points."""
    num_points = search.points.size(0)
    distinct, group, members, start = _distinct(search.points)
    search, count = search.wider(distinct), 2 * size
    near, squared = _empty(search, min(size, len(distinct)))
    left = torch.unique(group[rows])
    while left.numel() > 0:
        left = _sweep(left, search, count, near, squared)
        count *= 2
    if len(distinct) == num_points:
        return near[rows], squared[rows]
    # the nearest points are among the first copies of the nearest distinct points
    copy = torch.arange(size, device=rows.device)
    ranked = []
    for part in group[rows].split(max(1, search.block_bytes // (64 * size * near.size(1)))):
        place = start[near[part]].unsqueeze(2) + copy
        gap = squared[part].unsqueeze(2).expand(place.shape)
        gap = gap.masked_fill(place >= start[near[part] + 1].unsqueeze(2), math.inf)
        index = members[place.clamp(max=num_points - 1)]
        index, gap = _order(index.flatten(1), gap.flatten(1))
        ranked.append((index[:, :size], gap[:, :size]))
    index, gap = (torch.cat(column) for column in zip(*ranked, strict=True))
    return index, gap


def _distinct(points: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The distinct points in the order of their first copies, and where all copies are.

    Returns:
        The distinct points, which of them each row equals, the rows sorted by that and by index,
        and where the rows of each distinct point start and end there.
    """
    sorted_points, group = torch.unique(points, dim=0, return_inverse=True)
    rows = torch.arange(len(points), device=points.device)
    first = torch.full((len(sorted_points),), len(points), device=points.device)
    first, order = first.scatter_reduce(0, group, rows, "amin").sort()
    group = order.argsort()[group]
    start = torch.bincount(group, minlength=len(first) + 1).cumsum(0).roll(1)
    start[0] = 0
    return points[first], group, group.argsort(stable=True), start


def _distances(x: Tensor, edge_index: Tensor, cosine: bool) -> Tensor:
    source, target = x[edge_index[0]], x[edge_index[1]]
    if cosine:
        return 1 - torch.cosine_similarity(source, target, dim=1)
    return torch.linalg.vector_norm(target - source, dim=1)
