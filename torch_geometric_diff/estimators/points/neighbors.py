"""Nearest neighbors among known points and of new ones, at any scale, in bounded memory."""

from collections.abc import Iterator
from typing import Union

import numpy as np
import scipy.sparse
import torch
from sklearn.neighbors import NearestNeighbors
from torch import Tensor

from ..._utils.numerics import power_of_two
from ...graph import knn_graph
from ...graph.search import center, missing, nearest_known

BLOCK_BYTES = 64 * 2**20  # of intermediates at a time
_REACH = 2.0**10  # how far off, in units of the known points, differences are trusted
Points = Union[Tensor, scipy.sparse.csr_matrix]


def among(points: Points, k: int) -> tuple[Tensor, Tensor]:
    """Edges to each point from its ``k`` nearest others, and their relative distances [N, k].

    Raises:
        ValueError: If distances are lost in rounding beside a point that lies far off.
    """
    k = min(k, points.shape[0] - 1)
    if isinstance(points, Tensor):
        index, distance = _others(points, k)
    else:
        sorted_distances, nearest = _sparse_search(points, k).kneighbors()
        index, distance = torch.from_numpy(nearest).long(), torch.from_numpy(sorted_distances)
    target = torch.arange(len(index), device=index.device).repeat_interleave(k)
    edge_index = torch.stack([index.flatten(), target])
    _check_distances(points, edge_index, distance)
    return edge_index, distance


def _others(points: Tensor, k: int) -> tuple[Tensor, Tensor]:
    search = _Dense(points, k + 1)
    if search.compiled:  # faster than below in double precision: it looks in single first
        distance, index = search(points)
        own = torch.arange(len(points), device=points.device).unsqueeze(1)
        other = index != own
        other[:, k] &= ~other.all(1)  # among more copies than k, a point may not find itself
        return index[other].view(-1, k), distance[other].view(-1, k).to(points.dtype)
    points = points / power_of_two(points.abs().max())
    edge_index, distance = knn_graph(points, k, return_distances=True)
    return edge_index[0].view(-1, k), distance.view(-1, k)


def _check_distances(points: Points, edge_index: Tensor, distance: Tensor) -> None:
    nothing = (distance.flatten() == 0).nonzero().flatten()
    for edges in edge_index[:, nothing].split(4096, dim=1):
        if isinstance(points, Tensor):
            differ = (points[edges[0]] != points[edges[1]]).any(1)
        else:
            a, b = (points[rows.numpy()] for rows in edges)
            differ = torch.from_numpy(np.asarray(abs(a - b).sum(axis=1)).ravel() > 0)
        lost = differ.nonzero()
        if len(lost) > 0:
            a, b = edges[:, lost[0, 0]].tolist()
            raise ValueError(
                f"Expected 'X' to hold no point so far off that distances of the others vanish "
                f"beside it (rows {a} and {b} differ, but the distance rounds to 0)"
            )


class NearestKnown:
    """The known points nearest to new ones.

    Args:
        points (Tensor or csr_matrix): The known points.
        k (int): The number of neighbors, at most that of the points.
    """

    def __init__(self, points: Points, k: int) -> None:
        self.k = min(k, points.shape[0])
        self.search = (_Dense if isinstance(points, Tensor) else _Sparse)(points, self.k)

    def __call__(
        self, points: Points, row_bytes: int
    ) -> Iterator[tuple[Points, slice, Tensor, Tensor]]:
        """Go through new points in blocks: the block, its rows, relative distances and indices.

        Args:
            points (Tensor or csr_matrix): The new points, in the form of the known ones or not.
            row_bytes (int): What the caller makes of each row, for the size of the blocks.
        """
        for rows in blocks(points.shape[0], 8 * (points.shape[1] + self.k)):
            part = self.search.like_known(points[rows])
            distance, index = self.search(part)
            for few in blocks(part.shape[0], row_bytes):
                place = slice(rows.start + few.start, rows.start + few.stop)
                yield part[few], place, distance[few], index[few]


class _Dense:
    r"""Nearest by squared differences where these are in range, and else by
    :math:`|b|^2 - 2 a \cdot b`: known points have one scale there, each new point its own, so that
    nothing overflows and what is lost beside larger numbers decides nothing.
    """

    def __init__(self, points: Tensor, k: int) -> None:
        self.k = k
        self.half = points.double() / 2  # their differences are finite
        self.center = center(self.half)
        self.unit = self.half - self.center
        self.scale = 2 * power_of_two(self.unit.abs().max())
        self.unit /= self.scale
        size = self.unit.abs()
        in_range = bool(size.masked_fill_(size == 0, 1).min() > 2.0**-400)
        self.compiled = in_range and points.device.type == "cpu" and missing("compiled") is None

    def like_known(self, points: Points) -> Tensor:
        """Points as these are."""
        if not isinstance(points, Tensor):
            points = torch.from_numpy(points.toarray())
        return points.to(self.half.device)

    def __call__(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Relative distances and indices of the nearest, in their order."""
        half = points.double() / 2
        index = torch.empty(len(half), self.k, dtype=torch.long, device=half.device)
        distance = torch.empty(index.shape, dtype=half.dtype, device=half.device)
        asked = (half - self.center) / self.scale
        near = asked.abs().amax(1) < (_REACH if self.compiled else 0)
        if bool(near.all()):
            index, distance = self._by_difference(asked)
        else:
            if bool(near.any()):
                index[near], distance[near] = self._by_difference(asked[near])
            left = (~near).nonzero().flatten()
            for few in blocks(len(left), 8 * (3 * len(self.half) + 12 * self.k * half.size(1))):
                index[left[few]], distance[left[few]] = self._by_score(half[left[few]])
        return distance, index

    def _by_difference(self, asked: Tensor) -> tuple[Tensor, Tensor]:
        index = nearest_known(asked / _REACH, self.unit / _REACH, self.k, single=True)
        distance = torch.empty(index.shape, dtype=asked.dtype, device=asked.device)
        for few in blocks(len(asked), 16 * asked.size(1) * self.k):
            gap = asked[few].unsqueeze(1) - self.unit[index[few]]
            distance[few] = gap.square_().sum(2).sqrt_()
        return index, distance

    def _by_score(self, half: Tensor) -> tuple[Tensor, Tensor]:
        shifted = half - self.center
        scale = power_of_two(shifted.abs().amax(1, keepdim=True))
        shifted *= -2 * (scale / self.scale).clamp(max=1) / scale
        score = (self.scale / scale).clamp(max=1) * self.unit.square().sum(1)
        score.addmm_(shifted, self.unit.t())
        candidates = min(2 * self.k + 4, len(self.half))
        score, index = score.topk(candidates, largest=False)
        gap = half.unsqueeze(1) - self.half[index]
        largest = gap.abs().amax(2, keepdim=True)
        gap /= torch.where(largest > 0, largest, 1)
        distance = largest.squeeze(2) * torch.linalg.vector_norm(gap, dim=2)
        # far off, all distances are the same number: then the score decides, of copies the index
        found = [index, score, distance]
        for key in range(3):
            order = found[key].argsort(dim=1, stable=True)
            found = [column.gather(1, order) for column in found]
        return found[0][:, : self.k], found[2][:, : self.k]


class _Sparse:
    """scikit-learn's search, which takes sparse points."""

    def __init__(self, points: scipy.sparse.csr_matrix, k: int) -> None:
        self.search = _sparse_search(points, k)

    def like_known(self, points: Points) -> scipy.sparse.csr_matrix:
        """Points as these are."""
        return scipy.sparse.csr_matrix(points.numpy()) if isinstance(points, Tensor) else points

    def __call__(self, points: scipy.sparse.csr_matrix) -> tuple[Tensor, Tensor]:
        """Distances and indices of the nearest, in their order."""
        distance, index = self.search.kneighbors(points)
        found = torch.from_numpy(distance)
        if not bool(found.isfinite().all()):
            raise ValueError("Expected 'X' to hold no point so far off that distances overflow")
        return found, torch.from_numpy(index).long()


def blocks(count: int, row_bytes: int) -> Iterator[slice]:
    """Rows in blocks of bounded size."""
    size = max(1, BLOCK_BYTES // max(1, row_bytes))
    for start in range(0, count, size):
        yield slice(start, min(start + size, count))


def _sparse_search(points: scipy.sparse.csr_matrix, k: int) -> NearestNeighbors:
    return NearestNeighbors(n_neighbors=k, algorithm="brute").fit(points)


def take(points: Points, mask: Tensor) -> Points:
    """The rows where ``mask`` is true."""
    return points[mask if isinstance(points, Tensor) else mask.cpu().numpy()]


def unit_rows(points: Points) -> Points:
    """Rows divided by their lengths, whatever these are; rows of zeros stay."""
    if isinstance(points, Tensor):
        rows = points.double()
        rows = rows / power_of_two(rows.abs().amax(1, keepdim=True))
        length = torch.linalg.vector_norm(rows, dim=1, keepdim=True)
        return (rows / torch.where(length > 0, length, 1)).to(points.dtype)
    rows = points.astype("float64")
    count = torch.from_numpy(rows.indptr).diff()
    for norm in (float("inf"), 2):  # by the largest first: squares stay in range
        data = torch.from_numpy(rows.data)
        row = torch.arange(len(count), device="cpu").repeat_interleave(count)
        length = data.new_zeros(len(count))
        if norm == 2:
            length = length.index_add(0, row, data.square()).sqrt()
        else:
            length = length.scatter_reduce(0, row, data.abs(), "amax")
        rows.data = (data / torch.where(length > 0, length, 1)[row]).numpy()
    return rows.astype(points.dtype)
