"""What diffusion does to features: how far apart the classes lie, how smooth the features are."""

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ._utils.functorch import is_transformed
from ._utils.numerics import scaled
from .graph.adjacency import read_edges

BLOCK_BYTES = 64 * 2**20


def distance_diameter_ratio(x: Tensor, y: Tensor, block_bytes: int = BLOCK_BYTES) -> float:
    r"""The smallest distance between two classes over the largest diameter of a class,

    .. math::
        \frac{\min_{y_i \neq y_j} \|x_i - x_j\|}{\max_{y_i = y_j} \|x_i - x_j\|},

    the quantity that diffusion increases in `"Diffusion Mechanism in Residual Neural Network:
    Theory and Applications" <https://arxiv.org/abs/2105.03155>`_. Above 1 every point is nearer to
    all of its class than to any other class. Exact: all pairs are compared, from differences in
    double precision, in blocks of ``block_bytes``.

    Args:
        x (Tensor): Features of shape :math:`(N, F)`.
        y (Tensor): The class of each node, shape :math:`(N,)`.
        block_bytes (int, optional): Bound on the intermediates. (default: 64 MiB)

    Returns:
        The ratio; infinite if every class lies in one point apart from the others, and NaN if all
        points coincide.

    Raises:
        ValueError: On fewer than two classes, features that are not finite, or shapes that do not
            match.

    Example:
        >>> x = torch.tensor([[0.0], [1.0], [5.0], [7.0]])
        >>> distance_diameter_ratio(x, torch.tensor([0, 0, 1, 1]))
        2.0
    """
    x, y = _check(x, y)
    between, within = math.inf, 0.0
    size = max(1, block_bytes // (24 * max(x.size(0), 1)))
    for part, label in zip(x.split(size), y.split(size), strict=True):
        distance = torch.cdist(part, x, compute_mode="donot_use_mm_for_euclid_dist")
        same = label.unsqueeze(1) == y
        between = min(between, float(distance.masked_fill(same, math.inf).min()))
        within = max(within, float(distance.masked_fill(~same, 0.0).max()))
    if within == 0:
        return math.inf if between > 0 else math.nan
    return between / within


def separability(x: Tensor, y: Tensor) -> float:
    r"""The share of variance that lies between the classes,

    .. math::
        \frac{\sum_c n_c \|\mu_c - \mu\|^2}{\sum_i \|x_i - \mu\|^2} \in [0, 1],

    with :math:`\mu_c` the class means and :math:`\mu` the mean. It is 1 when every class has
    shrunk to a point of its own, and 0 when the class means coincide. (Of Fisher's criterion in its
    trace form, :math:`t`, it is :math:`t / (1 + t)`.)

    Args:
        x (Tensor): Features of shape :math:`(N, F)`.
        y (Tensor): The class of each node, shape :math:`(N,)`.

    Returns:
        The share; NaN if all points coincide.

    Raises:
        ValueError: On fewer than two classes, features that are not finite, or shapes that do not
            match.

    Example:
        >>> x = torch.tensor([[0.0], [2.0], [4.0], [6.0]])
        >>> separability(x, torch.tensor([0, 0, 1, 1]))
        0.8
    """
    x, y = _check(x, y)
    _, label, size = torch.unique(y, return_inverse=True, return_counts=True)
    total = x - x.mean(dim=0)
    sums = torch.zeros(size.numel(), x.size(1), dtype=x.dtype, device=x.device)
    means = sums.index_add(0, label, total) / size.unsqueeze(1)
    spread = float(total.square().sum())
    between = float((means.square().sum(dim=1) * size).sum())
    return min(1.0, between / spread) if spread > 0 else math.nan


def dirichlet_energy(x: Tensor, edge_index: Tensor, edge_weight: Tensor | None = None) -> Tensor:
    r"""How much the features change along the edges,

    .. math::
        E(\mathbf{X}) = \frac{1}{2} \sum_{(j, i)} w_{ij} \|x_i - x_j\|^2
        = \mathrm{tr}(\mathbf{X}^{\top} \mathbf{L} \mathbf{X}) \textrm{ for symmetric weights},

    which diffusion decreases, since it is the gradient flow of it (for symmetric weights).

    Args:
        x (Tensor): Features of shape :math:`(N, F)`.
        edge_index (Tensor or SparseTensor): The graph in any form that
            :class:`~torch_geometric_diff.DiffusionOperator` takes, each undirected edge in both
            directions.
        edge_weight (Tensor, optional): Weights of shape :math:`(E,)`. (default: ones)

    Returns:
        The energy as a Tensor without dimensions, differentiable.

    Raises:
        ValueError: On features that are not a matrix, or a graph that is not over its rows.

    Example:
        >>> edge_index = torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]])
        >>> dirichlet_energy(torch.tensor([[0.0], [1.0], [3.0]]), edge_index)
        tensor(5.)
    """
    if x.dim() != 2:
        raise ValueError(f"Expected 'x' of shape [N, F] (got {list(x.shape)})")
    dtype = x.dtype if x.is_floating_point() else torch.get_default_dtype()
    wide = torch.promote_types(dtype, torch.float32)  # the sum may be in range, its terms not
    row, col, weight, _ = read_edges(edge_index, edge_weight, x.size(0), wide)
    change = x.to(wide)[row] - x.to(wide)[col]
    return ((weight * change.square().sum(dim=1)).sum() / 2).to(dtype)


def _check(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    if torch.compiler.is_compiling() or is_transformed(x):
        raise NotImplementedError("A number of Python's is returned, which no transform follows")
    if x.dim() != 2 or y.shape != x.shape[:1]:
        raise ValueError(
            f"Expected 'x' of shape [N, F] and 'y' of shape [N] (got {list(x.shape)} and "
            f"{list(y.shape)})"
        )
    if not torch.isfinite(x).all():
        raise ValueError("Expected 'x' to be finite (got NaN or infinity)")
    classes = torch.unique(y).numel()
    if classes < 2:
        raise ValueError(f"Expected 'y' to hold at least two classes (got {classes})")
    return scaled(x.detach().double()), y  # a scale changes no ratio, and squares stay in range


def labeled_score(estimator: Any, X: Any, y: Any) -> float:
    """A scorer for scikit-learn's searches where most points have no label.

    Folds hold points without a label, too, and a prediction is never -1, so that ``scoring=None``
    tells little. This scores the points with a label alone: the estimator's own ``score`` on them,
    accuracy of a classifier (without a label: -1) and :math:`R^2` of a regressor (NaN).

    Args:
        estimator: A fitted classifier or regressor.
        X (array-like): Points of shape :math:`(N, F)`.
        y (array-like): Labels or targets of shape :math:`(N,)`.

    Returns:
        The score; NaN where no point has a label.

    Example:
        >>> from sklearn.model_selection import GridSearchCV
        >>> from torch_geometric_diff import DiffusionClassifier
        >>> search = GridSearchCV(
        ...     DiffusionClassifier(), {"n_neighbors": [4, 8]}, scoring=labeled_score
        ... )
    """
    from sklearn.base import is_classifier

    labels = np.asarray(y)
    known = labels != -1 if is_classifier(estimator) else ~np.isnan(labels)
    rows = np.flatnonzero(known if known.ndim == 1 else known.any(axis=1))
    if not rows.size:
        return math.nan
    points = X.iloc[rows] if hasattr(X, "iloc") else X[rows]
    return float(estimator.score(points, labels[rows]))
