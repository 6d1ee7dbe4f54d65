"""What the features say of the classes beside the graph."""

from typing import Any, NamedTuple

import torch
from sklearn.decomposition import TruncatedSVD
from torch import Tensor

from ..._utils.numerics import power_of_two
from .neighbors import Points
from .settings import GAUSSIAN


class LogLikelihood(NamedTuple):
    """Of each class, up to a common term: linear in the features."""

    coefficient: Tensor  # [..., D, C]
    intercept: Tensor  # [..., 1, C]

    def __call__(self, x: Tensor) -> Tensor:
        """The log-likelihoods [..., N, C] of features [N, D]."""
        return x @ self.coefficient + self.intercept


class GaussianClasses:
    r"""Each class is a Gaussian about its mean; all share one covariance.

    With shares :math:`q_{ic}` of the points in the classes, means and covariance are

    .. math::
        \mathbf{m}_c = \frac{\sum_i q_{ic} \mathbf{x}_i}{\sum_i q_{ic}}, \qquad
        \mathbf{\Sigma} = \frac{1}{N} \sum_{i, c} q_{ic}
        (\mathbf{x}_i - \mathbf{m}_c) (\mathbf{x}_i - \mathbf{m}_c)^{\top},

    the covariance shrunk by a fifth toward a multiple of the identity.

    Args:
        points (Tensor or csr_matrix): The points, of any scale.
        mass (Tensor, optional): What each point counts, [N, 1]. (default: the same)
    """

    def __init__(self, points: Points, mass: Tensor | None = None) -> None:
        self.svd: TruncatedSVD | None = None
        limit = GAUSSIAN.max_features if isinstance(points, Tensor) else GAUSSIAN.directions
        if points.shape[1] > limit:
            directions = min(GAUSSIAN.directions, *(size - 1 for size in points.shape))
            self.svd = TruncatedSVD(max(1, directions), random_state=0).fit(_plain(points))
        x = self._features(points)
        self.scale = power_of_two(x.abs().max())
        self.mean = weighted_mean(x / self.scale, mass)[0]
        self.x = self.read(points)
        self.moments = Moments(self.x, mass=mass)

    def _features(self, points: Points) -> Tensor:
        if self.svd is not None:
            return torch.from_numpy(self.svd.transform(_plain(points))).double()
        if not isinstance(points, Tensor):
            points = torch.from_numpy(points.toarray())
        return points.double()

    def read(self, points: Points) -> Tensor:
        """The features that count, centered and scaled, those of the given points to about 1."""
        return (self._features(points) / self.scale - self.mean).clamp(-1e30, 1e30)

    def fit(self, share: Tensor) -> LogLikelihood:
        """The likelihood for shares [N, C] of the points."""
        return self.moments.fit(share)


class Moments:
    r"""Features in numbers that a fit needs, whatever the shares of the classes.

    In the principal axes the covariance of all points is diagonal, and that inside the classes is
    :math:`\mathbf{A} - \mathbf{M}^{\top} \mathbf{M}`, :math:`\mathbf{A}` diagonal and the rows
    of :math:`\mathbf{M}` in proportion to the means: its inverse needs that of a matrix
    :math:`C \times C` alone, :math:`(\mathbf{A} - \mathbf{M}^{\top} \mathbf{M})^{-1}
    \mathbf{M}^{\top} = \mathbf{A}^{-1} \mathbf{M}^{\top}
    (\mathbf{I} - \mathbf{M} \mathbf{A}^{-1} \mathbf{M}^{\top})^{-1}`.

    Args:
        x (Tensor): Features [N, D].
        beyond (float, optional): The sum of the mean squares of features that are left out.
            (default: ``0``)
        width (int, optional): The number of features with these. (default: D)
        mass (Tensor, optional): What each point counts, [N, 1]. (default: the same)
    """

    def __init__(
        self,
        x: Tensor,
        beyond: float = 0.0,
        width: int | None = None,
        mass: Tensor | None = None,
    ) -> None:
        self.x, self.mass = x, None if mass is None else mass.to(x)
        total = float(len(x) if mass is None else mass.sum())
        weighted = x if self.mass is None else self.mass * x
        square, self.axes = torch.linalg.eigh(weighted.double().t() @ x.double() / total)
        self.square = square.clamp(min=0)  # the largest at last
        self.beyond, self.trace = beyond, float(self.square.sum()) + beyond
        self.width = x.size(1) if width is None else width

    def leading(self, count: int) -> "Moments":
        """Those of the ``count`` leading directions, in single precision."""
        x = (self.x @ self.axes[:, -count:]).float()
        beyond = float(self.square[:-count].sum()) + self.beyond
        return Moments(x, beyond, self.width, self.mass)

    def fit(self, share: Tensor) -> LogLikelihood:
        """The likelihoods for shares [..., N, C] of the points."""
        shrinkage = GAUSSIAN.shrinkage
        share = share.to(self.x)
        if self.mass is not None:
            share = share * self.mass
        total = share.sum(-2).double().clamp(min=1e-30).unsqueeze(-1)
        mean = (share.mT @ self.x).double() / total @ self.axes  # [..., C, D]
        part = total / total.sum(-2, keepdim=True)
        within = (self.trace - (part * mean.square()).sum((-1, -2))) / self.width
        within = within.clamp(min=1e-6 * self.trace / self.width + 1e-30)[..., None, None]
        a = (1 - shrinkage) * self.square + shrinkage * within  # [..., 1, D]
        root = ((1 - shrinkage) * part).sqrt()
        rows = root * mean
        inverse = rows / a
        one = torch.eye(rows.size(-2), dtype=rows.dtype, device=rows.device)
        white = torch.linalg.solve(one - inverse @ rows.mT, inverse) / root  # [..., C, D]
        intercept = -(mean * white).sum(-1) / 2
        coefficient = self.axes @ white.mT
        return LogLikelihood(coefficient.to(share), intercept.unsqueeze(-2).to(share))


def weighted_mean(values: Tensor, mass: Tensor | None) -> Tensor:
    """The means [..., 1, C] of values [..., N, C] over points that count by their mass [N, 1]."""
    if mass is None:
        return values.mean(-2, keepdim=True)
    mass = mass.to(values)
    return (mass * values).sum(-2, keepdim=True) / mass.sum()


def _plain(points: Points) -> Any:
    return points.cpu().numpy() if isinstance(points, Tensor) else points
