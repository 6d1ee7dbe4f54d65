"""What the features say of the classes beside the graph."""

from typing import Any, NamedTuple

import torch
from sklearn.decomposition import TruncatedSVD
from torch import Tensor

from .neighbours import Points, power_of_two

MAX_FEATURES = 1024  # beyond, and of sparse points, the leading directions count
DIRECTIONS = 256
SHRINKAGE = 0.2


class LogLikelihood(NamedTuple):
    """Of each class, up to a common term: linear in the features."""

    coefficient: Tensor  # [D, C]
    intercept: Tensor  # [C]

    def __call__(self, x: Tensor) -> Tensor:
        """The log-likelihoods [N, C] of features [N, D]."""
        return x @ self.coefficient + self.intercept


class GaussianClasses:
    r"""Each class is a Gaussian about its mean; all share one covariance.

    With shares :math:`q_{ic}` of the points in the classes, means and covariance are

    .. math::
        \mathbf{m}_c = \frac{\sum_i q_{ic} \mathbf{x}_i}{\sum_i q_{ic}}, \qquad
        \mathbf{\Sigma} = \frac{1}{N} \sum_{i, c} q_{ic}
        (\mathbf{x}_i - \mathbf{m}_c) (\mathbf{x}_i - \mathbf{m}_c)^{\top},

    the covariance shrunk by a fifth towards a multiple of the identity.

    Args:
        points (Tensor or csr_matrix): The points, of any scale.
    """

    def __init__(self, points: Points) -> None:
        self.svd: TruncatedSVD | None = None
        if not isinstance(points, Tensor) or points.size(1) > MAX_FEATURES:
            directions = min(DIRECTIONS, *(size - 1 for size in points.shape))
            self.svd = TruncatedSVD(max(1, directions), random_state=0).fit(_plain(points))
        x = self._features(points)
        self.scale = power_of_two(x.abs().max())
        self.mean = (x / self.scale).mean(0)
        self.x = self.read(points)
        self.scatter = self.x.t() @ self.x

    def _features(self, points: Points) -> Tensor:
        if self.svd is not None:
            return torch.from_numpy(self.svd.transform(_plain(points))).double()
        return points.double()

    def read(self, points: Points) -> Tensor:
        """The features that count, centred and scaled, those of the given points to about 1."""
        return (self._features(points) / self.scale - self.mean).clamp(-1e30, 1e30)

    def fit(self, share: Tensor) -> LogLikelihood:
        """The likelihood for shares [N, C] of the points."""
        share = share.double()
        total = share.sum(0)
        mean = share.t() @ self.x / total.clamp(min=1e-30).unsqueeze(1)
        within = (self.scatter - mean.t() @ (mean * total.unsqueeze(1))) / total.sum()
        variance = within.diagonal().mean()
        within = (1 - SHRINKAGE) * within
        within.diagonal().add_(SHRINKAGE * variance + 1e-30)
        coefficient = torch.linalg.solve(within, mean.t())
        return LogLikelihood(coefficient, -(mean.t() * coefficient).sum(0) / 2)


def _plain(points: Points) -> Any:
    return points.cpu().numpy() if isinstance(points, Tensor) else points
