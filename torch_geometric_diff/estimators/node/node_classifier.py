"""Classes of all nodes of a graph from those of a few."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

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


class _Output(NamedTuple):
    """What was learned of one column of the labels.

    Attributes:
        classes (Tensor): The classes, in ascending order.
        labeled (Labeled): The labeled nodes.
        candidates (dict): The candidates that are used, fitted; none if there is one class.
        weights (dict): Their weights.
    """

    classes: Tensor
    labeled: Labeled
    candidates: dict[str, Candidate]
    weights: dict[str, float]

    def mix(self, graph: GraphInputs, labeled: Labeled) -> Tensor:
        """Log-probabilities [N, C] of all nodes."""
        each = [
            weight * self.candidates[name].logits(graph, labeled).float().softmax(dim=1)
            for name, weight in self.weights.items()
        ]
        return log(torch.stack(each).sum(dim=0))

    def log_odds(self, graph: GraphInputs, labeled: Labeled) -> Tensor:
        """Those of 1 against 0 [N], by Laplace's rule if all labels are the same."""
        if self.candidates:
            return self.mix(graph, labeled).diff(dim=1)[:, 0]
        odds = (len(self.labeled.nodes) + 1.0) ** (2 * float(self.classes) - 1)
        return torch.full((graph.num_nodes,), odds, device=graph.device).log()


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

    Several labels for each node, ``y`` of shape :math:`(N, C)`, are learned one after the other,
    each by its binary cross-entropy.

    Attributes:
        classes_ (Tensor): The classes, those of the labeled nodes in ascending order; of several
            labels the numbers of their columns.
        weights_ (dict): The weight of each candidate that is used; of several labels a list.
        candidates_ (dict): These candidates, fitted; of several labels a list.
        logits_ (Tensor): The log-probabilities of all nodes, or of several labels the log-odds of
            each, :math:`(N, C)`.

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
            y (Tensor): Classes :math:`(N,)`, integers of at least 0, or several labels for each
                node, :math:`(N, C)`, each 0 or 1; those of other nodes than ``train`` are not read.
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
            columns, self._is_multi_label = _label_columns(y, nodes, prepared.num_nodes)
            self._graph = prepared
            self._outputs = [self._fit_column(prepared, nodes, c, seed) for c in columns]
            self.logits_ = self._logits(prepared, [output.labeled for output in self._outputs])
        first = self._outputs[0]
        if self._is_multi_label:
            self.classes_ = torch.arange(len(columns), device=prepared.device)
            self.candidates_: Any = [output.candidates for output in self._outputs]
            self.weights_: Any = [output.weights for output in self._outputs]
        else:
            self.classes_ = first.classes
            self.candidates_, self.weights_ = first.candidates, first.weights
        return self

    def _fit_column(self, graph: GraphInputs, nodes: Tensor, known: Tensor, seed: int) -> _Output:
        """Learn from the labels of the nodes."""
        classes, labels = known.unique(return_inverse=True)
        labeled = Labeled(nodes, labels, len(classes))
        if len(classes) < 2:
            return _Output(classes, labeled, {}, {})
        torch.manual_seed(seed)
        chosen = self._choose(graph, labeled)
        with self._progress([model for model, _ in chosen.values()]) as bar:
            for candidate, _ in chosen.values():
                candidate.fit(graph, labeled, bar.update)
        candidates = {name: candidate for name, (candidate, _) in chosen.items()}
        return _Output(
            classes, labeled, candidates, {name: weight for name, (_, weight) in chosen.items()}
        )

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

    def _logits(self, graph: GraphInputs, labeled: list[Labeled]) -> Tensor:
        """Those of the columns, each with its labeled nodes, as :attr:`logits_`."""
        pairs = list(zip(self._outputs, labeled, strict=True))
        if self._is_multi_label:
            return torch.stack([output.log_odds(graph, known) for output, known in pairs], dim=1)
        [(output, known)] = pairs
        return output.mix(graph, known)

    def predict(
        self,
        x: Tensor | None = None,
        edge_index: Any = None,
        edge_weight: Tensor | None = None,
        nodes: Tensor | None = None,
    ) -> Tensor:
        """The class of every node, :math:`(N,)`, or its labels, :math:`(N, C)`; arguments as those
        of :meth:`predict_proba`.
        """
        logits = self._answer(x, edge_index, edge_weight, nodes)
        if self._is_multi_label:
            return (logits > 0).long()
        return self.classes_[logits.argmax(dim=1)]

    def predict_proba(
        self,
        x: Tensor | None = None,
        edge_index: Any = None,
        edge_weight: Tensor | None = None,
        nodes: Tensor | None = None,
    ) -> Tensor:
        """The probability of every class of ``classes_``, or of each of several labels, at every
        node, :math:`(N, C)`.

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
        logits = self._answer(x, edge_index, edge_weight, nodes)
        return logits.sigmoid() if self._is_multi_label else logits.softmax(dim=1)

    def score(self, y: Tensor, nodes: Tensor | None = None, **graph: Any) -> float:
        """The share of nodes whose class, or all of whose labels, are predicted.

        Args:
            y (Tensor): The classes or labels of all nodes.
            nodes (Tensor, optional): The nodes to ask, as indices or as a mask. (default: all)
            **graph (optional): Arguments of :meth:`predict`, for another graph.
        """
        hits = self.predict(**graph) == y
        hits = hits.all(dim=1) if self._is_multi_label else hits
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
            nodes = self._number(graph, nodes)
            return self._logits(graph, [self._known(output, nodes) for output in self._outputs])

    def _number(self, graph: GraphInputs, nodes: Tensor | None) -> Tensor:
        """The number that each node of another graph had, -1 for new ones."""
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
        return nodes

    def _known(self, output: _Output, nodes: Tensor) -> Labeled:
        """The labeled nodes of another graph, by the number that each node had."""
        label = torch.full((self._graph.num_nodes + 1,), -1, device=nodes.device)
        label[output.labeled.nodes] = output.labeled.labels
        label = label[nodes]
        known = (label >= 0).nonzero().view(-1)
        return Labeled(known, label[known], len(output.classes))

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


def _label_columns(y: Any, nodes: Tensor, num_nodes: int) -> tuple[list[Tensor], bool]:
    """The labels of the labeled nodes, column by column, and whether there are several a node."""
    if not isinstance(y, Tensor) or y.dim() not in (1, 2) or len(y) != num_nodes or 0 in y.shape:
        got = list(y.shape) if isinstance(y, Tensor) else type(y).__name__
        raise ValueError(
            f"Expected 'y' to be a Tensor of shape [{num_nodes}], a class for every node, or "
            f"[{num_nodes}, C], labels of 0 or 1 (got {got})"
        )
    known = constant(y)[nodes]
    if y.dim() == 2:
        other = (known != 0) & (known != 1)
        if bool(other.any()):
            row, column = other.nonzero()[0].tolist()
            raise ValueError(
                f"Expected 'y' of two dimensions to hold 0 or 1 for the nodes of 'train' "
                f"(got {known[row, column].item()} for node {int(nodes[row])})"
            )
        known = known.long()
        if not bool((known != known[0]).any()):
            raise ValueError(
                "Expected 'y' of two dimensions to hold both 0 and 1 in a column at the nodes "
                "'train' (got one value a column)"
            )
        return list(known.unbind(1)), True
    if y.is_floating_point() or y.is_complex():
        raise TypeError(f"Expected 'y' to hold classes, which are integers (got {y.dtype})")
    if y.dtype != torch.bool and bool((known < 0).any()):
        first = int((known < 0).nonzero()[0])
        raise ValueError(
            f"Expected 'y' to hold a class of at least 0 for every node of 'train' "
            f"(got {int(known[first])} for node {int(nodes[first])})"
        )
    if len(known.unique()) < 2:
        raise ValueError(
            f"Expected 'y' to hold at least two classes at the nodes 'train' "
            f"(got {known.unique().tolist()})"
        )
    return [known], False


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
