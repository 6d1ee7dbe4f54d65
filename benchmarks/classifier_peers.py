"""Classifiers of other packages on one kNN graph: graphlearning and scikit-network.

Both are optional: ``pip install --no-deps graphlearning==1.7.5 scikit-network`` (graphlearning
needs matplotlib as well). A model whose package is missing is skipped with that reason.
"""

import importlib
from functools import partial
from typing import Any

import numpy as np
import scipy.sparse
from sklearn.base import BaseEstimator
from sklearn.neighbors import NearestNeighbors

from torch_geometric_diff import DiffusionClassifier

SHARES = ", shares"  # what a model's name ends in if it knows the true shares of the classes
NEIGHBORS = 10


def affinities(X: np.ndarray, k: int = NEIGHBORS) -> scipy.sparse.csr_matrix:
    """The graph of all peers: ``exp(-4 d^2 / r^2)``, r the distance of the last neighbor, and its
    transpose added, as ``graphlearning.weightmatrix.knn`` makes it.
    """
    distance, index = NearestNeighbors(n_neighbors=k + 1).fit(X).kneighbors(X)
    weight = np.exp(-4 * (distance / distance[:, -1:]) ** 2)
    row = np.repeat(np.arange(len(X)), k + 1)
    graph = scipy.sparse.csr_matrix((weight.ravel(), (row, index.ravel())), (len(X), len(X)))
    graph = (graph + graph.T) / 2
    graph.setdiag(0)
    graph.eliminate_zeros()
    return graph.tocsr()


class Peer(BaseEstimator):
    """A classifier of a graph in the form of scikit-learn's transductive ones.

    Args:
        module (str): The module of its class.
        name (str): The class.
        settings (dict, optional): Its arguments; the others are its authors' defaults.
        shares (array, optional): The true shares of the classes.
    """

    def __init__(
        self, module: str, name: str, settings: dict[str, Any] | None = None, shares: Any = None
    ) -> None:
        self.module, self.name, self.settings, self.shares = module, name, settings, shares

    def fit(self, X: np.ndarray, few: np.ndarray) -> "Peer":
        """Predict all points from the labels that are not -1."""
        kind = getattr(importlib.import_module(self.module), self.name)
        graph, settings = affinities(X), self.settings or {}
        known = np.flatnonzero(few != -1)
        if self.module.startswith("graphlearning"):
            model = kind(graph, class_priors=self.shares, **settings)
            labels = model.fit_predict(known, few[known])
        else:
            labels = kind(**settings).fit_predict(graph, labels=dict(zip(known, few[known])))  # noqa: B905
        self.transduction_ = np.asarray(labels)
        return self


class OnTheSameGraph(DiffusionClassifier):
    """Ours on the graph of the peers, without features."""

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> "OnTheSameGraph":
        """Fit the graph of points."""
        super().fit(affinities(X), y, sample_weight)
        return self


GRAPHLEARNING = {
    "Poisson": ("poisson", {}),
    "PoissonMBO": ("poisson_mbo", {}),
    "Laplace": ("laplace", {}),
    "WNLL": ("laplace", {"reweighting": "wnll"}),
    "p-Laplace": ("plaplace", {}),
}
NETWORK = {
    "Diffusion": "DiffusionClassifier",
    "Propagation": "Propagation",
    "PageRank": "PageRankClassifier",
}


def peers() -> dict[str, Any]:
    """Constructors by name; those that end in :data:`SHARES` take ``shares``."""
    models: dict[str, Any] = {
        "diffusion, peers' graph": partial(OnTheSameGraph, metric="precomputed_affinity"),
        "diffusion" + SHARES: lambda shares: DiffusionClassifier(priors=shares),
        "diffusion, peers' graph" + SHARES: lambda shares: OnTheSameGraph(
            metric="precomputed_affinity", priors=shares
        ),
    }
    for name, (kind, settings) in GRAPHLEARNING.items():
        build = partial(Peer, "graphlearning.ssl", kind, settings)
        models[f"{name} (graphlearning){SHARES}"] = build
        if kind != "poisson_mbo":  # which needs them
            models[f"{name} (graphlearning)"] = build
    for name, kind in NETWORK.items():
        models[f"{name} (scikit-network)"] = partial(Peer, "sknetwork.classification", kind)
    return models


def missing(name: str) -> str | None:
    """Why a model cannot run, or None."""
    for package, module in (("graphlearning", "graphlearning"), ("scikit-network", "sknetwork")):
        if f"({package})" in name:
            try:
                importlib.import_module(module)
            except ImportError as error:
                return f"'{name}' needs the package '{package}' ({error})"
    return None
