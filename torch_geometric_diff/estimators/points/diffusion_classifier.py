"""The classifier: labels as sources of heat, weighed against the features."""

from collections.abc import Iterator
from dataclasses import dataclass
from numbers import Real
from typing import Any

import numpy as np
import torch
from sklearn.base import ClassifierMixin
from sklearn.utils import check_consistent_length
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from .base import DiffusionEstimator
from .fusion import (
    ClassLogits,
    distributions,
    graph_logits,
    learn_weight,
    refine,
    volume_constrained,
    walk_logits,
)
from .gaussian import GaussianClasses
from .labels import label_columns, read_labels
from .neighbors import Points
from .settings import COLUMNS, FUSION


@dataclass
class _Column:
    """What is known of one column of the targets.

    Attributes:
        classes (ndarray): Its classes.
        labeled (ndarray): A mask of the labeled points.
        encoded (ndarray): The number of the class of each of them.
        feature_weight (float): The weight of the features.
        diffused (Tensor): Distributions over the classes [N, C] by the sources alone.
        share (Tensor): The distributions [N, C].
        logits (ClassLogits, optional): What made them, None for the sources alone.
        walked (Tensor, optional): Labels that walked, if the proportions are given.
    """

    classes: np.ndarray
    labeled: np.ndarray
    encoded: np.ndarray
    feature_weight: float = 0.0
    diffused: Any = None
    share: Any = None
    logits: ClassLogits | None = None
    walked: Tensor | None = None


class DiffusionClassifier(ClassifierMixin, DiffusionEstimator):
    r"""Semi-supervised classification: each label is a source of heat that diffuses on a kNN graph,
    and features are weighed against the graph.

    The graph joins every point :math:`i` to its ``n_neighbors`` nearest with weights
    :math:`\exp(-8 r_{ij}^2 / \rho_i^2)`, :math:`\rho_i` the distance of the last of them; far
    neighbors count little but keep the graph connected. :math:`\mathbf{W}` adds both directions.
    With :math:`\mathbf{D}` its degrees and :math:`\mathbf{Y}` the one-hot labels (zero where there
    is none), sources that stay on for :math:`K` steps give

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
    the labels. The weight :math:`t` is learned: the one at which held-out labels of five folds are
    likely and few edges join different labels. Given labels are kept.

    Points that no source reaches take the weighted mean of :math:`\mathbf{p}` over the
    ``n_neighbors`` nearest among the others, and so do new points, whose :math:`\mathbf{q}`
    follows from it. Class proportions enter through the numbers of labels, a class with twice the
    labels having twice the heat, unless ``priors`` are given.

    Args:
        n_neighbors (int, optional): Neighbors of each point. (default: :obj:`8`)
        num_steps (int, optional): Diffusion steps :math:`K`. (default: :obj:`150`)
        metric (str, optional): :obj:`"euclidean"` or :obj:`"cosine"`, which suits embeddings and
            texts; a row of zeros is as far from all others. :obj:`"precomputed"`: ``X`` of ``fit``
            is a square matrix of distances, dense or sparse, whose stored entries are the
            neighbors, as ``kneighbors_graph(mode="distance")`` makes it, and ``X`` of ``predict``
            holds distances from new points to those, ``(n_new, n_samples)``.
            :obj:`"precomputed_affinity"`: the same for affinities, the weights of a graph; all of
            them count, whatever ``n_neighbors``. There are no features then.
            (default: :obj:`"euclidean"`)
        feature_weight (float or str, optional): The weight :math:`t` of the features from 0, the
            graph alone, to 1, where the graph is but the first guess. (default: :obj:`"auto"`,
            learned)
        priors (array-like, optional): The proportions of the classes, in the order of ``classes_``.
            (default: those of the labels)
        device (str, optional): Where to compute, such as :obj:`"cuda"`. (default: the CPU)

    Attributes:
        classes_ (ndarray): The class labels, ``(n_classes,)``; of targets with several columns a
            list, as are the next two, an item for each column.
        label_distributions_ (ndarray): A distribution over the classes for each point of ``fit``,
            ``(n_samples, n_classes)``.
        feature_weight_ (float): The weight of the features in use.
        transduction_ (ndarray): The labels of the points of ``fit``, of the shape of ``y``.
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

        A graph in place of points:

        >>> from sklearn.neighbors import kneighbors_graph
        >>> distances = kneighbors_graph(X, 8, mode="distance")
        >>> model = DiffusionClassifier(metric="precomputed").fit(distances, few)
        >>> bool((model.transduction_ == y).mean() > 0.9)
        True

        Several labels for each point, ``predict`` and ``predict_proba`` as scikit-learn's kNN:

        >>> several = np.stack([few, np.where(few < 0, -1, few % 2)], axis=1)
        >>> model = DiffusionClassifier().fit(X, several)
        >>> model.predict(X[:3]).shape, [p.shape for p in model.predict_proba(X[:3])]
        ((3, 2), [(3, 10), (3, 2)])
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
        tags.classifier_tags.multi_label = True
        return tags

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> "DiffusionClassifier":
        """Diffuse the labels over the points.

        Args:
            X (array-like, sparse matrix or Tensor): Points, ``(n_samples, n_features)``, or with a
                precomputed ``metric`` a matrix, ``(n_samples, n_samples)``.
            y (array-like): Labels, ``(n_samples,)``. A point without one has a missing value (None,
                NaN, pandas' NA, a masked entry) or the number -1. (Where -1 and 1 are all there is,
                they are read as two classes in their usual coding.) Several labels for each point,
                ``(n_samples, n_outputs)``, are read column by column.
            sample_weight (array-like, optional): What the label of each point counts,
                ``(n_samples,)``. A labeled point of weight 0 is left out altogether; numbers of
                points without a label are not read. (default: ones)
        """
        self._check_parameters()
        targets, self._is_multi_output = label_columns(y)
        columns = []
        for target in targets:
            labeled, labels = read_labels(target)
            check_consistent_length(X, labeled)
            classes, encoded = np.unique(labels, return_inverse=True)
            columns.append(_Column(classes, labeled, encoded))
        if self._is_multi_output and self.priors is not None:
            raise ValueError("Expected 'priors' to be None for 'y' of several columns")
        any_labeled = np.any([column.labeled for column in columns], axis=0)
        weight = self._build_graph(X, any_labeled, sample_weight)
        self._features = None
        if self.feature_weight != 0 and self._neighbors.points is not None:
            self._features = GaussianClasses(self._neighbors.points, self._mass)
        for column in columns:
            self._fit_column(column, weight)
        self._columns_of_y = columns
        self._set_results(X)
        return self

    def _fit_column(self, column: _Column, weight: np.ndarray) -> None:
        """The distributions of all points over the classes of a column of the targets."""
        graph, neighbors = self._graph, self._neighbors
        counts = self._count_labels(column, weight)
        total = counts.sum(axis=0)
        seen = total > 0
        proportion = self._proportions(np.where(seen, total, np.finfo(float).tiny))
        labeled_nodes = np.flatnonzero(counts.any(axis=1))
        counts = counts[labeled_nodes]
        given = torch.from_numpy(labeled_nodes).to(graph.degree.device)
        amount = torch.from_numpy(counts).to(graph.degree)
        fixed = amount / amount.sum(1, keepdim=True)
        scale = proportion * total.sum() / np.where(seen, total, 1)
        heat = amount * torch.from_numpy(scale).to(amount)

        def diffuse(mask: Tensor, heat: Tensor = heat) -> Iterator[Tensor]:
            """Distributions for each row of a mask of labels; several columns at once cost less."""
            for masks in mask.split(max(1, COLUMNS // heat.size(1))):
                sources = masks.t().unsqueeze(2) * heat.unsqueeze(1)
                sums = graph.heat(given, sources.flatten(1), int(self.num_steps))
                for used, each in zip(masks, sums.split(heat.size(1), dim=1), strict=True):
                    each[given[used]] = fixed[used].to(each)
                    yield each / each.sum(1, keepdim=True)

        wanted = torch.from_numpy(proportion).to(amount)
        (diffused,) = diffuse(torch.ones_like(given, dtype=torch.bool).unsqueeze(0))
        column.diffused = column.share = diffused = neighbors.complete(diffused, wanted[None])
        if len(column.classes) < 2:
            return
        moments = None if self._features is None else self._features.moments
        if moments is not None:
            column.feature_weight = (
                learn_weight(
                    moments,
                    diffused,
                    lambda mask: diffuse(mask, heat.float()),
                    given,
                    fixed.argmax(1),
                    wanted,
                    neighbors.edge_index,
                    graph.mean,
                    amount.sum(1),
                    neighbors.order()[given],
                )
                if self.feature_weight == "auto"
                else float(self.feature_weight)
            )
            column.share, column.logits = refine(
                moments, diffused, given, column.feature_weight, wanted, graph.mean
            )
        if self.priors is not None:
            column.share, column.walked, column.logits = volume_constrained(
                moments,
                diffused,
                column.share,
                given,
                column.feature_weight,
                wanted,
                graph,
                self._mass,
            )

    def _count_labels(self, column: _Column, weight: np.ndarray) -> np.ndarray:
        """The weight of the labels of each class at each node."""
        node, present = self._node[column.labeled], weight[column.labeled] > 0
        if not present.any():
            raise ValueError("Expected 'sample_weight' to leave a labeled point (got zeros there)")
        counts = np.zeros((len(self._graph.degree), len(column.classes)))
        of_labels = weight[column.labeled][present]
        np.add.at(counts, (node[present], column.encoded[present]), of_labels)
        return counts

    def _set_results(self, X: Any) -> None:
        """The public attributes."""
        results = []
        for column in self._columns_of_y:
            result = self._at_points(
                column.share.cpu().numpy(),
                X,
                lambda rows, own=column: self._distribute(own, self._read_new(rows)),
            )
            result[column.labeled] = np.eye(len(column.classes), dtype=result.dtype)[column.encoded]
            results.append(result)
        self.label_distributions_ = self._unwrap(results)
        self.classes_ = self._unwrap([column.classes for column in self._columns_of_y])
        self.feature_weight_ = self._unwrap(
            [column.feature_weight for column in self._columns_of_y]
        )
        self.transduction_ = self._labels(results)

    def _unwrap(self, items: list[Any]) -> Any:
        return items if self._is_multi_output else items[0]

    def _labels(self, results: list[np.ndarray]) -> np.ndarray:
        """The most probable labels of each column."""
        labels = [
            column.classes[result.argmax(1)]
            for column, result in zip(self._columns_of_y, results, strict=True)
        ]
        return np.stack(labels, axis=1) if self._is_multi_output else labels[0]

    def fit_predict(self, X: Any, y: Any, sample_weight: Any = None) -> np.ndarray:
        """``fit``, then the label of each point."""
        return self.fit(X, y, sample_weight).transduction_

    def predict_proba(self, X: Any) -> Any:
        """Label distributions of new points, ``(n_samples, n_classes)``.

        Of targets with several columns a list of these, as scikit-learn's ``KNeighborsClassifier``
        has it.
        """
        check_is_fitted(self)
        points = self._read_new(X)
        return self._unwrap([self._distribute(column, points) for column in self._columns_of_y])

    def predict(self, X: Any) -> np.ndarray:
        """Labels of new points, ``(n_samples,)`` or ``(n_samples, n_outputs)``."""
        distributions = self.predict_proba(X)
        return self._labels(distributions if self._is_multi_output else [distributions])

    def _distribute(self, column: _Column, points: Points) -> np.ndarray:
        """The distributions of new points over the classes of a column."""
        width = len(column.classes)
        logits = column.logits
        if logits is None:
            result = self._neighbors.interpolate(points, column.diffused, width)
            return result.cpu().numpy()
        is_soft = column.walked is None
        second = column.share if column.walked is None else column.walked
        both = torch.cat([column.diffused, second], dim=1)

        def finish(block: Points, mean: Tensor) -> Tensor:
            """What features and proportions add to the means of the neighbors."""
            diffused, second = mean.chunk(2, dim=1)
            graph = (
                graph_logits(diffused) + FUSION.sharpness * second
                if is_soft
                else walk_logits(diffused, second)
            )
            x = None if self._features is None else self._features.read(block)
            return distributions(logits(graph, x))

        return self._neighbors.interpolate(points, both, width, finish).cpu().numpy()

    def _check_parameters(self) -> None:
        self._check_graph_parameters()
        self._check_integers("num_steps")
        weight = self.feature_weight
        number = isinstance(weight, Real) and not isinstance(weight, bool) and 0 <= weight <= 1
        if not number and not (isinstance(weight, str) and weight == "auto"):
            raise ValueError(
                f"Expected 'feature_weight' to be 'auto' or a number from 0 to 1 (got {weight!r})"
            )
        if self._is_precomputed and number and weight != 0:
            raise ValueError(
                f"Expected 'feature_weight' to be 'auto' or 0 where 'metric' is {self.metric!r}, "
                f"which knows no features (got {weight!r})"
            )

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
