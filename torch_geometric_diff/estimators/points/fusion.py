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

from ..model_selection import stratified_folds
from .gaussian import LogLikelihood, Moments, weighted_mean
from .graph import HeatGraph
from .settings import COLUMNS, FUSION


class ClassLogits(NamedTuple):
    """What turns the logits of the graph and features into those of classes."""

    weight: float  # of the features
    likelihood: LogLikelihood | None  # None for the graph alone
    bias: Tensor  # toward the proportions of the classes [..., 1, C]

    def __call__(self, graph: Tensor, x: Tensor | None) -> Tensor:
        """The logits [..., N, C] from those of the graph and features."""
        if self.likelihood is None or x is None:
            return graph + self.bias.to(graph)
        likelihood = self.likelihood(x).to(graph)
        return (1 - self.weight) * graph + self.weight * likelihood + self.bias.to(graph)


def distributions(logits: Tensor) -> Tensor:
    """The softmax over few classes [..., C], which torch's own is slow for."""
    share = (logits - logits.amax(-1, keepdim=True)).exp_()
    return share.div_(share.sum(-1, keepdim=True))


def graph_logits(diffused: Tensor) -> Tensor:
    """Logits of the classes by what diffused; the mean of the neighbors adds to them."""
    return FUSION.sharpness * diffused.clamp(min=1e-12).log()


def prior_correction(proportion: Tensor, share: Tensor, mass: Tensor | None) -> Tensor:
    """Logits by which classes above their proportion lose and those below it gain."""
    return -(weighted_mean(share, mass) / proportion).clamp(min=1e-3).log()


def refine(
    features: Moments,
    diffused: Tensor,
    given: Tensor,
    weight: float,
    proportion: Tensor,
    mean: Callable[[Tensor], Tensor],
    iterations: int = FUSION.max_iterations,
) -> tuple[Tensor, ClassLogits]:
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
    share, label, graph = diffused, diffused.argmax(1), graph_logits(diffused)
    for _ in range(iterations):
        bias = prior_correction(proportion, share, features.mass)
        logits = ClassLogits(weight, features.fit(share), bias)
        share = distributions(logits(graph + FUSION.sharpness * mean(share), features.x))
        share[given] = diffused[given]
        before, label = label, share.argmax(1)
        if torch.equal(before, label):
            break
    return share, logits


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
    graph, known = graph_logits(diffused).unsqueeze(1), diffused[given].unsqueeze(1)
    share = diffused.unsqueeze(1).repeat(1, count, 1)  # [N, W, C], of the weights that still move
    label = diffused.argmax(1, keepdim=True).repeat(1, count)
    moving = torch.arange(count, device=label.device)
    for _ in range(FUSION.trial_iterations):
        by_weight = share.movedim(1, 0)
        coefficient, intercept = features.fit(by_weight)
        correction = prior_correction(proportion, by_weight, features.mass)
        bias = (correction + weight[moving, None] * intercept).squeeze(1)
        likelihood = features.x @ coefficient.movedim(1, 0).flatten(1)
        logits = likelihood.view_as(share).mul_(weight[moving])
        around = mean(share.flatten(1)).view_as(share)
        logits += (1 - weight[moving]) * (graph + FUSION.sharpness * around) + bias
        share = distributions(logits)
        share[given] = known
        labels = share.argmax(2)
        changed = (labels != label[:, moving]).any(0)
        label[:, moving] = labels
        moving, share = moving[changed], share[:, changed]
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
    label_weight: Tensor | None = None,
    order: Tensor | None = None,
) -> float:
    r"""The weight of the features by which labels are likely and few edges are cut.

    A weight is worth :math:`\log p - (3 + m / 10) (\log c - t / 5)`: p the probability of the m
    held-out labels, computed on some of the points and directions; c the share of edges
    between points of different labels, as a multiple of chance. Labels to hold out may be few or
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
        label_weight (Tensor, optional): What each label counts. (default: ones)
        order (Tensor, optional): The keys by which labels are spread over folds.
    """
    trial = features.leading(FUSION.trial_directions)
    diffused, proportion = diffused.float(), proportion.float()
    if label_weight is None:
        label_weight = torch.ones_like(label, dtype=torch.float64)
    held_out = folds(label, order)
    likely = _held_out_likelihood(
        trial, diffused, diffuse, given, label, proportion, label_weight, held_out
    )
    count = float(label_weight[held_out.any(0)].sum())
    together = max(1, COLUMNS // diffused.size(1))
    bounds = {}  # no label is more than certain
    for start in range(0, len(FUSION.weights), together):
        weights = FUSION.weights[start : start + together]
        labels = labels_by_weight(trial, diffused, given, weights, proportion, mean)
        for weight, own in zip(weights, labels.unbind(1), strict=True):
            whole = FUSION.feature_preference * weight - math.log(cut(own, edge_index) + 0.005)
            bounds[weight] = (FUSION.cut_weight + FUSION.cut_weight_per_label * count) * whole
    best, best_score = FUSION.weights[0], -math.inf
    for weight in sorted(FUSION.weights, key=bounds.__getitem__, reverse=True):
        if bounds[weight] <= best_score:
            break
        score = bounds[weight] + likely(weight)
        if score > best_score:
            best, best_score = weight, score
    return best


def _held_out_likelihood(
    trial: Moments,
    diffused: Tensor,
    diffuse: Callable[[Tensor], Iterator[Tensor]],
    given: Tensor,
    label: Tensor,
    proportion: Tensor,
    label_weight: Tensor,
    held_out: Tensor,
) -> Callable[[float], float]:
    """The log-probability of the held-out labels for a weight of the features."""
    if len(held_out) == 0:
        return lambda weight: 0.0
    rows = with_others(given, len(diffused))
    mass = None if trial.mass is None else trial.mass[rows]
    some = Moments(trial.x[rows], trial.beyond, trial.width, mass)
    start = torch.stack([each[rows].float() for each in diffuse(~held_out)])
    start.nan_to_num_(1 / diffused.size(1))  # no source reaches these
    graph = graph_logits(start)
    fixed = F.pad(~held_out, (0, len(rows) - len(given))).unsqueeze(2)
    fold, tested = held_out.nonzero(as_tuple=True)

    def likelihood(weight: float) -> float:
        share = start
        for _ in range(FUSION.trial_iterations):
            bias = prior_correction(proportion, share, some.mass)
            logits = ClassLogits(weight, some.fit(share), bias)(graph, some.x)
            share = torch.where(fixed, start, distributions(logits))
        return log_probability(logits[fold, tested], label[tested], label_weight[tested])

    return likelihood


def log_probability(logits: Tensor, label: Tensor, weight: Tensor | None = None) -> float:
    """That of all labels [S], each at least e^-30, at the best sharpness of the logits."""
    losses = (
        F.cross_entropy(sharpness * logits, label, reduction="none").clamp(max=30)
        for sharpness in FUSION.temperatures
    )
    return -min(
        float((loss if weight is None else weight.to(loss) * loss).sum()) for loss in losses
    )


def cut(label: Tensor, edge_index: Tensor) -> float:
    """The share of edges between different labels [N], as a multiple of that by chance."""
    chance = 1 - (torch.bincount(label) / len(label)).square().sum()
    differ = (label[edge_index[0]] != label[edge_index[1]]).float().mean()
    return float(differ / chance.clamp(min=0.02))


def with_others(given: Tensor, count: int) -> Tensor:
    """The given points of ``count`` and some others, as indices."""
    order = torch.randperm(count, generator=torch.Generator("cpu").manual_seed(0), device="cpu")
    order = order.to(given.device)
    return torch.cat([given, order[torch.isin(order, given, invert=True)][: FUSION.trial_points]])


def folds(label: Tensor, order: Tensor | None = None) -> Tensor:
    """Masks of labels to hold out in turn [M, S]; one label of each class always stays.

    Args:
        label (Tensor): The class of each label.
        order (Tensor, optional): Keys that sort labels before they are spread over the folds.
    """
    index = torch.arange(len(label), device=label.device) if order is None else order.argsort()
    fold = torch.empty_like(label)
    fold[index] = stratified_folds(label[index], FUSION.num_folds)
    fold[torch.bincount(label)[label] == 1] = -1
    held_out = fold == torch.arange(FUSION.num_folds, device=label.device).unsqueeze(1)
    return held_out[held_out.any(1)]


def match_proportions(logits: Tensor, proportion: Tensor, mass: Tensor | None) -> Tensor:
    """The bias [1, C] with which the classes of the largest logits have given proportions, as
    nearly as points can be divided.
    """
    bias = torch.zeros_like(proportion)
    best, least, step = bias, math.inf, 1.0
    for _ in range(60):
        labels = F.one_hot((logits + bias).argmax(1), len(bias)).to(logits)
        share = weighted_mean(labels, mass)[0]
        error = float((share - proportion).abs().max())
        if error < least:
            best, least = bias, error
        bias = bias - step * ((share / proportion + 0.01) / 1.01).log().clamp(-1, 1)
        step = max(0.93 * step, 0.02)
    return best[None]


def volume_constrained(
    features: Moments | None,
    diffused: Tensor,
    share: Tensor,
    given: Tensor,
    weight: float,
    proportion: Tensor,
    graph: HeatGraph,
    mass: Tensor | None = None,
) -> tuple[Tensor, Tensor, ClassLogits]:
    r"""Diffusion and threshold in turn under given proportions of the classes.

    The labels :math:`\mathbf{Z}` walk :math:`\mathbf{P}^{20} \mathbf{Z}`, then each point takes
    the class of its largest logit, of which half the logarithm of what diffused is a part, with
    the bias at which the classes have their proportions (`"Poisson Learning"
    <https://arxiv.org/abs/2006.11184>`_, PoissonMBO).

    Args: as those of :func:`refine`, and ``share``, its result. Features are None for the graph
    alone.

    Returns:
        Distributions [N, C], what walked, and the logits of :func:`walk_logits` and features.
    """
    likelihood = None if features is None else features.fit(share)
    x = None if features is None else features.x
    label = share.argmax(1)
    for _ in range(FUSION.volume_rounds):
        walked = graph.walk(F.one_hot(label, len(proportion)).to(diffused), FUSION.volume_steps)
        both = walk_logits(diffused, walked)
        free = ClassLogits(weight, likelihood, torch.zeros_like(proportion))(both, x)
        bias = match_proportions(free, proportion, mass)
        logits = ClassLogits(weight, likelihood, bias)
        share = distributions(free + bias)
        share[given] = diffused[given]
        before, label = label, share.argmax(1)
        if torch.equal(before, label):
            break
    return share, walked, logits


def walk_logits(diffused: Tensor, walked: Tensor) -> Tensor:
    """Logits by what diffused and by the labels that walked."""
    return (graph_logits(diffused) + graph_logits(walked)) / 2
