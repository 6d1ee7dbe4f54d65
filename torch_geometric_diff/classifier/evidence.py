r"""Graph and features together: how far to trust the features, and the labels that follow.

A point's distribution combines what diffused to it, :math:`\mathbf{p}_i`, what its features say,
:math:`\boldsymbol{\ell}_i`, and what its neighbours are,

.. math::
    q_{ic} \propto \exp 2 \bigl( \log p_{ic} + t \, \ell_{ic} + (\mathbf{P} \mathbf{Q})_{ic} \bigr),

which is iterated with the classes that it fits. The 2 sharpens what diffused, which is flat.
"""

import math
from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from .gaussian import GaussianClasses, LogLikelihood

SHARPNESS = 2.0
WEIGHTS = (0.0125, 0.025, 0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4)
USUAL, SPREAD = 0.1, 4.0  # the weight where labels say little, and a width in logarithms
SHARPNESSES = (0.25, 0.5, 1.0, 2.0, 4.0)  # a weight is judged at the one that suits it best
MAX_FOLDS = 5
MAX_ITERATIONS = 10


def combine(diffused: Tensor, likelihood: Tensor, weight: float) -> Tensor:
    """The logarithms, up to a term a point, of what graph and features say together [N, C]."""
    return diffused.clamp(min=1e-12).log() + weight * likelihood.to(diffused)


def decide(diffused: Tensor, likelihood: Tensor, weight: float, mean: Tensor) -> Tensor:
    """The distributions, of the neighbours' mean ``mean`` too."""
    return torch.softmax(SHARPNESS * (combine(diffused, likelihood, weight) + mean), 1)


def refine(
    classes: GaussianClasses,
    diffused: Tensor,
    given: Tensor,
    weight: float,
    mean: Callable[[Tensor], Tensor],
) -> tuple[Tensor, LogLikelihood]:
    """The distributions of all points and the classes that fit them, in turn until labels stay.

    Args:
        classes (GaussianClasses): The classes to fit.
        diffused (Tensor): Distributions [N, C] from the graph, one-hot at the given labels.
        given (Tensor): The points that have a label, as indices.
        weight (float): The weight of the features.
        mean (callable): The means over the neighbours of all points.
    """
    share, label = diffused, diffused.argmax(1)
    for _ in range(MAX_ITERATIONS):
        likelihood = classes.fit(share)
        share = decide(diffused, likelihood(classes.x), weight, mean(share))
        share[given] = diffused[given]
        before, label = label, share.argmax(1)
        if torch.equal(before, label):
            break
    return share, likelihood


def learn_weight(
    classes: GaussianClasses,
    diffuse: Callable[[Tensor], Iterator[Tensor]],
    given: Tensor,
    label: Tensor,
) -> float:
    """The weight of the features by which labels that are left out are most likely.

    A wide prior about the usual weight decides where there are few labels to leave out.

    Args:
        classes (GaussianClasses): The classes to fit.
        diffuse (callable): Distributions [N, C] for each row of a mask of the labels to be used.
        given (Tensor): The points that have a label, as indices.
        label (Tensor): The class of each.
    """
    without = folds(label)
    if len(without) == 0:
        return USUAL
    left_out = []
    for fold, distribution in zip(without, diffuse(~without), strict=True):
        distribution = distribution.nan_to_num(1 / distribution.size(1))  # nothing came there
        likelihood = classes.fit(distribution)(classes.x[given[fold]])
        left_out.append((distribution[given[fold]], likelihood, label[fold]))
    diffused, likelihood, truth = (torch.cat(parts) for parts in zip(*left_out, strict=True))

    def score(weight: float) -> float:
        evidence = combine(diffused, likelihood, weight)
        loss = min(
            float(
                F.cross_entropy(sharpness * evidence, truth, reduction="none").clamp(max=30).sum()
            )
            for sharpness in SHARPNESSES
        )
        return -loss - (math.log(weight / USUAL) / SPREAD) ** 2 / 2

    return max(WEIGHTS, key=score)


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
