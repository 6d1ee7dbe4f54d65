"""Models behind ``--model``: each is prepared once per graph and built anew for every trial."""

import inspect
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import Linear, Module
from torch_geometric.data import Data
from torch_geometric.nn import CorrectAndSmooth, LabelPropagation, SGConv
from torch_geometric.nn.conv.gcn_conv import gcn_norm
from torch_geometric.utils import (
    add_remaining_self_loops,
    k_hop_subgraph,
    subgraph,
    to_torch_csr_tensor,
)

from benchmarks.common import Fit, Trial, fit
from benchmarks.nodes.peers import GAT, GCN, MLP, SAGE, AppnpNet, GrandL, SortedGraph
from benchmarks.nodes.variant import NarrowDiffResNet, mixed_graph
from torch_geometric_diff import NodeClassifier
from torch_geometric_diff.data import sparse_features
from torch_geometric_diff.graph.feature_graph import rare_words as tf_idf
from torch_geometric_diff.nn import DiffConv, DiffResNet
from torch_geometric_diff.ops import DiffusionOperator

MOSTLY_ZERO = 0.25  # the share of nonzeros up to which a sparse product is the faster one


def defaults_of(function: Any, names: set[str]) -> dict[str, Any]:
    """The parameters of a function that have a default, of these names."""
    parameters = inspect.signature(function).parameters
    return {n: p.default for n, p in parameters.items() if n in names and p.default is not p.empty}


class Method:
    """A model prepared for one graph; the keywords of ``__init__`` are its settings.

    Args:
        data (torch_geometric.data.Data): The graph, on the device to run on.
    """

    independent = False  # whether a model does not notice others that are trained beside it
    symmetric = False  # whether the graph must be undirected
    multi_label = True  # whether it can learn several labels a node
    training: tuple[str, ...] | None = None  # its options of training, where not those of `fit`
    hops: int | None = None  # how far a model looks from a node: None for everywhere
    inputs: tuple[Any, ...]  # arguments of the model
    trained: Module  # the model of the latest trial

    def __init__(self, data: Data) -> None:
        self.data = data
        several = data.y.dim() == 2  # labels a node
        if several and not self.multi_label:
            raise ValueError(f"it takes one class a node (got 'y' of shape {list(data.y.shape)})")
        self.num_classes = data.y.size(1) if several else int(data.y.max()) + 1

    @classmethod
    def settings(cls) -> set[str]:
        """Names of the settings."""
        return {*inspect.signature(cls.__init__).parameters} - {"self", "data"}

    @classmethod
    def defaults(cls) -> dict[str, Any]:
        """The settings that have a value of their own."""
        return defaults_of(cls.__init__, cls.settings())

    def model(self) -> Module:
        """A freshly initialized model."""
        raise NotImplementedError

    def start(self, trial: Trial) -> Module:
        """The model that the trial's seed initializes."""
        torch.manual_seed(trial.init_seed)
        self.trained = self.model().to(self.data.y.device)
        return self.trained

    def run(self, trials: Sequence[Trial], **training: Any) -> list[Fit]:
        """Train from the seed of each trial; ``training`` are options of :func:`fit`.

        Several trials are trained side by side, which needs :attr:`independent`.
        """
        if self.hops is not None:
            return [self.run_near(trial, self.hops, **training) for trial in trials]
        models = [self.start(trial) for trial in trials]
        train = torch.stack([trial.train for trial in trials])
        val = torch.stack([trial.val for trial in trials])
        return fit(models, self.inputs, self.data.y, train, val, **training)

    def run_near(self, trial: Trial, hops: int, **training: Any) -> Fit:
        """Train on what the training looks at, if that is less than half, then classify all."""
        model, data = self.start(trial), self.data
        everything = torch.arange(data.num_nodes, device=data.y.device)
        seen = torch.cat([trial.train, trial.val])
        nodes = k_hop_subgraph(seen, hops, data.edge_index, num_nodes=data.num_nodes)[0]
        if 2 * nodes.numel() > data.num_nodes:
            nodes = everything
        inputs = self.near(model, nodes)
        train, val = (torch.searchsorted(nodes, part) for part in (trial.train, trial.val))
        [result] = fit([model], inputs, data.y[nodes], train, val, **training)
        self.near(model, everything)
        with torch.no_grad():
            return replace(result, logits=model(*self.inputs))

    def near(self, model: Module, nodes: Tensor) -> tuple[Any, ...]:
        """Inputs of the model that hold these nodes alone."""
        raise NotImplementedError


class OncePerState(Module):
    """A block without dropout, run once per state of its parameters on one constant input.

    Validation after a step and training in the next one see the same state: the block is the larger
    part of both, so its output is kept from the first for the second.
    """

    def __init__(self, block: Module) -> None:
        super().__init__()
        self.block = block
        self.kept: Tensor | None = None
        self.version = -1

    def forward(self, x: Tensor) -> Tensor:
        version = sum(parameter._version for parameter in self.block.parameters())
        if self.kept is None or self.version != version:
            with torch.enable_grad():
                self.kept, self.version = self.block(x), version
        out = self.kept
        if self.training:
            self.kept = None  # the backward pass frees its graph
        return out


class DiffResNetMethod(Method):
    """The paper's network, on the citations or on those and word neighbors.

    ``diffuse='probabilities'`` is COIN.
    """

    independent = True

    def __init__(
        self,
        data: Data,
        *,
        step_size: float,
        layer_num: int,
        dropout: float,
        diffuse: str = "features",
        learn_step_size: bool = False,
        normalization: str = "sym",
        neighbors: int = 0,
        mix: float = 0.0,
    ) -> None:
        super().__init__(data)
        edges = mixed_graph(data, neighbors, mix)
        operator = DiffusionOperator(
            *edges,
            num_nodes=data.num_nodes,
            step_size=step_size,
            normalization=normalization,
            add_self_loops=True,
        )
        # A fixed operator serves all trials, a learned one is each model's own.
        graph = edges if learn_step_size else (operator,)
        self.inputs = (sparse_features(data), *graph)
        sizes = (data.num_features, self.num_classes)
        self.arguments = (*sizes, layer_num, step_size, dropout, diffuse)
        self.learning: dict[str, Any] = {}
        if learn_step_size:
            self.learning = {
                "learn_step_size": True,
                "cached": True,
                "normalization": normalization,
            }

    def model(self) -> Module:
        model = DiffResNet(*self.arguments, **self.learning)
        model.block = OncePerState(model.block)  # type: ignore[assignment]
        return model

    def start(self, trial: Trial) -> Module:
        model: Any = super().start(trial)
        # it goes on where the initialization stopped, whatever is trained beside it
        model.conv.generator = torch.Generator().set_state(torch.get_rng_state())
        return model


def adjacency(data: Data, normalize: bool, self_loops: bool) -> tuple[Tensor, Tensor]:
    """Edges and weights, symmetrically normalized or all one."""
    edge_index = data.edge_index
    if normalize:
        return gcn_norm(edge_index, num_nodes=data.num_nodes, add_self_loops=self_loops)
    if self_loops:
        edge_index, _ = add_remaining_self_loops(edge_index, num_nodes=data.num_nodes)
    return edge_index, torch.ones(edge_index.size(1), device=edge_index.device)


class CoinMethod(DiffResNetMethod):
    """COIN, arXiv 2403.15726: class probabilities are diffused, without dropout."""

    def __init__(self, data: Data, *, step_size: float, layer_num: int) -> None:
        super().__init__(
            data, step_size=step_size, layer_num=layer_num, dropout=0.0, diffuse="probabilities"
        )


def bag_of_words(x: Tensor, binary: bool) -> Tensor:
    """Features as CSR, or dense where most are not zero; ``binary``: one for each that is not."""
    if binary:
        x = (x != 0).to(x.dtype)
    return sparse_features(Data(x)) if (x != 0).float().mean() < MOSTLY_ZERO else x


def select_rows(x: Tensor, nodes: Tensor) -> Tensor:
    """The features of some nodes, in the form of ``x``."""
    if x.layout != torch.sparse_csr:
        return x[nodes]
    return sparse_features(Data(x.to_sparse_coo().index_select(0, nodes)))


class Peer(Method):
    """A network of the features and the graph."""

    network: type[Module]
    normalize = True
    self_loops = True

    def __init__(self, data: Data, *, binary: bool = False, **options: Any) -> None:
        super().__init__(data)
        self.options = options
        self.edges = self.weighted_edges()
        x = bag_of_words(data.x, binary)
        self.inputs = (x, *self.graph(*self.edges, data.num_nodes))

    @classmethod
    def settings(cls) -> set[str]:
        own = {*inspect.signature(cls.network).parameters} - {"in_channels", "num_classes"}
        return {"binary"} | own

    def weighted_edges(self) -> tuple[Tensor, Tensor]:
        """The edges with their weights."""
        return adjacency(self.data, self.normalize, self.self_loops)

    def graph(self, edge_index: Tensor, weight: Tensor, num_nodes: int) -> tuple[Any, ...]:
        """What the network reads beside the features: the matrix, a row a target, as CSR."""
        return (to_torch_csr_tensor(edge_index.flip(0), weight, size=num_nodes),)

    def model(self) -> Module:
        return self.network(self.data.num_features, self.num_classes, **self.options)

    def near(self, model: Any, nodes: Tensor) -> tuple[Any, ...]:
        # with the weights of the whole graph, which are those of the nodes that matter
        num_nodes = self.data.num_nodes
        if nodes.numel() == num_nodes:
            return self.inputs
        edge_index, weight = subgraph(nodes, *self.edges, relabel_nodes=True, num_nodes=num_nodes)
        x = select_rows(self.inputs[0], nodes)
        return (x, *self.graph(edge_index, weight, nodes.numel()))


class MLPMethod(Peer):
    """No graph."""

    network = MLP
    hops = 0

    def graph(self, edge_index: Tensor, weight: Tensor, num_nodes: int) -> tuple[Any, ...]:
        return ()


class GCNMethod(Peer):
    """Normalized adjacency as CSR."""

    network = GCN
    hops = 2


class AppnpMethod(Peer):
    """Normalized adjacency as CSR."""

    network = AppnpNet
    symmetric = True


class SAGEMethod(Peer):
    """Plain adjacency as CSR."""

    network = SAGE
    hops = 2
    normalize = self_loops = False


class GATMethod(Peer):
    """Edges with self-loops."""

    network = GAT
    hops = 2
    normalize = False

    def graph(self, edge_index: Tensor, weight: Tensor, num_nodes: int) -> tuple[Any, ...]:
        return (edge_index,)


class GrandMethod(Peer):
    """Sorted edges with self-loops."""

    network = GrandL
    symmetric = True
    normalize = False

    def graph(self, edge_index: Tensor, weight: Tensor, num_nodes: int) -> tuple[Any, ...]:
        return (SortedGraph(edge_index, num_nodes),)


class SGCMethod(Method):
    """Simplified graph convolution, Wu et al., ICML 2019; features are propagated once."""

    hops = 0

    def __init__(self, data: Data, *, layer_num: int) -> None:
        super().__init__(data)
        self.layer_num = layer_num
        self.inputs = (data.x, data.edge_index)
        conv: Any = self.model()
        conv(*self.inputs)
        self.propagated = conv._cached_x

    def model(self) -> Module:
        return SGConv(self.data.num_features, self.num_classes, self.layer_num, cached=True)

    def near(self, model: Any, nodes: Tensor) -> tuple[Any, ...]:
        model._cached_x = self.propagated[nodes]
        return self.inputs


class DiffLinearMethod(Method):
    """Diff-ResNet without its residual block, on citations and word neighbors.

    Nothing is learned before the diffusion and nothing dropped in it, so that it is done once and a
    linear classifier remains.
    """

    hops = 0

    def __init__(
        self,
        data: Data,
        *,
        step_size: float,
        layer_num: int,
        normalization: str,
        rare_words: bool,
        neighbors: int,
        mix: float,
    ) -> None:
        super().__init__(data)
        conv = DiffConv(layer_num, step_size, normalization=normalization)
        x = tf_idf(data.x) if rare_words else data.x
        self.inputs = (conv(x, *mixed_graph(data, neighbors, mix)),)

    def model(self) -> Module:
        return Linear(self.data.num_features, self.num_classes)

    def near(self, model: Module, nodes: Tensor) -> tuple[Any, ...]:
        return (self.inputs[0][nodes],)


class LabelPropagationMethod(Method):
    """Labels of the training nodes spread over the graph, Zhou et al., NeurIPS 2003."""

    independent = True
    multi_label = False

    def __init__(self, data: Data, *, layer_num: int, alpha: float) -> None:
        super().__init__(data)
        self.inputs = adjacency(data, normalize=True, self_loops=False)
        self.propagate = LabelPropagation(layer_num, alpha)

    def run(self, trials: Sequence[Trial], **training: Any) -> list[Fit]:
        edge_index, weight = self.inputs
        outs = (
            self.propagate(self.data.y.clamp(min=0), edge_index, t.train, weight) for t in trials
        )
        return [Fit(out, best_epoch=0, epochs=0) for out in outs]


class CorrectAndSmoothMethod(MLPMethod):
    """Correct and smooth on top of the MLP, Huang et al., ICLR 2021."""

    multi_label = False

    def __init__(
        self,
        data: Data,
        *,
        layer_num: int,
        correction_alpha: float,
        smoothing_alpha: float,
        **options: Any,
    ) -> None:
        super().__init__(data, **options)
        self.edges = adjacency(data, normalize=True, self_loops=False)
        self.post = CorrectAndSmooth(layer_num, correction_alpha, layer_num, smoothing_alpha)

    @classmethod
    def settings(cls) -> set[str]:
        own = {*inspect.signature(cls.__init__).parameters} - {"self", "data", "options"}
        return own | super().settings()

    def run(self, trials: Sequence[Trial], **training: Any) -> list[Fit]:
        fits = super().run(trials, **training)
        return [self.correct(trial, result) for trial, result in zip(trials, fits, strict=True)]

    def correct(self, trial: Trial, result: Fit) -> Fit:
        """Correct and smooth the prediction of the MLP."""
        known = self.data.y[trial.train]
        soft = result.logits.softmax(dim=-1)
        soft = self.post.correct(soft, known, trial.train, *self.edges)
        soft = self.post.smooth(soft, known, trial.train, *self.edges)
        return replace(result, logits=soft)


class TunedMethod(Peer):
    """Citations and word neighbors with their weights; settings found by ``benchmarks.tune``."""

    network = NarrowDiffResNet

    def __init__(self, data: Data, *, neighbors: int, mix: float, **options: Any) -> None:
        self.neighbors, self.mix = neighbors, mix
        super().__init__(data, **options)

    @classmethod
    def settings(cls) -> set[str]:
        return {"neighbors", "mix"} | super().settings()

    def weighted_edges(self) -> tuple[Tensor, Tensor]:
        return mixed_graph(self.data, self.neighbors, self.mix)

    def graph(self, edge_index: Tensor, weight: Tensor, num_nodes: int) -> tuple[Any, ...]:
        return edge_index, weight


class NodeClassifierMethod(Method):
    """Candidate models among which the labels choose; it needs no validation."""

    training = ("lr", "weight_decay", "max_epochs")

    def __init__(self, data: Data, **options: Any) -> None:
        super().__init__(data)
        self.options = options
        self.prepared = NodeClassifier(**options).prepare(data.x, data.edge_index)

    @classmethod
    def settings(cls) -> set[str]:
        return {*NodeClassifier().get_params()} - {*cls.training, "verbose"}

    def run(self, trials: Sequence[Trial], **training: Any) -> list[Fit]:
        return [self.run_one(trial, **training) for trial in trials]

    def run_one(self, trial: Trial, **training: Any) -> Fit:
        """Train from the seed of a trial."""
        model = NodeClassifier(**self.options, **training)
        model.fit_prepared(self.prepared, self.data.y, trial.train, trial.init_seed)
        logits = torch.full((self.data.num_nodes, self.num_classes), -torch.inf)
        logits = logits.to(model.logits_).index_copy_(1, model.classes_, model.logits_)
        return Fit(logits, best_epoch=model.max_epochs - 1, epochs=model.max_epochs)


METHODS: dict[str, type[Method]] = {
    "node-classifier": NodeClassifierMethod,
    "diff-resnet": DiffResNetMethod,
    "diff-resnet-words": DiffResNetMethod,  # the same on citations and word neighbors
    "diff-resnet-tuned": TunedMethod,
    "diff-linear": DiffLinearMethod,
    "gcn": GCNMethod,
    "appnp": AppnpMethod,
    "coin": CoinMethod,
    "mlp": MLPMethod,
    "sgc": SGCMethod,
    "sage": SAGEMethod,
    "label-propagation": LabelPropagationMethod,
    "correct-and-smooth": CorrectAndSmoothMethod,
    "gat": GATMethod,
    "grand-l": GrandMethod,
}
