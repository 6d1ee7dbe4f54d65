"""Which classes edges join, learned from a few labels, and what that tells of all nodes."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch_geometric.utils import coalesce, is_undirected

from ...ops import DiffusionOperator, diffuse
from ..model_selection import RIDGES, calibrated, log_likelihood

FOLDS = 5  # that labeled nodes are left out in
WIDTH = 128  # principal components of the features
DAMPINGS = (0.25, 0.5, 1.0)  # what a message counts: less where edges tell the same again
ROUNDS = 12
ASSUMED = 20.0  # pairs of every class that join classes by chance
LEAST = 1e-3  # of what edges raise the chance of a class by
LARGEST = 2**23  # numbers in the messages: some fifteen seconds


class Held(NamedTuple):
    """Labeled nodes and the fold in which each is hidden; in the last fold none is."""

    train: Tensor
    known: Tensor
    fold: Tensor
    seen: Tensor  # [L, FOLDS + 1]

    @classmethod
    def out(cls, train: Tensor, known: Tensor) -> "Held":
        """Every class spread over all folds."""
        rank = (F.one_hot(known).cumsum(dim=0).gather(1, known[:, None]) - 1).view(-1)
        fold = (rank + known) % FOLDS
        seen = fold[:, None] != torch.arange(FOLDS + 1, device=fold.device)
        return cls(train, known, fold, seen)

    def labels(self, num_nodes: int) -> tuple[Tensor, Tensor]:
        """The labels seen of every node, [folds, N, C], and whether there are, [folds, N]."""
        ones = F.one_hot(self.known).double()
        given = self.seen.t().double()
        q = ones.new_zeros(FOLDS + 1, num_nodes, ones.size(1))
        w = ones.new_zeros(FOLDS + 1, num_nodes)
        q[:, self.train], w[:, self.train] = given.unsqueeze(-1) * ones, given
        return q, w

    def likelihood(self, logits: Tensor) -> Tensor:
        """The log-probability of every label where it is hidden, of logits [folds, N, C]."""
        return log_likelihood(logits[self.fold, self.train], self.known)


def components(x: Tensor) -> Tensor:
    """Centered rows of unit length, of the first principal components if they are wide."""
    x = F.normalize(x - x.mean(dim=0), dim=-1)
    if x.size(1) > WIDTH:
        with torch.random.fork_rng([x.device] if x.is_cuda else []):
            torch.manual_seed(0)
            u, s, _ = torch.svd_lowrank(x, min(WIDTH, *x.shape))
        x = u * s
    return x.double()


def with_waves(x: Tensor) -> Tensor:
    """Points in rows of unit length beside random Fourier features: how close points are.

    The Gaussian kernels have the median distance of some points and half of it as their widths
    (Rahimi and Recht, NeurIPS 2007).
    """
    some = x[:: -(-len(x) // WIDTH)]
    width = float(F.pdist(some).median()) if len(some) > 1 else 1.0
    with torch.random.fork_rng([x.device] if x.is_cuda else []):
        torch.manual_seed(0)
        phase = 2 * torch.pi * torch.rand(4 * WIDTH, device=x.device)
        waves = torch.randn(x.size(1), 4 * WIDTH, device=x.device) / max(width, 1e-9)
    waves[:, ::2] *= 2
    waves = (x @ waves + phase).cos()
    return torch.cat(
        [F.normalize(x, dim=-1), F.normalize(waves - waves.mean(dim=0), dim=-1)], dim=1
    )


def regression(x: Tensor, q: Tensor, weight: Tensor, held: Held) -> Tensor:
    """Logits of every node from its own features, by ridge regressions of targets ``q`` of others.

    Args:
        x (Tensor): Features, [N, F].
        q (Tensor): Targets, [folds, N, C].
        weight (Tensor): What they count, [folds, N].
        held (Held): The labels that choose penalty and scale, where they are hidden.
    """
    scores = [torch.empty_like(q) for _ in RIDGES]
    for k, (target, w) in enumerate(zip(q, weight, strict=True)):
        values, vectors = torch.linalg.eigh(x.t() @ (w[:, None] * x))
        turned = x @ vectors
        moment = turned.t() @ (w[:, None] * target)
        unit = float((w * x.square().sum(dim=1)).sum() / w.sum().clamp(min=1e-9))
        for score, ridge in zip(scores, RIDGES, strict=True):
            inverse = 1 / (values.clamp(min=0) + ridge * max(unit, 1e-9))
            own = (w * (turned.square() @ inverse)).clamp(max=1 - 1e-6)[:, None]
            score[k] = (turned @ (inverse[:, None] * moment) - own * target) / (1 - own)
    fits = [calibrated(score[held.fold, held.train], held.known) for score in scores]
    best = max(range(len(RIDGES)), key=lambda i: fits[i][1])
    return fits[best][0] * scores[best]


class Pairs(NamedTuple):
    """The two ends of every edge; of an undirected graph each edge once."""

    first: Tensor
    second: Tensor
    symmetric: bool

    @classmethod
    def of(cls, edge_index: Tensor, num_nodes: int) -> "Pairs":
        """Those of a graph, without self-loops and repetitions."""
        edge_index = coalesce(edge_index, num_nodes=num_nodes)
        symmetric = is_undirected(edge_index, num_nodes=num_nodes)
        a, b = edge_index
        keep = a < b if symmetric else a != b
        return cls(a[keep], b[keep], symmetric)


class Found(NamedTuple):
    """Logits, how likely they make hidden labels, and how they came about."""

    likelihood: Tensor
    logits: Tensor
    x: Tensor
    damping: float

    def mean(self) -> float:
        """The mean log-likelihood."""
        return float(self.likelihood.mean())


class Beliefs:
    r"""Classes of nodes by belief propagation, with a learned compatibility of classes.

    Every edge tells of its one end what the class of the other makes likely,

    .. math::
        m_{i \to j}(d) = \log \sum_c b_{i \setminus j}(c) \, \mathbf{R}_{cd}, \qquad
        \log b_{i \setminus j}(c) = u_i(c) + \alpha \sum_{k \in \mathcal{N}(i) \setminus j}
        m_{k \to i}(c),

    up to a constant, where :math:`\mathbf{u}_i` are logits of the node's own features and
    :math:`\mathbf{R}_{cd} = P(c, d) / (P(c) P(d))` says how much more often than by chance edges
    join the classes: it is estimated along with the beliefs (expectation maximization of a
    degree-corrected stochastic block model). Edges may join equal classes, other ones or each class
    to a certain other; directed edges may do so one way. :math:`\alpha`, and whether to start from
    the features alone or from labels diffused besides, are those that make labels most likely where
    they are hidden. The features are then learned once more from the beliefs of all nodes.

    Args:
        x (Tensor): Features :math:`(N, F)`.
        edge_index (Tensor): Edges.
        operator (DiffusionOperator): The operator that diffuses labels.
        walk (DiffusionOperator): The mean over the nodes that edges come from, for the features.
        num_steps (int): Its steps.
    """

    def __init__(
        self,
        x: Tensor,
        edge_index: Tensor,
        operator: DiffusionOperator,
        walk: DiffusionOperator,
        num_steps: int,
    ) -> None:
        own = components(x)
        near = [diffuse(own.float(), walk, steps) for steps in (1, 2)]
        wide = torch.cat([components(each) for each in (own, *near)], dim=1)
        self.inputs = (own, components(wide))
        self.pairs = Pairs.of(edge_index, x.size(0))
        self.operator, self.num_steps = operator, num_steps

    @staticmethod
    def possible(edge_index: Tensor, num_classes: int) -> bool:
        """Whether there are edges, and not so many that messages take long."""
        return 0 < edge_index.size(1) // 2 * (FOLDS + 1) * num_classes <= LARGEST

    def fit(self, train: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
        """Logits of all nodes, [N, C], and the log-likelihood of every label if it is hidden."""
        held = Held.out(train, known)
        labels, seen = held.labels(len(self.inputs[0]))
        votes = self.votes(labels)
        found = []
        for x in self.inputs:
            own = regression(x, labels, seen, held)
            found.append(Found(held.likelihood(own), own, x, 0.0))  # edges tell nothing
            for start in (own, own + votes):
                for alpha in DAMPINGS:
                    logits = self.propagate(own, start.softmax(dim=-1), labels, seen, alpha)
                    found.append(Found(held.likelihood(logits), logits, x, alpha))
        best = max(found, key=Found.mean)
        q = torch.where(seen[..., None] > 0, labels, best.logits.softmax(dim=-1))
        balanced = (q / q.mean(dim=1, keepdim=True).clamp(min=1e-9)).mean(dim=-1)
        own = regression(best.x, q, balanced, held)
        logits = self.propagate(own, q, labels, seen, best.damping)
        again = best._replace(likelihood=held.likelihood(logits), logits=logits)
        best = max(best, again, key=Found.mean)
        return best.logits[-1].log_softmax(dim=-1), best.likelihood

    def votes(self, labels: Tensor) -> Tensor:
        """Labels diffused over the edges, as logits."""
        folds, nodes, classes = labels.shape
        source = labels.transpose(0, 1).reshape(nodes, -1).float()
        found = diffuse(source, self.operator, self.num_steps)
        found = found.view(nodes, folds, classes).transpose(0, 1).double()
        return (found + LEAST * found.sum(dim=-1, keepdim=True) + 1e-9).log()

    def propagate(
        self, own: Tensor, start: Tensor, labels: Tensor, seen: Tensor, alpha: float
    ) -> Tensor:
        """Logits of all nodes after so many rounds of messages, all folds at once."""
        a, b, symmetric = self.pairs
        own, labels = own.float(), labels.float()
        fixed = seen[..., None] > 0
        q = torch.where(fixed, labels, start.float())
        ratio = self.ratio(q[:, a].transpose(1, 2) @ q[:, b], symmetric)
        to_b, to_a = (q[:, a] @ ratio).log(), (q[:, b] @ ratio.transpose(1, 2)).log()
        for _ in range(ROUNDS):
            belief = own + alpha * self.gather(to_a, to_b)
            from_a = torch.where(
                fixed[:, a], labels[:, a], (belief[:, a] - alpha * to_a).softmax(dim=-1)
            )
            from_b = torch.where(
                fixed[:, b], labels[:, b], (belief[:, b] - alpha * to_b).softmax(dim=-1)
            )
            ahead = from_a @ ratio
            both = (ahead * from_b).sum(dim=-1, keepdim=True)
            joined = ratio * ((from_a / both).transpose(1, 2) @ from_b)
            ratio = self.ratio(joined, symmetric)
            to_b = to_b.lerp((from_a @ ratio).log(), 0.5)
            to_a = to_a.lerp((from_b @ ratio.transpose(1, 2)).log(), 0.5)
        return (own + alpha * self.gather(to_a, to_b)).double()

    def gather(self, to_a: Tensor, to_b: Tensor) -> Tensor:
        """The sums of the messages to every node."""
        total = to_a.new_zeros(to_a.size(0), len(self.inputs[0]), to_a.size(2))
        return total.index_add_(1, self.pairs.first, to_a).index_add_(1, self.pairs.second, to_b)

    def ratio(self, joined: Tensor, symmetric: bool) -> Tensor:
        """How much more often than by chance edges join classes, of counts, [folds, C, C]."""
        if symmetric:
            joined = joined + joined.transpose(1, 2)
        total = joined.sum(dim=(1, 2), keepdim=True)
        chance = joined.sum(dim=2, keepdim=True) * joined.sum(dim=1, keepdim=True) / total
        assumed = ASSUMED * joined.size(1) / total
        ratio = (joined / chance.clamp(min=1e-9) + assumed) / (1 + assumed)
        return ratio.clamp(LEAST, 1 / LEAST)
