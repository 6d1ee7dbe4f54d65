"""Classes of all nodes of a graph from those of a few."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from ..._utils.checks import check_integer, check_real, row_mask
from ...graph.adjacency import NORMALIZATIONS
from ..model_selection import significantly_better, stack
from .belief_propagation import BeliefPropagation
from .candidates import MOST_JUDGED, Candidate, DiffusionNetworks, Labeled, RidgeRegression, log
from .inputs import GraphInputs, constant
from .settings import Settings

SMALLEST_WEIGHT = 0.05  # of a candidate; with less it is left out
PATIENCE = 5.0  # seconds before a progress bar appears unasked

INTEGERS = {"num_steps": 0, "neighbors": 0, "num_views": 1, "max_epochs": 1, "warmup": 1}
_AT_LEAST_0 = (lambda value: 0 <= value < float("inf"), "be finite and at least 0")
_POSITIVE = (lambda value: 0 < value < float("inf"), "be finite and positive")
_SHARE = (lambda value: 0 <= value <= 1, "lie in [0, 1]")
NUMBERS: dict[str, tuple[Callable[[float], bool], str]] = {
    "step_size": _POSITIVE,
    "neighbor_weight": _AT_LEAST_0,
    "node_dropout": (lambda value: 0 <= value < 1, "lie in [0, 1)"),
    "consistency": _AT_LEAST_0,
    "temperature": _POSITIVE,
    "lr": _POSITIVE,
    "weight_decay": _AT_LEAST_0,
    "prior_correction": _AT_LEAST_0,
    "student": _SHARE,
}

CANDIDATES: dict[str, Callable[[Settings], Any]] = {
    "diffusion": DiffusionNetworks,
    "belief_propagation": BeliefPropagation,
    "neighborhood": lambda settings: RidgeRegression(settings, "neighborhood_kernel"),
    "structural": lambda settings: RidgeRegression(settings, "structural_kernel"),
}


@dataclass(kw_only=True, repr=False, eq=False)
class NodeClassifier(Settings):
    r"""Classes of all nodes of a graph from those of a few, without validation nodes.

    Candidate models predict the labeled nodes, each from others. The first is taken unless another
    one is significantly better; then those that make the labels most likely are mixed (stacking):

    - ``diffusion``: a :class:`~torch_geometric_diff.nn.RandomPropagation` of features on the edges
      joined with the nearest neighbors by features, trained by cross-entropy and, raised over the
      first epochs, the :func:`~torch_geometric_diff.nn.consistency` of all nodes, whose targets
      stay the closer to estimated class shares, the fewer labels there are. Networks of both
      normalizations are averaged by how likely they make the labels. Weights are averaged over the
      last third of the epochs, and a student of each node's own features is mixed in
      (`"Extract the Knowledge of Graph Neural Networks" <https://arxiv.org/abs/2103.02885>`_);
    - ``belief_propagation``: which classes edges join is learned along with the classes;
    - ``neighborhood``: a ridge regression on the features of a node, its neighbors and theirs;
    - ``structural``: one on their numbers of edges and triangles.

    Bags of words are read as rows of unit length. Other features are standardized, each column
    counts what diffusion over the edges leaves of it, and random Fourier features stand beside
    them.

    Args:
        candidates (str or sequence of str, optional): :obj:`"auto"`, or the candidates among which
            to choose. (default: :obj:`"auto"`)
        num_steps (int, optional): The number of diffusion steps. (default: :obj:`6`)
        step_size (float, optional): Their size; where that could diverge there are more and
            shorter ones. (default: :obj:`0.5`)
        neighbors (int, optional): The number of neighbors by features. (default: :obj:`4`)
        neighbor_weight (float, optional): What one counts beside an edge. (default: :obj:`0.75`)
        normalizations (sequence, optional): Those of the networks, see
            :class:`~torch_geometric_diff.nn.DiffConv`. (default: :obj:`("row", "sym")`)
        num_views (int, optional): See :class:`~torch_geometric_diff.nn.RandomPropagation`.
            (default: :obj:`4`)
        node_dropout (float, optional): See there. (default: :obj:`0.5`)
        consistency (float, optional): The weight of consistency. (default: :obj:`2.0`)
        temperature (float, optional): See :func:`~torch_geometric_diff.nn.consistency`.
            (default: :obj:`0.4`)
        lr (float, optional): Learning rate of Adam. (default: :obj:`0.2`)
        weight_decay (float, optional): L2 penalty of Adam for 1,000 features where a ridge
            regression chooses a penalty of 1; it grows with the root of the one and the fourth root
            of the other. (default: :obj:`1.7e-4`)
        max_epochs (int, optional): The number of epochs. (default: :obj:`100`)
        warmup (int, optional): Epochs over which consistency rises. (default: :obj:`60`)
        prior_correction (float, optional): The power of the ratio of predicted to given class
            shares by which probabilities are multiplied. (default: :obj:`0.35`)
        student (float, optional): The part of the student. (default: :obj:`0.5`)
        verbose (bool, optional): Show a progress bar. (default: in a terminal, if it takes long)

    Attributes:
        classes_ (Tensor): The classes, those of the labeled nodes in ascending order.
        weights_ (dict): The weight of each candidate that is used.
        candidates_ (dict): These candidates, fitted.
        logits_ (Tensor): The log-probabilities of all nodes, :math:`(N, C)`.

    Example:
        >>> y = torch.arange(200) % 2
        >>> x = torch.randn(200, 8) + 3 * y[:, None]
        >>> model = NodeClassifier(max_epochs=20).fit(x, knn_graph(x, k=5), y, torch.arange(10))
        >>> model.score(y) > 0.95
        True
    """

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """The settings, as scikit-learn asks for them."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def set_params(self, **params: Any) -> "NodeClassifier":
        """Change settings."""
        unknown = sorted(set(params) - {field.name for field in fields(self)})
        if unknown:
            raise ValueError(
                f"NodeClassifier has no setting {unknown}; it has {[*self.get_params()]}"
            )
        for name, value in params.items():
            setattr(self, name, value)
        return self

    def prepare(self, x: Tensor, edge_index: Any, edge_weight: Tensor | None = None) -> GraphInputs:
        """What the candidates read of a graph, made once for several calls of :meth:`fit_prepared`.

        Args: as those of :meth:`fit`.
        """
        with _isolated(x):
            return GraphInputs(x, edge_index, edge_weight)

    def fit(
        self,
        x: Tensor,
        edge_index: Any,
        y: Tensor,
        train: Tensor,
        edge_weight: Tensor | None = None,
        seed: int = 0,
    ) -> "NodeClassifier":
        """Learn from the labels of some nodes.

        Args:
            x (Tensor): Features :math:`(N, F)`, dense or sparse, of any scale.
            edge_index (Tensor, EdgeIndex or SparseTensor): Edges, in any form that
                :class:`~torch_geometric_diff.nn.DiffConv` takes.
            y (Tensor): Classes :math:`(N,)`, integers of at least 0; those of other nodes than
                ``train`` are not read.
            train (Tensor): The labeled nodes, as indices or as a mask.
            edge_weight (Tensor, optional): Weights of the edges. (default: ones)
            seed (int, optional): Seed of all random numbers; torch's own generator stays as it is.
                (default: :obj:`0`)
        """
        return self.fit_prepared(self.prepare(x, edge_index, edge_weight), y, train, seed)

    def fit_prepared(
        self, prepared: GraphInputs, y: Tensor, train: Tensor, seed: int = 0
    ) -> "NodeClassifier":
        """:meth:`fit` on what :meth:`prepare` returned."""
        self._check_settings()
        seed = check_integer("seed", seed, -(2**63))
        devices = [prepared.device] if prepared.device.type == "cuda" else []
        with _isolated(prepared.x), torch.random.fork_rng(devices):
            nodes = _check_nodes(train, prepared.num_nodes)
            classes, labels = _check_classes(y, nodes, prepared.num_nodes)
            labeled = Labeled(nodes, labels, len(classes))
            torch.manual_seed(seed)
            chosen = self._choose(prepared, labeled)
            with self._progress([model for model, _ in chosen.values()]) as bar:
                for candidate, _ in chosen.values():
                    candidate.fit(prepared, labeled, bar.update)
            self._graph, self._labeled = prepared, labeled
            self.candidates_ = {name: candidate for name, (candidate, _) in chosen.items()}
            self.weights_ = {name: weight for name, (_, weight) in chosen.items()}
            self.classes_ = classes
            self.logits_ = self._mix(prepared, labeled)
        return self

    def _choose(self, graph: GraphInputs, labeled: Labeled) -> dict[str, tuple[Candidate, float]]:
        """The candidates that labels speak for and their weights: the first, unless others are
        significantly better; then a mixture that makes the labels most likely.
        """
        names = [self.candidates] if isinstance(self.candidates, str) else [*self.candidates]
        names = [*CANDIDATES] if names == ["auto"] else names
        models = {name: CANDIDATES[name](self) for name in names}
        models = {
            n: m for n, m in models.items() if m.is_feasible(graph, labeled.num_classes)
        } or models
        judged = labeled.sample(MOST_JUDGED)
        fair = labeled.can_be_judged()[judged]
        found = {name: model.judge(graph, labeled, judged)[fair] for name, model in models.items()}
        first, *others = found  # of one alone, it has learned
        if not any(significantly_better(found[name], found[first]) for name in others):
            return {first: (models[first], 1.0)}
        weights = {n: weight for n, weight in stack(found).items() if weight > SMALLEST_WEIGHT}
        return {n: (models[n], weight / sum(weights.values())) for n, weight in weights.items()}

    def _mix(self, graph: GraphInputs, labeled: Labeled) -> Tensor:
        """Log-probabilities [N, C] of all nodes."""
        each = [
            weight * self.candidates_[name].logits(graph, labeled).float().softmax(dim=1)
            for name, weight in self.weights_.items()
        ]
        return log(torch.stack(each).sum(dim=0))

    def predict(
        self,
        x: Tensor | None = None,
        edge_index: Any = None,
        edge_weight: Tensor | None = None,
        nodes: Tensor | None = None,
    ) -> Tensor:
        """The class of every node, :math:`(N,)`; arguments as those of :meth:`predict_proba`."""
        best = self._answer(x, edge_index, edge_weight, nodes).argmax(dim=1)
        return self.classes_[best]

    def predict_proba(
        self,
        x: Tensor | None = None,
        edge_index: Any = None,
        edge_weight: Tensor | None = None,
        nodes: Tensor | None = None,
    ) -> Tensor:
        """The probability of every class of ``classes_`` at every node, :math:`(N, C)`.

        Args:
            x (Tensor, optional): Features of the nodes of another graph, with other or further
                nodes. What was learned is kept, and what depends on the graph is made anew.
                (default: the graph of :meth:`fit`)
            edge_index (Tensor, EdgeIndex or SparseTensor, optional): Its edges.
            edge_weight (Tensor, optional): Their weights. (default: ones)
            nodes (Tensor, optional): The number that each node had in :meth:`fit`, -1 for new ones:
                where labels are known. (default: the nodes of :meth:`fit` come first if ``x``
                begins with their features, else all are new)
        """
        return self._answer(x, edge_index, edge_weight, nodes).softmax(dim=1)

    def score(self, y: Tensor, nodes: Tensor | None = None, **graph: Any) -> float:
        """The share of nodes whose class is predicted.

        Args:
            y (Tensor): The classes of all nodes.
            nodes (Tensor, optional): The nodes to ask, as indices or as a mask. (default: all)
            **graph (optional): Arguments of :meth:`predict`, for another graph.
        """
        hits = self.predict(**graph) == y
        return float((hits if nodes is None else hits[nodes]).float().mean())

    def _answer(
        self, x: Tensor | None, edge_index: Any, edge_weight: Tensor | None, nodes: Tensor | None
    ) -> Tensor:
        if not hasattr(self, "logits_"):
            raise ValueError("Expected a fitted NodeClassifier: call 'fit' first")
        if x is None:
            if edge_index is not None:
                raise ValueError("Expected 'x' beside 'edge_index', the features of its nodes")
            return self.logits_
        with _isolated(x):
            graph = GraphInputs(x, edge_index, edge_weight, self._graph.learned)
            return self._mix(graph, self._known(graph, nodes))

    def _known(self, graph: GraphInputs, nodes: Tensor | None) -> Labeled:
        """The labeled nodes of another graph."""
        number = self._graph.num_nodes
        if nodes is None:
            nodes = torch.full((graph.num_nodes,), -1, device=graph.device)
            if graph.begins_with(self._graph):
                nodes[:number] = torch.arange(number, device=graph.device)
        if nodes.shape != (graph.num_nodes,) or nodes.is_floating_point():
            raise ValueError(
                f"Expected 'nodes' to be {graph.num_nodes} integers, one a node "
                f"(got {nodes.dtype} of shape {list(nodes.shape)})"
            )
        if nodes.numel() and not -1 <= int(nodes.min()) <= int(nodes.max()) < number:
            raise ValueError(
                f"Expected 'nodes' to lie in [-1, {number - 1}] (got {int(nodes.min())} to "
                f"{int(nodes.max())})"
            )
        label = torch.full((number + 1,), -1, device=graph.device)
        label[self._labeled.nodes] = self._labeled.labels
        label = label[nodes]
        known = (label >= 0).nonzero().view(-1)
        return Labeled(known, label[known], len(self.classes_))

    def _progress(self, models: list[Candidate]) -> tqdm:
        """A bar of epochs, on a terminal if the fit is long."""
        return tqdm(
            total=sum(model.num_epochs for model in models),
            desc=type(self).__name__,
            unit="epoch",
            delay=0.0 if self.verbose else PATIENCE,
            disable=None if self.verbose is None else not self.verbose,
            leave=False,
        )

    def _check_settings(self) -> None:
        for name, least in INTEGERS.items():
            check_integer(name, getattr(self, name), least)
        for name, (fits, text) in NUMBERS.items():
            check_real(name, getattr(self, name), fits, text)
        names = [self.candidates] if isinstance(self.candidates, str) else [*self.candidates]
        if names != ["auto"] and (not names or set(names) - set(CANDIDATES)):
            raise ValueError(
                f"Expected 'candidates' to be 'auto' or among {[*CANDIDATES]} "
                f"(got {self.candidates!r})"
            )
        if isinstance(self.normalizations, str) or not set(self.normalizations) <= {
            *NORMALIZATIONS
        }:
            raise ValueError(
                f"Expected 'normalizations' to be a sequence of {NORMALIZATIONS} "
                f"(got {self.normalizations!r})"
            )
        if not (self.verbose is None or isinstance(self.verbose, bool)):
            raise TypeError(f"Expected 'verbose' to be a bool or None (got {self.verbose!r})")

    def __repr__(self) -> str:
        settings = ", ".join(f"{name}={value!r}" for name, value in self.get_params().items())
        return f"{type(self).__name__}({settings})"


def _check_classes(y: Any, nodes: Tensor, num_nodes: int) -> tuple[Tensor, Tensor]:
    """The classes of labeled nodes, and the number of each node's class."""
    if not isinstance(y, Tensor) or y.shape != (num_nodes,):
        got = list(y.shape) if isinstance(y, Tensor) else type(y).__name__
        raise ValueError(
            f"Expected 'y' to be a Tensor of shape [{num_nodes}], a class for every node "
            f"(got {got})"
        )
    if y.is_floating_point() or y.is_complex():
        raise TypeError(f"Expected 'y' to hold classes, which are integers (got {y.dtype})")
    known = constant(y)[nodes]
    if y.dtype != torch.bool and bool((known < 0).any()):
        first = int((known < 0).nonzero()[0])
        raise ValueError(
            f"Expected 'y' to hold a class of at least 0 for every node of 'train' "
            f"(got {int(known[first])} for node {int(nodes[first])})"
        )
    classes, labels = known.unique(return_inverse=True)
    if len(classes) < 2:
        raise ValueError(
            f"Expected 'y' to hold at least two classes at the nodes 'train' "
            f"(got {classes.tolist()})"
        )
    return classes, labels


def _check_nodes(train: Any, num_nodes: int) -> Tensor:
    """The labeled nodes as indices."""
    mask = row_mask("train", train, num_nodes)
    nodes = train.nonzero().view(-1) if train.dtype == torch.bool else constant(train).long()
    if int(mask.sum()) == 0:
        raise ValueError("Expected 'train' to name at least one node (got none)")
    if int(mask.sum()) < len(nodes):
        raise ValueError("Expected 'train' to name every node once (got repeated indices)")
    return nodes


@contextmanager
def _isolated(x: Any) -> Iterator[None]:
    """Gradients and the device of the input, whatever is set outside."""
    elsewhere = isinstance(x, Tensor) and torch.get_default_device().type != x.device.type
    with torch.inference_mode(False), torch.enable_grad():
        with torch.device(x.device) if elsewhere else nullcontext():  # it slows every call
            yield
