r"""Graph and features together: how far to trust the features, and the labels that follow.

A point's distribution combines what diffused to it, :math:`\mathbf{p}_i`, and what its neighbors
are with what its features say, :math:`\boldsymbol{\ell}_i`,

.. math::
    q_{ic} \propto \exp \bigl( (1 - t) \, 2 \, (\log p_{ic} + (\mathbf{P} \mathbf{Q})_{ic})
    + t \, \ell_{ic} \bigr) \, \pi_c / \bar{q}_c,

:math:`\bar{q}_c` its mean over all points and :math:`\pi_c` the proportion that the class should
have, which is iterated with the classes that it fits. The 2 sharpens what diffused, which is flat.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .gaussian import LogLikelihood, Moments

SHARPNESS = 2.0
WEIGHTS = (0.05, 0.1, 0.2, 0.35, 0.5, 0.7, 0.85, 1.0)
SHARPNESSES = (0.25, 0.5, 1.0, 2.0, 4.0)  # a weight is judged at the one that suits it best
CUT, CUT_OF_LABELS = 3.0, 0.1  # how much cut edges count, beside how many labels
TASTE = 0.2  # for features
MAX_FOLDS = 5
COLUMNS = 128  # that diffuse together
MAX_ITERATIONS = 10
TRIAL_ITERATIONS, TRIAL_POINTS, TRIAL_DIRECTIONS = 5, 1000, 128  # to judge a weight


class Beliefs(NamedTuple):
    """What turns heat and features into distributions."""

    weight: float  # of the features
    likelihood: LogLikelihood
    pull: Tensor  # of each class toward its proportion [..., 1, C], logarithms

    def __call__(self, graph: Tensor, x: Tensor) -> Tensor:
        """Logarithms, up to a term a point, from what the graph says and features [..., N, C]."""
        likelihood = self.likelihood(x).to(graph)
        return (1 - self.weight) * graph + self.weight * likelihood + self.pull.to(graph)


def distributions(logits: Tensor) -> Tensor:
    """The softmax over few classes [..., C], which torch's own is slow for."""
    share = (logits - logits.amax(-1, keepdim=True)).exp_()
    return share.div_(share.sum(-1, keepdim=True))


def graph_says(diffused: Tensor) -> Tensor:
    """What distributions from the graph say of the classes; their neighbors' mean adds to it."""
    return SHARPNESS * diffused.clamp(min=1e-12).log()


def pull_toward(proportion: Tensor, share: Tensor) -> Tensor:
    """Logarithms by which classes above their proportion lose and those below it gain."""
    return -(share.mean(-2, keepdim=True) / proportion).clamp(min=1e-3).log()


def refine(
    features: Moments,
    diffused: Tensor,
    given: Tensor,
    weight: float,
    proportion: Tensor,
    mean: Callable[[Tensor], Tensor],
    iterations: int = MAX_ITERATIONS,
) -> tuple[Tensor, Beliefs]:
    """The distributions of all points and what fits them, in turn until labels stay.

    Args:
        features (Moments): Those of the points.
        diffused (Tensor): Distributions [N, C] from the graph, one-hot at the given labels.
        given (Tensor): The points that have a label, as indices.
        weight (float): The weight of the features.
        proportion (Tensor): The proportions of the classes [C].
        mean (callable): The means over the neighbors of all points.
        iterations (int): At most so many. (default: 10)
    """
    share, label, graph = diffused, diffused.argmax(1), graph_says(diffused)
    for _ in range(iterations):
        beliefs = Beliefs(weight, features.fit(share), pull_toward(proportion, share))
        share = distributions(beliefs(graph + SHARPNESS * mean(share), features.x))
        share[given] = diffused[given]
        before, label = label, share.argmax(1)
        if torch.equal(before, label):
            break
    return share, beliefs


def labels_by_weight(
    features: Moments,
    diffused: Tensor,
    given: Tensor,
    weights: Sequence[float],
    proportion: Tensor,
    mean: Callable[[Tensor], Tensor],
) -> Tensor:
    """The labels [N, W] that a few iterations of :func:`refine` end with for each of the weights,
    whose classes stand side by side.
    """
    count = len(weights)
    weight = torch.tensor(weights, dtype=diffused.dtype, device=diffused.device)[:, None]
    graph, known = graph_says(diffused).unsqueeze(1), diffused[given].unsqueeze(1)
    share = diffused.unsqueeze(1).repeat(1, count, 1)  # [N, W, C], of the weights that still move
    label = diffused.argmax(1, keepdim=True).repeat(1, count)
    moving = torch.arange(count, device=label.device)
    for _ in range(TRIAL_ITERATIONS):
        by_weight = share.movedim(1, 0)
        coefficient, intercept = features.fit(by_weight)
        pull = (pull_toward(proportion, by_weight) + weight[moving, None] * intercept).squeeze(1)
        likelihood = features.x @ coefficient.movedim(1, 0).flatten(1)
        logits = likelihood.view_as(share).mul_(weight[moving])
        around = mean(share.flatten(1)).view_as(share)
        logits += (1 - weight[moving]) * (graph + SHARPNESS * around) + pull
        share = distributions(logits)
        share[given] = known
        found = share.argmax(2)
        still = (found != label[:, moving]).any(0)
        label[:, moving] = found
        moving, share = moving[still], share[:, still]
        if len(moving) == 0:
            break
    return label


def learn_weight(
    features: Moments,
    diffused: Tensor,
    diffuse: Callable[[Tensor], Iterator[Tensor]],
    given: Tensor,
    label: Tensor,
    proportion: Tensor,
    edge_index: Tensor,
    mean: Callable[[Tensor], Tensor],
) -> float:
    r"""The weight of the features by which labels are likely and edges whole.

    A weight is worth :math:`\log p - (3 + m / 10) (\log c - t / 5)`: p the probability of the m
    labels that are left out, found on some of the points and directions; c the share of edges
    between points of different labels, as a multiple of chance. Labels to leave out may be few or
    none; all edges count, but a border that cuts few may still be wrong.

    Args:
        features (Moments): Those of the points.
        diffused (Tensor): Distributions [N, C] from the graph, one-hot at the given labels.
        diffuse (callable): The same for each row of a mask of the labels to be used.
        given (Tensor): The points that have a label, as indices.
        label (Tensor): The class of each.
        proportion (Tensor): The proportions of the classes [C].
        edge_index (Tensor): The edges.
        mean (callable): The means over the neighbors of all points.
    """
    leading = features.leading(TRIAL_DIRECTIONS)
    diffused, proportion = diffused.float(), proportion.float()
    without = folds(label)
    count = int(without.sum())
    if count > 0:
        rows = with_others(given, len(diffused))
        some = Moments(leading.x[rows], leading.beyond, leading.width)
        start = torch.stack([each[rows].float() for each in diffuse(~without)])
        start.nan_to_num_(1 / diffused.size(1))  # nothing came there
        graph = graph_says(start)
        known = F.pad(~without, (0, len(rows) - len(given))).unsqueeze(2)
        fold, tested = without.nonzero(as_tuple=True)

    def likely(weight: float) -> float:
        share = start
        for _ in range(TRIAL_ITERATIONS):
            beliefs = Beliefs(weight, some.fit(share), pull_toward(proportion, share))
            logits = beliefs(graph, some.x)
            share = torch.where(known, start, distributions(logits))
        return log_probability(logits[fold, tested], label[tested])

    together = max(1, COLUMNS // diffused.size(1))
    bounds = {}  # no label is more than certain
    for weights in (WEIGHTS[i : i + together] for i in range(0, len(WEIGHTS), together)):
        found = labels_by_weight(leading, diffused, given, weights, proportion, mean)
        for weight, own in zip(weights, found.unbind(1), strict=True):
            kept = TASTE * weight - math.log(cut(own, edge_index) + 0.005)
            bounds[weight] = (CUT + CUT_OF_LABELS * count) * kept
    best, best_score = WEIGHTS[0], -math.inf
    for weight in sorted(WEIGHTS, key=bounds.__getitem__, reverse=True):
        if bounds[weight] <= best_score:
            break
        score = bounds[weight] + (likely(weight) if count > 0 else 0.0)
        if score > best_score:
            best, best_score = weight, score
    return best


def log_probability(logits: Tensor, label: Tensor) -> float:
    """That of all labels [S], each at least e^-30, at the sharpness that suits them best."""
    losses = (
        F.cross_entropy(sharpness * logits, label, reduction="none").clamp(max=30).sum()
        for sharpness in SHARPNESSES
    )
    return -float(min(losses))


def cut(label: Tensor, edge_index: Tensor) -> float:
    """The share of edges between different labels [N], as a multiple of that by chance."""
    chance = 1 - (torch.bincount(label) / len(label)).square().sum()
    differ = (label[edge_index[0]] != label[edge_index[1]]).float().mean()
    return float(differ / chance.clamp(min=0.02))


def with_others(given: Tensor, count: int) -> Tensor:
    """The given points of ``count`` and some others, as indices."""
    order = torch.randperm(count, generator=torch.Generator("cpu").manual_seed(0), device="cpu")
    order = order.to(given.device)
    return torch.cat([given, order[torch.isin(order, given, invert=True)][:TRIAL_POINTS]])


def folds(label: Tensor) -> Tensor:
    """Masks of labels to leave out in turn [M, S]; one label of each class always stays.

    Args:
        label (Tensor): The class of each label.
    """
    order, count = label.argsort(stable=True), torch.bincount(label)
    rank = torch.arange(len(label), device=label.device) - (count.cumsum(0) - count)[label[order]]
    rank = torch.empty_like(rank).scatter_(0, order, rank)  # of each label in its class
    fold = torch.where(count[label] > 1, rank % MAX_FOLDS, -1)
    without = fold == torch.arange(MAX_FOLDS, device=label.device).unsqueeze(1)
    return without[without.any(1)]
