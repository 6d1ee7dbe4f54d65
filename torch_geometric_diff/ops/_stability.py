"""How large a step of diffusion may be."""

import contextlib
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse
import torch
import torch_geometric
from scipy.sparse.csgraph import breadth_first_order, connected_components
from scipy.sparse.linalg import ArpackNoConvergence, cg, eigs, eigsh
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

DENSE_NODES = 300  # up to which all eigenvalues of a matrix are found
TRIED_NODES = 5000  # up to which the estimate of a directed one is tried out
_LIBRARIES = tuple(
    str(Path(file).parent) + os.sep
    for file in (torch.__file__, torch_geometric.__file__, str(Path(__file__).parent))
)


class Stability:
    """What is known of the stability of steps on one graph, shared by its operators.

    Attributes:
        limit (float, optional): The largest stable step size, once it was estimated.
        warned (bool): Whether a step was said to diverge.
    """

    _known: WeakIdKeyDictionary = WeakIdKeyDictionary()

    def __init__(self) -> None:
        self.limit: float | None = None
        self.warned = False

    @classmethod
    def of(cls, adj: Any, weight: Tensor | None, *how: Any) -> "Stability":
        """That of a graph and its normalization, from an earlier operator if there was one."""
        if not isinstance(adj, Tensor):
            return cls()
        key = (*map(_version, (adj, weight)), *how)
        return cls._known.setdefault(adj, {}).setdefault(key, cls())


def _version(tensor: Tensor | None) -> tuple[int, int] | None:
    """What tells a Tensor from another, and from itself after a change in place."""
    if tensor is None:
        return None
    return id(tensor), 0 if tensor.is_inference() else tensor._version


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
    :math:`\lambda \ne 0`, to about 1 % (a directed graph of many nodes, all in one cycle, may be
    further off); infinite if there is none.

    The spectrum is that of the strongly connected components one by one, for in an order of them
    the matrix is block triangular. Without that, the eigenvalues of a directed path, all equal,
    would be found far from where they are.
    """
    scale = float(laplacian.diagonal().max())  # of tiny weights no square may underflow
    if scale == 0:
        return np.inf
    arrays = laplacian.data / scale, laplacian.indices, laplacian.indptr  # 1 / scale may overflow
    scaled = scipy.sparse.csr_matrix(arrays, shape=laplacian.shape)
    return _largest_of_scaled(scaled, symmetric) / scale


def _largest_of_scaled(laplacian: scipy.sparse.csr_matrix, symmetric: bool) -> float:
    if symmetric:
        return _largest_of(laplacian, symmetric=True)
    count, label = connected_components(laplacian, directed=True, connection="strong")
    size = np.bincount(label, minlength=count)
    order = np.argsort(label, kind="stable")
    blocks = laplacian[order][:, order]
    diagonal = blocks.diagonal()
    end = np.cumsum(size)
    largest = np.maximum.reduceat(diagonal, end - size)
    single = float(largest[size == 1].max(initial=0.0))
    bound = 2 / single if single > 0 else np.inf
    # a component is stable up to 1 / largest: from some point on they cannot change the bound
    for which in np.argsort(-largest):
        if largest[which] * bound <= 1:
            break
        if size[which] > 1:
            part = slice(end[which] - size[which], end[which])
            bound = min(bound, _largest_connected(blocks[part, part]))
    return float(bound)


def _largest_connected(block: scipy.sparse.csr_matrix) -> float:
    if block.shape[0] <= DENSE_NODES:  # LAPACK balances by itself
        return _largest_of(block, symmetric=False)
    balanced = _symmetrized(block)
    if balanced is not None:
        return _largest_of(balanced, symmetric=True)
    return _largest_of(_balanced(block), symmetric=False)


def _largest_of(matrix: scipy.sparse.csr_matrix, symmetric: bool) -> float:
    size = matrix.shape[0]
    if size <= DENSE_NODES:
        find = np.linalg.eigvalsh if symmetric else np.linalg.eigvals
        return _stable_step_size(find(matrix.toarray()))
    start = np.random.default_rng(0).standard_normal(size)
    settings = {"k": 1, "tol": 1e-3, "v0": start, "return_eigenvectors": False}
    if symmetric:
        return _stable_step_size(eigsh(matrix, which="LA", **settings))
    settings |= {"which": "LM", "maxiter": 300}
    identity, bound = scipy.sparse.identity(size, format="csr"), 0.0
    with contextlib.suppress(ArpackNoConvergence):
        # The largest eigenvalue need not be the one that diverges first: step on as far as it
        # allows, and take up whichever eigenvalue grows there.
        bound = _stable_step_size(eigs(matrix, **settings))
        for _ in range(20):
            growth = eigs(identity - bound * matrix, **settings)
            if abs(growth[0]) <= 1 + 1e-3:
                break
            bound = _stable_step_size((1 - growth) / bound)
    if bound <= 0 or (
        size <= TRIED_NODES
        and list(_growing(matrix, np.array([0.99, 1.01]) * bound)) != [False, True]
    ):
        return _by_growth(matrix)
    return bound


def _growing(
    matrix: scipy.sparse.csr_matrix, step_sizes: np.ndarray, steps: int = 1000
) -> np.ndarray:
    """Whether steps of these sizes grow, tried from a random start, early growth left out."""
    x = np.random.default_rng(0).standard_normal((matrix.shape[0], len(step_sizes)))
    growth = np.zeros(len(step_sizes))
    for step in range(1, steps + 1):
        x = x - (matrix @ x) * step_sizes
        if step % 50 == 0:
            norm = np.linalg.norm(x, axis=0)
            x = x / norm
            growth += np.log(norm) * (step > steps // 2)
    return growth > 1e-3 * steps


def _by_growth(matrix: scipy.sparse.csr_matrix) -> float:
    """The largest stable step size by trying: for matrices whose spectrum nobody finds, being far
    from normal or holding many eigenvalues of one size.
    """
    low, high = 1 / matrix.diagonal().max(), 2 / matrix.diagonal().mean()
    for _ in range(3):
        step_sizes = np.geomspace(low, high, 10)
        growing = np.append(_growing(matrix, step_sizes[1:-1]), True)
        first = int(growing.argmax())
        low, high = step_sizes[first], step_sizes[first + 1]
    return float(np.sqrt(low * high))


def _stable_step_size(value: np.ndarray) -> float:
    """The step size at which the first eigenvalue begins to grow, |1 - h value| = 1."""
    value = value[np.abs(value) > 1e-9 * np.abs(value).max(initial=0.0)]
    return float((2 * np.real(value) / np.abs(value) ** 2).min(initial=np.inf))


def _scaled(block: scipy.sparse.csr_matrix, exponent: np.ndarray) -> scipy.sparse.csr_matrix:
    """The similar matrix of entries exp(exponent_i) a_ij exp(-exponent_j)."""
    rows = np.repeat(np.arange(block.shape[0]), np.diff(block.indptr))
    scale = np.exp(np.clip(exponent[rows] - exponent[block.indices], -700, 700))
    return scipy.sparse.csr_matrix((block.data * scale, block.indices, block.indptr), block.shape)


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
    scaled = _scaled(block, exponent)
    if abs(scaled - scaled.T).max() > 1e-6 * abs(scaled).max():
        return None
    return (scaled + scaled.T) / 2


def _balanced(block: scipy.sparse.csr_matrix, steps: int = 50) -> scipy.sparse.csr_matrix:
    r"""A similar matrix whose rows and columns have like sums off the diagonal: closer to a normal
    one, so that an estimate errs less.

    The exponents :math:`t` minimize :math:`\sum_{i \ne j} |a_{ij}| e^{t_i - t_j}`, which is convex:
    Newton's method, whose matrix is the Laplacian of the scaled entries and their transpose.
    """
    size = abs(block - scipy.sparse.diags(block.diagonal())).tocsr()
    size.eliminate_zeros()
    exponent = np.zeros(block.shape[0])
    for _ in range(steps):
        scaled = _scaled(size, exponent)
        out, into = np.asarray(scaled.sum(1)).ravel(), np.asarray(scaled.sum(0)).ravel()
        if np.abs(np.log(out / into)).max() < 0.1:
            break
        hessian = scipy.sparse.diags(out + into) - scaled - scaled.T
        preconditioner = scipy.sparse.diags(1 / (out + into))
        change, _ = cg(hessian, into - out, rtol=1e-2, maxiter=1000, M=preconditioner)
        exponent += change / max(1.0, np.ptp(change) / 4)
    return _scaled(block, exponent)


def user_stacklevel() -> int:
    """The ``stacklevel`` of :func:`warnings.warn` that names the first line outside of this
    package, of PyG and of torch.
    """
    level, frame = 1, sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_LIBRARIES):
        level, frame = level + 1, frame.f_back
    return level
