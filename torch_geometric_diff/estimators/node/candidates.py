"""What edges are good for: what a classifier of nodes may read of a graph."""

import warnings
from collections.abc import Sequence
from functools import cached_property
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch_geometric.utils import coalesce

from ..._utils.numerics import scaled
from ...graph import with_feature_neighbors
from ...graph.adjacency import Edges, sparse_matrix
from ...graph.feature_graph import is_bag_of_words, rare_words
from ...ops import DiffusionOperator, diffuse
from ..model_selection import left_out, log_likelihood, regressed, stacked, surely_better
from .belief_propagation import Beliefs, components, with_waves

MOSTLY_ZERO = 0.25  # the share of nonzeros up to which a sparse product is the faster one
WITNESSES = 1000  # labeled nodes that are left out in turn
LEAST = 0.05  # a weight below it is none
DOUBT = 1e-3  # of all votes goes to each class
TINY = 1e-9
MOST = 4.0  # standard deviations that a place in the graph may be off
NARROW = 256  # columns that need not be their principal components
MANY = 2**26  # pairs of edges at a node, up to which triangles are counted


class Use(NamedTuple):
    """What a use of the edges counts and, where they are at hand, its logits, [N, C]."""

    weight: float
    logits: Tensor | None


class View(NamedTuple):
    """The input of the networks and an operator for each of them."""

    x: Tensor
    operators: list[DiffusionOperator]


class Surroundings:
    r"""The six uses of the edges between which the labels decide.

    - ``joined``: one diffuses over the edges joined with the nearest neighbors by features;
    - ``features``: what edges lead to, one and two steps away, are further features,
      :math:`[\mathbf{X}, \mathbf{P} \mathbf{X}, \mathbf{P}^2 \mathbf{X}]`, and one diffuses over
      the nearest neighbors by a node's own: for edges that join different classes, or any;
    - ``near``: the same features of a node decide without diffusion, in a ridge regression;
    - ``roles``: so do, in place of features, the numbers of edges and triangles of the node and
      those one and two steps away: for classes that are places in the graph;
    - ``alone``: one diffuses over the edges alone and every node has a feature of its own: for
      features that tell nothing;
    - ``classes``: what classes edges join is learned, and beliefs are propagated along them
      (:class:`Beliefs`).

    Bags of words count as they are, in rows of unit length. Other columns count, after mean and
    deviation are taken out, what diffusion over the edges leaves of them: those that tell nothing
    become small, whatever their unit. Waves beside them (:func:`with_waves`) tell how close points
    are, so that what is linear in them bends.

    Args:
        x (Tensor): Dense features :math:`(N, F)`.
        edge_index (Tensor): Edges :math:`(2, E)`.
        edge_weight (Tensor, optional): Their weights.
        num_steps (sequence of int): Steps of diffusion of each network.
        neighbors (sequence of int): Neighbors by features, likewise.
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
        self.x = scaled(x).float()
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
    def points(self) -> Tensor:
        """Words, or columns that count what diffusion over the edges leaves of them."""
        if self.words:
            return self.x
        x = standardized(self.x)
        left = diffuse(x, self.alone.operators[0], self.num_steps[0]).square().mean(dim=0).sqrt()
        return x * (left / left.max().clamp(min=TINY))

    @cached_property
    def joined(self) -> View:
        """Edges and neighbors by features."""
        pairs = zip(self.neighbors, self.mix, strict=True)
        operators = [
            self.operator(*with_feature_neighbors(self.points, *self.edges, *pair))
            for pair in pairs
        ]
        return View(rows(self.lifted), operators)

    @cached_property
    def lifted(self) -> Tensor:
        """Words, or points and how close they are: what is linear in it bends."""
        return self.points if self.words else with_waves(self.points)

    @cached_property
    def wide(self) -> Tensor:
        """The features of a node, of its neighbors and of theirs, side by side."""
        x = F.normalize(self.points, dim=-1) if self.words else self.points
        near = [x, diffuse(x, self.walk, 1), diffuse(x, self.walk, 2)]
        near = [each - each.mean(dim=0) for each in near]
        if self.words:
            return torch.cat([F.normalize(each, dim=-1) for each in near], dim=1)
        size = [each.square().sum(dim=1).mean().sqrt().clamp(min=TINY) for each in near]
        return torch.cat([each / s for each, s in zip(near, size, strict=True)], dim=1)

    @cached_property
    def features(self) -> View:
        """Neighbors by a node's own features."""
        none = self.edges[0][:, :0]
        operators = [
            self.operator(*with_feature_neighbors(self.points, none, None, number or 1, 1.0))
            for number in self.neighbors
        ]
        return View(rows(self.near), operators)

    @cached_property
    def near(self) -> Tensor:
        """What a node, its neighbors and theirs are like, and how close that is."""
        x = self.wide
        return with_waves(x if x.size(1) <= NARROW else components(x).float())

    @cached_property
    def roles(self) -> Tensor:
        """What place in the graph a node, its neighbors and theirs have, likewise."""
        own = standardized(place(self.edges[0], self.num_nodes))
        near = [own, diffuse(own, self.walk, 1), diffuse(own, self.walk, 2)]
        near = [each - each.mean(dim=0) for each in near]
        return with_waves(torch.cat(near, dim=1).clamp(-MOST, MOST))

    @cached_property
    def alone(self) -> View:
        """Edges, and a feature for each node."""
        index = torch.arange(self.num_nodes, device=self.x.device)
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
        """The uses of the edges that labels speak for: the first unless another is better.

        Each is judged by how likely it makes the class of every labeled node from the labels of
        others: a ridge regression of what the networks of ``joined`` and ``features`` see, the
        labels diffused over the edges for ``alone``, the other uses themselves. Where one is better
        beyond doubt, all are weighed so that their mixture makes the labels most likely, with an
        advance to the first, whose network learns more than the regression that judges it.
        """
        step = -(-train.numel() // WITNESSES)
        nodes, classes = train[::step], known[::step]
        every = F.one_hot(known).double()
        target = every[::step]
        found, logits = {}, {}
        if self.num_nodes > 2 and bool(self.points.any()):
            for name, z, view in (
                ("joined", F.normalize(self.lifted, dim=-1), self.joined),
                ("features", self.near, self.features),
            ):
                seen = diffuse(z, view.operators[0], self.num_steps[0])[nodes]
                found[name] = log_likelihood(left_out(seen, target), classes)
        found["alone"] = log_likelihood(self.votes(nodes, target), classes)
        if self.num_nodes > 2:
            for name in ("near", "roles") if bool(self.points.any()) else ("roles",):
                logits[name], scores = regressed(getattr(self, name), train, every)
                found[name] = log_likelihood(scores, known)[::step]
        if self.num_nodes > 2 and Beliefs.possible(self.edges[0], target.size(1)):
            logits["classes"], likelihood = self.beliefs.fit(train, known)
            found["classes"] = likelihood[::step]
        first, *others = found
        if not any(surely_better(found[name], found[first]) for name in others):
            return {first: Use(1.0, None)}
        weights = {n: weight for n, weight in stacked(found).items() if weight > LEAST}
        return {n: Use(w / sum(weights.values()), logits.get(n)) for n, w in weights.items()}

    def logits(self, name: str, train: Tensor, known: Tensor) -> Tensor:
        """Logits of all nodes by a use that needs no network."""
        if name == "classes":
            return self.beliefs.fit(train, known)[0]
        return regressed(getattr(self, name), train, F.one_hot(known).double())[0]

    def votes(self, nodes: Tensor, target: Tensor) -> Tensor:
        """Logits of labeled nodes: the labels of others, diffused over the edges."""
        count = torch.arange(nodes.numel(), device=nodes.device)
        source = torch.zeros(self.num_nodes, nodes.numel(), device=nodes.device)
        source[nodes, count] = 1
        found = diffuse(source, self.alone.operators[0], self.num_steps[0])[nodes].double()
        votes = found.fill_diagonal_(0) @ target
        return (votes + DOUBT * votes.sum(dim=1, keepdim=True) + TINY).log()


def place(edge_index: Tensor, num_nodes: int) -> Tensor:
    """Logarithms of the numbers of edges to and from every node, and of its triangles."""
    source, target = edge_index
    degrees = [torch.bincount(end, minlength=num_nodes) for end in (target, source)]
    both = torch.cat([edge_index, edge_index.flip(0)], dim=1)
    both = coalesce(both[:, both[0] != both[1]], num_nodes=num_nodes)
    pairs = torch.bincount(both[0], minlength=num_nodes).square().sum()
    triangles = torch.zeros(num_nodes, device=edge_index.device)
    if pairs <= MANY:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta state")
            ones = torch.ones(both.size(1), device=both.device)
            adjacency = torch.sparse_coo_tensor(both, ones, (num_nodes, num_nodes)).coalesce()
            ends = (adjacency * (adjacency @ adjacency)).coalesce()
            triangles.index_add_(0, ends.indices()[0], ends.values())
    return torch.stack([*degrees, triangles], dim=1).float().log1p()


def standardized(x: Tensor) -> Tensor:
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
