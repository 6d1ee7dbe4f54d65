"""The matrices of a graph that layers propagate with, as data: how the operator is built, and how
the same entries are attached to edges.
"""

from typing import Any, NamedTuple, Optional

import torch
from torch import Tensor

from ..._utils.functorch import unwrap
from ...graph.adjacency import (
    Edges,
    add_loops,
    is_sparse_adjacency,
    loops_of,
    normalize,
    read_edges,
)
from ...ops import DiffusionOperator, SparseOperator


class Adjacency(NamedTuple):
    """The adjacency matrix, as it is or normalized for graph convolutions.

    Without a choice, an ``edge_index`` without weights, a ``SparseTensor`` without values and a
    ``torch.sparse`` matrix, which always has values, are normalized.
    """

    normalize: Optional[bool]
    add_self_loops: bool

    def normalizes(self, graph: Any, weight: Optional[Tensor]) -> bool:
        """Whether a graph is normalized."""
        if self.normalize is not None:
            return bool(self.normalize)
        if is_sparse_adjacency(graph):
            return isinstance(graph, Tensor) or not graph.has_value()
        return weight is None

    def operator(self, graph: Any, weight: Optional[Tensor], **settings: Any) -> SparseOperator:
        """The matrix of a graph."""
        if not self.normalizes(graph, weight):
            return SparseOperator(graph, weight, **settings)
        loops = self.add_self_loops
        return SparseOperator.gcn_norm(graph, weight, add_self_loops=loops, **settings)

    def edges(
        self, graph: Any, weight: Optional[Tensor], num_nodes: int, dtype: torch.dtype
    ) -> Edges:
        """The edges in the order given, with the entries of the matrix as weights.

        Where loops are added they come last and replace the given ones, as PyG's explainers expect.
        """
        normalizes = self.normalizes(graph, weight)
        edges = read_edges(graph, weight, num_nodes, dtype, signed=not normalizes)
        if not normalizes:
            return edges
        if self.add_self_loops:
            row, col, weight, _ = add_loops(edges, 1.0, loops_of(graph))
            others = row != col
            row, col, weight = (torch.cat([e[others], e[:num_nodes]]) for e in (row, col, weight))
            edges = Edges(row, col, weight, num_nodes)
        return edges._replace(weight=normalize(edges, "sym", add_self_loops=False))


class DiffusionStep(NamedTuple):
    r"""An Euler step :math:`\mathbf{I} - h \mathbf{L}`; without a step size the longest one that
    averages, which loses the fewest digits of :math:`\mathbf{L}`.
    """

    normalization: Optional[str]
    add_self_loops: bool
    step_size: Any = None

    def operator(self, graph: Any, weight: Optional[Tensor], **settings: Any) -> DiffusionOperator:
        """The matrix of a graph."""
        normalization, loops, step_size = self
        if step_size is None:
            edges = self.edges(graph, weight, settings["num_nodes"], settings["dtype"])
            row, col, weight, num_nodes = edges
            degree = weight.detach().masked_fill(row == col, 0)
            degree = degree.new_zeros(num_nodes).index_add(0, row, degree)
            largest = float(unwrap(degree).max()) if num_nodes else 0.0
            graph, normalization = torch.stack([col, row]), None
            step_size = 1 / largest if largest > 0 else 1.0
        return DiffusionOperator(
            graph,
            weight,
            step_size=step_size,
            normalization=normalization,
            add_self_loops=loops,
            **settings,
        )

    def edges(
        self, graph: Any, weight: Optional[Tensor], num_nodes: int, dtype: torch.dtype
    ) -> Edges:
        r"""The edges in the order given, with their normalized weights."""
        edges = read_edges(graph, weight, num_nodes, dtype)
        return edges._replace(weight=normalize(edges, self.normalization, self.add_self_loops))
