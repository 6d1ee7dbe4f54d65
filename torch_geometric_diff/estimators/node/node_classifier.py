"""Classes of all nodes of a graph from those of a few."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.optim import Adam

from ..._utils.checks import check_integer, check_real, row_mask
from ...graph.adjacency import check_values, parse_edges
from ...graph.points import check_points
from ...nn import RandomPropagation, consistency
from ...nn.sparse_linear import Linear
from ...ops import DiffusionOperator
from .candidates import Surroundings, Use

ASSUMED = 3.0  # as many labels a class say as much of the shares as the assumption of the labels'
AVERAGED = 1 / 3  # the last part of the epochs, whose weights are averaged
USES = ("auto", "joined", "features", "near", "roles", "alone", "classes")  # of the edges

T = TypeVar("T")


class NodeClassifier:
    r"""Transductive classification of nodes: diffused views that agree, on a richer graph.

    A :class:`~torch_geometric_diff.nn.RandomPropagation` of features in rows of unit length is
    trained on the edges joined with the nearest neighbors by features
    (:func:`~torch_geometric_diff.graph.feature_graph`), or one on each of several such graphs.
    Features that are no bag of words have mean and deviation taken out before, each column counts
    what diffusion leaves of it, and waves (random Fourier features) stand beside them, so that what
    is linear in them bends. Where the labeled nodes, left out in turn, say that the edges are
    better used in another way, the uses are mixed by the weights that make these labels most likely
    (:class:`~torch_geometric_diff.estimators.node.candidates.Surroundings`): what edges lead to,
    one and two steps away, becomes further features, diffused over the nearest neighbors or not; a
    node is told by its place in the graph (how many edges and triangles it and those near it have);
    edges
    are diffused over alone, each node with a weight of its own (features that tell nothing); or
    which classes edges join is learned along with the classes (edges inside the classes, across
    them or round them). A network learns by

    .. math::
        \mathcal{L} = \mathrm{CE} + \lambda \cdot \mathrm{consistency},

    the cross-entropy of the labeled nodes in all views and, raised to :math:`\lambda` over the
    first epochs, the :func:`~torch_geometric_diff.nn.functional` of all nodes. The weights of the
    last third of the epochs are averaged, and so are the probabilities of several networks. Labels
    drawn class by class say nothing of how large the classes are, so the logarithm of the
    probability of class :math:`c` is moved by :math:`r \log (s_c / t_c)`, with :math:`s_c` its
    share of the predictions and :math:`t_c` its share of the labels; with few labels a class by
    less. No validation nodes are
    needed.

    A student then learns the sharpened probabilities of all nodes from each node's own features
    alone, by a linear map, and its probabilities are mixed with those: what the
    surroundings hide, the features may tell (as in `"Extract the Knowledge of Graph Neural Networks
    and Go Beyond it" <https://arxiv.org/abs/2103.02885>`_).

    Args:
        num_steps (int or sequence of int, optional): The number of diffusion steps, on each graph
            if it is a sequence. (default: :obj:`6`)
        neighbors (int or sequence of int, optional): The number of neighbors by features of each
            node, likewise; 0 leaves them away. (default: :obj:`4`)
        mix (float or sequence of float, optional): What such a neighbor counts beside an edge.
            (default: :obj:`0.75`)
        edges (str, optional): What the edges are for: :obj:`"joined"` with the neighbors by
            features, :obj:`"features"`, :obj:`"near"`, :obj:`"roles"`, :obj:`"alone"`,
            :obj:`"classes"`, or :obj:`"auto"` to let the labels decide. (default: :obj:`"auto"`)
        step_size (float, optional): The size of the steps. (default: :obj:`0.5`)
        normalization (str, optional): See :class:`~torch_geometric_diff.nn.DiffConv`.
            (default: :obj:`"row"`)
        hidden_channels (int, optional): See :class:`~torch_geometric_diff.nn.RandomPropagation`.
            (default: none)
        num_views (int, optional): See there. (default: :obj:`4`)
        node_dropout (float, optional): See there. (default: :obj:`0.5`)
        consistency (float, optional): The weight :math:`\lambda`, without labels if
            ``keep_shares``. (default: :obj:`2.0`)
        temperature (float, optional): See :func:`~torch_geometric_diff.nn.functional`.
            (default: :obj:`0.5`)
        keep_shares (bool, optional): Whether consistency keeps to shares of the classes, between
            those of the labels and, the more labels there are, those predicted, and counts the less
            the more labels there are. Without it few labels, or a graph that tells little, can end
            up as one class. (default: :obj:`True`)
        shares (float, optional): The exponent :math:`r`. (default: :obj:`0.5`)
        student (float, optional): The part of the student in the probabilities; with 0 there is
            none. (default: :obj:`0.5`)
        lr (float, optional): Learning rate of Adam. (default: :obj:`0.2`)
        weight_decay (float, optional): L2 penalty of Adam. (default: :obj:`2e-4`)
        max_epochs (int, optional): The number of epochs. (default: :obj:`100`)
        warmup (int, optional): The epochs over which :math:`\lambda` rises. (default: :obj:`60`)

    Attributes:
        edges_ (str): What the edges were used for, above all.
        weights_ (dict): What every use counts.
        classes_ (Tensor): The classes, those of the labeled nodes in ascending order.
        models_ (list of RandomPropagation): The trained networks, one a graph and use.
        student_ (Linear): The student that was trained last, if there is one.
        logits_ (Tensor): The log-probabilities of all nodes, :math:`(N, C)`.

    Example:
        >>> y = torch.arange(200) % 2
        >>> x = torch.randn(200, 8) + 3 * y[:, None]
        >>> model = NodeClassifier(max_epochs=20).fit(x, knn_graph(x, k=5), y, torch.arange(10))
        >>> bool((model.predict() == y).float().mean() > 0.95)
        True
    """

    def __init__(
        self,
        num_steps: int | Sequence[int] = 6,
        neighbors: int | Sequence[int] = 4,
        mix: float | Sequence[float] = 0.75,
        edges: str = "auto",
        step_size: float = 0.5,
        normalization: str | None = "row",
        hidden_channels: int | None = None,
        num_views: int = 4,
        node_dropout: float = 0.5,
        consistency: float = 2.0,
        temperature: float = 0.5,
        keep_shares: bool = True,
        shares: float = 0.5,
        student: float = 0.5,
        lr: float = 0.2,
        weight_decay: float = 2e-4,
        max_epochs: int = 100,
        warmup: int = 60,
    ) -> None:
        def at_least_zero(name: str, value: Any) -> float:
            return check_real(name, value, lambda number: number >= 0, "be at least 0")

        self.num_steps, self.neighbors, self.mix = _of_each_graph(num_steps, neighbors, mix)
        if edges not in USES:
            raise ValueError(f"Expected 'edges' to be one of {USES} (got {edges!r})")
        self.edges = edges
        self.step_size = step_size
        self.normalization = normalization
        self.hidden_channels = hidden_channels
        self.num_views = num_views
        self.node_dropout = node_dropout
        self.consistency = at_least_zero("consistency", consistency)
        self.temperature = temperature
        if not isinstance(keep_shares, bool):
            raise TypeError(f"Expected 'keep_shares' to be a bool (got {keep_shares!r})")
        self.keep_shares = keep_shares
        self.shares = at_least_zero("shares", shares)
        self.student = check_real("student", student, lambda part: 0 <= part <= 1, "lie in [0, 1]")
        self.lr = at_least_zero("lr", lr)
        self.weight_decay = at_least_zero("weight_decay", weight_decay)
        self.max_epochs = check_integer("max_epochs", max_epochs, 1)
        self.warmup = check_integer("warmup", warmup, 1)

    def prepare(
        self, x: Tensor, edge_index: Any, edge_weight: Tensor | None = None
    ) -> Surroundings:
        """What the networks read of a graph, made once for several calls of :meth:`fit_prepared`.

        Args:
            x (Tensor): Dense features :math:`(N, F)`, of any scale.
            edge_index (Tensor, EdgeIndex or SparseTensor): Edges, in any form that
                :class:`~torch_geometric_diff.nn.DiffConv` takes.
            edge_weight (Tensor, optional): Their weights. (default: ones)
        """
        if isinstance(x, Tensor) and x.dtype == torch.bool:
            x = x.to(torch.uint8)
        x = check_points(x)
        edges = parse_edges(edge_index, edge_weight, x.size(0))
        check_values(edges, signed=False)
        with _own_settings(x.device):
            weight = None if edges.weight is None else _constant(edges.weight)
            given = _constant(x), _constant(torch.stack([edges.col, edges.row])), weight
            each = (self.num_steps, self.neighbors, self.mix)
            return Surroundings(*given, *each, self.step_size, self.normalization)

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
            x (Tensor): Dense features :math:`(N, F)`, of any scale.
            edge_index (Tensor, EdgeIndex or SparseTensor): Edges, in any form that
                :class:`~torch_geometric_diff.nn.DiffConv` takes.
            y (Tensor): Classes :math:`(N,)`; those of other nodes than ``train`` are not read.
            train (Tensor): The labeled nodes, as indices or as a mask.
            edge_weight (Tensor, optional): Weights of the edges. (default: ones)
            seed (int, optional): Seed of all random numbers; torch's own generator stays as it is.
                (default: :obj:`0`)
        """
        return self.fit_prepared(self.prepare(x, edge_index, edge_weight), y, train, seed)

    def fit_prepared(
        self, prepared: Surroundings, y: Tensor, train: Tensor, seed: int = 0
    ) -> "NodeClassifier":
        """:meth:`fit` on what :meth:`prepare` returned."""
        if not isinstance(y, Tensor) or y.shape != (prepared.num_nodes,):
            got = list(y.shape) if isinstance(y, Tensor) else type(y).__name__
            raise ValueError(
                f"Expected 'y' to be a Tensor of shape [{prepared.num_nodes}], a class for every "
                f"node (got {got})"
            )
        mask = row_mask("train", train, prepared.num_nodes)
        if not bool(mask.any()):
            raise ValueError("Expected 'train' to name at least one node (got none)")
        if train.dtype == torch.bool:
            train = train.nonzero().view(-1)
        if bool((y[train] != y[train]).any()):
            raise ValueError("Expected 'y' to hold the classes of the nodes 'train' (got NaN)")
        seed = check_integer("seed", seed, -(2**63))
        with _own_settings(prepared.x.device):
            return self._fit(prepared, _constant(y), _constant(train).long(), seed)

    def _fit(self, prepared: Surroundings, y: Tensor, train: Tensor, seed: int) -> "NodeClassifier":
        self.classes_, known = y[train].unique(return_inverse=True)
        uses = {self.edges: Use(1.0, None)}
        if self.edges == "auto":
            uses = prepared.weigh(train, known)
        self.weights_ = {name: use.weight for name, use in uses.items()}
        self.edges_ = max(self.weights_, key=self.weights_.__getitem__)
        self.models_: list[RandomPropagation] = []
        devices = [train.device] if train.device.type == "cuda" else []
        with torch.random.fork_rng(devices):
            each = [
                self._fit_use(name, use, prepared, known, train, seed) for name, use in uses.items()
            ]
        self.logits_ = each[0]
        if len(each) > 1:
            weights = torch.tensor([*self.weights_.values()], device=train.device)
            self.logits_ = _log(torch.einsum("u,unc->nc", weights, torch.stack(each).softmax(-1)))
        return self

    def _fit_use(
        self, name: str, use: Use, prepared: Surroundings, known: Tensor, train: Tensor, seed: int
    ) -> Tensor:
        """Log-probabilities of all nodes by one use of the edges."""
        if name in ("near", "roles", "classes"):
            logits = prepared.logits(name, train, known) if use.logits is None else use.logits
            return self._with_shares(logits.float(), known)
        x, operators = getattr(prepared, name)
        probabilities = torch.zeros(x.size(0), len(self.classes_), device=x.device)
        torch.manual_seed(seed)
        for num_steps, operator in zip(self.num_steps, operators, strict=True):
            model = RandomPropagation(
                x.size(1),
                len(self.classes_),
                self.hidden_channels,
                num_steps,
                self.step_size,
                self.num_views,
                self.node_dropout,
                normalization=self.normalization,
            ).to(x.device)
            self._train(model, x, operator, known, train)
            with torch.no_grad():
                probabilities += model.eval()(x, operator).softmax(dim=1) / len(operators)
            self.models_.append(model)
        logits = self._with_shares(_log(probabilities), known)
        if self.student > 0 and name != "alone":  # or there is nothing to read
            torch.manual_seed(seed)
            logits = self._with_student(logits, x, known, train)
        return logits

    def _train(
        self,
        model: RandomPropagation,
        x: Tensor,
        operator: DiffusionOperator,
        known: Tensor,
        train: Tensor,
    ) -> None:
        parameters = [*model.parameters()]
        optimizer = Adam(parameters, lr=self.lr, weight_decay=self.weight_decay, fused=True)
        average = [torch.zeros_like(parameter) for parameter in parameters]
        prior, trust, most = None, 1.0, self.consistency
        if self.keep_shares:
            prior, trust = known.bincount() / len(known), self._trust(known)
            most *= 1 - trust
        target = known.repeat_interleave(self.num_views)
        first = self.max_epochs - max(1, round(AVERAGED * self.max_epochs))
        for epoch in range(self.max_epochs):
            logits = model(x, operator)
            loss = F.cross_entropy(logits[train].flatten(0, 1), target)
            if most > 0:
                weight = most * min(1.0, epoch / self.warmup)
                loss = loss + weight * consistency(logits, self.temperature, prior, trust)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if epoch >= first:
                share = 1 / (epoch - first + 1)
                torch._foreach_lerp_(average, [p.detach() for p in parameters], share)
        with torch.no_grad():
            for parameter, mean in zip(parameters, average, strict=True):
                parameter.copy_(mean)

    def _with_student(self, logits: Tensor, x: Tensor, known: Tensor, train: Tensor) -> Tensor:
        """Train a linear map of the features to these logits and mix its probabilities in."""
        target = (logits / self.temperature).softmax(dim=1)
        target[train] = F.one_hot(known, len(self.classes_)).to(target)
        student = Linear(x.size(1), len(self.classes_)).to(x.device)
        torch.nn.init.xavier_uniform_(student.weight)
        optimizer = Adam(student.parameters(), self.lr, weight_decay=self.weight_decay, fused=True)
        for _ in range(self.max_epochs):
            loss = F.cross_entropy(student(x), target)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        self.student_ = student.eval()
        with torch.no_grad():
            mixed = target.lerp(self.student_(x).softmax(dim=1), self.student)
        return _log(mixed)

    def _trust(self, known: Tensor) -> float:
        """How far the shares that are predicted are trusted."""
        return len(known) / (len(known) + ASSUMED * len(self.classes_)) if self.keep_shares else 1.0

    def _with_shares(self, logits: Tensor, known: Tensor) -> Tensor:
        """Move by how much larger each class is among the predictions than among the labels."""
        num_classes = logits.size(1)
        found = torch.bincount(logits.argmax(dim=1), minlength=num_classes) + 1.0
        given = torch.bincount(known, minlength=num_classes)
        larger = (found / found.sum() / (given / given.sum())).log()
        return logits + self.shares * self._trust(known) * larger

    def predict(self) -> Tensor:
        """The class of every node, :math:`(N,)`."""
        return self.classes_[self.logits_.argmax(dim=1)]

    def predict_proba(self) -> Tensor:
        """The probability of every class of ``classes_`` at every node, :math:`(N, C)`."""
        return self.logits_.softmax(dim=1)

    def __repr__(self) -> str:
        settings = ", ".join(f"{k}={v!r}" for k, v in vars(self).items() if not k.endswith("_"))
        return f"{self.__class__.__name__}({settings})"


@contextmanager
def _own_settings(device: torch.device) -> Iterator[None]:
    """Gradients, single precision and the device of the input, whatever is set outside."""
    dtype, elsewhere = torch.get_default_dtype(), torch.get_default_device().type != "cpu"
    torch.set_default_dtype(torch.float32)
    try:
        with torch.inference_mode(False), torch.enable_grad():
            with torch.device(device) if elsewhere else nullcontext():  # it slows every call
                yield
    finally:
        torch.set_default_dtype(dtype)


def _constant(given: Tensor) -> Tensor:
    """A Tensor that training may keep and that no gradient reaches."""
    return given.clone() if given.is_inference() else given.detach()


def _log(probabilities: Tensor) -> Tensor:
    return probabilities.clamp(min=torch.finfo(probabilities.dtype).tiny).log()


def _of_each_graph(
    num_steps: int | Sequence[int], neighbors: int | Sequence[int], mix: float | Sequence[float]
) -> tuple[list[int], list[int], list[float]]:
    """The settings of every graph, a single number standing for all."""
    given = {"num_steps": num_steps, "neighbors": neighbors, "mix": mix}
    lengths = {len(value) for value in given.values() if isinstance(value, Sequence)}
    count = max(lengths, default=1)
    if count == 0 or lengths - {count}:
        raise ValueError(f"Expected one number or one for each graph, as many of all (got {given})")

    def spread(value: T | Sequence[T]) -> list[T]:
        return [*value] if isinstance(value, Sequence) else [value] * count

    return (
        [check_integer("num_steps", value, 0) for value in spread(num_steps)],
        [check_integer("neighbors", value, 0) for value in spread(neighbors)],
        [check_real("mix", value, lambda m: m >= 0, "be at least 0") for value in spread(mix)],
    )
