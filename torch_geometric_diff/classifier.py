"""Labels for many points from a few, as a scikit-learn estimator. Needs scikit-learn."""

from numbers import Integral
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor
from torch_geometric.utils import to_undirected

from .graph import knn_graph
from .ops import DiffusionOperator, diffuse

BLOCK = 2**24  # distances held at a time when new points look for their neighbours


def _summed_diffusion(source: Tensor, op: DiffusionOperator, num_steps: int) -> Tensor:
    r""":math:`\sum_{k=0}^{K} \mathbf{P}^k \mathbf{s}` in about :math:`2 \log_2 K` calls."""
    total, terms = source, 1
    for bit in bin(num_steps + 1)[3:]:
        total, terms = total + diffuse(total, op, terms), 2 * terms
        if bit == "1":
            total, terms = source + diffuse(total, op, 1), terms + 1
    return total


def _weights(r: Tensor) -> Tensor:
    """Weights of neighbours from their distances [N, k], nearest first; copies weigh 1."""
    last = r[:, -1:].clamp(min=torch.finfo(r.dtype).tiny)
    return torch.exp(-8 * (r / last).square())


class DiffusionClassifier(ClassifierMixin, BaseEstimator):
    r"""Semi-supervised classification: each label is a source of heat that diffuses on a kNN graph.

    The graph joins every point :math:`i` to its ``n_neighbors`` nearest with weights
    :math:`\exp(-8 r_{ij}^2 / \rho_i^2)`, :math:`\rho_i` the distance of the last of them: near
    ones count, far ones keep the graph in one piece. :math:`\mathbf{W}` adds both directions. With
    :math:`\mathbf{D}` its degrees and :math:`\mathbf{Y}` the one-hot labels (zero where there is
    none), sources that stay on for :math:`K` steps give

    .. math::
        \mathbf{U} = \sum_{k=0}^{K} \mathbf{P}^k \, \mathbf{D}^{-1} \mathbf{Y}, \qquad
        \mathbf{P} = \mathbf{D}^{-1} \mathbf{W},

    and a point's label distribution is its row of :math:`\mathbf{U}`, scaled to sum 1. Given labels
    are kept. Sources hold where fixed values fail: with one label per class the harmonic solution
    is nearly constant away from the labels, while the sum of sources, which solves a Poisson
    equation as :math:`K` grows, still tells the classes apart (`"Poisson Learning"
    <https://arxiv.org/abs/2006.11184>`_; with equally many labels in each class both give the same
    labels). Points that no source reaches, and new points, take the weighted mean of the
    distributions of their ``n_neighbors`` nearest among the others.

    Class proportions enter through the numbers of labels: a class with twice the labels has twice
    the heat.

    Args:
        n_neighbors (int, optional): Neighbours of each point. (default: :obj:`8`)
        num_steps (int, optional): Diffusion steps :math:`K`. (default: :obj:`150`)
        metric (str, optional): :obj:`"euclidean"` or :obj:`"cosine"`, which suits embeddings.
            (default: :obj:`"euclidean"`)
        device (str, optional): Where to compute, such as :obj:`"cuda"`. (default: the CPU)

    Attributes:
        classes_ (ndarray): The class labels, ``(n_classes,)``.
        label_distributions_ (ndarray): A distribution over the classes for each point of ``fit``,
            ``(n_samples, n_classes)``.
        transduction_ (ndarray): The label of each point of ``fit``, ``(n_samples,)``.
        n_features_in_ (int): The number of features of ``fit``.

    Raises:
        ValueError: By ``fit``, on a parameter out of range, or if no point has a label; on whatever
            scikit-learn refuses, such as NaN.

    Example:
        >>> from sklearn.datasets import load_digits
        >>> X, y = load_digits(return_X_y=True)
        >>> few = np.where(np.arange(len(y)) < 50, y, -1)
        >>> bool((DiffusionClassifier().fit_predict(X, few) == y).mean() > 0.9)
        True
    """

    def __init__(
        self,
        n_neighbors: int = 8,
        *,
        num_steps: int = 150,
        metric: str = "euclidean",
        device: str | None = None,
    ) -> None:
        self.n_neighbors = n_neighbors
        self.num_steps = num_steps
        self.metric = metric
        self.device = device

    def _check_parameters(self) -> None:
        for name in ("n_neighbors", "num_steps"):
            value = getattr(self, name)
            if not isinstance(value, Integral) or value < 1:
                raise ValueError(f"Expected '{name}' to be a positive integer (got {value!r})")
        if self.metric not in ("euclidean", "cosine"):
            raise ValueError(
                f"Expected 'metric' to be 'euclidean' or 'cosine' (got {self.metric!r})"
            )

    def fit(self, X: Any, y: Any) -> "DiffusionClassifier":
        """Diffuse the labels over the points.

        Args:
            X (array-like): Points, ``(n_samples, n_features)``.
            y (array-like): Labels, ``(n_samples,)``; among numbers, -1 stands for no label. (Labels
                of -1 and 1 alone are read as two classes in their usual coding: with one class
                known there would be nothing to learn.)
        """
        self._check_parameters()
        X, y = validate_data(
            self, X, y, dtype=[np.float64, np.float32], ensure_min_samples=2, order="C"
        )
        check_classification_targets(y)
        labelled = np.ones(len(y), dtype=bool)
        if np.issubdtype(y.dtype, np.number) and not np.array_equal(np.unique(y), [-1, 1]):
            labelled = y != -1
        if not labelled.any():
            raise ValueError("Expected 'y' to hold a label (got only -1, which stands for none)")
        self.classes_, encoded = np.unique(y[labelled], return_inverse=True)

        points = torch.tensor(X, device=self.device)  # a copy: X may be read-only, or change
        given = torch.from_numpy(np.flatnonzero(labelled)).to(points.device)
        one_hot = F.one_hot(torch.from_numpy(encoded), len(self.classes_)).to(points)
        k = min(self.n_neighbors, len(X) - 1)
        edge_index, r = knn_graph(points, k, cosine=self.metric == "cosine", return_distances=True)
        weight = _weights(r.view(-1, k)).flatten()
        edge_index, weight = to_undirected(edge_index, weight, len(X), reduce="add")
        degree = points.new_zeros(len(X)).index_add_(0, edge_index[1], weight)
        op = DiffusionOperator(
            edge_index,
            weight,
            num_nodes=len(X),
            step_size=1.0,
            normalization="row",
            add_self_loops=False,
        )
        heat = points.new_zeros(len(X), len(self.classes_))
        heat[given] = one_hot / degree[given].unsqueeze(1)
        heat = _summed_diffusion(heat, op, int(self.num_steps))
        heat[given] = one_hot

        total = heat.sum(1, keepdim=True)
        reached = total.squeeze(1) > 0
        distributions = heat / total
        self._points, self._distributions = points[reached], distributions[reached]
        if not reached.all():
            distributions[~reached] = self._through_neighbours(points[~reached])
            self._points, self._distributions = points, distributions
        self.label_distributions_ = distributions.cpu().numpy()
        self.transduction_ = self.classes_[self.label_distributions_.argmax(1)]
        return self

    def fit_predict(self, X: Any, y: Any) -> np.ndarray:
        """``fit``, then the label of each point."""
        return self.fit(X, y).transduction_

    def _through_neighbours(self, points: Tensor) -> Tensor:
        """Label distributions of points from those of the nearest points that have one."""
        # in double: far from the origin, squares of float32 drown the distances
        points, known = points.double(), self._points.double()
        k = min(self.n_neighbors, len(known))
        if self.metric == "cosine":
            points, known = F.normalize(points), F.normalize(known)
        found = []
        for block in points.split(max(1, BLOCK // len(known))):
            r, index = torch.cdist(block, known).topk(k, largest=False)
            if self.metric == "cosine":
                r = r.square() / 2
            weight = _weights(r).to(self._distributions)
            mean = (weight.unsqueeze(-1) * self._distributions[index]).sum(1)
            found.append(mean / mean.sum(1, keepdim=True))
        return torch.cat(found)

    def predict_proba(self, X: Any) -> np.ndarray:
        """Label distributions of new points, ``(n_samples, n_classes)``."""
        check_is_fitted(self)
        X = validate_data(self, X, dtype=[np.float64, np.float32], reset=False, order="C")
        return self._through_neighbours(torch.tensor(X).to(self._points)).cpu().numpy()

    def predict(self, X: Any) -> np.ndarray:
        """Labels of new points, ``(n_samples,)``."""
        distributions = self.predict_proba(X)
        return self.classes_[distributions.argmax(1)]
