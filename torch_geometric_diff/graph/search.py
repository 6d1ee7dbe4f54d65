"""Searches that propose neighbors; ``knn_graph`` ranks the proposals exactly."""

import importlib.util
import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from .distances import center


class Proposal(NamedTuple):
    """Candidates for the nearest points of some rows.

    Attributes:
        index (Tensor): Candidate points, shape :math:`(Q, C)`; -1 where the search found none.
        slack (Tensor): Shape :math:`(Q,)`. No point left out is nearer, in squared distance, than
            ``(1 - relative) * (farthest candidate) - slack``.
    """

    index: Tensor  # type: ignore[assignment]  # hides tuple.index
    slack: Tensor


class Search:
    """A way to find near points.

    Args:
        points (Tensor): Points of shape :math:`(N, D)`, entries in [-1, 1], double precision.
        single (bool): Whether to search in single precision.
        block_bytes (int): Bytes that the search may use for its intermediates.

    Attributes:
        order (Tensor): All rows, in the order in which it is best to ask for them.
        points (Tensor): The points in the precision of the search.
        rounding (float): How much that may shorten a distance and lengthen another, together.
        relative (float): The relative error of the squared distances that the search compares.
        exact (bool): Whether ``relative`` and the slack of a proposal bound what was left out.
    """

    package: str | None = None
    exact = True

    def __init__(self, points: Tensor, single: bool, block_bytes: int) -> None:
        self.exact_points = points
        self.single = single
        self.points = points.float() if single else points
        self.block_bytes = block_bytes
        changed = (self.points - points).abs().max() if single and points.numel() > 0 else 0.0
        self.rounding = 4 * math.sqrt(points.size(1)) * float(changed)
        self.order = torch.arange(points.size(0), device=points.device)
        self.relative = _relative_error(self.points)

    def __call__(self, rows: Tensor, count: int) -> Proposal:
        """Propose ``count`` candidates, themselves among them, for each of ``rows``."""
        raise NotImplementedError

    def row_bytes(self, count: int) -> int:
        """Bytes that one row of a proposal of ``count`` candidates takes."""
        return 64 * count

    def wider(self, points: Tensor) -> "Search":
        """The search that goes on among ``points`` where this one did not settle all rows."""
        return Blocked(points, False, self.block_bytes)

    @classmethod
    def missing(cls) -> str | None:
        """Why the search cannot run, or :obj:`None`."""
        if cls.package is None or importlib.util.find_spec(cls.package) is not None:
            return None
        return f"it needs the package '{cls.package}', which is not installed"


def _relative_error(points: Tensor) -> float:
    # (D + 2) u for a sum of squared differences, and some more for the bounds a tree prunes by
    return 8 * (points.size(1) + 32) * torch.finfo(points.dtype).eps


def _floor(points: Tensor) -> float:
    # squares below the smallest normal number may have been flushed to 0
    return 16 * points.size(1) * torch.finfo(points.dtype).tiny


def _constant(value: float, rows: Tensor) -> Tensor:
    return torch.full(rows.shape, value, dtype=torch.float64, device=rows.device)


class Blocked(Search):
    r"""Blocks of rows of :math:`|b|^2 - 2 a \cdot b` and the smallest of each: any device."""

    def __init__(self, points: Tensor, single: bool, block_bytes: int) -> None:
        super().__init__(points, single, block_bytes)
        points = self.points
        # the identity cancels badly far from the origin: move a central point there
        self.x = points - center(points)
        self.norm = self.x.square().sum(dim=1)
        self.unit = _product_error(points) + (points.size(1) + 16) * torch.finfo(points.dtype).eps
        self.relative = 8 * self.unit

    def __call__(self, rows: Tensor, count: int) -> Proposal:
        """Propose the smallest entries of a block of the distance matrix."""
        with torch.autocast(self.x.device.type, enabled=False):
            score = torch.addmm(self.norm, self.x[rows], self.x.t(), alpha=-2)
        index = _smallest(score, count)
        # error of a score: unit * (5 |a|^2 + 4 d^2), the second part being relative
        slack = 10 * self.unit * self.norm[rows].double() + _floor(self.x)
        return Proposal(index, slack)

    def row_bytes(self, count: int) -> int:
        """A row of the distance matrix, and the candidates."""
        return self.x.size(0) * self.x.element_size() + 64 * count


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
    place = score.gather(1, column).topk(count, largest=False, sorted=False).indices
    return column.gather(1, place)


def _product_error(points: Tensor) -> float:
    """The rounding of the factors of a float32 product, which users may have allowed."""
    if points.dtype != torch.float32:
        return 0.0
    try:
        precision = torch.get_float32_matmul_precision()
    except RuntimeError:  # set for single backends through the newer interface
        precision = "medium"
    return {"highest": 0.0, "high": 2.0**-10}.get(precision, 2.0**-7)


class KDTree(Search):
    """scipy's cKDTree: few dimensions, on the CPU."""

    def __init__(self, points: Tensor, single: bool, block_bytes: int) -> None:
        super().__init__(points, False, block_bytes)
        from scipy.spatial import cKDTree  # a quarter of a second that few searches need

        self.array = points.cpu().numpy()
        self.tree = cKDTree(self.array, balanced_tree=False)
        # neighbors in the tree share their path through it, and with it the cache
        self.order = torch.from_numpy(self.tree.indices).to(points.device)

    def __call__(self, rows: Tensor, count: int) -> Proposal:
        """Propose what the tree finds."""
        wanted = np.arange(1, count + 1)
        points = self.array[rows.cpu().numpy()]
        _, index = self.tree.query(points, wanted, workers=torch.get_num_threads())
        return Proposal(torch.from_numpy(index).to(rows), _constant(_floor(self.points), rows))

    def wider(self, points: Tensor) -> Search:
        """A tree of those points."""
        return KDTree(points, False, self.block_bytes)


class TorchCluster(Search):
    """``torch_cluster.knn``: a tree on the CPU, brute force in one kernel on the GPU."""

    package = "torch_cluster"
    gpu_limit = 100

    def __call__(self, rows: Tensor, count: int) -> Proposal:
        """Propose what torch_cluster finds, which may be less than asked for."""
        from torch_cluster import knn

        index = rows.new_full((rows.numel(), count), -1)
        if not self.points.is_cuda or count <= self.gpu_limit:
            row, found = knn(self.points, self.points[rows], count)
            size = torch.bincount(row, minlength=rows.numel())
            place = torch.arange(row.numel(), device=row.device) - (size.cumsum(0) - size)[row]
            index[row, place] = found
        return Proposal(index, _constant(_floor(self.points), rows))


class PyNNDescent(Search):
    """Approximate: pynndescent's descent in a neighbor graph, on the CPU."""

    package = "pynndescent"
    exact = False
    graph: Tensor | None = None

    def __call__(self, rows: Tensor, count: int) -> Proposal:
        """Propose what the descent has found."""
        if self.graph is None:
            self.graph = self._descend(count)
        return Proposal(self.graph[rows], _constant(0.0, rows))

    def _descend(self, count: int) -> Tensor:
        from pynndescent import NNDescent

        points = self.points.float().cpu().numpy()
        workers = torch.get_num_threads()
        found = NNDescent(points, n_neighbors=count, random_state=0, n_jobs=workers).neighbor_graph
        return torch.from_numpy(found[0]).to(self.order)


BACKENDS: dict[str, type[Search]] = {
    "blocked": Blocked,
    "kdtree": KDTree,
    "torch_cluster": TorchCluster,
    "pynndescent": PyNNDescent,
}
