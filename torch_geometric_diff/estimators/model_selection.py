"""How likely labels are by what is told of their nodes without them."""

import torch
from torch import Tensor

RIDGES = (1e-3, 1e-2, 1e-1, 1.0, 10.0)  # parts of the mean square of a row
SCALES = (0.0, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0)  # from scores to logits
BLUR = 0.01  # of a probability is spread evenly: nothing is certain
SURE = 1.25  # standard deviations
ASSUMED = 4.0  # labels that speak for the first distribution before any is seen
ITERATIONS = 100


def log_likelihood(logits: Tensor, known: Tensor) -> Tensor:
    """The log-probability of each known class, none being quite certain."""
    p = logits.softmax(dim=-1).gather(-1, known[:, None]).squeeze(-1)
    return p.mul(1 - BLUR).add(BLUR / logits.size(-1)).log()


def calibrated(scores: Tensor, known: Tensor) -> tuple[float, float]:
    """The scale at which scores are the best logits, and how good: mean log-likelihood."""
    found = [(float(log_likelihood(s * scores, known).mean()), s) for s in SCALES]
    best, scale = max(found)
    return scale, best


def left_out(x: Tensor, target: Tensor) -> Tensor:
    """Logits of each row by a ridge regression of all others, at its best penalty and scale."""
    x, known = x.double(), target.argmax(dim=1)
    kernel = x @ x.t()
    scale = kernel.diagonal().mean().clamp(min=torch.finfo(torch.float64).tiny)
    identity = torch.eye(len(x), dtype=x.dtype, device=x.device)
    found = []
    for ridge in RIDGES:
        inverse = torch.linalg.inv(kernel / scale + ridge * identity)
        scores = target - (inverse @ target) / inverse.diagonal()[:, None]
        found.append((*calibrated(scores, known), scores))
    best, _, scores = max(found, key=lambda each: each[1])
    return best * scores


def regressed(x: Tensor, nodes: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Logits of all nodes by a ridge regression of some, and of each of those by all others.

    Args:
        x (Tensor): Features, [N, F].
        nodes (Tensor): The nodes whose targets are known, [L].
        target (Tensor): Their classes as ones and zeros, [L, C].
    """
    x, known = x.double(), target.argmax(dim=1)
    seen = x[nodes]
    values, vectors = torch.linalg.eigh(seen.t() @ seen)
    turned = seen @ vectors
    moment = turned.t() @ target
    unit = seen.square().sum(dim=1).mean().clamp(min=torch.finfo(torch.float64).tiny)
    found = []
    for ridge in RIDGES:
        weight = 1 / (values.clamp(min=0) + ridge * unit)
        own = (turned.square() @ weight)[:, None]
        scores = (turned @ (weight[:, None] * moment) - own * target) / (1 - own)
        found.append((*calibrated(scores, known), weight, scores))
    best, _, weight, scores = max(found, key=lambda each: each[1])
    return best * (x @ (vectors @ (weight[:, None] * moment))), best * scores


def surely_better(first: Tensor, second: Tensor) -> bool:
    """Whether log-likelihoods are larger beyond the doubt of their differences."""
    gain = first - second
    return float(gain.sum()) > SURE * float(gain.square().sum()) ** 0.5


def stacked(likelihoods: dict[str, Tensor]) -> dict[str, float]:
    """Weights of distributions whose mixture makes the labels most likely.

    A few labels more are assumed to speak for the first while the weights are found; what is
    returned are the shares of the others.

    Args:
        likelihoods (dict): The log-likelihood of every label, of each distribution.
    """
    p = torch.stack([*likelihoods.values()], dim=1).exp()
    share = torch.full_like(p, 1 / p.size(1))
    for _ in range(ITERATIONS):
        weight = share.sum(dim=0)
        weight[0] += ASSUMED
        share = weight * p
        share = share / share.sum(dim=1, keepdim=True)
    return dict(zip(likelihoods, share.mean(dim=0).tolist(), strict=True))
