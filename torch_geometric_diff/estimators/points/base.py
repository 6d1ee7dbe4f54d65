"""What DiffusionClassifier and DiffusionRegressor share: parameters, points and their graph."""

from numbers import Integral
from typing import Any

import numpy as np
import scipy.sparse
import torch
from sklearn.base import BaseEstimator
from sklearn.utils.validation import _check_sample_weight, validate_data
from torch import Tensor

from .graph import HeatGraph
from .neighborhoods import PointNeighbors, PrecomputedNeighbors, first_copies, stored_entries
from .neighbors import Points, unit_rows

METRICS = ("euclidean", "cosine", "precomputed", "precomputed_affinity")


class DiffusionEstimator(BaseEstimator):
    """An estimator of labels or targets that diffuse on a graph of points."""

    n_neighbors: int
    metric: str
    device: str | None
    _is_double = False  # whether the graph is of double precision whatever the points are

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        tags.input_tags.pairwise = self._is_precomputed
        tags.target_tags.multi_output = True
        return tags

    @property
    def _is_precomputed(self) -> bool:
        return self.metric in ("precomputed", "precomputed_affinity")

    def _check_integers(self, *names: str) -> None:
        for name in names:
            value = getattr(self, name)
            if not isinstance(value, Integral) or isinstance(value, bool) or value < 1:
                raise ValueError(f"Expected '{name}' to be a positive integer (got {value!r})")

    def _check_graph_parameters(self) -> None:
        self._check_integers("n_neighbors")
        if self.metric not in METRICS:
            expected = ", ".join(f"'{metric}'" for metric in METRICS[:-1])
            raise ValueError(
                f"Expected 'metric' to be {expected} or '{METRICS[-1]}' (got {self.metric!r})"
            )
        try:
            computes = torch.device(self.device or "cpu").type != "meta"
        except (RuntimeError, TypeError):
            computes = False
        if not computes:
            raise ValueError(f"Expected 'device' to be one that computes (got {self.device!r})")

    def _read(self, X: Any, **settings: Any) -> Points:
        """Check points and bring them into the form that is searched."""
        if isinstance(X, Tensor):
            X = _from_torch(X)
        X = validate_data(
            self, X, dtype=[np.float64, np.float32], accept_sparse="csr", order="C", **settings
        )
        if isinstance(X, np.ndarray) and not self._is_precomputed:
            points = torch.tensor(X, device=self.device or "cpu")
        else:
            points = stored_entries(X) if isinstance(X, np.ndarray) else X.copy()  # X may change
            points.sum_duplicates()  # what repeated entries mean; searches take them one by one
        return unit_rows(points) if self.metric == "cosine" else points

    def _build_graph(self, X: Any, labeled: np.ndarray, sample_weight: Any) -> np.ndarray:
        """Read the points of ``fit`` and join them in a graph, copies of a point in one node.

        Sets ``_graph``, ``_neighbors``, ``_node`` (the node of each point, -1 if it is left out),
        ``_columns`` and ``_mass`` (what each node counts, None if all are equal).

        Returns:
            The weights of the points; 0 for those that are left out.
        """
        points = self._read(X, ensure_min_samples=2)
        weight = np.ones(points.shape[0])
        if sample_weight is not None:
            given = _check_sample_weight(
                sample_weight, X, dtype=np.float64, ensure_non_negative=True
            )
            weight = np.where(labeled, given, 1.0)
        self._node = np.arange(len(weight))
        self._columns = None
        if not weight.all():
            present = np.flatnonzero(weight)
            if len(present) < 2:
                raise ValueError(
                    f"Expected 'sample_weight' to leave two points (got {len(present)} above 0)"
                )
            points = points[torch.from_numpy(present) if isinstance(points, Tensor) else present]
            if self._is_precomputed:
                points, self._columns = points[:, present], present
            self._node = np.where(weight > 0, np.cumsum(weight > 0) - 1, -1)
        neighbors = self._join(points)
        if neighbors.has_copies:
            first, node = first_copies(points)
            if len(first) > 1:
                self._node = np.where(self._node >= 0, node[self._node], -1)
                neighbors = self._join(
                    points[torch.from_numpy(first) if isinstance(points, Tensor) else first]
                )
        self._neighbors = neighbors
        mass = np.bincount(self._node[weight > 0], weight[weight > 0])
        edge_weight = neighbors.weight.double() if self._is_double else neighbors.weight
        self._graph = HeatGraph(neighbors.edge_index, edge_weight, len(mass))
        equal = (mass == mass[0]).all()
        self._mass = None if equal else torch.from_numpy(mass).to(neighbors.weight)[:, None]
        return weight

    def _join(self, points: Points) -> PointNeighbors | PrecomputedNeighbors:
        k = int(self.n_neighbors)
        if self._is_precomputed:
            return PrecomputedNeighbors(
                points, k, self.metric == "precomputed", self.device or "cpu"
            )
        return PointNeighbors(points, k, 2 if self.metric == "euclidean" else 4)

    def _read_new(self, X: Any) -> Points:
        """Check new points."""
        points = self._read(X, reset=False)
        return points if self._columns is None else points[:, self._columns]

    def _at_points(self, values: np.ndarray, X: Any, predict: Any) -> np.ndarray:
        """Values of nodes at the points of ``fit``; those that were left out are predicted."""
        result = values[self._node]
        absent = np.flatnonzero(self._node < 0)
        if len(absent):
            rows = X[torch.from_numpy(absent)] if isinstance(X, Tensor) else _rows(X, absent)
            result[absent] = predict(rows)
        return result


def _rows(X: Any, index: np.ndarray) -> Any:
    if scipy.sparse.issparse(X):
        return X.tocsr()[index]
    return X.iloc[index] if hasattr(X, "iloc") else np.asarray(X)[index]


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
