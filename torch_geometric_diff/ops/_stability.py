"""How large a step of diffusion may be."""

import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse
import torch
import torch_geometric
from scipy.sparse.csgraph import breadth_first_order, connected_components
from scipy.sparse.linalg import eigsh
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

DENSE_NODES = 300  # up to which all eigenvalues of a matrix are computed
_LIBRARIES = tuple(
    str(Path(file).parent) + os.sep
    for file in (torch.__file__, torch_geometric.__file__, str(Path(__file__).parent))
)


class Stability:
    """What is known of the stability of steps on one graph, shared by its operators.

    Attributes:
        limit (float, optional): The largest stable step size, once it was estimated; NaN where
            nobody can tell.
        warned (bool): Whether a step was said to diverge.
    """

    _known: WeakIdKeyDictionary = WeakIdKeyDictionary()  # by graph, then by weights

    def __init__(self) -> None:
        self.limit: float | None = None
        self.warned = False

    @classmethod
    def of(cls, adj: Any, weight: Tensor | None, *how: Any) -> "Stability":
        """That of a graph and its normalization, from an earlier operator if there was one."""
        if not isinstance(adj, Tensor):
            return cls()
        of_graph = cls._known.setdefault(adj, WeakIdKeyDictionary())
        of_weights = of_graph.setdefault(adj if weight is None else weight, {})
        versions = tuple(0 if t is None or t.is_inference() else t._version for t in (adj, weight))
        return of_weights.setdefault((versions, *how), cls())


def edge_bound(laplacian: scipy.sparse.csr_matrix) -> float:
    r"""A step size below which a symmetric Laplacian is stable, :math:`2 / \max (d_i + d_j)`.

    The maximum is over the edges: :math:`\mathbf{L} = \mathbf{B}^{\top} \mathbf{B}` with a row of
    :math:`\mathbf{B}` an edge, and :math:`d_i + d_j` bounds the sums of the rows of
    :math:`\mathbf{B} \mathbf{B}^{\top}`, whose eigenvalues are the same.
    """
    degree = laplacian.diagonal()
    rows = np.repeat(np.arange(len(degree)), np.diff(laplacian.indptr))
    return 2 / float((degree[rows] + degree[laplacian.indices])[rows != laplacian.indices].max())


def largest_stable_step(laplacian: scipy.sparse.csr_matrix, symmetric: bool) -> float:
    r"""The smallest :math:`2 \, \mathrm{Re} \lambda / |\lambda|^2` over the eigenvalues
    :math:`\lambda \ne 0`, to about 1 %; infinite if there is none, NaN if nobody can tell.

    The spectrum is that of the strongly connected components one by one, for in an order of them
    the matrix is block triangular. Without that, the eigenvalues of a directed path, all equal,
    would be computed far from where they are.
    """
    scale = float(laplacian.diagonal().max())  # of tiny weights no square may underflow
    if scale == 0:
        return np.inf
    arrays = laplacian.data / scale, laplacian.indices, laplacian.indptr  # 1 / scale may overflow
    scaled = scipy.sparse.csr_matrix(arrays, shape=laplacian.shape)
    return (_limit_of(scaled, True) if symmetric else _limit_of_components(scaled)) / scale


def _limit_of_components(laplacian: scipy.sparse.csr_matrix) -> float:
    count, label = connected_components(laplacian, directed=True, connection="strong")
    size = np.bincount(label, minlength=count)
    order = np.argsort(label, kind="stable")
    blocks = laplacian[order][:, order]
    end = np.cumsum(size)
    largest = np.maximum.reduceat(blocks.diagonal(), end - size)
    single = float(largest[size == 1].max(initial=0.0))
    bound = 2 / single if single > 0 else np.inf
    # a component is stable up to 1 / largest: from some point on they cannot change the bound
    for which in np.argsort(-largest):
        if largest[which] * bound <= 1:
            break
        if size[which] > 1:
            part = slice(end[which] - size[which], end[which])
            block, is_small = blocks[part, part], size[which] <= DENSE_NODES
            if not is_small and (block := _symmetrized(block)) is None:
                return np.nan
            bound = min(bound, _limit_of(block, symmetric=not is_small))
    return float(bound)


def _limit_of(matrix: scipy.sparse.csr_matrix, symmetric: bool) -> float:
    """The step size at which the first eigenvalue begins to grow, |1 - h value| = 1."""
    size = matrix.shape[0]
    if size <= DENSE_NODES:
        value = (np.linalg.eigvalsh if symmetric else np.linalg.eigvals)(matrix.toarray())
    else:
        start = np.random.default_rng(0).standard_normal(size)
        settings = {"k": 1, "tol": 1e-3, "v0": start, "return_eigenvectors": False}
        value = eigsh(matrix, which="LA", **settings)
    value = value[np.abs(value) > 1e-9 * np.abs(value).max(initial=0.0)]
    return float((2 * np.real(value) / np.abs(value) ** 2).min(initial=np.inf))


def _symmetrized(block: scipy.sparse.csr_matrix) -> scipy.sparse.csr_matrix | None:
    """The symmetric matrix that a connected one is similar to by some scaling, if there is one:
    that of an undirected graph normalized by rows, say.
    """
    other = block.T.tocsr()
    if not (
        np.array_equal(block.indptr, other.indptr) and np.array_equal(block.indices, other.indices)
    ):
        return None
    # the scaling along a tree: a node's relative to its parent's, then, by doubling, the root's
    _, parent = breadth_first_order(block, 0)
    parent[0], nodes = 0, np.arange(len(parent))
    down, up = (
        np.abs(np.asarray(block[i, j]).ravel()) for i, j in ((nodes, parent), (parent, nodes))
    )
    exponent = np.log(up / down) / 2
    exponent[0] = 0
    while parent.any():
        exponent, parent = exponent + exponent[parent], parent[parent]
    rows = np.repeat(nodes, np.diff(block.indptr))
    scale = np.exp(np.clip(exponent[rows] - exponent[block.indices], -700, 700))
    scaled = scipy.sparse.csr_matrix((block.data * scale, block.indices, block.indptr), block.shape)
    if abs(scaled - scaled.T).max() > 1e-6 * abs(scaled).max():
        return None
    return (scaled + scaled.T) / 2


def user_stacklevel() -> int:
    """The ``stacklevel`` of :func:`warnings.warn` that names the first line outside of this
    package, of PyG and of torch.
    """
    level, frame = 1, sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_LIBRARIES):
        level, frame = level + 1, frame.f_back
    return level
