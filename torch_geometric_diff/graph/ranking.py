"""The exact ranking of what a search proposes."""

import math

import torch
from torch import Tensor

from .distances import SquaredDistances
from .search import Search


def nearest(k: int, search: Search) -> Tensor:
    """The ``k`` others nearest to each point, by (squared distance, index)."""
    num_points = search.points.size(0)
    near, squared = _empty(search, k + 1)
    rows = _sweep(search.order, search, k + 5 + k // 8, near, squared)
    if rows.numel() > 0:
        near[rows], squared[rows] = _settle(rows, k + 1, search)
    # drop the point itself; among more coincident points than k it may not be listed
    other = near != torch.arange(num_points, device=near.device).unsqueeze(1)
    other[:, k] &= ~other.all(dim=1)
    return near[other].view(num_points, k)


def _empty(search: Search, size: int) -> tuple[Tensor, Tensor]:
    shape, device = (search.points.size(0), size), search.points.device
    near = torch.empty(shape, dtype=torch.long, device=device)
    return near, torch.empty(shape, dtype=torch.float64, device=device)


def _sweep(rows: Tensor, search: Search, count: int, near: Tensor, squared: Tensor) -> Tensor:
    """Write the nearest of ``count`` candidates of ``rows``; the rows that others could enter."""
    num_points, size = near.shape
    count = min(count, num_points)
    distances = SquaredDistances(search.exact_points, search.single, search.block_bytes)
    unsettled = []
    for part in rows.split(max(1, search.block_bytes // search.row_bytes(count))):
        index, slack = search(part, count)
        index, gap = _rank(part, index, distances)
        near[part], squared[part] = index[:, :size], gap[:, :size]
        if search.exact and count < num_points:
            bound = (gap[:, -1].sqrt() - search.rounding).clamp(min=0).square()
            settled = gap[:, size - 1] < bound * (1 - search.relative) - slack
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
    # rounding decides between neighbors, or makes up too much of the smallest distance
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
    distinct, group, members, start = _distinct(search.exact_points)
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
