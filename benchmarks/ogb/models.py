"""Models of the OGB benchmark: prepared once per graph, built anew for every seed."""

import inspect
from typing import Any

import torch
from torch import Tensor
from torch.nn import BatchNorm1d, Dropout, Linear, Module, ReLU, Sequential
from torch_geometric.data import Data
from torch_geometric.nn import GCN, MLP, GraphSAGE
from torch_geometric.transforms import ToSparseTensor

from benchmarks.common import Fit, Trial, fit
from torch_geometric_diff.nn import APPNP, CorrectAndSmooth, DiffConv, SGConv  # PyG's, faster
from torch_geometric_diff.ops import DiffusionOperator


def adjacency(data: Data) -> Any:
    """The graph in the fastest form of PyG: SparseTensor where torch-sparse is there, else CSR."""
    graph = Data(edge_index=data.edge_index, num_nodes=data.num_nodes)
    return ToSparseTensor()(graph).adj_t


class Method:
    """A model prepared for one graph; the keywords of ``__init__`` are its settings.

    Args:
        data (torch_geometric.data.Data): The undirected graph.
        hidden (int): Width of the hidden layers.
        num_layers (int): Number of layers with weights.
        dropout (float): Dropout of hidden features.
    """

    inputs: tuple[Any, ...]  # arguments of the model
    training: dict[str, Any] = {}  # options of training that differ from the usual

    def __init__(
        self, data: Data, *, hidden: int = 256, num_layers: int = 3, dropout: float = 0.5
    ) -> None:
        self.data = data
        self.hidden, self.num_layers, self.dropout = hidden, num_layers, dropout
        self.widths = (data.num_features, hidden, num_layers, data.num_classes)
        self.inputs = (data.x,)

    def model(self) -> Module:
        """A freshly initialized model."""
        raise NotImplementedError

    def run(self, trial: Trial, **training: Any) -> Fit:
        """Train from the trial's seed; ``training`` are options of :func:`fit`."""
        torch.manual_seed(trial.init_seed)
        model = self.model().to(self.data.y.device)
        return fit([model], self.inputs, self.data.y, trial.train, trial.val, **training)[0]

    def mlp(self) -> MLP:
        """A multilayer perceptron with batch norm."""
        channels = [self.data.num_features] + [self.hidden] * (self.num_layers - 1)
        return MLP([*channels, self.data.num_classes], dropout=self.dropout, norm="batch_norm")


class Residual(Sequential):
    """A residual block around any layers."""

    def forward(self, x: Tensor) -> Tensor:
        return x + super().forward(x)


class WideDiffResNet(Module):
    r"""Diff-ResNet with a hidden width of its own and batch norm, for graphs of OGB's size.

    .. math::
        \mathbf{H} = \mathrm{act}(\mathrm{BN}(\mathbf{X} \mathbf{E})), \qquad
        \mathbf{H} \leftarrow \mathbf{H} + \mathrm{act}(\mathrm{BN}(\mathbf{H} \mathbf{W}_l)),
        \qquad \mathbf{Z} = \mathrm{BN}(\mathbf{P}^K \mathbf{H} \mathbf{C}) \, \mathbf{O}

    with act the ReLU followed by dropout. One column a class is diffused, so the cost of diffusion
    does not depend on the hidden width, nor its memory on :math:`K`. Diffusion shrinks what differs
    between nodes, the more the deeper it is; the batch norm after it restores the scale, without
    which deep diffusion trains very slowly.
    """

    def __init__(
        self, widths: tuple[int, int, int, int], dropout: float, num_steps: int, step_size: float
    ) -> None:
        super().__init__()
        inputs, hidden, num_layers, classes = widths

        def layer(channels: int) -> list[Module]:
            return [Linear(channels, hidden), BatchNorm1d(hidden), ReLU(), Dropout(dropout)]

        self.encoder = Sequential(*layer(inputs))
        self.blocks = Sequential(*[Residual(*layer(hidden)) for _ in range(num_layers - 2)])
        self.columns = Linear(hidden, classes, bias=False)
        self.conv = DiffConv(num_steps, step_size)
        self.classifier = Sequential(BatchNorm1d(classes), Linear(classes, classes))

    def forward(self, x: Tensor, operator: DiffusionOperator) -> Tensor:
        columns = self.columns(self.blocks(self.encoder(x)))
        return self.classifier(self.conv(columns, operator))


class DiffResNetMethod(Method):
    """Weights are normalized by rows: on graphs with hubs the paper's symmetric form is stable for
    tiny steps only (up to 0.19 at ogbn-arxiv's shape), this one up to 1 on every graph."""

    def __init__(
        self, data: Data, *, num_steps: int = 4, step_size: float = 0.5, **settings: Any
    ) -> None:
        super().__init__(data, **settings)
        operator = DiffusionOperator(
            data.edge_index, num_nodes=data.num_nodes, step_size=step_size, normalization="row"
        )
        self.inputs = (data.x, operator)
        self.diffusion = (num_steps, step_size)

    def model(self) -> Module:
        return WideDiffResNet(self.widths, self.dropout, *self.diffusion)


class MLPMethod(Method):
    def model(self) -> Module:
        return self.mlp()


class GraphMethod(Method):
    """A model of PyG that reads the graph in every layer."""

    network: type[Module]
    options: dict[str, Any] = {}

    def __init__(self, data: Data, **settings: Any) -> None:
        super().__init__(data, **settings)
        self.inputs = (data.x, adjacency(data))

    def model(self) -> Module:
        return self.network(*self.widths, dropout=self.dropout, norm="batch_norm", **self.options)


class GCNMethod(GraphMethod):
    network = GCN
    options = {"cached": True}


class SAGEMethod(GraphMethod):
    network = GraphSAGE


class SGCMethod(Method):
    """A linear model on features that were propagated once."""

    def __init__(self, data: Data, *, num_steps: int = 3) -> None:
        super().__init__(data)
        self.num_steps = num_steps
        self.inputs = (data.x, adjacency(data))

    def model(self) -> Module:
        return SGConv(self.data.num_features, self.data.num_classes, self.num_steps, cached=True)


class PropagatedMLP(Module):
    """APPNP: an MLP whose logits are propagated by personalized PageRank."""

    def __init__(self, mlp: MLP, num_steps: int, alpha: float) -> None:
        super().__init__()
        self.mlp = mlp
        self.propagate = APPNP(num_steps, alpha, cached=True)

    def forward(self, x: Tensor, adj_t: Any) -> Tensor:
        return self.propagate(self.mlp(x), adj_t)


class APPNPMethod(Method):
    def __init__(
        self, data: Data, *, num_steps: int = 10, alpha: float = 0.1, **settings: Any
    ) -> None:
        super().__init__(data, **settings)
        self.inputs = (data.x, adjacency(data))
        self.propagation = (num_steps, alpha)

    def model(self) -> Module:
        return PropagatedMLP(self.mlp(), *self.propagation)


class CorrectAndSmoothMethod(MLPMethod):
    """The MLP, its errors on the training nodes spread over the graph, its predictions smoothed."""

    def __init__(
        self,
        data: Data,
        *,
        num_steps: int = 50,
        correct_alpha: float = 0.9,
        smooth_alpha: float = 0.8,
        **settings: Any,
    ) -> None:
        super().__init__(data, **settings)
        self.adj_t = adjacency(data)
        self.post = CorrectAndSmooth(num_steps, correct_alpha, num_steps, smooth_alpha)

    def run(self, trial: Trial, **training: Any) -> Fit:
        result = super().run(trial, **training)
        known = (self.data.y[trial.train], trial.train, self.adj_t)
        corrected = self.post.correct(result.logits.softmax(dim=-1), *known)
        return Fit(self.post.smooth(corrected, *known), result.best_epoch, result.epochs)


PEERS: dict[str, type[Method]] = {
    "diff-resnet": DiffResNetMethod,
    "mlp": MLPMethod,
    "gcn": GCNMethod,
    "sage": SAGEMethod,
    "sgc": SGCMethod,
    "appnp": APPNPMethod,
    "correct-and-smooth": CorrectAndSmoothMethod,
}


def settings_of(method: type[Method]) -> dict[str, Any]:
    """The settings of a model with their defaults, those of the classes above it included."""
    settings: dict[str, Any] = {}
    for cls in method.__mro__:
        if not issubclass(cls, Method):
            break
        parameters = inspect.signature(cls.__init__).parameters.values()
        own = {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}
        settings = own | settings
        if all(p.kind is not p.VAR_KEYWORD for p in parameters):
            break
    return settings
