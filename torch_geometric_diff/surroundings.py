"""What edges are good for: what a classifier of nodes may read of a graph."""

import warnings
from collections.abc import Sequence
from functools import cached_property
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .beliefs import Beliefs, with_waves
from .evidence import left_out, log_likelihood, stacked, surely_better
from .graph import with_feature_neighbors
from .graph.adjacency import Edges, sparse_matrix
from .graph.features import is_bag_of_words, rare_words
from .graph.points import scaled
from .ops import DiffusionOperator, diffuse

MOSTLY_ZERO = 0.25  # the share of nonzeros up to which a sparse product is the faster one
WITNESSES = 1000  # labelled nodes that are left out in turn
LEAST = 0.05  # a weight below it is none
DOUBT = 1e-3  # of all votes goes to each class
TINY = 1e-9


class Use(NamedTuple):
    """What a use of the edges counts and, where they are at hand, its logits, [N, C]."""

    weight: float
    logits: Tensor | None


class View(NamedTuple):
    """The input of the networks and an operator for each of them."""

    x: Tensor
    operators: list[DiffusionOperator]


class Surroundings:
    r"""The four uses of the edges between which the labels decide.

    - ``joined``: one diffuses over the edges joined with the nearest neighbours by features;
    - ``features``: what edges lead to, one and two steps away, are further features,
      :math:`[\mathbf{X}, \mathbf{P} \mathbf{X}, \mathbf{P}^2 \mathbf{X}]`, and one diffuses over
      the nearest neighbours by a node's own: for edges that join different classes, or any;
    - ``alone``: one diffuses over the edges alone and every node has a feature of its own: for
      features that tell nothing;
    - ``classes``: what classes edges join is learned, and beliefs are propagated along them
      (:class:`Beliefs`).

    Bags of words count as they are, other features after mean and deviation of their columns are
    taken out; all in rows of unit length.

    Args:
        x (Tensor): Dense features :math:`(N, F)`.
        edge_index (Tensor): Edges :math:`(2, E)`.
        edge_weight (Tensor, optional): Their weights.
        num_steps (sequence of int): Steps of diffusion of each network.
        neighbors (sequence of int): Neighbours by features, likewise.
        mix (sequence of float): Their weight, likewise.
        step_size (float): The size of a step.
        normalization (str, optional): See :class:`~torch_geometric_diff.nn.DiffConv`.
    """

    def __init__(
        self,
        x: Tensor,
        edge_index: Tensor,
        edge_weight: Tensor | None,
        num_steps: Sequence[int],
        neighbors: Sequence[int],
        mix: Sequence[float],
        step_size: float,
        normalization: str | None,
    ) -> None:
        self.num_nodes = x.size(0)
        self.edges = (edge_index, edge_weight)
        self.words = is_bag_of_words(x)
        points = scaled(x).float()
        self.points = points if self.words else standardised(points)
        self.num_steps = num_steps
        self.neighbors = [min(number, self.num_nodes - 1) for number in neighbors]
        self.mix = mix
        self.step_size, self.normalization = step_size, normalization

    def operator(self, edge_index: Tensor, edge_weight: Tensor | None = None) -> DiffusionOperator:
        """The operator of a step."""
        return self._operator(edge_index, edge_weight, self.step_size, self.normalization)

    @cached_property
    def walk(self) -> DiffusionOperator:
        """The mean over the nodes that edges come from."""
        return self._operator(*self.edges, 1.0, "row")

    def _operator(
        self,
        edge_index: Tensor,
        edge_weight: Tensor | None,
        step_size: float,
        normalization: str | None,
    ) -> DiffusionOperator:
        return DiffusionOperator(
            edge_index,
            edge_weight,
            num_nodes=self.num_nodes,
            step_size=step_size,
            normalization=normalization,
            dtype=torch.float32,
        )

    @cached_property
    def joined(self) -> View:
        """Edges and neighbours by features."""
        pairs = zip(self.neighbors, self.mix, strict=True)
        operators = [
            self.operator(*with_feature_neighbors(self.points, *self.edges, *pair))
            for pair in pairs
        ]
        return View(rows(self.points), operators)

    @cached_property
    def wide(self) -> Tensor:
        """The features of a node, of its neighbours and of theirs, side by side."""
        x = F.normalize(self.points, dim=-1)
        near = [x, diffuse(x, self.walk, 1), diffuse(x, self.walk, 2)]
        near = [each - each.mean(dim=0) if self.words else standardised(each) for each in near]
        return torch.cat([F.normalize(each, dim=-1) for each in near], dim=1)

    @cached_property
    def features(self) -> View:
        """Neighbours by a node's own features."""
        none = self.edges[0][:, :0]
        operators = [
            self.operator(*with_feature_neighbors(self.points, none, None, number or 1, 1.0))
            for number in self.neighbors
        ]
        return View(rows(self.wide), operators)

    @cached_property
    def alone(self) -> View:
        """Edges, and a feature for each node."""
        index = torch.arange(self.num_nodes, device=self.points.device)
        ones = torch.ones(self.num_nodes, device=index.device)
        each = sparse_matrix(Edges(index, index, ones, self.num_nodes))
        operator = self.operator(*self.edges)
        return View(each, [operator] * len(self.num_steps))

    @cached_property
    def beliefs(self) -> Beliefs:
        """What classes edges join, learned along with the classes."""
        x = rare_words(self.points) if self.words else with_waves(self.points)
        operators = self.alone.operators[0], self.walk
        return Beliefs(x, self.edges[0], *operators, self.num_steps[0])

    def weigh(self, train: Tensor, known: Tensor) -> dict[str, Use]:
        """The uses of the edges that labels speak for: the first unless another is surely better.

        Each is judged by how likely it makes the class of every labelled node from the labels of
        others: a ridge regression of what the networks of ``joined`` and ``features`` see, the
        labels diffused over the edges for ``alone``, ``classes`` itself. Where one is better beyond
        doubt, all are weighed so that their mixture makes the labels most likely.
        """
        step = -(-train.numel() // WITNESSES)
        nodes, classes = train[::step], known[::step]
        target = F.one_hot(classes, int(known.max()) + 1).double()
        found = {}
        if self.num_nodes > 2 and bool(self.points.any()):
            x = F.normalize(self.points, dim=-1)
            for name, z, view in (
                ("joined", x, self.joined),
                ("features", self.wide, self.features),
            ):
                seen = diffuse(z, view.operators[0], self.num_steps[0])[nodes]
                found[name] = log_likelihood(left_out(seen, target), classes)
        found["alone"] = log_likelihood(self.votes(nodes, target), classes)
        logits = {}
        if self.num_nodes > 2 and Beliefs.possible(self.edges[0], target.size(1)):
            logits["classes"], likelihood = self.beliefs.fit(train, known)
            found["classes"] = likelihood[::step]
        first, *others = found
        if not any(surely_better(found[name], found[first]) for name in others):
            return {first: Use(1.0, None)}
        weights = {n: weight for n, weight in stacked(found).items() if weight > LEAST}
        return {n: Use(w / sum(weights.values()), logits.get(n)) for n, w in weights.items()}

    def votes(self, nodes: Tensor, target: Tensor) -> Tensor:
        """Logits of labelled nodes: the labels of others, diffused over the edges."""
        count = torch.arange(nodes.numel(), device=nodes.device)
        source = torch.zeros(self.num_nodes, nodes.numel(), device=nodes.device)
        source[nodes, count] = 1
        found = diffuse(source, self.alone.operators[0], self.num_steps[0])[nodes].double()
        votes = found.fill_diagonal_(0) @ target
        return (votes + DOUBT * votes.sum(dim=1, keepdim=True) + TINY).log()


def standardised(x: Tensor) -> Tensor:
    """Columns of mean 0 and variance 1, or 0 where nothing varies."""
    x = x - x.mean(dim=0)
    deviation = x.square().mean(dim=0).sqrt()
    varies = deviation > 1e-6 * deviation.max()
    return torch.where(varies, x / deviation.where(varies, 1.0), 0.0)


def rows(x: Tensor) -> Tensor:
    """Rows of unit length, sparse where most of their entries are zero."""
    x = F.normalize(x, dim=-1)
    if torch.count_nonzero(x) <= MOSTLY_ZERO * x.numel():
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta state")
            x = x.to_sparse_csr()
    return x
