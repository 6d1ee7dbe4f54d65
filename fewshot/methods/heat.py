"""Prototypes and heat sources refined together, under class sizes that each task tells."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from ..tasks import Tasks, center_and_normalize
from ..weights import gaussian_weights_of, heat_kernel
from .base import Method, at_least

# Sharpness and trust. Balance keeps soft shares apart; without it they pull all classes to one
# size, so they are made sharper and trusted less. Evidences compare at one setting, "learned".
SETTINGS = {"learned": (7.0, 0.15), "balanced": (5.0, 0.3), "dirichlet": (10.0, 0.15)}
PRIORS = tuple(SETTINGS)
# Steps, rounds and base count: where all is said to be balanced, one round in the metric as it is.
COURSE = {"learned": (5, 3, 20.0), "balanced": (10, 1, 1e9), "dirichlet": (5, 3, 20.0)}


class HeatPrototypes(Method):
    r"""Each class is a distribution over the points: a prototype and a source of heat at once.

    The distribution :math:`a_c` of class c, at first uniform on its support, has the prototype
    :math:`\mu_c = \sum_i a_{ic} x_i` in feature space and, on the kNN graph of the task's points,
    heats them up to :math:`h_{ic} = (R a_c)_i`, R the heat kernel of sources that stay on. Both say
    how well a query fits,

    .. math:: e_{ic} = -\tau \|x_i - \mu_c\|_M^2 + \beta \log h_{ic},

    its shares :math:`z_{ic} \propto \exp(e_{ic})` in the classes follow, and :math:`a_c` moves by
    ``rate`` towards the support (weight 1) and the shares (weight ``trust``). The metric is that of
    the features at first; after each round of steps :math:`M^{-1}` becomes the covariance inside
    the classes, with ``shrinkage`` of its trace in every direction, and M is scaled to leave the
    mean distance inside the classes as it was.

    This is done twice: for queries that are balanced over the classes (the shares are scaled to
    equal class sizes by Sinkhorn's iteration) and for class sizes :math:`n_c` of which nothing is
    known but a Dirichlet prior (the shares are scaled by :math:`(n_c + 1)^s`, in full the mode of
    the posterior). The evidence of the first round decides how much each of the two answers counts:

    .. math:: \log \frac{p(\text{balanced})}{p(\text{unknown})} = F_b - F_u +
        \log \frac{1 / M(N / C, \dots)}{\int \prod_c \pi_c^{n_c} \, \text{Dir}(\pi; 2) \, d\pi} +
        \text{log\_odds}

    with :math:`F = \sum z (e - \log z)` and M the multinomial coefficient. No label of a query and
    no other task enters.

    Features are centerd by the mean of the base classes, which counts as ``base_count`` points, and
    of the support. Only their inner products are needed, so a step costs the same for any width.

    Args:
        sharpness (float, optional): :math:`\tau`. (default: ``5`` for balanced queries, ``10`` for
            the Dirichlet prior, ``7`` in the first round where both are compared)
        heat (float): :math:`\beta`. (default: ``1``)
        trust (float, optional): Weight of a query against a labeled point. (default: ``0.3`` for
            balanced queries, ``0.15`` for the Dirichlet prior and where both are compared)
        n_top, sigma (int): As in :func:`fewshot.weights.gaussian_weights`. (default: ``6``, ``4``)
        retention (float): Part of the heat that a point passes on, below 1. (default: ``0.8``)
        prior (str): ``"learned"``: the evidence decides, as above; ``"balanced"`` or
            ``"dirichlet"``: one of the two answers, where that much is known.
            (default: ``"learned"``)
        log_odds (float): In favour of balanced queries, before they are seen. (default: ``-6``)
        size_weight (float): s. (default: ``0.5``)
        shrinkage (float): Of the covariance inside the classes. (default: ``0.03``)
        base_count (float, optional): Points that the mean of the base classes counts for.
            (default: ``20``; with a balanced prior ``1e9``, the support has no say)
        rate (float): Of the distributions. (default: ``0.5``)
        steps (int, optional): Their steps in a round. (default: ``5``; with a balanced prior
            ``10``)
        rounds (int, optional): Rounds, each with a metric of its own. (default: ``3``; with a
            balanced prior ``1``)
    """

    shifted = False

    def __init__(
        self,
        sharpness: float | None = None,
        heat: float = 1.0,
        trust: float | None = None,
        n_top: int = 6,
        sigma: int = 4,
        retention: float = 0.8,
        prior: str = "learned",
        log_odds: float = -6.0,
        size_weight: float = 0.5,
        shrinkage: float = 0.03,
        base_count: float | None = None,
        rate: float = 0.5,
        steps: int | None = None,
        rounds: int | None = None,
    ) -> None:
        if prior not in PRIORS:
            raise ValueError(f"'prior' must be one of {PRIORS} (got '{prior}')")
        usual = COURSE[prior]
        steps = usual[0] if steps is None else steps
        rounds = usual[1] if rounds is None else rounds
        base_count = usual[2] if base_count is None else base_count
        for name, value in (("sharpness", sharpness), ("trust", trust)):
            if value is not None:
                at_least(0, **{name: value})
        at_least(0, heat=heat, rate=rate, steps=steps)
        at_least(0, size_weight=size_weight, base_count=base_count)
        at_least(1, n_top=n_top, sigma=sigma, rounds=rounds)
        if not 0 <= retention < 1:
            raise ValueError(f"'retention' must be in [0, 1) (got {retention})")
        if not shrinkage > 0:
            raise ValueError(f"'shrinkage' must be above 0 (got {shrinkage})")
        if math.isnan(log_odds):
            raise ValueError("'log_odds' must be a number (got nan)")
        self.sharpness, self.heat, self.trust = sharpness, heat, trust
        self.n_top, self.sigma, self.retention = n_top, sigma, retention
        self.prior, self.log_odds, self.size_weight = prior, log_odds, size_weight
        self.shrinkage, self.base_count = shrinkage, base_count
        self.rate, self.steps, self.rounds = rate, steps, rounds

    def prepare(self, tasks: Tasks, base_mean: Tensor) -> Tasks:
        n = tasks.support.shape[1]
        mean = tasks.support.mean(1, keepdim=True)
        mean = torch.lerp(base_mean.expand_as(mean), mean, n / (self.base_count + n))
        return center_and_normalize(tasks, mean)

    def predict(self, tasks: Tasks) -> Tensor:
        points = tasks.points
        gram = points @ points.mT
        r = _squares(gram).clamp(min=0).sqrt()
        r.diagonal(dim1=-2, dim2=-1).zero_()
        kernel = heat_kernel(gaussian_weights_of(r, self.n_top, self.sigma), self.retention)
        labels = F.one_hot(tasks.support_labels, tasks.way).to(points.dtype).T
        fits = [
            self._fit(gram, kernel, labels, prior)
            for prior in ("balanced", "dirichlet")
            if self.prior in (prior, "learned")
        ]
        shares, evidence = fits[0]
        if len(fits) == 2:
            odds = evidence - fits[1][1] + self.log_odds
            shares = torch.lerp(fits[1][0], shares, odds.sigmoid()[:, None, None])
        return shares.argmax(1)

    def _settings(self, prior: str) -> tuple[float, float]:
        """Sharpness and trust."""
        own = zip((self.sharpness, self.trust), SETTINGS[prior], strict=True)
        sharpness, trust = (usual if value is None else value for value, usual in own)
        return sharpness, trust

    def _fit(
        self, gram: Tensor, kernel: Tensor, labels: Tensor, prior: str
    ) -> tuple[Tensor, Tensor]:
        """Shares of the queries in the classes [tasks, way, queries], and the log evidence."""
        balanced = prior == "balanced"
        labels = labels.expand(len(gram), -1, -1)
        n, points = labels.shape[2], gram.shape[-1]
        size = (points - n) / labels.shape[1]
        start = F.pad(labels / labels.sum(2, keepdim=True), (0, points - n))  # [tasks, way, N]
        column = torch.ones_like(start[..., :1])
        floor = 1e-4 / points  # heat of a point that no source reaches
        metric, evidence = gram, gram.new_zeros(len(gram))
        for number in range(self.rounds):
            sharpness, trust = self._settings(self.prior if number == 0 else prior)
            a = start
            square = metric.diagonal(dim1=-2, dim2=-1).unsqueeze(-2)
            for step in range(self.steps + 1):
                inner = a @ metric
                distance = square - 2 * inner + (a * inner).sum(-1, keepdim=True)
                fit = self.heat * (a @ kernel + floor).log() - sharpness * distance
                fit = fit[..., n:]
                mass = (fit - fit.amax(1, keepdim=True)).exp()
                if balanced:  # the scales of the last step are a good start
                    for _ in range(4 if step < self.steps else 40):
                        row = (mass * column).sum(1, keepdim=True)
                        column = size / (mass / row).sum(2, keepdim=True).clamp(min=1e-9)
                shares = mass * column
                shares = shares / shares.sum(1, keepdim=True)
                if not balanced:
                    column = (shares.sum(2, keepdim=True) + 1) ** self.size_weight
                target = torch.cat([labels, trust * shares], dim=2)
                if step < self.steps:
                    a = torch.lerp(a, target / target.sum(2, keepdim=True), self.rate)
            if number == 0:
                evidence = (shares * fit).sum((1, 2)) - torch.xlogy(shares, shares).sum((1, 2))
                evidence = evidence + _log_sizes(shares.sum(2), None if balanced else 2.0)
            metric = within_metric(gram, target, self.shrinkage)
        return shares, evidence


def _squares(gram: Tensor) -> Tensor:
    """Squared distances from inner products, [..., N, N]."""
    square = gram.diagonal(dim1=-2, dim2=-1).unsqueeze(-2)
    return square + square.mT - 2 * gram


def within_metric(gram: Tensor, weight: Tensor, shrinkage: float) -> Tensor:
    r"""Inner products after whitening by the covariance inside the classes, [..., N, N].

    With :math:`G = X X^T` and :math:`\Sigma = X^T B X` the covariance inside classes of these
    weights it is :math:`X (\lambda \, \text{tr} \Sigma \, I + \Sigma)^{-1} X^T
    = (\lambda \, \text{tr} \Sigma \, I + G B)^{-1} G`, scaled to keep :math:`\text{tr} \Sigma`.

    Args:
        gram (Tensor): Inner products G of the points, ``[..., N, N]``.
        weight (Tensor): Of each point in each class, ``[..., C, N]``.
        shrinkage (float): :math:`\lambda`.
    """
    size = weight.sum(-1, keepdim=True)
    b = torch.diag_embed(weight.sum(-2)) - weight.mT @ (weight / size)
    b = b / size.sum(-2, keepdim=True)
    trace = (b * gram).sum((-1, -2), keepdim=True).clamp(min=1e-12)
    system = gram @ b
    system.diagonal(dim1=-2, dim2=-1).add_(shrinkage * trace.squeeze(-1))
    white = torch.linalg.solve(system, gram)
    white = (white + white.mT) / 2
    return white * (trace / (b * white).sum((-1, -2), keepdim=True).clamp(min=1e-12))


def _log_sizes(sizes: Tensor, alpha: float | None) -> Tensor:
    """Log probability of labels with these class sizes, [..., way] -> [...].

    Under a Dirichlet prior with parameter ``alpha`` on the classes' shares, or, without, if all
    labels with equal class sizes are as likely.
    """
    way, total = sizes.shape[-1], sizes.sum(-1)
    if alpha is None:
        return way * torch.lgamma(total / way + 1) - torch.lgamma(total + 1)
    return (
        (sizes + alpha).lgamma().sum(-1)
        - way * math.lgamma(alpha)
        + math.lgamma(way * alpha)
        - (total + way * alpha).lgamma()
    )
