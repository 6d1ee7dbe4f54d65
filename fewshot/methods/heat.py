"""Prototypes and heat sources refined together, under class sizes that each task tells."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from ..tasks import Tasks
from ..weights import gaussian_weights_of, heat_kernel
from .base import Method, at_least

# Sharpness and trust by prior. Balance keeps soft shares apart; without it they pull all classes to
# one size, so they are made sharper and trusted less.
DEFAULTS = {"learned": (7.0, 0.15), "balanced": (5.0, 0.3), "dirichlet": (10.0, 0.15)}
PRIORS = tuple(DEFAULTS)


class HeatPrototypes(Method):
    r"""Each class is a distribution over the points: a prototype and a source of heat at once.

    The distribution :math:`a_c` of class c, at first uniform on its support, has the prototype
    :math:`\mu_c = \sum_i a_{ic} x_i` in feature space and, on the kNN graph of the task's points,
    heats them up to :math:`h_{ic} = (R a_c)_i`, R the heat kernel of sources that stay on. Both say
    how well a query fits,

    .. math:: e_{ic} = -\tau \|x_i - \mu_c\|^2 + \beta \log h_{ic},

    its shares :math:`z_{ic} \propto \exp(e_{ic})` in the classes follow, and :math:`a_c` moves by
    ``rate`` towards the support (weight 1) and the shares (weight ``trust``).

    This is done twice: for queries that are balanced over the classes (the shares are scaled to
    equal class sizes by Sinkhorn's iteration) and for class sizes :math:`n_c` of which nothing is
    known but a Dirichlet prior. The evidence decides how much each of the two answers counts:

    .. math:: \log \frac{p(\text{balanced})}{p(\text{unknown})} = F_b - F_u +
        \log \frac{1 / M(N / C, \dots)}{\int \prod_c \pi_c^{n_c} \, \text{Dir}(\pi; 2) \, d\pi} +
        \text{log\_odds}

    with :math:`F = \sum z (e - \log z)` and M the multinomial coefficient. No label of a query and
    no other task enters.

    Only inner products of the features are needed, so a step costs the same for any width.

    Args:
        sharpness (float, optional): :math:`\tau`. (default: ``7``; with a balanced prior ``5``,
            with a Dirichlet prior ``10``)
        heat (float): :math:`\beta`. (default: ``1``)
        trust (float, optional): Weight of a query against a labelled point. (default: ``0.15``;
            with a balanced prior ``0.3``)
        n_top, sigma (int): As in :func:`fewshot.weights.gaussian_weights`. (default: ``6``, ``4``)
        retention (float): Part of the heat that a point passes on, below 1. (default: ``0.8``)
        prior (str): ``"learned"``: the evidence decides, as above; ``"balanced"`` or
            ``"dirichlet"``: one of the two answers, where that much is known.
            (default: ``"learned"``)
        log_odds (float): In favour of balanced queries, before they are seen. (default: ``-6``)
        rate (float): Of the distributions. (default: ``0.5``)
        steps (int): Their steps. (default: ``10``)
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
        rate: float = 0.5,
        steps: int = 10,
    ) -> None:
        if prior not in PRIORS:
            raise ValueError(f"'prior' must be one of {PRIORS} (got '{prior}')")
        if sharpness is None:
            sharpness = DEFAULTS[prior][0]
        if trust is None:
            trust = DEFAULTS[prior][1]
        at_least(0, sharpness=sharpness, heat=heat, trust=trust, rate=rate, steps=steps)
        at_least(1, n_top=n_top, sigma=sigma)
        if not 0 <= retention < 1:
            raise ValueError(f"'retention' must be in [0, 1) (got {retention})")
        if math.isnan(log_odds):
            raise ValueError("'log_odds' must be a number (got nan)")
        self.sharpness, self.heat, self.trust = sharpness, heat, trust
        self.n_top, self.sigma, self.retention = n_top, sigma, retention
        self.prior, self.log_odds = prior, log_odds
        self.rate, self.steps = rate, steps

    def predict(self, tasks: Tasks) -> Tensor:
        points = tasks.points
        gram = points @ points.mT
        square = gram.diagonal(dim1=-2, dim2=-1).unsqueeze(-2)  # [tasks, 1, N]
        r = (square + square.mT - 2 * gram).clamp(min=0).sqrt()
        r.diagonal(dim1=-2, dim2=-1).zero_()
        kernel = heat_kernel(gaussian_weights_of(r, self.n_top, self.sigma), self.retention)
        labels = F.one_hot(tasks.support_labels, tasks.way).to(points.dtype).T
        fits = [
            self._fit(gram, square, kernel, labels, balanced=prior == "balanced")
            for prior in ("balanced", "dirichlet")
            if self.prior in (prior, "learned")
        ]
        shares, evidence = fits[0]
        if len(fits) == 2:
            odds = evidence - fits[1][1] + self.log_odds
            shares = torch.lerp(fits[1][0], shares, odds.sigmoid()[:, None, None])
        return shares.argmax(1)

    def _fit(
        self, gram: Tensor, square: Tensor, kernel: Tensor, labels: Tensor, *, balanced: bool
    ) -> tuple[Tensor, Tensor]:
        """Shares of the queries in the classes, [tasks, way, queries], and the log evidence."""
        way, n = labels.shape
        points = gram.shape[-1]
        size = (points - n) / way
        a = F.pad(labels / labels.sum(1, keepdim=True), (0, points - n))
        a = a.expand(len(gram), -1, -1)  # [tasks, way, N]
        column = torch.ones_like(a[..., :1])
        floor = 1e-4 / points  # heat of a point that no source reaches
        for step in range(self.steps + 1):
            inner = a @ gram
            distance = square - 2 * inner + (a * inner).sum(-1, keepdim=True)
            fit = self.heat * (a @ kernel + floor).log() - self.sharpness * distance
            fit = fit[..., n:]
            mass = (fit - fit.amax(1, keepdim=True)).exp()
            if balanced:  # the scales of the last step are a good start
                for _ in range(4 if step < self.steps else 40):
                    row = (mass * column).sum(1, keepdim=True)
                    column = size / (mass / row).sum(2, keepdim=True).clamp(min=1e-9)
            shares = mass * column
            shares = shares / shares.sum(1, keepdim=True)
            if step < self.steps:
                target = torch.cat([labels.expand(len(gram), -1, -1), self.trust * shares], dim=2)
                a = torch.lerp(a, target / target.sum(2, keepdim=True), self.rate)
        evidence = (shares * fit).sum((1, 2)) - torch.xlogy(shares, shares).sum((1, 2))
        return shares, evidence + _log_sizes(shares.sum(2), None if balanced else 2.0)


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
