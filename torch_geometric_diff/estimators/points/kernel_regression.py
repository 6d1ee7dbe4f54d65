"""Regression with a kernel and an unknown mean, and the average over kernels by their evidence."""

from dataclasses import dataclass
from math import exp, log

import torch
from torch import Tensor

from .settings import RegressionSettings


@dataclass
class KernelRows:
    """What relates points to the labeled ones.

    Attributes:
        graph (list of Tensor): The kernel of the graph [M, S], for each horizon.
        variance (list of Tensor): Its own entry of each point [M, 1].
        features (Tensor, optional): The features [M, D], whose products are the other kernel.
        labeled_features (Tensor, optional): Those of the labeled points [S, D].
    """

    graph: list[Tensor]
    variance: list[Tensor]
    features: Tensor | None
    labeled_features: Tensor | None

    def mix(self, horizon: int, share: float) -> tuple[Tensor, Tensor]:
        """The mixed kernel [M, S] and its own entries [M]."""
        kernel, variance = share * self.graph[horizon], share * self.variance[horizon][:, 0]
        if self.features is not None and self.labeled_features is not None:
            kernel = kernel + (1 - share) * (self.features @ self.labeled_features.T)
            variance = variance + (1 - share) * self.features.square().sum(1)
        return kernel, variance


@dataclass
class Candidate:
    r"""A Gaussian process of unknown constant mean and scale, given noisy targets.

    The covariance of the targets is :math:`\sigma^2 (s \mathbf{K} + (1 - s) \mathbf{W}^{-1})`; the
    mean has a flat prior and :math:`\sigma^2` that of Jeffreys (Rasmussen and Williams, "Gaussian
    Processes for Machine Learning", section 2.7).

    Attributes:
        horizon (int): Which kernel of the graph.
        share (float): Its share beside the features.
        signal (float): The share s of the signal.
    """

    horizon: int
    share: float
    signal: float
    evidence: float = 0.0
    probability: float = 1.0

    def fit(self, kernel: Tensor, target: Tensor, weight: Tensor) -> "Candidate":
        """Condition on targets [S] that count by their weights, by their kernel [S, S]."""
        covariance = self.signal * (kernel + kernel.T) / 2
        covariance = covariance + torch.diag((1 - self.signal) / weight)
        jitter = 1e-10 * covariance.diagonal().mean()
        self.factor = torch.linalg.cholesky(
            covariance + jitter * torch.eye(len(target), dtype=kernel.dtype, device=kernel.device)
        )
        both = torch.stack([torch.ones_like(target), target], dim=1)
        solved = torch.cholesky_solve(both, self.factor)
        self.ones = solved[:, :1]
        self.precision = float(self.ones.sum())  # of the mean
        self.mean = float(solved[:, 1].sum()) / self.precision
        self.coefficients = solved[:, 1:] - self.mean * self.ones
        count = len(target)
        residual = float((target - self.mean) @ self.coefficients[:, 0])
        self.scale = max(residual, 0.0) / max(count - 3, 1) if count > 1 else float("inf")
        self.evidence = (
            -float(self.factor.diagonal().log().sum())
            - log(self.precision) / 2
            - (count - 1) / 2 * log(max(residual, 1e-300))
        )
        return self

    def predict(self, kernel: Tensor, variance: Tensor) -> tuple[Tensor, Tensor]:
        """The means and variances [M] of new targets by their kernel [M, S] and own entries [M]."""
        mean = self.mean + self.signal * (kernel @ self.coefficients)[:, 0]
        white = torch.linalg.solve_triangular(self.factor, self.signal * kernel.T, upper=False)
        of_mean = (1 - self.signal * (kernel @ self.ones)[:, 0]).square() / self.precision
        signal = (self.signal * variance - white.square().sum(0)).clamp(min=0)
        return mean, self.scale * (signal + 1 - self.signal + of_mean)


class AveragedRegression:
    """The average over candidates by their evidence and prior.

    Args:
        rows (KernelRows): Those of the labeled points.
        target (Tensor): Their targets [S].
        weight (Tensor): What each counts [S].
        settings (RegressionSettings): Candidates and prior.
        is_harmonic (bool): Whether targets are exact, and the graph is all there is.
    """

    SMALLEST = 1e-3  # probability of a candidate that is used

    def __init__(
        self,
        rows: KernelRows,
        target: Tensor,
        weight: Tensor,
        settings: RegressionSettings,
        is_harmonic: bool,
    ) -> None:
        shares = settings.graph_shares if rows.features is not None else (1.0,)
        signals = (1 - settings.harmonic_noise,) if is_harmonic else settings.signal_shares
        candidates = []
        for horizon in range(len(rows.graph)):
            for share in shares:
                kernel, _ = rows.mix(horizon, share)
                for signal in signals:
                    candidate = Candidate(horizon, share, signal).fit(kernel, target, weight)
                    distance = abs(_logit(signal) - _logit(settings.expected_signal_share))
                    candidate.evidence -= settings.concentration * distance
                    candidates.append(candidate)
        most = max(candidate.evidence for candidate in candidates)
        for candidate in candidates:
            candidate.probability = exp(candidate.evidence - most)
        total = sum(candidate.probability for candidate in candidates)
        candidates = [c for c in candidates if c.probability > self.SMALLEST * total]
        total = sum(candidate.probability for candidate in candidates)
        for candidate in candidates:
            candidate.probability /= total
        self.candidates = candidates

    def predict(self, rows: KernelRows) -> Tensor:
        """Means and standard deviations of new targets, [M, 2]."""
        mean = square = torch.zeros(())
        for candidate in self.candidates:
            own, variance = candidate.predict(*rows.mix(candidate.horizon, candidate.share))
            mean = mean + candidate.probability * own
            square = square + candidate.probability * (variance + own.square())
        return torch.stack([mean, (square - mean.square()).clamp(min=0).sqrt()], dim=1)


class PoissonRegression:
    r"""Targets as sources of heat: :math:`\bar{y} + s \sum_j k_{ij} (y_j - \bar{y})`.

    The scale s and the horizon are those of the least squared error of leaving each target out, s
    at most that at which sources give themselves what they have; these errors diffuse as well, to
    local variances.

    Args: as those of :class:`AveragedRegression`.
    """

    def __init__(self, rows: KernelRows, target: Tensor, weight: Tensor) -> None:
        self.weight = weight
        self.mean = float((weight * target).sum() / weight.sum())
        self.source = weight * (target - self.mean)
        best = float("inf")
        for horizon, kernel in enumerate(rows.graph):
            others = kernel - torch.diag(kernel.diagonal())
            effect = others @ self.source
            squared = float((weight * effect.square()).sum())
            scale = max(float(effect @ self.source), 0.0) / squared if squared > 0 else 0.0
            scale = min(scale, 1 / float(kernel.diagonal().mean()))  # more would exceed the targets
            error = (target - self.mean - scale * effect).square()
            if float((weight * error).sum()) < best:
                best = float((weight * error).sum())
                self.horizon, self.scale, self.error = horizon, scale, error
        self.variance = best / float(weight.sum())

    def predict(self, rows: KernelRows) -> Tensor:
        """Means and standard deviations of new targets, [M, 2]."""
        kernel = rows.graph[self.horizon].clamp(min=0)
        mean = self.mean + self.scale * (rows.graph[self.horizon] @ self.source)
        near = kernel @ (self.weight * self.error) + self.variance
        variance = near / (kernel @ self.weight + 1)
        return torch.stack([mean, variance.sqrt()], dim=1)


def _logit(share: float) -> float:
    return log(share / (1 - share))
