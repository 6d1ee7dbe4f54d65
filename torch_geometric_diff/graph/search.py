"""Searches that propose neighbours; ``knn_graph`` ranks the proposals exactly."""

import importlib.util
from typing import NamedTuple

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor


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
    """A way to find near points among the rows of ``x``.

    Args:
        x (Tensor): Finite points of shape :math:`(N, D)` with entries in [-1, 1].
        block_bytes (int): Bytes that the search may use for its intermediates.

    Attributes:
        order (Tensor): All rows, in the order in which it is best to ask for them.
        relative (float): The relative error of the squared distances that the search compares.
        exact (bool): Whether ``slack`` and ``relative`` bound what was left out.
    """

    package: str | None = None
    exact = True

    def __init__(self, x: Tensor, block_bytes: int) -> None:
        self.x = x
        self.block_bytes = block_bytes
        self.order = torch.arange(x.size(0), device=x.device)
        self.relative = _relative_error(x)

    def row_bytes(self, count: int) -> int:
        """Bytes that one row of a proposal of ``count`` candidates takes."""
        return 64 * count

    def __call__(self, rows: Tensor, count: int) -> Proposal:
        """Propose ``count`` candidates, themselves among them, for each of ``rows``."""
        raise NotImplementedError

    def wider(self) -> "Search":
        """The search to ask for more candidates where these did not settle the neighbours."""
        return self

    @classmethod
    def missing(cls) -> str | None:
        """Why the search cannot run, or :obj:`None`."""
        if cls.package is None or importlib.util.find_spec(cls.package) is not None:
            return None
        return f"it needs the package '{cls.package}', which is not installed"


def _relative_error(x: Tensor) -> float:
    # (d + 2) u for a sum of squared differences, and some more for the bounds a tree prunes by
    return 8 * (x.size(1) + 32) * torch.finfo(x.dtype).eps


def _floor(x: Tensor) -> float:
    # squares below the smallest normal number may have been flushed to 0
    return x.size(1) * torch.finfo(x.dtype).tiny


def _constant(value: float, rows: Tensor) -> Tensor:
    return torch.full(rows.shape, value, dtype=torch.float64, device=rows.device)


class Blocked(Search):
    r"""Blocks of rows of :math:`|b|^2 - 2 a \cdot b` and the smallest of each: any device."""

    def __init__(self, x: Tensor, block_bytes: int) -> None:
        # the identity cancels badly far from the origin: move a central point there
        centre = x[:: max(1, x.size(0) // 1024)].median(dim=0).values
        super().__init__(x - centre, block_bytes)
        self.norm = self.x.square().sum(dim=1)
        unit = _matmul_error(self.x) + (x.size(1) + 16) * torch.finfo(x.dtype).eps
        self.unit = unit
        self.relative = 8 * unit

    def row_bytes(self, count: int) -> int:
        """A row of the distance matrix, and the candidates."""
        return self.x.size(0) * self.x.element_size() + 64 * count

    def __call__(self, rows: Tensor, count: int) -> Proposal:
        """Propose the smallest entries of a block of the distance matrix."""
        with torch.autocast(self.x.device.type, enabled=False):
            score = torch.addmm(self.norm, self.x[rows], self.x.t(), alpha=-2)
        index = score.topk(count, largest=False, sorted=False).indices
        # error of a score: unit * (5 |a|^2 + 4 d^2), the second part being relative
        slack = 10 * self.unit * self.norm[rows].double() + _floor(self.x)
        return Proposal(index, slack)

    def wider(self) -> Search:
        """The same in double precision."""
        return self if self.x.dtype == torch.float64 else Blocked(self.x.double(), self.block_bytes)


def _matmul_error(x: Tensor) -> float:
    """The rounding of the factors of a float32 product, which users may have allowed."""
    if x.dtype != torch.float32:
        return 0.0
    try:
        precision = torch.get_float32_matmul_precision()
    except RuntimeError:  # set for single backends through the newer interface
        precision = "medium"
    return {"highest": 0.0, "high": 2.0**-10}.get(precision, 2.0**-7)


class KDTree(Search):
    """scipy's cKDTree: few dimensions, on the CPU."""

    def __init__(self, x: Tensor, block_bytes: int) -> None:
        super().__init__(x, block_bytes)
        self.points = x.double().cpu().numpy()
        self.tree = cKDTree(self.points, balanced_tree=False)
        # neighbours in the tree share their path through it, and with it the cache
        self.order = torch.from_numpy(self.tree.indices).to(x.device)
        self.relative = _relative_error(x.double())

    def __call__(self, rows: Tensor, count: int) -> Proposal:
        """Propose what the tree finds."""
        wanted = np.arange(1, count + 1)
        points = self.points[rows.cpu().numpy()]
        _, index = self.tree.query(points, wanted, workers=torch.get_num_threads())
        index = torch.from_numpy(index).to(rows.device)
        return Proposal(index, _constant(_floor(self.x.double()), rows))


class TorchCluster(Search):
    """``torch_cluster.knn``: a tree on the CPU, brute force in one kernel on the GPU."""

    package = "torch_cluster"
    gpu_limit = 100

    def __call__(self, rows: Tensor, count: int) -> Proposal:
        """Propose what torch_cluster finds, which may be less than asked for."""
        from torch_cluster import knn

        row, found = knn(self.x, self.x[rows], count)
        size = torch.bincount(row, minlength=rows.numel())
        place = torch.arange(row.numel(), device=row.device) - (size.cumsum(0) - size)[row]
        index = row.new_full((rows.numel(), count), -1)
        index[row, place] = found
        return Proposal(index, _constant(_floor(self.x), rows))

    def wider(self) -> Search:
        """Blocks, since torch_cluster stops at 100 neighbours on the GPU."""
        return Blocked(self.x.double(), self.block_bytes)


class PyNNDescent(Search):
    """Approximate: pynndescent's descent in a neighbour graph, on the CPU."""

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

        points = self.x.float().cpu().numpy()
        workers = torch.get_num_threads()
        found = NNDescent(points, n_neighbors=count, random_state=0, n_jobs=workers).neighbor_graph
        return torch.from_numpy(found[0]).long().to(self.x.device)

    def wider(self) -> Search:
        """Exact blocks for the rows where the descent found too little."""
        return Blocked(self.x.double(), self.block_bytes)


BACKENDS: dict[str, type[Search]] = {
    "blocked": Blocked,
    "kdtree": KDTree,
    "torch_cluster": TorchCluster,
    "pynndescent": PyNNDescent,
}
