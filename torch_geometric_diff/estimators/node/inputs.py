"""What the candidate models read of a graph: features of its nodes and operators on its edges."""

import warnings
from collections.abc import Callable
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch_geometric.utils import coalesce

from ..._utils.numerics import power_of_two
from ...graph import with_feature_neighbors
from ...graph.adjacency import check_values, parse_edges
from ...graph.feature_graph import is_bag_of_words
from ...graph.points import check_points
from ...ops import DiffusionOperator, diffuse, sparse_mm

COMPONENTS = 128  # principal components of the features
FREQUENCIES = 512  # random Fourier features
ROWS_OF_MEDIAN = 256  # rows whose median distance is the width of a Gaussian kernel
LARGEST_DENSE = 2**26  # entries, up to which sparse features are made dense to find neighbors
MOST_PATHS = 2**26  # pairs of edges at a node, up to which triangles are counted
OUTLIER = 4.0  # standard deviations that a structural feature may be off
SHORT_STEP = 2.0**-7  # that is stable on every graph worth the name
TINY = 1e-9


class GraphInputs:
    """Features of the nodes of a graph and operators on its edges, each made when first read.

    Means, scales, principal components and frequencies are learned from the graph that a classifier
    is fitted to (:attr:`learned`), and applied to any other.

    Args:
        x (Tensor): Features :math:`(N, F)`, dense or sparse.
        edge_index (Tensor, EdgeIndex or SparseTensor): Edges in any form.
        edge_weight (Tensor, optional): Their weights. (default: ones)
        learned (dict, optional): What was learned of another graph. (default: nothing)
    """

    def __init__(
        self,
        x: Tensor,
        edge_index: Any,
        edge_weight: Tensor | None = None,
        learned: dict[str, Any] | None = None,
    ) -> None:
        self.learned: dict[str, Any] = {} if learned is None else learned
        self._operators: dict[tuple[Any, ...], DiffusionOperator] = {}
        self._joined: dict[tuple[Any, ...], tuple[Tensor, Tensor | None]] = {}
        x = _check_features(x)
        edges = parse_edges(edge_index, edge_weight, x.size(0))
        check_values(edges, signed=False)
        weight = None if edges.weight is None else constant(edges.weight)
        self.edges = constant(torch.stack([edges.col, edges.row])), weight
        self.num_nodes, self.device = x.size(0), x.device
        self.is_words = self._learn("words", lambda: _is_words(x))
        if self.is_words and x.layout == torch.strided:
            x = to_csr(x.detach())
        values = constant(x if x.layout == torch.strided else x.values())
        size = values.abs().amax() if values.numel() else values.new_ones(())
        scale = self._learn("power of two", lambda: power_of_two(size.double()))
        if self.is_words:
            x = constant(x)
            self.x = _with_values(x, (values / scale).float())
        else:
            self.x = (constant(x if x.layout == torch.strided else x.to_dense()) / scale).float()
        width = self._learn("width", lambda: x.size(1))
        if x.size(1) != width:
            raise ValueError(f"Expected 'x' of {width} features, as fitted (got {x.size(1)})")

    def _learn(self, name: str, compute: Callable[[], Any]) -> Any:
        """What was learned under this name, or else is learned now."""
        if name not in self.learned:
            self.learned[name] = compute()
        return self.learned[name]

    @cached_property
    def has_features(self) -> bool:
        """Whether features differ between nodes."""
        return bool((self.x.values() if self.is_words else self._points).any())

    def begins_with(self, other: "GraphInputs") -> bool:
        """Whether the first nodes have the features of all nodes of another graph."""
        if self.num_nodes < other.num_nodes or self.x.layout != other.x.layout:
            return False
        if self.x.layout == torch.strided:
            return torch.equal(self.x[: other.num_nodes], other.x)
        end = int(self.x.crow_indices()[other.num_nodes])
        return (
            torch.equal(self.x.crow_indices()[: other.num_nodes + 1], other.x.crow_indices())
            and torch.equal(self.x.col_indices()[:end], other.x.col_indices())
            and torch.equal(self.x.values()[:end], other.x.values())
        )

    def operator(
        self,
        step_size: float,
        normalization: str | None,
        neighbors: int = 0,
        neighbor_weight: float = 0.0,
    ) -> DiffusionOperator:
        """The operator of a step over the edges and the nearest neighbors by features."""
        key = (step_size, normalization, neighbors, neighbor_weight)
        if key not in self._operators:
            self._operators[key] = DiffusionOperator(
                *self._edges_with(min(neighbors, self.num_nodes - 1), neighbor_weight),
                num_nodes=self.num_nodes,
                step_size=step_size,
                normalization=normalization,
                dtype=torch.float32,
            )
        return self._operators[key]

    def stable_operator(self, step_size: float, *how: Any) -> DiffusionOperator:
        """The operator of a step of at most this size that cannot diverge, as :meth:`operator`.

        Symmetric normalization is stable for short steps alone, where few nodes have most edges.
        """
        key = ("stable", step_size, *how)
        if key not in self._operators:
            short = self.operator(SHORT_STEP, *how)
            self._operators[key] = short.with_step_size(min(step_size, short.gershgorin_step_size))
        return self._operators[key]

    def _edges_with(self, neighbors: int, weight: float) -> tuple[Tensor, Tensor | None]:
        if neighbors == 0 or weight == 0:
            return self.edges
        if (neighbors, weight) not in self._joined:
            joined = with_feature_neighbors(self._points, *self.edges, neighbors, weight)
            self._joined[neighbors, weight] = joined
        return self._joined[neighbors, weight]

    @cached_property
    def walk(self) -> DiffusionOperator:
        """The mean over the nodes that edges come from, and the node itself."""
        return self.operator(1.0, "row")

    @cached_property
    def features(self) -> Tensor:
        """Rows of unit length: words as CSR, or points beside random Fourier features of them."""
        return (
            _unit_rows(self.x)
            if self.is_words
            else F.normalize(self._kernel("features", self._points))
        )

    @cached_property
    def _points(self) -> Tensor:
        """Words, or columns that count what diffusion over the edges leaves of them.

        Columns that tell nothing become small, whatever their unit.
        """
        if self.is_words:
            return self.x.to_dense() if self.x.numel() <= LARGEST_DENSE else self.components
        mean = self._learn("mean", lambda: self.x.mean(dim=0))
        centered = self.x - mean
        return centered * self._learn("scale", lambda: self._column_scale(centered))

    def _column_scale(self, centered: Tensor) -> Tensor:
        inverse = _inverse_deviation(centered)
        smooth = diffuse(centered * inverse, self.operator(0.5, "row"), 6)
        smooth = smooth.square().mean(dim=0).sqrt()
        return inverse * smooth / smooth.max().clamp(min=TINY)

    @cached_property
    def components(self) -> Tensor:
        """Principal components of the features (of words, weighted by how rare they are)."""
        x = self.features
        if self.is_words:
            x = _unit_rows(
                _with_values(self.x, self.x.values() * self._idf()[self.x.col_indices()])
            )
        mean = self._learn("component mean", lambda: _mean(x))
        if x.size(1) <= COMPONENTS:
            return (x if x.layout == torch.strided else x.to_dense()) - mean
        basis = self._learn("components", lambda: principal_components(x, mean, COMPONENTS))
        return multiply(x, basis) - mean @ basis

    def _idf(self) -> Tensor:
        def compute() -> Tensor:
            documents = self.x.col_indices()[self.x.values() > 0].bincount(minlength=self.x.size(1))
            return (self.num_nodes / documents.clamp(min=1).float()).log()

        return self._learn("inverse document frequency", compute)

    @cached_property
    def neighborhood(self) -> Tensor:
        """Components of a node, their mean over its neighbors and over theirs, side by side."""
        parts = self._around("neighborhood", self.components)
        size = self._learn(
            "size", lambda: [p.square().sum(dim=1).mean().sqrt().clamp(min=TINY) for p in parts]
        )
        return torch.cat([part / s for part, s in zip(parts, size, strict=True)], dim=1)

    @cached_property
    def neighborhood_kernel(self) -> Tensor:
        """The neighborhood beside random Fourier features of it."""
        return self._kernel("neighborhood", self.neighborhood)

    @cached_property
    def structural_kernel(self) -> Tensor:
        """Structural features of a node, its neighbors and theirs, as those of the neighborhood."""
        own = structural_features(self.edges[0], self.num_nodes)
        mean = self._learn("structural mean", lambda: own.mean(dim=0))
        scale = self._learn("structural scale", lambda: _inverse_deviation(own - mean))
        parts = self._around("structural", (own - mean) * scale)
        return self._kernel("structural", torch.cat(parts, dim=1).clamp(-OUTLIER, OUTLIER))

    def _around(self, name: str, x: Tensor) -> list[Tensor]:
        """Features of a node and their means one and two steps away, each centered."""
        parts = [x, diffuse(x, self.walk, 1), diffuse(x, self.walk, 2)]
        means = self._learn(f"{name} means", lambda: [part.mean(dim=0) for part in parts])
        return [part - mean for part, mean in zip(parts, means, strict=True)]

    def _kernel(self, name: str, x: Tensor) -> Tensor:
        """Unit rows beside random Fourier features, of two Gaussian kernels: how close points are.

        Their widths are the median distance of some points and half of it.
        """
        frequencies, phase = self._learn(f"{name} frequencies", lambda: random_frequencies(x))
        waves = (x @ frequencies + phase).cos()
        waves = waves - self._learn(f"{name} mean of waves", lambda: waves.mean(dim=0))
        return torch.cat([F.normalize(x, dim=-1), F.normalize(waves, dim=-1)], dim=1)


def constant(given: Tensor) -> Tensor:
    """A Tensor that training may keep and that no gradient reaches."""
    return given.clone() if given.is_inference() else given.detach()


def principal_components(x: Tensor, mean: Tensor, number: int) -> Tensor:
    """An orthonormal basis of the first principal components (randomized subspace iteration)."""
    generator = torch.Generator().manual_seed(0)
    basis = torch.randn(
        x.size(1), number, generator=generator, dtype=torch.float32, device="cpu"
    ).to(mean)
    transposed = transpose(x)
    for _ in range(4):
        product = multiply(x, torch.linalg.qr(basis)[0])
        product = product - product.mean(dim=0)  # the mean of the product is that of x
        basis = multiply(transposed, product)
    return torch.linalg.qr(basis)[0]


def random_frequencies(x: Tensor) -> tuple[Tensor, Tensor]:
    """Frequencies and phases of random Fourier features."""
    generator = torch.Generator().manual_seed(0)
    cpu: Any = {"generator": generator, "dtype": torch.float32, "device": "cpu"}
    some = torch.randperm(len(x), generator=generator, device="cpu")[:ROWS_OF_MEDIAN].to(x.device)
    width = float(F.pdist(x[some]).median()) if len(some) > 1 else 1.0
    phase = 2 * torch.pi * torch.rand(FREQUENCIES, **cpu)
    frequencies = torch.randn(x.size(1), FREQUENCIES, **cpu) / max(width, TINY)
    frequencies[:, ::2] *= 2
    return frequencies.to(x), phase.to(x)


def structural_features(edge_index: Tensor, num_nodes: int) -> Tensor:
    """Logarithms of the numbers of edges to and from every node, and of its triangles."""
    source, target = edge_index
    degrees = [torch.bincount(end, minlength=num_nodes) for end in (target, source)]
    both = torch.cat([edge_index, edge_index.flip(0)], dim=1)
    both = coalesce(both[:, both[0] != both[1]], num_nodes=num_nodes)
    paths = torch.bincount(both[0], minlength=num_nodes).square().sum()
    triangles = torch.zeros(num_nodes, dtype=torch.float32, device=edge_index.device)
    if paths <= MOST_PATHS:
        ones = torch.ones(both.size(1), dtype=torch.float32, device=both.device)
        adjacency = torch.sparse_coo_tensor(both, ones, (num_nodes, num_nodes)).coalesce()
        ends = (adjacency * (adjacency @ adjacency)).coalesce()
        triangles.index_add_(0, ends.indices()[0], ends.values())
    return torch.stack([*degrees, triangles], dim=1).float().log1p()


def _check_features(x: Any) -> Tensor:
    if isinstance(x, Tensor) and x.dtype == torch.bool:
        x = x.to(torch.uint8)
    if not isinstance(x, Tensor) or x.layout == torch.strided:
        return check_points(x)
    csr = x if x.layout == torch.sparse_csr else to_csr(x)
    check_points(csr.values())
    return csr


def _is_words(x: Tensor) -> bool:
    if x.layout == torch.strided:
        return is_bag_of_words(x)
    return bool((x.values() >= 0).all()) and 2 * int((x.values() > 0).sum()) < x.numel()


def to_csr(x: Tensor) -> Tensor:
    """A matrix as CSR."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta state")
        return x.to_sparse_csr()


def _with_values(x: Tensor, values: Tensor) -> Tensor:
    return torch.sparse_csr_tensor(x.crow_indices(), x.col_indices(), values, x.shape)


def _unit_rows(x: Tensor) -> Tensor:
    """The rows of a CSR matrix at length 1."""
    row = torch.repeat_interleave(x.crow_indices().diff())
    square = x.values().new_zeros(x.size(0)).index_add_(0, row, x.values().square())
    return _with_values(x, x.values() / square.sqrt().clamp(min=TINY)[row])


def _mean(x: Tensor) -> Tensor:
    if x.layout == torch.strided:
        return x.mean(dim=0)
    total = x.values().new_zeros(x.size(1)).index_add_(0, x.col_indices(), x.values())
    return total / x.size(0)


def transpose(x: Tensor) -> Tensor:
    """The transpose of a dense or CSR matrix."""
    return x.t() if x.layout == torch.strided else to_csr(x.t())


def multiply(x: Tensor, dense: Tensor) -> Tensor:
    """A dense or CSR matrix times a dense one."""
    return x @ dense if x.layout == torch.strided else sparse_mm(x, dense)


def _inverse_deviation(centered: Tensor) -> Tensor:
    """One over the deviation of each column, or 0 where nothing varies."""
    deviation = centered.square().mean(dim=0).sqrt()
    varies = deviation > 1e-6 * deviation.max()
    return torch.where(varies, 1 / deviation.where(varies, 1.0), 0.0)
