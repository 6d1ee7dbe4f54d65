"""Diffusion as a message passing layer."""

from typing import Any, Optional

import torch
from torch import Tensor
from torch.nn import Parameter
from torch_geometric.nn.conv import MessagePassing
from torch_geometric.typing import Adj, OptTensor
from torch_geometric.utils import spmm

from ..graph.adjacency import Edges, is_sparse_adjacency, normalize, read_edges, sparse_matrix
from ..graph.arguments import check_dropout, check_integer
from ..ops import Recurrence, propagate
from ..ops.operator import DiffusionOperator, check_step_size
from ..ops.propagate import check_features
from ..ops.random import draw_seeds


class DiffConv(MessagePassing):
    r"""The diffusion operator from the `"Diffusion Mechanism in Residual Neural Network: Theory
    and Applications" <https://arxiv.org/abs/2105.03155>`_ paper.

    .. math::
        \mathbf{X}^{(k + 1)} = (\mathbf{I} - h \, \mathbf{L}) \,
        (\mathbf{M}_k \odot \mathbf{X}^{(k)}), \qquad
        \mathbf{L} = \mathrm{diag}(\mathbf{\hat{W}} \mathbf{1}) - \mathbf{\hat{W}},

    for :math:`k = 0, \ldots, K - 1`, where
    :math:`\mathbf{\hat{W}} = \mathbf{\hat{D}}^{-1/2} (\mathbf{W} + \mathbf{I})
    \mathbf{\hat{D}}^{-1/2}` denotes the normalized adjacency matrix with self-loops, :math:`h` the
    step size and :math:`\mathbf{M}_k` a dropout mask. Its node-wise formulation is

    .. math::
        \mathbf{x}_i \leftarrow \mathbf{x}_i + h \sum_{j \in \mathcal{N}(i)} \hat{w}_{ij} \,
        (\mathbf{x}_j - \mathbf{x}_i)

    where :math:`w_{ij}` is the edge weight from source node :obj:`j` to target node :obj:`i`
    (default: :obj:`1.0`). Rows of the operator sum to one: constants stay as they are. All
    :math:`K` steps run in one kernel, and with constant weights nothing is kept for the backward
    pass. Attributes act at the next call.

    .. note::
        Explicit steps diverge past a step size of :math:`2 / \lambda_{\max}(\mathbf{L})`; a warning
        names both numbers. PyG's explainers count this layer as one hop, whatever
        :math:`K` is: pass a subgraph of :math:`K` hops to explain single nodes.

    Args:
        num_steps (int): The number of steps :math:`K \ge 0`.
        step_size (float, optional): The step size :math:`h > 0`. (default: :obj:`0.25`)
        dropout (float, optional): The probability in :math:`[0, 1)` to drop a **feature** (not an
            edge) before each step during training. (default: :obj:`0.0`)
        normalization (str, optional): :obj:`"sym"`, :obj:`"row"`
            (:math:`\mathbf{\hat{D}}^{-1} (\mathbf{W} + \mathbf{I})`) or :obj:`None` for the weights
            as they are. (default: :obj:`"sym"`)
        add_self_loops (bool, optional): Whether the degrees of the normalization count a self-loop
            at every node. (default: :obj:`True`)
        cached (bool, optional): If set to :obj:`True`, the operator is built at the first call and
            reused. Another graph afterwards is an error, not a wrong result. This parameter should
            only be set to :obj:`True` in transductive learning scenarios. (default: :obj:`False`)
        learn_step_size (bool, optional): If set to :obj:`True`, :math:`h` is a parameter.
            (default: :obj:`False`)
        generator (torch.Generator, optional): The CPU generator that the seeds of the masks are
            drawn from. (default: torch's own)
        **kwargs (optional): Additional arguments of
            :class:`torch_geometric.nn.conv.MessagePassing`.

    Shapes:
        - **input:**
          node features :math:`(|\mathcal{V}|, F)` or :math:`(B, |\mathcal{V}|, F)`,
          edge indices :math:`(2, |\mathcal{E}|)` or a sparse matrix
          :math:`(|\mathcal{V}|, |\mathcal{V}|)` or a
          :class:`~torch_geometric_diff.ops.DiffusionOperator`,
          edge weights :math:`(|\mathcal{E}|)` *(optional)*
        - **output:** the shape of the node features

    Raises:
        ValueError: On arguments out of range, a bipartite graph, an ``edge_weight`` beside a sparse
            matrix, weights that are negative or not finite, or a graph that is not the cached one.
    """

    _cached: Optional[tuple[DiffusionOperator, list[Tensor], list[Tensor], tuple]]

    def __init__(
        self,
        num_steps: int,
        step_size: float = 0.25,
        dropout: float = 0.0,
        normalization: Optional[str] = "sym",
        add_self_loops: bool = True,
        cached: bool = False,
        learn_step_size: bool = False,
        generator: Optional[torch.Generator] = None,
        **kwargs: Any,
    ) -> None:
        kwargs.setdefault("aggr", "add")
        super().__init__(**kwargs)
        num_steps = check_integer("num_steps", num_steps, 0)
        check_step_size(step_size)
        dropout = check_dropout(dropout)
        if normalization not in ("sym", "row", None):
            raise ValueError(
                f"Expected 'normalization' to be 'sym', 'row' or None (got {normalization!r})"
            )
        if kwargs["aggr"] not in ("add", "sum"):
            raise ValueError(f"Expected 'aggr' to be 'add' (got {kwargs['aggr']!r})")

        self.num_steps = num_steps
        self.initial_step_size = step_size
        self.dropout = dropout
        self.normalization = normalization
        self.add_self_loops = add_self_loops
        self.cached = cached
        self.generator = generator
        self.step_size: Any = Parameter(torch.empty(())) if learn_step_size else step_size
        self.reset_parameters()

    @property
    def learn_step_size(self) -> bool:
        """Whether the step size is a parameter."""
        return isinstance(self.step_size, Parameter)

    def reset_parameters(self) -> None:
        """Reset the learned step size and clear the cache."""
        super().reset_parameters()
        self._cached = None
        if self.learn_step_size:
            torch.nn.init.constant_(self.step_size, self.initial_step_size)

    def forward(self, x: Tensor, edge_index: Any, edge_weight: Optional[Tensor] = None) -> Tensor:
        """Diffuse ``x`` over the graph, see the class."""
        if isinstance(x, (tuple, list)):
            raise ValueError(
                f"'{self.__class__.__name__}' received a tuple of node features as input while "
                "this layer does not support bipartite message passing. Please try other layers "
                "such as 'SAGEConv' or 'GraphConv' instead"
            )
        check_features(x)
        if self._is_observed():
            return self._propagate_steps(x, edge_index, edge_weight)
        operator = self.operator(x, edge_index, edge_weight)
        seeds = None
        if self.generator is not None and self.drops:
            seeds = draw_seeds(x.size(0) if x.dim() == 3 else 1, self.generator).tolist()
        recurrence = Recurrence.power(self.num_steps)
        if self.learn_step_size:  # (1 - r) x + r P x is a step r times as long
            r = self.step_size / operator.step_size
            recurrence = Recurrence(self.num_steps, a=r, d=1 - r)
        return propagate(
            x, operator, recurrence, dropout=self.dropout, seed=seeds, training=self.training
        )

    @property
    def drops(self) -> bool:
        """Whether dropout applies now."""
        return self.training and self.dropout > 0

    def operator(
        self, x: Tensor, edge_index: Any, edge_weight: Optional[Tensor] = None
    ) -> DiffusionOperator:
        """The operator of this layer on a graph, from the cache if there is one.

        That of a learned step size has the step size that the layer began with.
        """
        if isinstance(edge_index, DiffusionOperator):
            if edge_weight is not None:
                raise ValueError(
                    "Expected 'edge_weight' to be None beside a DiffusionOperator, which holds "
                    "its weights (got both)"
                )
            return edge_index
        if not self.cached or (self._cached is None and torch.compiler.is_compiling()):
            return self._build(x, edge_index, edge_weight)
        settings = (self._constant_step, self.normalization, self.add_self_loops, self.flow)
        if self._cached is None or self._cached[3] != settings:
            if edge_weight is not None and edge_weight.requires_grad:
                raise ValueError("'cached=True' does not go with learned 'edge_weight'")
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

    @property
    def _constant_step(self) -> float:
        return self.initial_step_size if self.learn_step_size else self.step_size

    def _build(
        self, x: Tensor, edge_index: Any, edge_weight: Optional[Tensor]
    ) -> DiffusionOperator:
        self._check_flow(edge_index)
        if self.flow == "target_to_source":
            edge_index = edge_index.flip([0])
        return DiffusionOperator(
            edge_index,
            edge_weight,
            num_nodes=x.size(-2),
            step_size=self._constant_step,
            normalization=self.normalization,
            add_self_loops=self.add_self_loops,
            reorder=self.cached,
            dtype=torch.float64 if x.dtype == torch.float64 else torch.float32,
        )

    def _check_flow(self, edge_index: Any) -> None:
        if self.flow == "target_to_source" and is_sparse_adjacency(edge_index):
            raise ValueError(
                "Expected 'flow' to be 'source_to_target' for a sparse 'edge_index', whose rows "
                "are the targets (got 'target_to_source'); transpose the matrix instead"
            )

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
        return bool(self.explain) or any(hooks)

    def _propagate_steps(self, x: Tensor, edge_index: Any, edge_weight: Optional[Tensor]) -> Tensor:
        if isinstance(edge_index, DiffusionOperator):
            raise ValueError(
                "Explanations and hooks need an 'edge_index' (got a DiffusionOperator)"
            )
        self._check_flow(edge_index)
        num_nodes = x.size(-2)
        edges = read_edges(edge_index, edge_weight, num_nodes, x.dtype)
        if self.flow == "target_to_source":
            edges = edges._replace(row=edges.col, col=edges.row)
        weight = normalize(edges, self.normalization, self.add_self_loops)
        edge_index = self._graph_to_propagate(edges._replace(weight=weight), edge_index)
        for _ in range(self.num_steps):
            x = torch.nn.functional.dropout(x, self.dropout, self.training)
            # propagate_type: (x: Tensor, edge_weight: OptTensor)
            out = self.propagate(edge_index, x=x, edge_weight=weight)
            x = x + self.step_size * out
        return x

    def _graph_to_propagate(self, edges: Edges, edge_index: Any) -> Tensor:
        if self.fuse and not self.explain and is_sparse_adjacency(edge_index):
            return sparse_matrix(edges)
        pair = [edges.col, edges.row]
        return torch.stack(pair if self.flow == "source_to_target" else pair[::-1])

    def message(self, x_i: Tensor, x_j: Tensor, edge_weight: OptTensor) -> Tensor:
        """The flux along an edge.

        A masked edge is one removed from the normalised graph, its target's degree in the Laplacian
        included; the normalisation itself keeps the degrees of the whole graph, as in GCNConv.
        """
        return edge_weight.view(-1, 1) * (x_j - x_i)

    def message_and_aggregate(self, adj_t: Adj, x: Tensor) -> Tensor:
        r"""All fluxes into a node, :math:`- \mathbf{L} \mathbf{X}`."""
        ones = x.new_ones(x.size(-2), 1)
        return spmm(adj_t, x, reduce=self.aggr) - spmm(adj_t, ones, reduce=self.aggr) * x

    def __repr__(self) -> str:
        step = self.step_size.item() if self.learn_step_size else self.step_size
        return f"{self.__class__.__name__}(num_steps={self.num_steps}, step_size={step:g})"


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
    return [graph.as_tensor() if hasattr(graph, "as_tensor") else graph]


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
