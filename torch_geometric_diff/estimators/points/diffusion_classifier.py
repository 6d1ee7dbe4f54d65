"""The estimator: labels as sources of heat, and the features beside the graph."""

from collections.abc import Callable, Iterator
from numbers import Integral, Real
from typing import Any

import numpy as np
import scipy.sparse
import torch
import torch.nn.functional as F
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import check_consistent_length
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor

from .fusion import COLUMNS, SHARPNESS, distributions, graph_says, learn_weight, refine
from .gaussian import GaussianClasses
from .heat import HeatGraph, mean_of_neighbors, neighbor_weights
from .labels import read_labels
from .neighbors import NearestKnown, Points, among, take, unit_rows


class DiffusionClassifier(ClassifierMixin, BaseEstimator):
    r"""Semi-supervised classification: each label is a source of heat that diffuses on a kNN graph,
    and the features have a say beside it.

    The graph joins every point :math:`i` to its ``n_neighbors`` nearest with weights
    :math:`\exp(-8 r_{ij}^2 / \rho_i^2)`, :math:`\rho_i` the distance of the last of them: near
    ones count, far ones keep the graph in one piece. :math:`\mathbf{W}` adds both directions. With
    :math:`\mathbf{D}` its degrees and :math:`\mathbf{Y}` the one-hot labels (zero where there is
    none), sources that stay on for :math:`K` steps give

    .. math::
        \mathbf{U} = \sum_{k=0}^{K} \mathbf{P}^k \, \mathbf{D}^{-1} \mathbf{Y}, \qquad
        \mathbf{P} = \mathbf{D}^{-1} \mathbf{W},

    and :math:`\mathbf{p}_i` is row :math:`i` of :math:`\mathbf{U}`, scaled to sum 1. Sources hold
    where fixed values fail: with one label per class the harmonic solution is nearly constant away
    from the labels, while the sum of sources, which solves a Poisson equation as :math:`K` grows,
    still tells the classes apart (`"Poisson Learning" <https://arxiv.org/abs/2006.11184>`_; with
    equally many labels in each class both give the same labels).

    The features are taken for Gaussian classes of one covariance, with log-likelihoods
    :math:`\ell_{ic}`. A point's label distribution combines what diffused to it and what its
    neighbors are with what its features say,

    .. math::
        q_{ic} \propto \exp \bigl( (1 - t) \, 2 \, (\log p_{ic} + (\mathbf{P} \mathbf{Q})_{ic})
        + t \, \ell_{ic} \bigr) \, \pi_c / \bar{q}_c,

    iterated with the classes fitted to :math:`\mathbf{Q}`, and with its means
    :math:`\bar{\mathbf{q}}`, which it draws toward the proportions :math:`\boldsymbol{\pi}` of
    the labels. Learned is the weight :math:`t` by which labels left out of five folds are likely
    and few edges join different labels, so a graph that is right is left alone, and a graph that
    is not is overruled. Given labels are kept.

    Points that no source reaches take the weighted mean of :math:`\mathbf{p}` over the
    ``n_neighbors`` nearest among the others, and so do new points, whose :math:`\mathbf{q}`
    follows from it. Class proportions enter through the numbers of labels, a class with twice the
    labels having twice the heat, unless ``priors`` are given.

    Args:
        n_neighbors (int, optional): Neighbors of each point. (default: :obj:`8`)
        num_steps (int, optional): Diffusion steps :math:`K`. (default: :obj:`150`)
        metric (str, optional): :obj:`"euclidean"` or :obj:`"cosine"`, which suits embeddings and
            texts; a row of zeros is as far from all others. (default: :obj:`"euclidean"`)
        feature_weight (float or str, optional): The weight :math:`t` of the features from 0, the
            graph alone, to 1, where the graph is but the first guess. (default: :obj:`"auto"`,
            learned)
        priors (array-like, optional): The proportions of the classes, in the order of ``classes_``.
            (default: those of the labels)
        device (str, optional): Where to compute, such as :obj:`"cuda"`. (default: the CPU)

    Attributes:
        classes_ (ndarray): The class labels, ``(n_classes,)``.
        label_distributions_ (ndarray): A distribution over the classes for each point of ``fit``,
            ``(n_samples, n_classes)``.
        transduction_ (ndarray): The label of each point of ``fit``, ``(n_samples,)``.
        feature_weight_ (float): The weight of the features in use.
        n_features_in_ (int): The number of features of ``fit``.

    Raises:
        ValueError: By ``fit``, on a parameter out of range, on labels that cannot be read, if no
            point has a label, or if a point lies so far off that distances of the others vanish; on
            whatever scikit-learn refuses, such as NaN.

    Example:
        >>> import numpy as np
        >>> from sklearn.datasets import load_digits
        >>> X, y = load_digits(return_X_y=True)
        >>> few = np.where(np.arange(len(y)) < 50, y, -1)
        >>> bool((DiffusionClassifier().fit_predict(X, few) == y).mean() > 0.9)
        True

        A table with names for labels, most of them missing:

        >>> import pandas as pd
        >>> from sklearn.datasets import load_iris
        >>> iris = load_iris(as_frame=True)
        >>> species = pd.Series(iris.target_names[iris.target])
        >>> known = species.where(species.index % 10 == 0)
        >>> int(known.notna().sum())
        15
        >>> model = DiffusionClassifier().fit(iris.data, known)
        >>> model.classes_.tolist()
        ['setosa', 'versicolor', 'virginica']
        >>> bool((model.transduction_ == species).mean() > 0.9)
        True
    """

    def __init__(
        self,
        n_neighbors: int = 8,
        *,
        num_steps: int = 150,
        metric: str = "euclidean",
        feature_weight: float | str = "auto",
        priors: Any = None,
        device: str | None = None,
    ) -> None:
        self.n_neighbors = n_neighbors
        self.num_steps = num_steps
        self.metric = metric
        self.feature_weight = feature_weight
        self.priors = priors
        self.device = device

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags

    def fit(self, X: Any, y: Any) -> "DiffusionClassifier":
        """Diffuse the labels over the points.

        Args:
            X (array-like, sparse matrix or Tensor): Points, ``(n_samples, n_features)``.
            y (array-like): Labels, ``(n_samples,)``. A point without one has a missing value (None,
                NaN, pandas' NA, a masked entry) or the number -1. (Where -1 and 1 are all there is,
                they are read as two classes in their usual coding.)
        """
        self._check_parameters()
        points = self._read(X, ensure_min_samples=2)
        labeled, labels = read_labels(y)
        check_consistent_length(X, labeled)
        self.classes_, encoded = np.unique(labels, return_inverse=True)
        count = np.bincount(encoded)
        proportion = self._proportions(count)

        edge_index, distance = among(points, int(self.n_neighbors))
        weight = neighbor_weights(distance, self._power).flatten()
        graph = HeatGraph(edge_index, weight, len(labeled))
        given = torch.from_numpy(np.flatnonzero(labeled)).to(weight.device)
        label = torch.from_numpy(encoded).to(weight.device)
        one_hot = F.one_hot(label, len(self.classes_)).to(weight)
        wanted = torch.from_numpy(proportion).to(weight)
        heat = one_hot * torch.from_numpy(proportion * count.sum() / count).to(weight)

        def diffuse(kept: Tensor, heat: Tensor = heat) -> Iterator[Tensor]:
            """Distributions for each row of a mask of labels; several columns at once cost less."""
            for masks in kept.split(max(1, COLUMNS // heat.size(1))):
                sources = masks.t().unsqueeze(2) * heat.unsqueeze(1)
                total = graph.heat(given, sources.flatten(1), int(self.num_steps))
                for mask, each in zip(masks, total.split(heat.size(1), dim=1), strict=True):
                    each[given[mask]] = one_hot[mask].to(each)
                    yield each / each.sum(1, keepdim=True)

        (diffused,) = diffuse(torch.ones_like(label, dtype=torch.bool).unsqueeze(0))
        self._diffused = self._shares = diffused = self._complete(points, diffused)
        self._classes, self.feature_weight_ = None, 0.0
        if self.feature_weight != 0 and len(self.classes_) > 1:
            self._classes = classes = GaussianClasses(points)
            self.feature_weight_ = (
                learn_weight(
                    classes.moments,
                    diffused,
                    lambda kept: diffuse(kept, heat.float()),
                    given,
                    label,
                    wanted,
                    edge_index,
                    graph.mean,
                )
                if self.feature_weight == "auto"
                else float(self.feature_weight)
            )
            self._shares, self._beliefs = refine(
                classes.moments, diffused, given, self.feature_weight_, wanted, graph.mean
            )
        self._known = NearestKnown(points, int(self.n_neighbors))
        self.label_distributions_ = self._shares.cpu().numpy()
        self.transduction_ = self.classes_[self.label_distributions_.argmax(1)]
        return self

    def fit_predict(self, X: Any, y: Any) -> np.ndarray:
        """``fit``, then the label of each point."""
        return self.fit(X, y).transduction_

    def predict_proba(self, X: Any) -> np.ndarray:
        """Label distributions of new points, ``(n_samples, n_classes)``."""
        check_is_fitted(self)
        points = self._read(X, reset=False)
        if self._classes is None:
            return self._from_neighbors(self._known, points, self._diffused).cpu().numpy()
        both = torch.cat([self._diffused, self._shares], dim=1)
        return self._from_neighbors(self._known, points, both, self._finish).cpu().numpy()

    def predict(self, X: Any) -> np.ndarray:
        """Labels of new points, ``(n_samples,)``."""
        distributions = self.predict_proba(X)
        return self.classes_[distributions.argmax(1)]

    @property
    def _power(self) -> int:
        return 2 if self.metric == "euclidean" else 4  # 1 - cos is half a squared distance

    def _check_parameters(self) -> None:
        for name in ("n_neighbors", "num_steps"):
            value = getattr(self, name)
            if not isinstance(value, Integral) or isinstance(value, bool) or value < 1:
                raise ValueError(f"Expected '{name}' to be a positive integer (got {value!r})")
        weight = self.feature_weight
        number = isinstance(weight, Real) and not isinstance(weight, bool) and 0 <= weight <= 1
        if not number and not (isinstance(weight, str) and weight == "auto"):
            raise ValueError(
                f"Expected 'feature_weight' to be 'auto' or a number from 0 to 1 (got {weight!r})"
            )
        if self.metric not in ("euclidean", "cosine"):
            raise ValueError(
                f"Expected 'metric' to be 'euclidean' or 'cosine' (got {self.metric!r})"
            )
        try:
            known = torch.device(self.device or "cpu").type != "meta"
        except (RuntimeError, TypeError):
            known = False
        if not known:
            raise ValueError(f"Expected 'device' to be one that computes (got {self.device!r})")

    def _proportions(self, count: np.ndarray) -> np.ndarray:
        """Those of the classes that are wanted."""
        if self.priors is None:
            return count / count.sum()
        try:
            priors = np.asarray(self.priors, dtype=np.float64)
        except (TypeError, ValueError):
            priors = np.empty(0)
        if priors.shape != count.shape or not (priors > 0).all() or abs(priors.sum() - 1) > 1e-6:
            raise ValueError(
                f"Expected 'priors' to be {len(count)} positive numbers of sum 1, one for each "
                f"class in 'y' (got {self.priors!r})"
            )
        return priors

    def _read(self, X: Any, **settings: Any) -> Points:
        """Check points and bring them into the form that is searched."""
        if isinstance(X, Tensor):
            X = _from_torch(X)
        X = validate_data(
            self, X, dtype=[np.float64, np.float32], accept_sparse="csr", order="C", **settings
        )
        if isinstance(X, np.ndarray):
            points = torch.tensor(X, device=self.device or "cpu")
        else:
            points = X.copy()  # X may change
            points.sum_duplicates()  # what repeated entries mean; searches take them one by one
        return unit_rows(points) if self.metric == "cosine" else points

    def _complete(self, points: Points, distribution: Tensor) -> Tensor:
        """Points that no source reached follow the nearest that one did."""
        reached = distribution.isfinite().all(1)
        if not bool(reached.all()):
            known, missing = take(points, reached), take(points, ~reached)
            nearest = NearestKnown(known, int(self.n_neighbors))
            distribution[~reached] = self._from_neighbors(nearest, missing, distribution[reached])
        return distribution

    def _from_neighbors(
        self,
        nearest: NearestKnown,
        points: Points,
        values: Tensor,
        finish: Callable[[Points, Tensor], Tensor] | None = None,
    ) -> Tensor:
        """Distributions of points from values of the nearest known ones, in blocks."""
        found = values.new_empty(points.shape[0], len(self.classes_))
        row_bytes = (3 * nearest.k + 8) * values.size(1) * values.element_size()
        for block, rows, distance, index in nearest(points, row_bytes):
            weight = neighbor_weights(distance, self._power).to(values)
            mean = mean_of_neighbors(weight, index.to(values.device), values)
            found[rows] = mean if finish is None else finish(block, mean)
        return found

    def _finish(self, points: Points, mean: Tensor) -> Tensor:
        """What the features add to the means of the neighbors of new points."""
        assert self._classes is not None
        diffused, share = mean.chunk(2, dim=1)
        graph = graph_says(diffused) + SHARPNESS * share
        return distributions(self._beliefs(graph, self._classes.read(points)))


def _from_torch(X: Tensor) -> Any:
    """The values of a Tensor in the form of NumPy or SciPy."""
    if X.is_meta:
        raise ValueError("Expected 'X' to have values (got a Tensor on the device 'meta')")
    X = X.detach().cpu()
    if X.dtype == torch.bfloat16:
        X = X.float()
    if X.layout == torch.strided:
        return X.numpy()
    X = X.to_sparse_coo().coalesce()
    return scipy.sparse.coo_array((X.values().numpy(), X.indices().numpy()), X.shape).tocsr()
