"""LaplacianShot: distances to prototypes smoothed over a kNN graph of the queries."""

import torch
from torch import Tensor

from ..tasks import Tasks, rectified_prototypes
from ..weights import distances
from .base import Method, at_least


class LaplacianShot(Method):
    r"""Laplacian-regularised assignment (Ziko et al., ICML 2020).

    With :math:`a` the distances of the queries to the prototypes and W the binary kNN graph of the
    queries (directed, without loops), :math:`y \leftarrow \text{softmax}(-a + \lambda W y)` is
    repeated until the energy :math:`\sum y \log y + a y - \lambda y W y` changes by less than 1e-6
    of itself.

    Args:
        lamda (float): Strength of the graph. (default: ``0.5``)
        knn (int): Neighbours of a query, itself counted. (default: ``3``)
        rectify (bool): Rectify the prototypes. (default: ``True``)
        max_iter (int): Most iterations. (default: ``20``)
    """

    shifted = True

    def __init__(
        self, lamda: float = 0.5, knn: int = 3, rectify: bool = True, max_iter: int = 20
    ) -> None:
        at_least(0, lamda=lamda)
        at_least(1, knn=knn, max_iter=max_iter)
        self.lamda, self.knn, self.rectify, self.max_iter = lamda, knn, rectify, max_iter

    def predict(self, tasks: Tasks) -> Tensor:
        query = tasks.query
        if self.knn > query.shape[1]:
            raise ValueError(f"'knn' is {self.knn}, but a task has only {query.shape[1]} queries")
        prototypes = rectified_prototypes(tasks) if self.rectify else tasks.prototypes
        a = torch.cdist(query, prototypes)
        r = distances(query)
        r.diagonal(dim1=-2, dim2=-1).fill_(torch.inf)
        neighbors = r.topk(self.knn - 1, largest=False).indices
        graph = torch.zeros_like(r, dtype=a.dtype).scatter_(-1, neighbors, 1.0)

        y, energy = (-a).softmax(-1), torch.full((len(a),), torch.inf, device=a.device)
        running = torch.ones_like(energy, dtype=torch.bool)
        for _ in range(self.max_iter):
            new = (self.lamda * (graph @ y) - a).softmax(-1)
            y = torch.where(running[:, None, None], new, y)
            smooth = self.lamda * (graph @ y)
            now = (torch.xlogy(y, y) + (a - smooth) * y).sum((1, 2))
            running &= (now - energy).abs() > 1e-6 * now.abs()
            if not running.any():
                break
            energy = now
        return y.argmax(-1)
