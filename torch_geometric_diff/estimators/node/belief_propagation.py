"""Classes by belief propagation: which classes edges join is learned from a few labels."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch_geometric.utils import coalesce, is_undirected

from ...ops import diffuse, sparse_mm
from ..model_selection import calibrate, log_likelihood, ridge_path, stratified_folds
from .candidates import Candidate, Labeled
from .inputs import GraphInputs, to_csr

FOLDS = 4  # in which labels are left out
# Of messages, less where edges repeat what others say. 0.25 beside these gains nothing on 19 of 20
# tuning graphs (4 splits) and 5 on the other, which structural features decide; 0.5 alone loses
# 1.1 in the mean.
DAMPINGS = (0.5, 1.0)
ROUNDS = 12  # of messages; 6 lose 2.3 on words of other classes, 0.1 in the mean
PSEUDO_COUNT = 20.0  # edges of every pair of classes that are assumed, joining by chance
VOTE_STEPS = 6  # of the diffusion that spreads labels
SMALLEST = 1e-3  # compatibility of two classes
MOST_MESSAGES = 2**23  # numbers in the messages of all folds: some seconds
EDGES = 1024  # whose messages are updated together, in the cache
CERTAIN = 1e4  # logit of a label over other classes


# Logits, coefficients of the features, compatibilities of the classes if messages pass, damping.
Found = tuple[Tensor, Tensor, Tensor | None, float]


class Folds(NamedTuple):
    """Labels with a part of them hidden in every fold but the last.

    Attributes:
        nodes (Tensor): The labeled nodes, [L].
        labels (Tensor): Their classes, [L].
        hidden_in (Tensor): The fold in which each is hidden, [L].
        target (Tensor): The visible labels of all nodes, one-hot, [folds, N, C].
        visible (Tensor): Whether a node has a visible label, [folds, N].
    """

    nodes: Tensor
    labels: Tensor
    hidden_in: Tensor
    target: Tensor
    visible: Tensor

    @classmethod
    def of(cls, labeled: Labeled, num_nodes: int, folds: int = FOLDS) -> "Folds":
        """Every class spread over all folds; with ``folds=0`` all labels are visible."""
        nodes, labels, num_classes = labeled
        one_hot = F.one_hot(labels, num_classes).double()
        hidden_in = stratified_folds(labels, folds) if folds else labels
        fold = torch.arange(folds + 1, device=labels.device)[:, None]
        seen = ((hidden_in != fold) | (fold == folds)).double()
        target = one_hot.new_zeros(folds + 1, num_nodes, one_hot.size(1))
        visible = one_hot.new_zeros(folds + 1, num_nodes)
        target[:, nodes], visible[:, nodes] = seen[..., None] * one_hot, seen
        return cls(nodes, labels, hidden_in, target, visible)

    def of_hidden(self, logits: Tensor) -> Tensor:
        """The logits [L, C] of each labeled node in its fold, of those of all, [folds, N, C]."""
        return logits[self.hidden_in, self.nodes]

    def log_likelihood(self, logits: Tensor) -> Tensor:
        """The log-probability of every label where it is hidden, [L]."""
        return log_likelihood(self.of_hidden(logits), self.labels)


class Edges(NamedTuple):
    """The two ends of every edge; of an undirected graph each edge once, without self-loops."""

    first: Tensor
    second: Tensor
    symmetric: bool

    @classmethod
    def of(cls, edge_index: Tensor, num_nodes: int) -> "Edges":
        """Those of a graph."""
        edge_index = coalesce(edge_index, num_nodes=num_nodes)
        symmetric = is_undirected(edge_index, num_nodes=num_nodes)
        a, b = edge_index
        keep = a < b if symmetric else a != b
        return cls(a[keep], b[keep], symmetric)


class BeliefPropagation(Candidate):
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
    to a certain other; directed edges may do so one way. :math:`\alpha` is the value that makes
    labels most likely where they are hidden; diffusion of the labels, or the features alone, take
    the place of messages where that is better. The logits of the features are then learned once
    more, from the beliefs of all nodes.
    """

    def is_feasible(self, graph: GraphInputs, num_classes: int) -> bool:
        """Whether there are edges, and not so many that messages take long."""
        return 0 < graph.edges[0].size(1) // 2 * (FOLDS + 1) * num_classes <= MOST_MESSAGES

    def judge(self, graph: GraphInputs, labeled: Labeled, judged: Tensor) -> Tensor:
        """Learn with a part of the labels hidden in every fold."""
        folds = Folds.of(labeled, graph.num_nodes)
        edges = Edges.of(graph.edges[0], graph.num_nodes)
        own, coefficients = regress(graph.components, folds.target, folds.visible, folds)
        spread = votes(graph, folds.target)
        start = (own + spread).softmax(dim=-1)
        fair = labeled.can_be_judged()
        found: list[Found] = [(own + spread, coefficients, None, 1.0)]
        ratio: Tensor | None
        for damping in DAMPINGS:
            logits, ratio = propagate(edges, own, start, folds, damping)
            found.append((logits, coefficients, ratio, damping))
        found.append((own, coefficients, None, 0.0))  # edges tell nothing

        def likelihood(each: Found) -> float:
            return float(folds.log_likelihood(each[0])[fair].sum())

        logits, _, ratio, damping = max(found, key=likelihood)
        q = torch.where(folds.visible[..., None] > 0, folds.target, logits.softmax(dim=-1))
        balanced = (q / q.mean(dim=1, keepdim=True).clamp(min=1e-9)).mean(dim=-1)
        own, coefficients = regress(graph.components, q, balanced, folds)
        logits = own + damping * spread
        if ratio is not None:
            logits, ratio = propagate(edges, own, q, folds, damping)
        found.append((logits, coefficients, ratio, damping))
        logits, self.coefficients, ratio, self.damping = max(found, key=likelihood)
        self.ratio = None if ratio is None else ratio[-1:]
        return folds.log_likelihood(logits)[judged]

    def fit(self, graph: GraphInputs, labeled: Labeled, epoch: Callable[[], Any]) -> None:
        """All is learned by :meth:`judge`."""

    def logits(self, graph: GraphInputs, labeled: Labeled) -> Tensor:
        """Those after the messages, by the compatibilities that were learned."""
        own = (graph.components.double() @ self.coefficients)[None]
        folds = Folds.of(labeled, graph.num_nodes, folds=0)
        spread = votes(graph, folds.target)
        if self.ratio is None:
            return (own + self.damping * spread)[0]
        edges, start = Edges.of(graph.edges[0], graph.num_nodes), (own + spread).softmax(dim=-1)
        return propagate(edges, own, start, folds, self.damping, self.ratio)[0][0]


def regress(x: Tensor, q: Tensor, weight: Tensor, folds: Folds) -> tuple[Tensor, Tensor]:
    """Logits [folds, N, C] of every node from its features, by ridge regressions on others.

    The penalty and the scale are those that make hidden labels most likely.

    Args:
        x (Tensor): Features, [N, F].
        q (Tensor): Targets, [folds, N, C].
        weight (Tensor): What they count, [folds, N].
        folds (Folds): The labels.

    Returns:
        The logits, and the coefficients [F, C] of the last fold, in which no label is hidden.
    """
    paths = [ridge_path(x, *each) for each in zip(q, weight, strict=True)]
    found = []
    for ridges in zip(*paths, strict=True):  # of one penalty
        scores = torch.stack([ridge.scores for ridge in ridges])
        scale, likelihood = calibrate(folds.of_hidden(scores), folds.labels)
        found.append((likelihood, scale, scores, ridges[-1].coefficients))
    _, scale, scores, coefficients = max(found, key=lambda each: each[0])
    return scale * scores, scale * coefficients


def votes(graph: GraphInputs, labels: Tensor) -> Tensor:
    """Labels [folds, N, C] diffused over the edges, as logits."""
    folds, nodes, classes = labels.shape
    source = labels.transpose(0, 1).reshape(nodes, -1).float()
    spread = diffuse(source, graph.operator(0.5, "row"), VOTE_STEPS)
    spread = spread.view(nodes, folds, classes).transpose(0, 1).double()
    return (spread + SMALLEST * spread.sum(dim=-1, keepdim=True) + 1e-9).log()


def propagate(
    edges: Edges,
    own: Tensor,
    start: Tensor,
    folds: Folds,
    damping: float,
    ratio: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Logits [folds, N, C] of all nodes after the messages, and the compatibilities [folds, C, C].

    Args:
        edges (Edges): The edges.
        own (Tensor): Logits of the features, [folds, N, C].
        start (Tensor): Beliefs before any message, [folds, N, C].
        folds (Folds): Labels, fixed where they are visible.
        damping (float): What a message counts.
        ratio (Tensor, optional): Compatibilities. (default: learned)
    """
    a, b, symmetric = edges
    count, size, classes = own.shape
    own = own.movedim(0, 1).float()  # [N, folds, C], whose folds are blocks of columns below
    fixed = folds.visible.t()[..., None] > 0
    labels = folds.target.movedim(0, 1).float()
    q = torch.where(fixed, labels, start.movedim(0, 1).float()).flatten(1)
    fold = torch.arange(count * classes, device=own.device) // classes
    same_fold = (fold[:, None] == fold).float()
    learned = ratio is None
    if ratio is None:
        ratio = compatibility(_blocks(q[a].t() @ q[b], count), symmetric)
    # what goes along every edge, then what comes back
    mix = torch.block_diag(*ratio)
    messages = torch.cat([(q @ mix).log()[a], (q @ mix.t()).log()[b]])
    incoming = torch.stack([torch.cat([b, a]), torch.arange(len(messages), device=own.device)])
    ones = own.new_ones(len(messages))
    incoming = to_csr(torch.sparse_coo_tensor(incoming, ones, (size, len(messages))))

    def beliefs() -> Tensor:
        return own + damping * sparse_mm(incoming, messages).view_as(own)

    def without(end: Tensor, total: Tensor, message: Tensor) -> Tensor:
        """Beliefs at one end of edges, without what came along the edge itself."""
        p = total[end].sub_(message, alpha=damping).exp_()
        return p.div_(p @ same_fold)

    for _ in range(ROUNDS):
        total = beliefs()
        total = total - total.amax(dim=2, keepdim=True)
        total = torch.where(fixed, CERTAIN * (labels - 1), total).flatten(1)
        counts = torch.zeros_like(mix)
        parts = zip(
            a.split(EDGES),
            b.split(EDGES),
            *(m.split(EDGES) for m in messages.chunk(2)),
            strict=True,
        )
        for end_a, end_b, to_b, to_a in parts:
            from_a, from_b = without(end_a, total, to_a), without(end_b, total, to_b)
            ahead, back = from_a @ mix, from_b @ mix.t()
            if learned:
                counts += (from_a / ((ahead * from_b) @ same_fold)).t() @ from_b
            to_b.lerp_(ahead.log_(), 0.5)
            to_a.lerp_(back.log_(), 0.5)
        if learned:
            ratio = compatibility(ratio * _blocks(counts, count), symmetric)
            mix = torch.block_diag(*ratio)
    return beliefs().movedim(1, 0).double(), ratio


def _blocks(matrix: Tensor, count: int) -> Tensor:
    """The blocks [count, C, C] on the diagonal."""
    size = len(matrix) // count
    return matrix.view(count, size, count, size).diagonal(dim1=0, dim2=2).movedim(2, 0)


def compatibility(counts: Tensor, symmetric: bool) -> Tensor:
    """How much more often than by chance edges join classes, of their counts, [folds, C, C]."""
    if symmetric:
        counts = counts + counts.transpose(1, 2)
    total = counts.sum(dim=(1, 2), keepdim=True)
    chance = counts.sum(dim=2, keepdim=True) * counts.sum(dim=1, keepdim=True) / total
    assumed = PSEUDO_COUNT * counts.size(1) / total
    ratio = (counts / chance.clamp(min=1e-9) + assumed) / (1 + assumed)
    return ratio.clamp(SMALLEST, 1 / SMALLEST)
