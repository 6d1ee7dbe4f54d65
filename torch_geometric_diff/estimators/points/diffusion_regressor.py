"""The regressor: targets of a few points that diffuse to all others."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from sklearn.base import RegressorMixin
from sklearn.utils import check_consistent_length
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from ..._utils.numerics import power_of_two
from .base import DiffusionEstimator
from .gaussian import GaussianClasses
from .graph import ResolventKernel
from .kernel_regression import AveragedRegression, KernelRows, PoissonRegression
from .labels import read_targets
from .neighbors import Points
from .settings import REGRESSION

FORMS = ("auto", "harmonic", "poisson")


@dataclass
class _Column:
    """One column of the targets: the kernels of its labeled nodes and what was learned of them."""

    scale: float
    offset: float
    horizons: list[int]
    kernels: list[Tensor]
    labeled_features: Tensor | None
    model: AveragedRegression | PoissonRegression

    def predict(self, rows: KernelRows) -> Tensor:
        """Means and standard deviations [M, 2]."""
        result = self.model.predict(rows)
        result[:, 0] += self.offset
        return self.scale * result


class DiffusionRegressor(RegressorMixin, DiffusionEstimator):
    r"""Semi-supervised regression: the targets of a few points diffuse on a kNN graph.

    On the graph of :class:`DiffusionClassifier`, with the random walk :math:`\mathbf{P} =
    \mathbf{D}^{-1} \mathbf{W}`, what sources at the points send to each other is

    .. math::
        \mathbf{K} = (\mathbf{I} - \gamma \mathbf{P})^{-1} \mathbf{D}^{-1},

    :math:`1 / (1 - \gamma)` being the mean number of steps of a walk. Three forms predict by it:

    - ``"auto"``: a Gaussian process whose covariance is a mixture of :math:`\mathbf{K}` and
      :math:`\mathbf{x}_i^{\top} \mathbf{C} \mathbf{x}_j`, :math:`\mathbf{C}` the covariance of the
      features of all points: linear functions, the steeper along a direction, the more the points
      vary there. Walks, mixtures and noise are averaged by the evidence of the targets, so few
      targets do not decide what they cannot know.
    - ``"harmonic"``: given targets are exact and :math:`\mathbf{f} = \mathbf{P} \mathbf{f}`
      elsewhere (`"Semi-Supervised Learning Using Gaussian Fields and Harmonic Functions"
      <https://mlg.eng.cam.ac.uk/zoubin/papers/zgl.pdf>`_).
    - ``"poisson"``: :math:`\bar{y} + s \, \mathbf{K} (\mathbf{y} - \bar{y})`, targets being sources
      (`"Poisson Learning" <https://arxiv.org/abs/2006.11184>`_), s by leaving each out.

    New points take the weighted mean of :math:`\mathbf{K}` over their ``n_neighbors`` nearest.
    Features should have comparable scales, as for any method of neighbors. Time grows with the
    cube of the number of targets.

    Args:
        n_neighbors (int, optional): Neighbors of each point. (default: :obj:`8`)
        form (str, optional): :obj:`"auto"`, :obj:`"harmonic"` or :obj:`"poisson"`.
            (default: :obj:`"auto"`)
        metric (str, optional): See :class:`DiffusionClassifier`. (default: :obj:`"euclidean"`)
        device (str, optional): Where to compute, such as :obj:`"cuda"`. (default: the CPU)

    Attributes:
        transduction_ (ndarray): Predictions for the points of ``fit``, of the shape of ``y``.
        transduction_std_ (ndarray): Their standard deviations.
        n_features_in_ (int): The number of features of ``fit``.

    Raises:
        ValueError: By ``fit``, on a parameter out of range, on targets that are infinite or no
            numbers, if no point has one, and on whatever scikit-learn refuses.

    Example:
        >>> import numpy as np
        >>> angle = np.linspace(0, 6, 300)
        >>> X = np.stack([angle * np.cos(angle), angle * np.sin(angle)], axis=1)
        >>> y = np.sin(angle)
        >>> few = np.where(np.arange(300) % 15 == 0, y, np.nan)
        >>> model = DiffusionRegressor().fit(X, few)
        >>> bool(np.abs(model.transduction_ - y).mean() < 0.1)
        True
        >>> mean, std = model.predict(X[:5] + 0.01, return_std=True)
        >>> mean.shape, std.shape
        ((5,), (5,))
    """

    _is_double = True

    def __init__(
        self,
        n_neighbors: int = 8,
        *,
        form: str = "auto",
        metric: str = "euclidean",
        device: str | None = None,
    ) -> None:
        self.n_neighbors = n_neighbors
        self.form = form
        self.metric = metric
        self.device = device

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.regressor_tags.poor_score = self.form == "poisson"  # as few labels are its purpose
        return tags

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> "DiffusionRegressor":
        """Diffuse the targets over the points.

        Args:
            X (array-like, sparse matrix or Tensor): Points, ``(n_samples, n_features)``, or with a
                precomputed ``metric`` a matrix, ``(n_samples, n_samples)``.
            y (array-like): Targets, ``(n_samples,)`` or ``(n_samples, n_outputs)``; missing values
                (NaN, None, pandas' NA, a masked entry) where there is none.
            sample_weight (array-like, optional): What the target of each point counts: its noise
                has a variance in inverse proportion. A point with a target of weight 0 is left out
                altogether; numbers of points without a target are not read. (default: ones)
        """
        self._check_graph_parameters()
        if self.form not in FORMS:
            raise ValueError(
                f"Expected 'form' to be 'auto', 'harmonic' or 'poisson' (got {self.form!r})"
            )
        targets, self._is_multi_output = read_targets(y)
        check_consistent_length(X, targets)
        weight = self._build_graph(X, np.isfinite(targets).any(axis=1), sample_weight)
        points = self._neighbors.points
        self._features = None
        if points is not None and self.form == "auto":
            self._features = GaussianClasses(points)
        self._fit_kernels()
        self._outputs = [self._fit_column(column, weight) for column in targets.T]
        nodes = np.stack([self._at_nodes(column).cpu().numpy() for column in self._outputs], axis=1)
        result = self._at_points(nodes, X, lambda rows: self._predict(self._read_new(rows)))
        self.transduction_, self.transduction_std_ = self._split(result)
        return self

    def _fit_kernels(self) -> None:
        """The kernels of the graph, and features whose products are that of the features."""
        graph = self._graph
        horizons = (
            (REGRESSION.harmonic_horizon,) if self.form == "harmonic" else REGRESSION.horizons
        )
        count = len(graph.degree)
        if count <= REGRESSION.probes:
            probes = torch.eye(count, dtype=torch.float64)
        else:
            generator = torch.Generator("cpu").manual_seed(0)
            signs = torch.randint(2, (count, REGRESSION.probes), generator=generator, device="cpu")
            probes = (2.0 * signs.double() - 1) / REGRESSION.probes**0.5
        probes = probes.to(graph.degree.device)
        self._kernels = [
            ResolventKernel(graph, horizon, REGRESSION.precision, probes) for horizon in horizons
        ]
        self._principal = None
        if self._features is not None:
            moments = self._features.moments
            variance = moments.square.square().sum()  # the mean of x' C x over the points
            scale = 1 / variance.sqrt() if float(variance) > 0 else variance
            self._principal = moments.axes * moments.square.sqrt() * scale

    def _fit_column(self, target: np.ndarray, weight: np.ndarray) -> _Column:
        """Learn from a column of the targets."""
        labeled = np.isfinite(target) & (weight > 0)
        if not labeled.any():
            raise ValueError(
                "Expected 'y' to hold a target of positive weight in each column (got none)"
            )
        node = self._node[labeled]
        total = np.bincount(node, weight[labeled])
        nodes = np.flatnonzero(total)
        scale = float(power_of_two(torch.tensor(np.abs(target[labeled]).max())))
        mean = np.bincount(node, weight[labeled] * (target[labeled] / scale))[nodes] / total[nodes]
        device = self._graph.degree.device
        index = torch.from_numpy(nodes).to(device)
        offset = float(mean.mean())
        value, count = (torch.from_numpy(a).to(device) for a in (mean - offset, total[nodes]))
        kernels = [kernel.columns(index).double() for kernel in self._kernels]
        features = None if self._features is None else self._feature_rows(self._features.x[index])
        rows = KernelRows(
            [kernel[index] for kernel in kernels],
            [kernel.variance[index].double()[:, None] for kernel in self._kernels],
            features,
            features,
        )
        if self.form == "poisson":
            model: Any = PoissonRegression(rows, value, count)
            horizons = [model.horizon]
        else:
            model = AveragedRegression(rows, value, count, REGRESSION, self.form == "harmonic")
            horizons = sorted({candidate.horizon for candidate in model.candidates})
        return _Column(scale, offset, horizons, [kernels[h] for h in horizons], features, model)

    def _feature_rows(self, x: Tensor) -> Tensor:
        assert self._principal is not None
        return x.double() @ self._principal

    def _rows(self, column: _Column, values: Tensor, features: Tensor | None) -> KernelRows:
        """The kernels of points, of the values that are interpolated: kernels and variances."""
        empty = values.new_empty(0)
        graph, variance = [empty] * len(self._kernels), [empty] * len(self._kernels)
        width = column.kernels[0].size(1) + 1
        for horizon, part in zip(column.horizons, values.split(width, dim=1), strict=True):
            graph[horizon], variance[horizon] = part[:, :-1], part[:, -1:]
        return KernelRows(graph, variance, features, column.labeled_features)

    def _table(self, column: _Column) -> Tensor:
        """What is interpolated: the kernels of all nodes and their own entries."""
        parts = []
        for horizon, kernel in zip(column.horizons, column.kernels, strict=True):
            parts += [kernel, self._kernels[horizon].variance.double()[:, None]]
        return torch.cat(parts, dim=1)

    def _at_nodes(self, column: _Column) -> Tensor:
        features = None if self._features is None else self._feature_rows(self._features.x)
        rows = self._rows(column, self._table(column), features)
        return column.predict(rows)

    def _predict(self, points: Points) -> np.ndarray:
        """Means and standard deviations of new points, [M, outputs, 2]."""
        results = []
        for column in self._outputs:

            def finish(block: Points, values: Tensor, column: _Column = column) -> Tensor:
                features = (
                    None
                    if self._features is None
                    else self._feature_rows(self._features.read(block))
                )
                return column.predict(self._rows(column, values, features))

            result = self._neighbors.interpolate(points, self._table(column), 2, finish)
            results.append(result.cpu().numpy())
        return np.stack(results, axis=1)

    def _split(self, result: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Means and standard deviations in the shape of the targets."""
        mean, std = result[..., 0], result[..., 1]
        return (mean, std) if self._is_multi_output else (mean[:, 0], std[:, 0])

    def predict(self, X: Any, return_std: bool = False) -> Any:
        """The targets of new points.

        Args:
            X (array-like, sparse matrix or Tensor): Points, ``(n_new, n_features)``, or rows of a
                precomputed matrix, ``(n_new, n_samples)``.
            return_std (bool, optional): Return the standard deviation of each target as well, the
                noise of targets included. (default: :obj:`False`)
        """
        check_is_fitted(self)
        mean, std = self._split(self._predict(self._read_new(X)))
        return (mean, std) if return_std else mean
