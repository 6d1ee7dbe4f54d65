"""Published models in the form that their authors, or PyG's examples, give them.

Each takes the numbers of channels and classes, and is called with features and edges.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
import torch_geometric.nn as pyg
from torch import Tensor
from torch.nn import BatchNorm1d, Linear, Module, ModuleList, Parameter, ReLU, Sequential
from torch_geometric.nn import MessagePassing
from torch_geometric.nn.conv.gcn_conv import gcn_norm

HIDDEN = 64


class Propagation(MessagePassing):
    """What the propagation classes of many repositories share."""

    def __init__(self, num_steps: int) -> None:
        super().__init__(aggr="add")
        self.K = num_steps

    def message(self, x_j: Tensor, norm: Tensor) -> Tensor:
        """A neighbor times the normalized weight of the edge."""
        return norm.view(-1, 1) * x_j


class GPRProp(Propagation):
    """``GPR_prop`` of `"Adaptive Universal Generalized PageRank"
    <https://arxiv.org/abs/2006.07988>`_.
    """

    def __init__(self, num_steps: int = 10, alpha: float = 0.1) -> None:
        super().__init__(num_steps)
        temp = alpha * (1 - alpha) ** torch.arange(num_steps + 1)
        temp[-1] = (1 - alpha) ** num_steps
        self.temp = Parameter(temp)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        """The sum of the steps with learned weights."""
        edge_index, norm = gcn_norm(edge_index, None, x.size(0), dtype=x.dtype)
        hidden = x * self.temp[0]
        for k in range(self.K):
            x = self.propagate(edge_index, x=x, norm=norm)
            hidden = hidden + self.temp[k + 1] * x
        return hidden


class PowerIteration(Propagation):
    """The propagation of `"Predict then Propagate" <https://arxiv.org/abs/1810.05997>`_."""

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        """Personalized PageRank."""
        edge_index, norm = gcn_norm(edge_index, None, x.size(0), dtype=x.dtype)
        z = x
        for _ in range(self.K):
            z = 0.9 * self.propagate(edge_index, x=z, norm=norm) + 0.1 * x
        return z


class DAGNNProp(Propagation):
    """``Prop`` of `"Towards Deeper Graph Neural Networks" <https://arxiv.org/abs/2007.09296>`_."""

    def __init__(self, channels: int, num_steps: int = 10) -> None:
        super().__init__(num_steps)
        self.proj = Linear(channels, 1)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        """The steps, weighted for every node."""
        edge_index, norm = gcn_norm(edge_index, None, x.size(0), dtype=x.dtype)
        steps = [x]
        for _ in range(self.K):
            x = self.propagate(edge_index, x=x, norm=norm)
            steps.append(x)
        stacked = torch.stack(steps, dim=1)
        score = torch.sigmoid(self.proj(stacked).squeeze()).unsqueeze(1)
        return torch.matmul(score, stacked).squeeze()


class RandomPropagation(Propagation):
    """The propagation of `"Graph Random Neural Network" <https://arxiv.org/abs/2005.11079>`_:
    nodes dropped whole, then the mean of the steps.
    """

    def __init__(self, num_steps: int = 4, drop: float = 0.5) -> None:
        super().__init__(num_steps)
        self.drop = drop

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        """One augmentation."""
        if self.training:
            keep = torch.bernoulli(torch.full((x.size(0), 1), 1 - self.drop, dtype=x.dtype))
            x = keep * x
        else:
            x = (1 - self.drop) * x
        edge_index, norm = gcn_norm(edge_index, None, x.size(0), dtype=x.dtype)
        y = x
        for _ in range(self.K):
            x = self.propagate(edge_index, x=x, norm=norm)
            y = y + x
        return y / (self.K + 1)


class Decoupled(Module):
    """A perceptron whose predictions are propagated."""

    def __init__(self, channels: int, classes: int, prop: Module) -> None:
        super().__init__()
        self.lin1, self.lin2, self.prop = Linear(channels, HIDDEN), Linear(HIDDEN, classes), prop

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        """The logits."""
        x = F.dropout(x, 0.5, self.training)
        x = F.dropout(self.lin1(x).relu(), 0.5, self.training)
        return self.prop(self.lin2(x), edge_index)


class Grand(Module):
    """A perceptron on features that are propagated at random."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.prop = RandomPropagation()
        self.lin1, self.lin2 = Linear(channels, HIDDEN), Linear(HIDDEN, classes)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        """The logits of one augmentation."""
        x = F.dropout(self.prop(x, edge_index), 0.5, self.training)
        return self.lin2(F.dropout(self.lin1(x).relu(), 0.5, self.training))


class One(Module):
    """A linear map of features that are propagated in every step, as of graphs that change."""

    def __init__(self, conv: Module) -> None:
        super().__init__()
        self.conv = conv

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        """The logits."""
        return self.conv(x, edge_index)


class Precomputed(One):
    """SGC as its authors train it: steps of the features first, once, then the linear map."""

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        """The logits, precomputation included."""
        setattr(self.conv, "_cached_x", None)  # noqa: B010  no module
        return super().forward(x, edge_index)


class Perceptron(Module):
    """A perceptron, corrected and smoothed once it is trained."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.lin1, self.lin2 = Linear(channels, HIDDEN), Linear(HIDDEN, classes)
        self.post = pyg.CorrectAndSmooth(50, 0.9, 50, 0.8, autoscale=False)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        """The logits of the perceptron alone."""
        x = F.dropout(x, 0.5, self.training)
        return self.lin2(F.dropout(self.lin1(x).relu(), 0.5, self.training))


class GCNII(Module):
    """`"Simple and Deep Graph Convolutional Networks" <https://arxiv.org/abs/2007.02133>`_."""

    def __init__(self, channels: int, classes: int, layers: int = 16) -> None:
        super().__init__()
        self.lin1, self.lin2 = Linear(channels, HIDDEN), Linear(HIDDEN, classes)
        self.convs = ModuleList(pyg.GCN2Conv(HIDDEN, 0.1, 0.5, i + 1) for i in range(layers))

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        """The logits."""
        x = first = self.lin1(F.dropout(x, 0.5, self.training)).relu()
        for conv in self.convs:
            x = conv(F.dropout(x, 0.5, self.training), first, edge_index).relu()
        return self.lin2(F.dropout(x, 0.5, self.training))


class Stack(Module):
    """Two layers with a nonlinearity between them, as in PyG's examples."""

    def __init__(self, first: Module, second: Module, drop: float = 0.5) -> None:
        super().__init__()
        self.conv1, self.conv2, self.drop = first, second, drop

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        """The logits."""
        x = F.dropout(x, self.drop, self.training)
        x = F.elu(self.conv1(x, edge_index))
        return self.conv2(F.dropout(x, self.drop, self.training), edge_index)


def _perceptron(channels: int, out: int) -> Sequential:
    return Sequential(Linear(channels, HIDDEN), BatchNorm1d(HIDDEN), ReLU(), Linear(HIDDEN, out))


def gin(channels: int, classes: int) -> Module:
    """GINConv with perceptrons, as in PyG's example."""
    first, second = _perceptron(channels, HIDDEN), _perceptron(HIDDEN, classes)
    return Stack(pyg.GINConv(first, train_eps=True), pyg.GINConv(second, train_eps=True))


def stack(conv: Callable[..., Module], hidden: int = HIDDEN, **arguments: int) -> Callable:
    """Two layers of a kind."""

    def make(channels: int, classes: int) -> Module:
        return Stack(conv(channels, hidden, **arguments), conv(hidden, classes, **arguments))

    return make


def gat(channels: int, classes: int) -> Module:
    """The two layers of PyG's GAT example."""
    return Stack(
        pyg.GATConv(channels, 8, heads=8, dropout=0.6),
        pyg.GATConv(64, classes, heads=1, concat=False, dropout=0.6),
        drop=0.6,
    )


MODELS: dict[str, Callable[[int, int], Module]] = {
    "APPNP": lambda f, c: Decoupled(f, c, pyg.APPNP(K=10, alpha=0.1, cached=True)),
    "APPNP, own class": lambda f, c: Decoupled(f, c, PowerIteration(10)),
    "GPR-GNN": lambda f, c: Decoupled(f, c, GPRProp()),
    "DAGNN": lambda f, c: Decoupled(f, c, DAGNNProp(c)),
    "SGC": lambda f, c: One(pyg.SGConv(f, c, K=2)),
    "SGC, precomputed": lambda f, c: Precomputed(pyg.SGConv(f, c, K=2, cached=True)),
    "SSGC": lambda f, c: One(pyg.SSGConv(f, c, alpha=0.05, K=16)),
    "MLP + C&S": Perceptron,
    "GCNII": GCNII,
    "GRAND": Grand,
    "GCN": stack(pyg.GCNConv, 16, cached=True),
    "GraphSAGE": stack(pyg.SAGEConv),
    "GIN": gin,
    "GAT": gat,
    "TAGCN": stack(pyg.TAGConv, 16),
    "ChebNet": stack(pyg.ChebConv, 16, K=2),
    "ARMA": stack(pyg.ARMAConv, 16, num_stacks=2, num_layers=2),
}
