"""Weighted neighbors of points, by distances that are measured or given."""

from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.sparse
import torch
from torch import Tensor

from .neighbors import NearestKnown, Points, among, take

Finish = Callable[[Points, Tensor], Tensor]


class PointNeighbors:
    """Neighbors by the features of points.

    Args:
        points (Tensor or csr_matrix): The points of ``fit``, [N, F].
        k (int): The number of neighbors.
        power (int): That of the distance in the weights.
    """

    def __init__(self, points: Points, k: int, power: int) -> None:
        self.points, self.k, self.power = points, k, power
        self.edge_index, distance = among(points, k)
        self.weight = gaussian_weights(distance, power).flatten()
        self.has_copies = bool((distance[:, 0] == 0).any())
        self._search = NearestKnown(points, k)

    def order(self) -> Tensor:
        """A key [N] that sorts points in a way that does not depend on how they are listed."""
        direction = torch.randn(
            self.points.shape[1],
            generator=torch.Generator("cpu").manual_seed(0),
            dtype=torch.float64,
            device="cpu",
        )
        if isinstance(self.points, Tensor):
            return (self.points.double() * direction.to(self.points.device)).sum(1)
        return torch.from_numpy(self.points.astype("float64") @ direction.numpy())

    def interpolate(
        self, points: Points, values: Tensor, width: int, finish: Finish | None = None
    ) -> Tensor:
        """Weighted means [M, width] of values [N, C] over the nearest points.

        Args:
            points (Tensor or csr_matrix): Where to interpolate, [M, F].
            values (Tensor): Values at the points of ``fit``.
            width (int): The number of columns of the result.
            finish (callable, optional): What to make of a block of points and their means.
        """
        return self._interpolate(self._search, points, values, width, finish)

    def _interpolate(
        self,
        search: NearestKnown,
        points: Points,
        values: Tensor,
        width: int,
        finish: Finish | None = None,
    ) -> Tensor:
        result = values.new_empty(points.shape[0], width)
        row_bytes = (3 * search.k + 8) * values.size(1) * values.element_size()
        for block, rows, distance, index in search(points, row_bytes):
            weight = gaussian_weights(distance, self.power).to(values).unsqueeze(2)
            mean = (weight * values[index.to(values.device)]).sum(1) / weight.sum(1)
            result[rows] = mean if finish is None else finish(block, mean)
        return result

    def complete(self, values: Tensor, fallback: Tensor) -> Tensor:
        """Rows that are not finite are interpolated from the nearest that are."""
        reached = values.isfinite().all(1)
        if not bool(reached.all()):
            search = NearestKnown(take(self.points, reached), self.k)
            unreached = take(self.points, ~reached)
            values[~reached] = self._interpolate(search, unreached, values[reached], values.size(1))
        return values


class PrecomputedNeighbors:
    """Neighbors by a matrix of distances or affinities.

    Args:
        matrix (csr_matrix): Its stored entries [N, N]; entries of the diagonal are ignored.
        k (int): The most neighbors by distance; all affinities count.
        is_distance (bool): Whether the entries are distances.
        device (str or torch.device): Where to compute.
    """

    points = None
    has_copies = False

    def __init__(
        self, matrix: scipy.sparse.csr_matrix, k: int, is_distance: bool, device: Any = "cpu"
    ) -> None:
        if matrix.shape[0] != matrix.shape[1]:
            raise ValueError(
                "Expected 'X' of a precomputed 'metric' to be square, a row and a column for each "
                f"point (got shape {matrix.shape})"
            )
        if is_distance and matrix.diagonal().any():
            raise ValueError(
                "Expected 'X' of distances to have zeros on its diagonal; affinities take "
                f"metric='precomputed_affinity' (got {matrix.diagonal().max():.3g})"
            )
        self.k, self.is_distance = k, is_distance
        entries = matrix.tocoo()
        other = entries.row != entries.col
        parts = entries.data[other], (entries.row[other], entries.col[other])
        weights = self._weights(scipy.sparse.csr_matrix(parts, shape=matrix.shape)).tocoo()
        self.edge_index = torch.from_numpy(np.stack([weights.col, weights.row])).long().to(device)
        self.weight = torch.from_numpy(weights.data).to(device)
        self.num_points = matrix.shape[0]

    def order(self) -> Tensor:
        """The order in which points are given."""
        return torch.arange(self.num_points, device=self.weight.device)

    def _weights(self, matrix: scipy.sparse.csr_matrix) -> scipy.sparse.csr_matrix:
        if len(matrix.data) and matrix.data.min() < 0:
            kind = "distances" if self.is_distance else "affinities"
            raise ValueError(
                f"Expected 'X' of {kind} to be at least 0 (got {matrix.data.min():.3g})"
            )
        if not self.is_distance:
            matrix.eliminate_zeros()
            return matrix
        count = np.diff(matrix.indptr)
        row = np.repeat(np.arange(len(count)), count)
        order = np.lexsort((matrix.data, row))
        rank = np.arange(len(row)) - matrix.indptr[:-1][row]
        near = rank < self.k
        row, order = row[near], order[near]
        distance, column = matrix.data[order], matrix.indices[order]
        last = np.zeros(len(count), dtype=distance.dtype)
        np.maximum.at(last, row, distance)
        relative = distance / np.maximum(last, np.finfo(distance.dtype).tiny)[row]
        return scipy.sparse.csr_matrix((np.exp(-8 * relative**2), (row, column)), matrix.shape)

    def interpolate(
        self,
        points: scipy.sparse.csr_matrix,
        values: Tensor,
        width: int,
        finish: Finish | None = None,
    ) -> Tensor:
        """Weighted means [M, C] of values [N, C], of rows [M, N] of the matrix.

        A row without neighbors takes the mean of all values.
        """
        del width
        weights = self._weights(points)
        total = np.asarray(weights.sum(axis=1))
        table = values.cpu().numpy()
        mean = np.divide(
            weights @ table, total, out=np.zeros((len(total), table.shape[1])), where=total > 0
        )
        mean[total[:, 0] <= 0] = table.mean(axis=0)
        result = torch.from_numpy(mean).to(values)
        return result if finish is None else finish(points, result)

    def complete(self, values: Tensor, fallback: Tensor) -> Tensor:
        """Rows that are not finite take the fallback."""
        return torch.where(values.isfinite().all(1, keepdim=True), values, fallback)


def gaussian_weights(distance: Tensor, power: int) -> Tensor:
    """Weights of neighbors from relative distances [N, k], nearest first; copies weigh 1."""
    last = distance[:, -1:].clamp(min=torch.finfo(distance.dtype).tiny)
    return torch.exp(-8 * (distance / last).pow(power))


def stored_entries(X: np.ndarray) -> scipy.sparse.csr_matrix:
    """A dense matrix with all its entries stored, zeros among them."""
    rows, columns = X.shape
    index = np.tile(np.arange(columns), rows)
    return scipy.sparse.csr_matrix((X.ravel(), index, columns * np.arange(rows + 1)), shape=X.shape)


def first_copies(points: Points) -> tuple[np.ndarray, np.ndarray]:
    """The first of all copies of each point, and for every point which of these it is."""
    if isinstance(points, Tensor):
        rows = np.ascontiguousarray(points.cpu().numpy() + 0.0)  # -0.0 and 0.0 are the same number
        keys = rows.view(np.dtype((np.void, rows.itemsize * rows.shape[1]))).ravel()
    else:
        rows = points.copy()
        rows.eliminate_zeros()
        rows.sort_indices()
        bounds = zip(rows.indptr[:-1], rows.indptr[1:], strict=True)
        parts = [(rows.indices[a:b].tobytes(), rows.data[a:b].tobytes()) for a, b in bounds]
        number = {key: i for i, key in enumerate(dict.fromkeys(parts))}
        keys = np.array([number[key] for key in parts])
    _, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
    rank = np.empty_like(first)
    rank[first.argsort()] = np.arange(len(first))
    return np.sort(first), rank[inverse.ravel()]
