"""The matrix of one diffusion step, built once."""

import warnings
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse
import torch
from scipy.sparse.linalg import ArpackNoConvergence, eigs, eigsh
from torch import Tensor
from torch_geometric.utils import scatter
from typing_extensions import Self

from ..graph.adjacency import NORMALIZATIONS, Edges, add_loops, loops_of, normalize, read_edges
from .derivatives import is_differentiated, plain, untransformed
from .reorder import locality_order
from .sparse import Pattern


class CSR(NamedTuple):
    """A sparse matrix in compressed rows, sorted by column within each row."""

    rowptr: Tensor
    col: Tensor
    value: Tensor


def check_step_size(step_size: float | Tensor) -> None:
    """Refuse a step size that is not a positive finite number."""
    if isinstance(step_size, Tensor):
        if step_size.numel() != 1:
            raise ValueError(
                f"Expected 'step_size' to be one number (got shape {list(step_size.shape)})"
            )
        if torch.compiler.is_compiling() or step_size.requires_grad:
            return  # a learned step may pass through any value
        step_size = float(step_size)
    if not 0 < step_size < float("inf"):
        raise ValueError(f"Expected 'step_size' to be positive and finite (got {step_size})")


class SparseOperator:
    r"""A square sparse matrix :math:`\mathbf{A}` that acts on the features of a graph's nodes, held
    once as CSR, with its transpose (the same object when it is symmetric).

    The entries are taken as they are, of any sign; entries at the same place are summed.

    Args:
        adj (Tensor, EdgeIndex or SparseTensor): An ``edge_index`` of shape :math:`(2, E)`, or a
            square sparse matrix :math:`\mathbf{A}^{\top}` (``torch_sparse.SparseTensor``,
            ``torch.sparse`` COO, CSR or CSC) whose rows are the targets.
        edge_weight (Tensor, optional): Weights :math:`(E,)` of an ``edge_index``. Weights that
            require gradients get them through :meth:`~torch_geometric_diff.ops.diffuse`.
            (default: ones)
        num_nodes (int, optional): The number of nodes :math:`N`. (default: read off ``adj``)
        reorder (bool, optional): Let the CPU kernel visit the nodes in an order that brings
            neighbours closer in memory, see
            :class:`~torch_geometric_diff.ops.DiffusionOperator`. (default: :obj:`False`)
        dtype (torch.dtype, optional): The type of the values. (default: that of the weights)

    Raises:
        ValueError: On indices out of range, entries that are infinite or NaN, or shapes that do not
            match.
        TypeError: On a type that is no adjacency.

    Attributes:
        rowptr (Tensor): Row pointers :math:`(N + 1,)`, int32 where they fit, else int64.
        col (Tensor): Column indices, of the same type.
        value (Tensor): The entries.
    """

    def __init__(
        self,
        adj: Any,
        edge_weight: Tensor | None = None,
        *,
        num_nodes: int | None = None,
        reorder: bool = False,
        dtype: torch.dtype | None = None,
    ) -> None:
        self._set(read_edges(adj, edge_weight, num_nodes, dtype, signed=True), reorder)

    @classmethod
    def gcn_norm(
        cls,
        adj: Any,
        edge_weight: Tensor | None = None,
        *,
        num_nodes: int | None = None,
        add_self_loops: bool = True,
        improved: bool = False,
        reorder: bool = False,
        dtype: torch.dtype | None = None,
    ) -> "SparseOperator":
        r"""The adjacency matrix as normalised for graph convolutions,
        :math:`\mathbf{\hat{D}}^{-1/2} \mathbf{\hat{A}} \mathbf{\hat{D}}^{-1/2}` with
        :math:`\mathbf{\hat{A}} = \mathbf{A} + \mathbf{I}` (or :math:`+ 2 \mathbf{I}` if
        ``improved``): the same values as PyG's ``gcn_norm``.

        As there, a loop that an ``edge_index`` holds keeps its weight, a ``SparseTensor`` gets its
        diagonal set, and the diagonal of a ``torch.sparse`` matrix is added to. The arguments are
        those of the class.

        Args:
            adj (Tensor, EdgeIndex or SparseTensor): The graph.
            edge_weight (Tensor, optional): Weights that are not negative.
            num_nodes (int, optional): The number of nodes.
            add_self_loops (bool, optional): Whether to add the loops. (default: :obj:`True`)
            improved (bool, optional): Loops of weight 2 instead of 1. (default: :obj:`False`)
            reorder (bool, optional): See the class. (default: :obj:`False`)
            dtype (torch.dtype, optional): The type of the values.
        """
        edges = read_edges(adj, edge_weight, num_nodes, dtype)
        if add_self_loops:
            edges = add_loops(edges, 2.0 if improved else 1.0, loops_of(adj))
        weight = normalize(edges, "sym", add_self_loops=False)
        self = object.__new__(SparseOperator)
        self._set(edges._replace(weight=weight), reorder)
        return self

    def _set(self, edges: Edges, reorder: bool) -> None:
        self.num_nodes = edges.num_nodes
        self.rowptr, self.col, self.value, self._row = _compress(*edges)
        self._transpose, self._permutation = self._find_transpose()
        self._order = self._find_order() if reorder else None
        self._reordered: dict[bool, CSR] = {}
        self._pattern: Pattern | None = None

    @property
    def nnz(self) -> int:
        """The number of stored entries."""
        return self.col.numel()

    @property
    def device(self) -> torch.device:
        """Where the matrix lies."""
        return self.value.device

    @property
    def dtype(self) -> torch.dtype:
        """The type of the entries."""
        return self.value.dtype

    @property
    def requires_grad(self) -> bool:
        """Whether the entries are learned: a gradient, or a tangent, may follow them."""
        return self.value.requires_grad or is_differentiated(self.value)

    @property
    def is_symmetric(self) -> bool:
        """Whether the matrix equals its transpose exactly."""
        return self._permutation is None

    def csr(self, transpose: bool = False) -> CSR:
        """The matrix, or its transpose, as CSR; of a symmetric matrix both are the same object."""
        if transpose and self._permutation is not None:
            rowptr, col = self._transpose
            return CSR(rowptr, col, self.value[self._permutation])
        return CSR(self.rowptr, self.col, self.value)

    @property
    def is_reordered(self) -> bool:
        """Whether ``reorder`` found an order that pays."""
        return self._order is not None

    def reordered_csr(self, transpose: bool = False) -> tuple[CSR, Tensor]:
        """The matrix in the order of ``reorder`` and the old index of every row (CPU kernel).

        Made at the first call and kept. Needs :attr:`is_reordered`.
        """
        assert self._order is not None
        transpose = transpose and not self.is_symmetric
        if transpose not in self._reordered:
            place = torch.argsort(self._order)
            rowptr, col, value = self.csr(transpose)
            row, col = place[_expand(rowptr, self.nnz)], place[col.long()]
            self._reordered[transpose] = CSR(*_compress(row, col, value, self.num_nodes)[:3])
        return self._reordered[transpose], self._order.to(self.rowptr.dtype)

    def _find_order(self) -> Tensor | None:
        order = locality_order(self.to_scipy()) if self.device.type == "cpu" else None
        return None if order is None else torch.from_numpy(order.astype(np.int64))

    @property
    def pattern(self) -> Pattern:
        """Where the entries lie, and those of the transpose; made at the first call and kept."""
        if self._pattern is None:
            order = self._permutation
            with untransformed():
                if order is None:  # symmetric, which a learned matrix of these places need not be
                    order = torch.sort(plain(self.col), stable=True).indices
            index = (self.rowptr, self.col, *self._transpose, order, self._row)
            self._pattern = Pattern(*map(plain, index))
        return self._pattern

    def without_rows(self, mask: Tensor) -> "SparseOperator":
        """The matrix with zeros in the rows of a mask :math:`(N,)`."""
        other = object.__new__(SparseOperator)
        other.__dict__.update(self._copy().__dict__)
        other.value = self.value.masked_fill(mask[self._row.long()], 0)
        other._order = None
        other._transpose, other._permutation = other._find_transpose()
        return other

    def rows(self) -> Tensor:
        """The row index of every entry, shape ``(nnz,)``."""
        return self._row

    def _find_transpose(self) -> tuple[tuple[Tensor, Tensor], Tensor | None]:
        order = torch.sort(self.col, stable=True).indices
        col, row = self.col[order], self._row[order]
        if not torch.compiler.is_compiling():
            if torch.equal(col, self._row) and torch.equal(row, self.col):
                value = self.value.detach()
                symmetric = not self.requires_grad and torch.equal(value[order], value)
                return (self.rowptr, self.col), None if symmetric else order
        return (_pointers(col, self.num_nodes, self.rowptr.dtype), row), order

    def t(self) -> Self:
        """The transposed operator; the same object if the matrix is symmetric."""
        if self._permutation is None:
            return self
        other = self._copy()
        other.rowptr, other.col, other.value = self.csr(transpose=True)
        other._row = _expand(other.rowptr, self.nnz)
        other._transpose = (self.rowptr, self.col)
        other._permutation = torch.argsort(self._permutation)
        return other

    def to(self, *args: Any, **kwargs: Any) -> Self:
        """The operator on another device or with another floating type, as ``Tensor.to``."""
        value = self.value.to(*args, **kwargs)
        if value is self.value:
            return self
        if not value.is_floating_point():
            raise TypeError(f"Expected 'dtype' to be floating (got {value.dtype})")
        other = self._copy()
        device = value.device
        other.value = value
        other.rowptr, other.col = self.rowptr.to(device), self.col.to(device)
        other._row = self._row.to(device)
        other._transpose = (
            (other.rowptr, other.col)
            if self._transpose[1] is self.col
            else (self._transpose[0].to(device), self._transpose[1].to(device))
        )
        if self._permutation is not None:
            other._permutation = self._permutation.to(device)
        return other

    def _copy(self) -> Self:
        other = object.__new__(type(self))
        other.__dict__.update(self.__dict__)
        other._reordered = {}
        other._pattern = None
        return other

    def to_scipy(self) -> scipy.sparse.csr_matrix:
        """The matrix as ``scipy.sparse.csr_matrix`` on the CPU, sharing memory where it can."""
        arrays = (t.detach().cpu().numpy() for t in (self.value, self.col, self.rowptr))
        return scipy.sparse.csr_matrix(tuple(arrays), shape=(self.num_nodes, self.num_nodes))

    def to_dense(self) -> Tensor:
        """The matrix as a dense Tensor of shape :math:`(N, N)`."""
        dense = self.value.new_zeros(self.num_nodes, self.num_nodes)
        index = (self._row.long(), self.col.long())
        return dense.index_put(index, self.value, accumulate=True)

    def __matmul__(self, x: Tensor) -> Tensor:
        """The product with ``x``, shape :math:`(N, F)` or :math:`(B, N, F)`."""
        from .diffusion import diffuse

        return diffuse(x, self, 1)

    def __repr__(self) -> str:
        return f"{self.__class__.__name__}({self._describe()})"

    def _describe(self) -> str:
        return f"num_nodes={self.num_nodes}, nnz={self.nnz}, symmetric={self.is_symmetric}"


class DiffusionOperator(SparseOperator):
    r"""The matrix of one explicit Euler step of diffusion on a graph,

    .. math::
        \mathbf{P} = \mathbf{I} - h \, \mathbf{L}, \qquad
        \mathbf{L} = \mathrm{diag}(\mathbf{W} \mathbf{1}) - \mathbf{W},

    held once as CSR, with its transpose (the same object when :math:`\mathbf{P}` is symmetric).
    Here :math:`w_{ij}` is the normalised weight of the edge from :math:`j` to :math:`i` and
    :math:`h` is ``step_size``. Rows of :math:`\mathbf{P}` sum to 1, so constants are fixed points,
    on directed graphs too. From `"Diffusion Mechanism in Residual Neural Network: Theory and
    Applications" <https://arxiv.org/abs/2105.03155>`_.

    Args:
        adj (Tensor, EdgeIndex or SparseTensor): An ``edge_index`` of shape :math:`(2, E)`, or a
            square sparse matrix :math:`\mathbf{A}^{\top}` (``torch_sparse.SparseTensor``,
            ``torch.sparse`` COO, CSR or CSC) whose rows are the targets.
        edge_weight (Tensor, optional): Weights :math:`(E,)` of an ``edge_index``. Weights that
            require gradients get them through :meth:`~torch_geometric_diff.ops.diffuse`.
            (default: ones)
        num_nodes (int, optional): The number of nodes :math:`N`. (default: read off ``adj``)
        step_size (float or Tensor, optional): The step size :math:`h > 0`. (default: :obj:`0.25`)
        normalization (str, optional): :obj:`"sym"` for
            :math:`\mathbf{D}^{-1/2} \mathbf{W} \mathbf{D}^{-1/2}`, :obj:`"row"` for
            :math:`\mathbf{D}^{-1} \mathbf{W}`, or :obj:`None`. (default: :obj:`"sym"`)
        add_self_loops (bool, optional): Count a self-loop of weight 1 into the degrees of the
            normalisation. (default: :obj:`True`)
        reorder (bool, optional): Let the CPU kernel visit the nodes in reverse Cuthill-McKee order
            where that brings neighbours much closer in memory. It pays for large graphs whose nodes
            come in no useful order, and costs about as much as ten steps, once. Results and
            attributes keep the given order. (default: :obj:`False`)
        dtype (torch.dtype, optional): The type of the values. (default: that of the weights)

    Raises:
        ValueError: On indices out of range, weights that are negative, infinite or NaN, shapes
            that do not match, ``step_size`` that is not positive, or an unknown normalisation.
        TypeError: On a type that is no adjacency.

    Attributes:
        rowptr (Tensor): Row pointers :math:`(N + 1,)`, int32 where they fit, else int64.
        col (Tensor): Column indices, of the same type.
        value (Tensor): The entries of :math:`\mathbf{P}`.
    """

    def __init__(
        self,
        adj: Any,
        edge_weight: Tensor | None = None,
        *,
        num_nodes: int | None = None,
        step_size: float | Tensor = 0.25,
        normalization: str | None = "sym",
        add_self_loops: bool = True,
        reorder: bool = False,
        dtype: torch.dtype | None = None,
    ) -> None:
        if normalization not in NORMALIZATIONS:
            raise ValueError(
                f"Expected 'normalization' to be 'sym', 'row' or None (got {normalization!r})"
            )
        check_step_size(step_size)
        edges = read_edges(adj, edge_weight, num_nodes, dtype)
        weight = normalize(edges, normalization, add_self_loops)
        self.step_size = step_size
        self._set(_euler_step(edges._replace(weight=weight), step_size), reorder)
        if not torch.compiler.is_compiling() and not self.requires_grad:
            self._warn_if_unstable()

    def with_step_size(self, step_size: float | Tensor) -> "DiffusionOperator":
        r"""The operator of the same graph with another step size, which may be learned.

        Uses :math:`\mathbf{I} - h' \mathbf{L} = (1 - r) \mathbf{I} + r \, \mathbf{P}` with
        :math:`r = h' / h`.
        """
        check_step_size(step_size)
        other = self._copy()
        ratio = step_size / self.step_size
        if isinstance(ratio, Tensor):
            ratio = ratio.to(self.value)
        diagonal = (self._row == self.col).to(self.dtype)
        other.value = torch.lerp(diagonal, self.value, ratio)
        other.step_size = step_size
        other._transpose, other._permutation = other._find_transpose()
        return other

    @property
    def gershgorin_step_size(self) -> float:
        r"""The step size up to which every step averages, :math:`1 / \max_i \sum_{j \ne i} w_{ij}`.

        Below it each row of :math:`\mathbf{P}` is a convex combination: the maximum principle
        holds and nothing diverges. It costs nothing, and is a lower bound of
        :attr:`max_stable_step_size`. Infinite for a graph without edges.
        """
        largest = float(1 - self._diagonal().min()) / float(self.step_size) if self.num_nodes else 0
        return 1 / largest if largest > 0 else float("inf")

    def _diagonal(self) -> Tensor:
        return self.value.detach()[self._row == self.col]

    @property
    def max_stable_step_size(self) -> float:
        r"""The step size past which diffusion diverges, from a Lanczos estimate on the CPU.

        :math:`\min 2 \, \mathrm{Re} \lambda / |\lambda|^2` over the eigenvalues
        :math:`\lambda \ne 0` of :math:`\mathbf{L}`, which is
        :math:`2 / \lambda_{\max}(\mathbf{L})` for a symmetric one. Accurate to about 1 %.
        Infinite for a graph without edges.
        """
        if self.gershgorin_step_size == float("inf"):
            return float("inf")
        step = self.to_scipy().astype(np.float64)
        identity = scipy.sparse.identity(self.num_nodes, format="csr")
        laplacian = (identity - step) / float(self.step_size)
        if self.num_nodes <= 32:
            values = np.linalg.eigvals(laplacian.toarray())
            values = values[np.abs(values) > 1e-9 * np.abs(values).max()]
            return float(_stable_step_size(values).min())
        start = np.random.default_rng(0).standard_normal(self.num_nodes)
        settings = {"k": 1, "tol": 1e-3, "v0": start, "return_eigenvectors": False}
        try:
            if self.is_symmetric:
                return float(_stable_step_size(eigsh(laplacian, which="LA", **settings)[0]))
            # The largest eigenvalue need not be the one that diverges first: step on as far as it
            # allows, and take up whichever eigenvalue grows there.
            bound = float(_stable_step_size(eigs(laplacian, which="LM", **settings)[0]))
            for _ in range(20):
                growth = eigs(identity - bound * laplacian, which="LM", **settings)[0]
                if abs(growth) <= 1 + 1e-3:
                    return bound
                bound = float(_stable_step_size((1 - growth) / bound))
        except ArpackNoConvergence:
            pass
        return self.gershgorin_step_size

    def _warn_if_unstable(self) -> None:
        step_size = float(self.step_size)
        if step_size <= self.gershgorin_step_size * (1 + 1e-6):
            return
        bound = self.max_stable_step_size
        if step_size > bound * (1 + 1e-2):
            warnings.warn(
                f"Diffusion diverges: 'step_size' is {step_size:.4g}, and the largest stable step "
                f"size of this graph is {bound:.4g}",
                stacklevel=3,
            )

    def _describe(self) -> str:
        step_size = self.step_size
        step = "learned" if isinstance(step_size, Tensor) else f"{step_size:g}"
        return (
            f"num_nodes={self.num_nodes}, nnz={self.nnz}, step_size={step}, "
            f"symmetric={self.is_symmetric}"
        )


def _stable_step_size(value: Any) -> Any:
    """The step size at which an eigenvalue of the Laplacian begins to grow, |1 - h value| = 1."""
    return 2 * np.real(value) / np.abs(value) ** 2


def _euler_step(edges: Edges, step_size: float | Tensor) -> Edges:
    """The entries of I - step_size * L, the diagonal first; loops cancel in L."""
    row, col, weight, num_nodes = edges
    loop = row == col
    if torch.compiler.is_compiling():  # shapes must not depend on values
        weight = weight.masked_fill(loop, 0.0)
    elif bool(loop.any()):
        row, col, weight = row[~loop], col[~loop], weight[~loop]
    if isinstance(step_size, Tensor):
        step_size = step_size.to(weight)
    nodes = torch.arange(num_nodes, device=row.device)
    off_diagonal = step_size * weight
    diagonal = 1 - scatter(off_diagonal, row, dim_size=num_nodes)
    return Edges(
        torch.cat([nodes, row]),
        torch.cat([nodes, col]),
        torch.cat([diagonal, off_diagonal]),
        num_nodes,
    )


def _compress(
    row: Tensor, col: Tensor, value: Tensor, num_nodes: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Entries sorted by row and column, equal places summed, as (rowptr, col, value, row)."""
    key, order = torch.sort(row * num_nodes + col, stable=True)
    value = value[order]
    if not torch.compiler.is_compiling():
        unique, place = torch.unique_consecutive(key, return_inverse=True)
        if unique.numel() < key.numel():
            key, value = unique, scatter(value, place, dim_size=unique.numel())
    large = max(key.numel(), num_nodes) > torch.iinfo(torch.int32).max
    index = torch.int64 if large else torch.int32
    size = max(num_nodes, 1)
    row, col = (key // size).to(index), (key % size).to(index)
    return _pointers(row, num_nodes, index), col, value, row


def _pointers(sorted_row: Tensor, num_nodes: int, dtype: torch.dtype) -> Tensor:
    bounds = torch.arange(num_nodes + 1, device=sorted_row.device, dtype=sorted_row.dtype)
    return torch.searchsorted(sorted_row, bounds).to(dtype)


def _expand(rowptr: Tensor, nnz: int) -> Tensor:
    nodes = torch.arange(rowptr.numel() - 1, device=rowptr.device, dtype=rowptr.dtype)
    return torch.repeat_interleave(nodes, rowptr.diff().long(), output_size=nnz)
