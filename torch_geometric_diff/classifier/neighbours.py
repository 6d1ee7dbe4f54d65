"""Nearest neighbours among known points and of new ones, at any scale, in bounded memory."""

from collections.abc import Iterator
from typing import Union

import numpy as np
import scipy.sparse
import torch
from sklearn.neighbors import NearestNeighbors
from torch import Tensor

from ..graph import knn_graph
from ..graph.distances import centre

BLOCK_BYTES = 64 * 2**20  # of intermediates at a time
Points = Union[Tensor, scipy.sparse.csr_matrix]


def among(points: Points, k: int) -> tuple[Tensor, Tensor]:
    """Edges to each point from its ``k`` nearest others, and their relative distances [N, k].

    Raises:
        ValueError: If distances are lost in rounding beside a point that lies far off.
    """
    if isinstance(points, Tensor):
        points = points / power_of_two(points.abs().max())
        edge_index, distance = knn_graph(points, k, return_distances=True)
        distance = distance.view(-1, k)
    else:
        distance, index = _sparse_search(points, k).kneighbors()
        target = torch.arange(len(index)).repeat_interleave(k)
        edge_index = torch.stack([torch.from_numpy(index).long().flatten(), target])
        distance = torch.from_numpy(distance)
    _check_distances(points, edge_index, distance)
    return edge_index, distance


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
        k (int): The number of neighbours, at most that of the points.
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
        size = max(1, BLOCK_BYTES // (row_bytes + self.search.row_bytes))
        for start in range(0, points.shape[0], size):
            rows = slice(start, min(start + size, points.shape[0]))
            block = self.search.like_known(points[rows])
            yield block, rows, *self.search(block)


class _Dense:
    r"""The smallest :math:`|b|^2 - 2 a \cdot b`, of which the nearest are found by differences.

    Nothing overflows, and what is lost beside larger numbers decides nothing: known points have one
    scale, each new point its own.
    """

    def __init__(self, points: Tensor, k: int) -> None:
        self.k, self.candidates = k, min(2 * k + 4, len(points))
        self.half = points.double() / 2  # their differences are finite
        self.centre = centre(self.half)
        self.unit = self.half - self.centre
        self.scale = power_of_two(self.unit.abs().max())
        self.unit /= self.scale
        self.norm = self.unit.square().sum(1)
        self.row_bytes = 8 * (3 * len(points) + (3 * points.size(1) + 6) * self.candidates)

    def like_known(self, points: Points) -> Tensor:
        if not isinstance(points, Tensor):
            points = torch.from_numpy(points.toarray())
        return points.to(self.half.device)

    def __call__(self, points: Tensor) -> tuple[Tensor, Tensor]:
        half = points.double() / 2
        shifted = half - self.centre
        scale = power_of_two(shifted.abs().amax(1, keepdim=True))
        shifted *= -2 * (scale / self.scale).clamp(max=1) / scale
        score = (self.scale / scale).clamp(max=1) * self.norm
        score.addmm_(shifted, self.unit.t())
        score, index = score.topk(self.candidates, largest=False)
        gap = half.unsqueeze(1) - self.half[index]
        largest = gap.abs().amax(2, keepdim=True)
        gap /= torch.where(largest > 0, largest, 1)
        distance = largest.squeeze(2) * torch.linalg.vector_norm(gap, dim=2)
        # far off, all distances are the same number: then the score decides, of copies the index
        found = [index, score, distance]
        for key in range(3):
            order = found[key].argsort(dim=1, stable=True)
            found = [column.gather(1, order) for column in found]
        return found[2][:, : self.k], found[0][:, : self.k]


class _Sparse:
    """scikit-learn's search, which takes sparse points."""

    def __init__(self, points: scipy.sparse.csr_matrix, k: int) -> None:
        self.search = _sparse_search(points, k)
        self.row_bytes = 24 * points.shape[0]

    def like_known(self, points: Points) -> scipy.sparse.csr_matrix:
        return scipy.sparse.csr_matrix(points.numpy()) if isinstance(points, Tensor) else points

    def __call__(self, points: scipy.sparse.csr_matrix) -> tuple[Tensor, Tensor]:
        distance, index = self.search.kneighbors(points)
        found = torch.from_numpy(distance)
        if not bool(found.isfinite().all()):
            raise ValueError("Expected 'X' to hold no point so far off that distances overflow")
        return found, torch.from_numpy(index).long()


def _sparse_search(points: scipy.sparse.csr_matrix, k: int) -> NearestNeighbors:
    return NearestNeighbors(n_neighbors=k, algorithm="brute").fit(points)


def take(points: Points, mask: Tensor) -> Points:
    """The rows where ``mask`` is true."""
    return points[mask if isinstance(points, Tensor) else mask.cpu().numpy()]


def power_of_two(x: Tensor) -> Tensor:
    """A power of two between half of each entry and the entry; 1 for 0."""
    exponent = torch.frexp(x).exponent - 1
    return torch.where(x > 0, torch.ldexp(torch.ones_like(x), exponent), torch.ones_like(x))


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
        row = torch.arange(len(count)).repeat_interleave(count)
        length = torch.zeros(len(count), dtype=data.dtype)
        if norm == 2:
            length = length.index_add(0, row, data.square()).sqrt()
        else:
            length = length.scatter_reduce(0, row, data.abs(), "amax")
        rows.data = (data / torch.where(length > 0, length, 1)[row]).numpy()
    return rows.astype(points.dtype)
