"""Choosing models by how well they predict labels that they have not seen."""

from collections.abc import Mapping
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

# of a ridge regression, in mean squares of a row; the first where all are as good
PENALTIES = (1.0, 0.3, 3.0, 0.1, 10.0, 0.03, 30.0, 0.01)
SCALES = (0.0, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0)  # from its scores to logits
UNIFORM = 0.01  # of every distribution is spread over all classes, so that no label is impossible
SIGNIFICANT = 1.25  # standard deviations
ADVANCE = 4.0  # labels that speak for the first distribution before any is seen
ITERATIONS = 100  # of expectation maximization


def _ranks(labels: Tensor) -> Tensor:
    """The rank of every label in its class, in a random order that is always the same."""
    shuffled = torch.randperm(
        len(labels), generator=torch.Generator().manual_seed(0), device="cpu"
    ).to(labels.device)
    ranks = F.one_hot(labels[shuffled]).cumsum(dim=0).gather(1, labels[shuffled, None]) - 1
    return torch.empty_like(labels).index_copy_(0, shuffled, ranks.view(-1))


def stratified_folds(labels: Tensor, num_folds: int) -> Tensor:
    """The fold of every label; each class is spread evenly over all folds.

    Args:
        labels (Tensor): Classes from 0 on, [L].
        num_folds (int): The number of folds.
    """
    return (_ranks(labels) + labels) % num_folds


def stratified_sample(labels: Tensor, size: int) -> Tensor:
    """Indices of at most ``size`` labels in ascending order, with the class shares of all.

    Args:
        labels (Tensor): Classes from 0 on, [L].
        size (int): The most labels to take.
    """
    quantile = (_ranks(labels) + 0.5) / labels.bincount()[labels]
    return quantile.argsort(stable=True)[:size].sort().values


def log_likelihood(logits: Tensor, labels: Tensor) -> Tensor:
    """The log-probability of each label, no class being impossible."""
    p = logits.softmax(dim=-1).gather(-1, labels[:, None]).squeeze(-1)
    return p.mul(1 - UNIFORM).add(UNIFORM / logits.size(-1)).log()


def calibrate(scores: Tensor, labels: Tensor) -> tuple[float, float]:
    """The scale at which scores are the best logits, and their mean log-likelihood."""
    likelihood, scale = max((float(log_likelihood(s * scores, labels).mean()), s) for s in SCALES)
    return scale, likelihood


class Ridge(NamedTuple):
    """A ridge regression.

    Attributes:
        coefficients (Tensor): Its coefficients, [F, C].
        scores (Tensor): The scores [N, C] of the rows of its input; none takes part in its own.
        penalty (float): The penalty, in mean squares of a row.
    """

    coefficients: Tensor
    scores: Tensor
    penalty: float


def ridge_path(x: Tensor, target: Tensor, weight: Tensor | None = None) -> list[Ridge]:
    """Ridge regressions of all penalties, with scores that leave one out in closed form.

    Args:
        x (Tensor): Features, [N, F].
        target (Tensor): Targets, [N, C].
        weight (Tensor, optional): What each row counts, [N]; 0 for rows that are only predicted.
    """
    x, target = x.double(), target.double()
    if weight is None:
        weight = x.new_ones(len(x))
    rows = weight > 0
    root = weight[rows, None].sqrt()
    seen = root * x[rows]
    if len(seen) < x.size(1):  # the smaller of both Gram matrices
        values, vectors = torch.linalg.eigh(seen @ seen.t())
        values, vectors = values.clamp(min=0), seen.t() @ vectors
        vectors = vectors / values.sqrt().clamp(min=1e-7 * values.max().sqrt().clamp(min=1e-9))
    else:
        values, vectors = torch.linalg.eigh(seen.t() @ seen)
        values = values.clamp(min=0)
    turned = x @ vectors
    moment = turned[rows].t() @ (weight[rows, None] * target[rows])
    unit = (values.sum() / weight.sum()).clamp(min=1e-9)
    path = []
    for penalty in PENALTIES:
        shrunk = 1 / (values + penalty * unit)
        own = (weight * (turned.square() @ shrunk)).clamp(max=1 - 1e-6)[:, None]
        coefficients = shrunk[:, None] * moment
        scores = (turned @ coefficients - own * target) / (1 - own)
        path.append(Ridge(vectors @ coefficients, scores, penalty))
    return path


def fit_ridge(x: Tensor, labels: Tensor, num_classes: int) -> Ridge:
    """The ridge regression of classes whose scores, left out in turn, are the best logits.

    Args:
        x (Tensor): Features, [L, F].
        labels (Tensor): Classes from 0 on, [L].
        num_classes (int): The number of classes, [C].
    """
    path = ridge_path(x, F.one_hot(labels, num_classes))
    calibrated = [calibrate(ridge.scores, labels) for ridge in path]
    best = max(range(len(path)), key=lambda i: calibrated[i][1])
    scale, (coefficients, scores, penalty) = calibrated[best][0], path[best]
    return Ridge(scale * coefficients, scale * scores, penalty)


def significantly_better(first: Tensor, second: Tensor) -> bool:
    """Whether log-likelihoods of the same labels are larger beyond the noise of the gains."""
    gain = first - second
    return float(gain.sum()) > SIGNIFICANT * float(gain.square().sum()) ** 0.5


def stack(likelihoods: Mapping[str, Tensor]) -> dict[str, float]:
    """Weights of the distributions whose mixture makes the labels most likely (stacking).

    While the weights are estimated, :data:`ADVANCE` more labels speak for the first distribution.

    Args:
        likelihoods (dict): The log-likelihood of every label, of each distribution.
    """
    p = torch.stack([*likelihoods.values()], dim=1).exp()
    share = torch.full_like(p, 1 / p.size(1))
    for _ in range(ITERATIONS):
        weight = share.sum(dim=0)
        weight[0] += ADVANCE
        share = weight * p
        share = share / share.sum(dim=1, keepdim=True)
    return dict(zip(likelihoods, share.mean(dim=0).tolist(), strict=True))
