"""What edges are good for: what a classifier of nodes may read of a graph."""

from collections.abc import Sequence
from functools import cached_property
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .graph import with_feature_neighbors
from .graph.features import is_bag_of_words
from .ops import DiffusionOperator, diffuse

MOSTLY_ZERO = 0.25  # the share of nonzeros up to which a sparse product is the faster one
WITNESSES = 1000  # labelled nodes that are left out in turn
RIDGES = (1e-3, 1e-2, 1e-1, 1.0)  # parts of the mean diagonal
SURE = 2.0  # standard deviations


class View(NamedTuple):
    """The input of the networks and an operator for each of them."""

    x: Tensor
    operators: list[DiffusionOperator]


class Surroundings:
    r"""The three uses of the edges between which the labels decide.

    - ``joined``: one diffuses over the edges joined with the nearest neighbours by features;
    - ``features``: what edges lead to, one and two steps away, are further features,
      :math:`[\mathbf{X}, \mathbf{P} \mathbf{X}, \mathbf{P}^2 \mathbf{X}]`, and one diffuses over
      the nearest neighbours by a node's own: for edges that join different classes, or any;
    - ``alone``: one diffuses over the edges alone and every node has a feature of its own: for
      features that tell nothing.

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
        self.points = x.float() if self.words else standardised(x.float())
        self.num_steps = num_steps
        self.neighbors = [min(number, self.num_nodes - 1) for number in neighbors]
        self.mix = mix
        self.step_size, self.normalization = step_size, normalization

    def operator(
        self, edge_index: Tensor, edge_weight: Tensor | None = None, step_size: float | None = None
    ) -> DiffusionOperator:
        """The operator of a step."""
        return DiffusionOperator(
            edge_index,
            edge_weight,
            num_nodes=self.num_nodes,
            step_size=self.step_size if step_size is None else step_size,
            normalization=self.normalization if step_size is None else "row",
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
        walk = self.operator(*self.edges, step_size=1.0)
        x = F.normalize(self.points, dim=-1)
        near = [x, diffuse(x, walk, 1), diffuse(x, walk, 2)]
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
        each = torch.sparse_coo_tensor(torch.stack([index, index]), ones, is_coalesced=True)
        operator = self.operator(*self.edges)
        return View(each.to_sparse_csr(), [operator] * len(self.num_steps))

    def choose(self, train: Tensor, known: Tensor) -> str:
        """The use of the edges that labels speak for: ``joined`` unless another is surely better.

        Each use is judged by how it classifies the labelled nodes, each by the labels of others:
        a ridge regression of diffused features for ``joined``, of those of ``features`` or a node's
        own, whichever is better, for ``features``, and the labels diffused over the edges for
        ``alone``.
        """
        if self.num_nodes < 3 or not bool(self.points.any()):
            return "alone"
        step = -(-train.numel() // WITNESSES)
        train, target = train[::step], F.one_hot(known[::step]).double()
        x = F.normalize(self.points, dim=-1)
        near = diffuse(x, self.joined.operators[0], self.num_steps[0])
        apart = [left_out(each[train], target) for each in (x, self.wide)]
        hits = {"joined": left_out(near[train], target), "features": max(apart, key=torch.sum)}
        source = torch.zeros(self.num_nodes, train.numel(), device=x.device)
        source[train, torch.arange(train.numel(), device=x.device)] = 1
        votes = diffuse(source, self.alone.operators[0], self.num_steps[0])[train].double()
        hits["alone"] = right(votes.fill_diagonal_(0) @ target, target)
        best = "joined"
        for name in ("features", "alone"):
            gained, lost = (hits[name] & ~hits[best]).sum(), (hits[best] & ~hits[name]).sum()
            if float(gained - lost) > SURE * float(gained + lost) ** 0.5:
                best = name
        return best


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
        x = x.to_sparse_csr()
    return x


def left_out(x: Tensor, target: Tensor) -> Tensor:
    """Which rows a ridge regression of all others classifies right, with its best penalty."""
    x = x.double()
    kernel = x @ x.t()
    scale = kernel.diagonal().mean().clamp(min=torch.finfo(torch.float64).tiny)
    identity = torch.eye(len(x), dtype=x.dtype, device=x.device)
    found = []
    for ridge in RIDGES:
        inverse = torch.linalg.inv(kernel / scale + ridge * identity)
        residual = (inverse @ target) / inverse.diagonal()[:, None]
        found.append(right(target - residual, target))
    return max(found, key=lambda hits: int(hits.sum()))


def right(scores: Tensor, target: Tensor) -> Tensor:
    """Whether the highest score is that of the class, ties counting as wrong."""
    own = (scores * target).sum(dim=1)
    others = scores.masked_fill(target > 0, -torch.inf).amax(dim=1)
    return own > others
