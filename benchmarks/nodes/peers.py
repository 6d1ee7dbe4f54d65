"""The models that Diff-ResNet is compared with, built from PyG's own layers.

The first layer reads the features sparse where they are.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn import Dropout, Identity, Module, Parameter
from torch_geometric.nn import APPNP, GATConv, GCNConv, SAGEConv
from torch_geometric.nn.dense.linear import Linear as PygLinear
from torch_geometric.utils import softmax

from torch_geometric_diff.nn.sparse_linear import Linear
from torch_geometric_diff.ops import sparse_mm


def glorot_linear(in_channels: int, out_channels: int) -> PygLinear:
    """A linear layer as PyG's convolutions initialize theirs."""
    return PygLinear(in_channels, out_channels, weight_initializer="glorot")


class FirstLayerDecay(Module):
    """Decays the weight of the first layer only, as GCN's authors and those after them do."""

    first: Linear

    def parameter_groups(self, weight_decay: float) -> list[dict[str, Any]]:
        first = self.first.weight
        rest = [parameter for parameter in self.parameters() if parameter is not first]
        return [
            {"params": [first], "weight_decay": weight_decay},
            {"params": rest, "weight_decay": 0.0},
        ]


class MLP(Module):
    """Two layers that do not see the graph."""

    def __init__(self, in_channels: int, num_classes: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.first = Linear.from_dense(glorot_linear(in_channels, hidden), dropout)
        self.dropout = Dropout(dropout)
        self.last = glorot_linear(hidden, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.dropout(self.first(x).relu()))


class GCN(FirstLayerDecay):
    """Kipf and Welling, ICLR 2017; ``adj_t`` is normalized."""

    def __init__(self, in_channels: int, num_classes: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.conv1 = GCNConv(in_channels, hidden, normalize=False)
        self.first = Linear.from_dense(self.conv1.lin, dropout)
        self.conv1.lin = Identity()
        self.dropout = Dropout(dropout)
        self.conv2 = GCNConv(hidden, num_classes, normalize=False)

    def forward(self, x: Tensor, adj_t: Tensor) -> Tensor:
        x = self.conv1(self.first(x), adj_t).relu()
        return self.conv2(self.dropout(x), adj_t)


class SAGE(FirstLayerDecay):
    """GraphSAGE with the mean aggregator, Hamilton et al., NeurIPS 2017.

    The mean commutes with the linear map, so the first layer averages the hidden features instead
    of the much wider input.
    """

    def __init__(self, in_channels: int, num_classes: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.first = Linear(in_channels, 2 * hidden, dropout=dropout)
        self.conv1 = SAGEConv(hidden, hidden)
        self.conv1.lin_l = self.conv1.lin_r = Identity()
        self.dropout = Dropout(dropout)
        self.conv2 = SAGEConv(hidden, num_classes)

    def forward(self, x: Tensor, adj_t: Tensor) -> Tensor:
        x = self.conv1(self.first(x).chunk(2, dim=-1), adj_t).relu()
        return self.conv2(self.dropout(x), adj_t)


class GAT(Module):
    """Velickovic et al., ICLR 2018; ``edge_index`` holds the self-loops."""

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        hidden: int,
        heads: int,
        output_heads: int,
        dropout: float,
        attention_dropout: float,
    ) -> None:
        super().__init__()
        options = {"dropout": attention_dropout, "add_self_loops": False}
        self.conv1 = GATConv(in_channels, hidden, heads, **options)
        self.first = Linear.from_dense(self.conv1.lin, dropout)
        self.conv1.lin = Identity()
        self.dropout = Dropout(dropout)
        self.conv2 = GATConv(heads * hidden, num_classes, output_heads, concat=False, **options)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        x = F.elu(self.conv1(self.first(x), edge_index))
        return self.conv2(self.dropout(x), edge_index)


class _SymmetricProduct(torch.autograd.Function):
    """A symmetric CSR matrix times ``x``: its own transpose, which torch makes anew each time."""

    @staticmethod
    def forward(ctx: Any, adj: Tensor, x: Tensor) -> Tensor:
        ctx.adj = adj
        return adj @ x

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[None, Tensor]:
        return None, ctx.adj @ grad


class SymmetricAPPNP(APPNP):
    """APPNP's propagation over a symmetric CSR ``adj_t``."""

    def message_and_aggregate(self, adj_t: Tensor, x: Tensor) -> Tensor:
        return _SymmetricProduct.apply(adj_t, x)


class AppnpNet(FirstLayerDecay):
    """Predict, then propagate: Gasteiger et al., ICLR 2019; ``adj_t`` is normalized."""

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        hidden: int,
        layer_num: int,
        alpha: float,
        dropout: float,
    ) -> None:
        super().__init__()
        self.mlp = MLP(in_channels, num_classes, hidden, dropout)
        self.first = self.mlp.first
        self.propagate = SymmetricAPPNP(layer_num, alpha, normalize=False)

    def forward(self, x: Tensor, adj_t: Tensor) -> Tensor:
        return self.propagate(self.mlp(x), adj_t)


class _Derivative(torch.autograd.Function):
    """Sum of ``weight * x[source]`` at each target, edges sorted by target, plus ``constant``.

    Sparse products all ways; torch's own product with learned CSR values is ten times slower in its
    backward pass than even gather and scatter.
    """

    @staticmethod
    def forward(
        ctx: Any, weight: Tensor, x: Tensor, constant: Tensor, graph: "SortedGraph"
    ) -> Tensor:
        ctx.graph = graph
        ctx.save_for_backward(weight, x)
        return sparse_mm(graph.matrix(weight), x).add_(constant)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        weight, x = ctx.saved_tensors
        graph, grad = ctx.graph, grad.contiguous()
        pattern = graph.matrix(torch.zeros_like(weight))
        grad_weight = torch.sparse.sampled_addmm(pattern, grad, x.t()).values()
        return grad_weight, sparse_mm(graph.transpose(weight), grad), grad, None


class SortedGraph:
    """A symmetric graph with one self-loop a node, its edges sorted by target."""

    def __init__(self, edge_index: Tensor, num_nodes: int) -> None:
        order = (edge_index[1] * num_nodes + edge_index[0]).argsort()
        self.source, self.target = edge_index[:, order]
        self.loop = (self.source == self.target).float()
        self.reverse = (self.source * num_nodes + self.target).argsort()  # the reversed edges
        self.shape = (num_nodes, num_nodes)
        counts = self.target.bincount(minlength=num_nodes)
        self.pointer = F.pad(counts.cumsum(0), (1, 0))
        self.rows = (self.pointer.int(), self.source.int())

    def matrix(self, weight: Tensor) -> Tensor:
        return torch.sparse_csr_tensor(*self.rows, weight, self.shape, check_invariants=False)

    def transpose(self, weight: Tensor) -> Tensor:
        return self.matrix(weight[self.reverse])


class GrandL(Module):
    """Linear graph neural diffusion (GRAND-l), Chamberlain et al., ICML 2021.

    Attention is computed once from the encoded features, averaged over its heads, and then
    dx/dt = sigmoid(alpha) (A x - x) + beta x(0) is integrated from 0 to ``time``.
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        hidden: int,
        time: float,
        heads: int,
        attention_dim: int,
        input_dropout: float,
        dropout: float,
        solver: str,
    ) -> None:
        super().__init__()
        self.first = Linear(in_channels, hidden, dropout=input_dropout)
        self.query = Linear(hidden, attention_dim)
        self.key = Linear(hidden, attention_dim)
        self.alpha = Parameter(torch.zeros(()))
        self.beta = Parameter(torch.zeros(()))
        self.dropout = Dropout(dropout)
        self.last = Linear(hidden, num_classes)
        self.heads, self.time, self.solver = heads, time, solver

    def attention(self, x: Tensor, graph: SortedGraph) -> Tensor:
        query, key = (layer(x).view(x.size(0), self.heads, -1) for layer in (self.query, self.key))
        score = (query[graph.target] * key[graph.source]).sum(dim=-1) / math.sqrt(query.size(-1))
        return softmax(score, ptr=graph.pointer).mean(dim=-1)

    def forward(self, x: Tensor, graph: SortedGraph) -> Tensor:
        from torchdiffeq import odeint

        start = self.first(x)
        weight = self.attention(start, graph)
        # The matrix sigmoid(alpha) (A - I), of the entries of A.
        change = self.alpha.sigmoid() * (weight - graph.loop)
        constant = self.beta * start

        def derivative(_: Tensor, x: Tensor) -> Tensor:
            return _Derivative.apply(change, x, constant, graph)

        options = {} if self.solver == "dopri5" else {"step_size": 1.0}
        span = torch.tensor([0.0, self.time], device=start.device)
        # Adaptive solvers look at the tolerances, those of a fixed grid at the step size.
        end = odeint(
            derivative, start, span, atol=1e-4, rtol=1e-4, method=self.solver, options=options
        )[-1]
        return self.last(self.dropout(end.relu()))
