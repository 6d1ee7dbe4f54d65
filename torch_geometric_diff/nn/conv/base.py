"""What the layers that propagate share: the operator and its cache, the kernel, the messages."""

from collections.abc import Callable, Sequence
from typing import Any, Optional

import torch
import torch.nn.functional as F
from torch import Tensor
from torch_geometric import EdgeIndex
from torch_geometric.nn.conv import MessagePassing
from torch_geometric.typing import Adj, OptTensor
from torch_geometric.utils import spmm

from ..._utils.checks import check_has_values, check_real, is_finite
from ...graph.adjacency import (
    Edges,
    add_loops,
    is_sparse_adjacency,
    loops_of,
    normalize,
    read_edges,
    sparse_matrix,
)
from ...ops import PartitionedOperator, Recurrence, SparseOperator, propagate
from ...ops._sparse import SparseProduct
from ...ops._stepwise import propagate_by
from ...ops.functional import check_features, select
from ...ops.operator import kind_of

Product = Callable[[Tensor], Tensor]

_PACKAGE = __name__.partition(".")[0] + "."
_MESSAGES = ("message", "aggregate", "message_and_aggregate", "update")


class Propagation(MessagePassing):
    r"""The base of the layers that run a :class:`~torch_geometric_diff.ops.Recurrence` over a
    graph, by default with the adjacency matrix as normalized for graph convolutions.

    All steps run in one kernel. Explanations, hooks on messages, and subclasses that write
    messages of their own get the message passing form, which has equal results.

    Args:
        cached (bool, optional): If set to :obj:`True`, the operator is built at the first call and
            reused. Another graph afterwards is an error. (default: :obj:`False`)
        **kwargs (optional): Additional arguments of
            :class:`torch_geometric.nn.conv.MessagePassing`.

    Attributes:
        normalize (bool): Whether to normalize the adjacency matrix.
        add_self_loops (bool): Whether the normalization adds loops.

    Raises:
        ValueError: If :obj:`aggr` is no sum or :obj:`node_dim` is not -2.
    """

    normalize: Optional[bool] = True
    add_self_loops: bool = True
    operators: type[SparseOperator] = SparseOperator  # what may be given in the place of a graph
    _cached: Optional[tuple[SparseOperator, list[Tensor], list[Tensor], tuple]]

    def __init__(self, cached: bool = False, **kwargs: Any) -> None:
        kwargs.setdefault("aggr", "add")
        super().__init__(**kwargs)
        if self.aggr not in ("add", "sum"):
            raise ValueError(f"Expected 'aggr' to be 'add' (got {kwargs['aggr']!r})")
        if self.node_dim != -2:
            raise ValueError(f"Expected 'node_dim' to be -2 (got {self.node_dim})")
        self.cached = cached
        self._cached = None
        home = next(c for c in type(self).__mro__ if c.__module__.startswith(_PACKAGE))
        self._has_own_messages = any(
            getattr(type(self), name) is not getattr(home, name) for name in _MESSAGES
        )

    def __prepare_scriptable__(self) -> None:
        raise TypeError(
            f"'{self.__class__.__name__}' cannot be scripted: TorchScript has no such kernel. "
            "Use 'torch.compile' or 'torch.export' instead"
        )

    def reset_parameters(self) -> None:
        """Clear the cache."""
        super().reset_parameters()
        self._cached = None

    def recurrence(self, operator: SparseOperator) -> Recurrence:
        """What this layer computes."""
        raise NotImplementedError

    def run(
        self,
        x: Tensor,
        edge_index: Any,
        edge_weight: Optional[Tensor] = None,
        *,
        dropout: float = 0.0,
        edge_dropout: float = 0.0,
        seed: Optional[Sequence[int]] = None,
        fixed: Optional[Tensor] = None,
        bounds: Optional[tuple[float, float]] = None,
        nodes: Optional[Tensor] = None,
    ) -> Tensor:
        """Run the recurrence, see :func:`~torch_geometric_diff.ops.propagate`."""
        self._check_features(x)
        operator = self.operator(x, edge_index, edge_weight)
        settings: dict[str, Any] = {
            "dropout": dropout,
            "seed": seed,
            "training": self.training,
            "fixed": fixed,
            "bounds": bounds,
        }
        drop = edge_dropout if self.training else 0.0
        if not drop and not self._is_observed():
            return propagate(x, operator, self.recurrence(operator), **settings, nodes=nodes)
        product = self._product(x, operator, edge_index, edge_weight, drop)
        return select(propagate_by(product, x, self.recurrence(operator), **settings), nodes)

    def _check_features(self, x: Any) -> None:
        if isinstance(x, (tuple, list)) and any(isinstance(part, Tensor) for part in x):
            raise ValueError(
                f"'{self.__class__.__name__}' received a tuple of node features as input while "
                "this layer does not support bipartite message passing. Please try other layers "
                "such as 'SAGEConv' or 'GraphConv' instead"
            )
        check_features(x)
        for name, parameter in self._parameters.items():
            if parameter is not None:
                check_has_values(name, parameter)

    # The operator and its cache. ##################################################################

    def operator(
        self, x: Tensor, edge_index: Any, edge_weight: Optional[Tensor] = None
    ) -> SparseOperator:
        """The operator of this layer on a graph, from the cache if there is one."""
        given = kind_of(edge_index)
        if issubclass(given, SparseOperator):
            name = self.operators.__name__
            if not issubclass(given, self.operators):
                raise TypeError(f"Expected a {name} (got a {given.__name__})")
            if edge_weight is not None:
                raise ValueError(
                    f"Expected 'edge_weight' to be None beside a {name}, which holds its weights "
                    "(got both)"
                )
            return edge_index
        if not self.cached or (self._cached is None and torch.compiler.is_compiling()):
            return self._build(x, edge_index, edge_weight)
        settings = (*self._settings(), self.flow, _precision(x), x.device)
        if self._cached is None or self._cached[3] != settings:
            if edge_weight is not None and edge_weight.requires_grad:
                raise ValueError("'cached=True' does not go with learned 'edge_weight'")
            with torch.inference_mode(False):  # training may follow
                operator = self._build(x, edge_index, edge_weight)
                # copies, so that a graph changed in place is noticed
                self._cached = (operator, _copy(edge_index), _copy(edge_weight), settings)
        operator, graph, weight, _ = self._cached
        if not (_same(graph, edge_index) and _same(weight, edge_weight)):
            raise ValueError(
                f"'{self.__class__.__name__}(cached=True)' was called with another graph than "
                "the one in its cache; call 'reset_parameters()' or set 'cached=False'"
            )
        if operator.num_nodes != x.size(-2):
            raise ValueError(
                f"Expected 'x' to have {operator.num_nodes} rows, the nodes of the cached "
                f"graph (got {x.size(-2)})"
            )
        return operator

    def _build(self, x: Tensor, edge_index: Any, edge_weight: Optional[Tensor]) -> SparseOperator:
        graph = self._source_to_target(edge_index)
        settings: dict[str, Any] = {
            "num_nodes": x.size(-2),
            "reorder": self.cached,
            "dtype": _precision(x),
        }
        if not self._normalizes(edge_index, edge_weight):
            return SparseOperator(graph, edge_weight, **settings)
        loops = self.add_self_loops
        return SparseOperator.gcn_norm(graph, edge_weight, add_self_loops=loops, **settings)

    def _settings(self) -> tuple:
        """What the operator depends on beside the graph."""
        return (self.normalize, self.add_self_loops)

    def _normalizes(self, edge_index: Any, edge_weight: Optional[Tensor]) -> bool:
        return bool(self.normalize)

    def _weighted(
        self, edge_index: Any, edge_weight: Optional[Tensor], num_nodes: int, dtype: torch.dtype
    ) -> Edges:
        """The edges in the order given and their weights in the operator; added loops come last."""
        normalizes = self._normalizes(edge_index, edge_weight)
        edges = read_edges(edge_index, edge_weight, num_nodes, dtype, signed=not normalizes)
        if not normalizes:
            return edges
        if self.add_self_loops:
            edges = _loops_last(add_loops(edges, 1.0, loops_of(edge_index)))
        return edges._replace(weight=normalize(edges, "sym", add_self_loops=False))

    def _source_to_target(self, edge_index: Any) -> Any:
        """The graph in the other direction if that is the flow."""
        if self.flow == "source_to_target":
            return edge_index
        if is_sparse_adjacency(edge_index):
            raise ValueError(
                "Expected 'flow' to be 'source_to_target' for a sparse 'edge_index', whose rows "
                "are the targets (got 'target_to_source'); transpose the matrix instead"
            )
        return edge_index.flip([0])

    # The message passing form: explanations and hooks need to see the messages. ###################

    def _is_observed(self) -> bool:
        hooks = (
            self._propagate_forward_pre_hooks,
            self._propagate_forward_hooks,
            self._message_forward_pre_hooks,
            self._message_forward_hooks,
            self._aggregate_forward_pre_hooks,
            self._aggregate_forward_hooks,
            self._message_and_aggregate_forward_pre_hooks,
            self._message_and_aggregate_forward_hooks,
        )
        return self._has_own_messages or bool(self.explain) or any(hooks)

    def _product(
        self,
        x: Tensor,
        operator: SparseOperator,
        edge_index: Any,
        edge_weight: Optional[Tensor],
        drop: float = 0.0,
    ) -> Product:
        """One product with the operator, of whose entries ``drop`` are dropped at every call."""
        if isinstance(operator, PartitionedOperator) and not self._is_observed():
            if drop:
                raise ValueError(
                    "Expected 'dropout' of edges to be 0 beside a PartitionedOperator, whose ranks "
                    f"would draw each their own (got {drop}); 'feature_dropout' has masks of all"
                )
            return operator.__matmul__
        if not self._is_observed() and not torch.compiler.is_compiling():
            return lambda z: SparseProduct.apply(
                F.dropout(operator.value, drop), z, operator.pattern
            )
        if isinstance(edge_index, (SparseOperator, PartitionedOperator)):
            raise ValueError(
                f"Explanations and hooks need an 'edge_index' (got a {type(operator).__name__})"
            )
        graph = self._source_to_target(edge_index)
        edges = self._weighted(graph, edge_weight, operator.num_nodes, operator.dtype)
        graph = torch.stack(
            (edges.col, edges.row) if self.flow == "source_to_target" else (edges.row, edges.col)
        )
        fused = is_sparse_adjacency(edge_index) and self.fuse and not self.explain
        if fused and not drop and x.dim() == 2:
            graph = sparse_matrix(edges)

        def product(z: Tensor) -> Tensor:  # of a batch of one if there is none
            out = z if x.dim() == 3 else z.squeeze(0)
            out = self._step(operator, graph, out, F.dropout(edges.weight, drop))
            return out.view_as(z)

        return product

    def _step(self, operator: SparseOperator, graph: Any, x: Tensor, edge_weight: Tensor) -> Tensor:
        """The product by messages."""
        # propagate_type: (x: Tensor, edge_weight: OptTensor)
        return self.propagate(graph, x=x, edge_weight=edge_weight)

    def message(self, x_j: Tensor, edge_weight: OptTensor) -> Tensor:
        """A neighbor times the weight of the edge."""
        return x_j if edge_weight is None else edge_weight.view(-1, 1) * x_j

    def message_and_aggregate(self, adj_t: Adj, x: Tensor) -> Tensor:
        """The sum of all messages into a node."""
        return spmm(adj_t, x, reduce=self.aggr)


def check_alpha(alpha: Any) -> Any:
    """A coefficient: a finite number, or a Tensor of one, which may be learned."""
    if not isinstance(alpha, Tensor):
        return check_real("alpha", alpha, is_finite, "be finite")
    if alpha.numel() != 1 or not alpha.is_floating_point():
        raise ValueError(
            f"Expected 'alpha' to be one floating number (got shape {list(alpha.shape)})"
        )
    return alpha


def as_number(alpha: Any) -> Any:
    """A coefficient without dimensions."""
    return alpha.reshape(()) if isinstance(alpha, Tensor) else alpha


def _loops_last(edges: Edges) -> Edges:
    """Edges as :func:`add_loops` makes them in the order in which PyG's explainers look for them:
    no loops but one at every node, and these behind all others.
    """
    row, col, weight, num_nodes = edges
    others = row != col
    row, col, weight = (torch.cat([x[others], x[:num_nodes]]) for x in (row, col, weight))
    return Edges(row, col, weight, num_nodes)


def _precision(x: Tensor) -> torch.dtype:
    """The type in which ``x`` is propagated."""
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def _parts(graph: Any) -> list[Tensor]:
    """The Tensors that make up an adjacency or its weights."""
    if graph is None:
        return []
    if not isinstance(graph, Tensor):  # torch_sparse.SparseTensor
        return [part for part in graph.coo() if part is not None]
    if graph.layout == torch.sparse_coo:
        graph = graph.coalesce()
        return [graph.indices(), graph.values()]
    if graph.layout == torch.sparse_csr:
        return [graph.crow_indices(), graph.col_indices(), graph.values()]
    if graph.layout == torch.sparse_csc:
        return [graph.ccol_indices(), graph.row_indices(), graph.values()]
    return [graph.as_tensor() if isinstance(graph, EdgeIndex) else graph]


def _copy(graph: Any) -> list[Tensor]:
    return [part.detach().clone() for part in _parts(graph)]


def _same(copy: list[Tensor], graph: Any) -> bool:
    """Whether a graph is what it was when it was copied: form, place and every entry."""
    parts = _parts(graph)
    if len(parts) != len(copy):
        return False
    for a, b in zip(copy, parts, strict=True):
        if a.device != b.device or a.shape != b.shape:
            return False
        if torch.compiler.is_compiling():  # the graph cannot branch on values, but it can stop
            torch._assert_async((a == b).all(), "another graph than the one in the cache")
        elif not torch.equal(a, b):
            return False
    return True
