"""A square sparse matrix with its transpose, as the kernels take it."""

from typing import Any, NamedTuple

import numpy as np
import scipy.sparse
import torch
from torch import Tensor
from typing_extensions import Self

from .._utils.functorch import is_differentiated
from ..graph.adjacency import RawEdges
from ._build import Built, Recipe, build
from ._pattern import Pattern, kept
from ._receptive_field import Reach, find_reach
from ._reorder import locality_order


class CSR(NamedTuple):
    """A sparse matrix in compressed rows, sorted by column within each row."""

    rowptr: Tensor
    col: Tensor
    value: Tensor


class SparseMatrix:
    """A square sparse matrix held once as CSR, with its transpose (the same object when it is
    symmetric): all that a recurrence asks of a
    :class:`~torch_geometric_diff.ops.SparseOperator`, which builds it from a graph.
    """

    value: Tensor
    _pattern: Pattern
    _order: Tensor | None

    def _set(self, built: Built, reorder: bool) -> None:
        self._pattern, self.value = built.pattern, built.value
        is_compiling = torch.compiler.is_compiling()
        self._order = self._find_order() if reorder and not is_compiling else None
        self._forget()
        if torch.is_grad_enabled() and not self.requires_grad and not is_compiling:
            self.csr(transpose=True)  # so that no compiled call need find it

    def _forget(self) -> None:
        """Drop what was found from the entries."""
        self._symmetric: bool | None = None
        self._transposed: CSR | None = None
        self._reordered: dict[bool, CSR] = {}
        self._asked: tuple[int, Tensor, list[Reach | None]] | None = None

    @property
    def num_nodes(self) -> int:
        """The number of nodes."""
        return self._pattern.num_nodes

    num_rows = num_nodes  # those of this process: all

    @property
    def rowptr(self) -> Tensor:
        """The row pointers."""
        return self._pattern.rowptr

    @property
    def col(self) -> Tensor:
        """The column of every entry."""
        return self._pattern.col

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
        """Whether the matrix equals its transpose exactly; never of learned entries."""
        if self._symmetric is None:
            if torch.compiler.is_compiling() or self.requires_grad:
                return False  # it may be, but nobody can tell
            self._symmetric = self._pattern.is_symmetric(self.value)
        return self._symmetric

    def csr(self, transpose: bool = False) -> CSR:
        """The matrix, or its transpose, as CSR; of a symmetric matrix both are the same object.

        The transpose is kept, but for learned entries.
        """
        if not transpose or self.is_symmetric:
            return CSR(self.rowptr, self.col, self.value)
        if self._transposed is not None:
            return self._transposed
        with kept():
            pattern = self._pattern
            value = self.value.index_select(0, pattern.permutation)
            csr = CSR(pattern.rowptr_t, pattern.col_t, value)
        if not self.requires_grad and not torch.compiler.is_compiling():
            self._transposed = csr
        return csr

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
            with kept():
                self._reordered[transpose] = _in_order(self.csr(transpose), self._order)
        return self._reordered[transpose], self._order.to(self.rowptr.dtype)

    def reach(self, nodes: Tensor, num_steps: int) -> Reach | None:
        """What so many steps to ``nodes`` depend on, found when the same are asked for again and
        kept; None where it is not known or most of all (CPU kernel).
        """
        asked = self._asked
        if asked is None or asked[0] != num_steps or not torch.equal(asked[1], nodes):
            self._asked = (num_steps, nodes.clone(), [])
            return None
        if not asked[2]:
            asked[2].append(self._find_reach(nodes, num_steps))
        return asked[2][0]

    def _find_reach(self, nodes: Tensor, num_steps: int) -> Reach | None:
        if nodes.numel() == 0 or nodes.unique().numel() < nodes.numel():
            return None
        with kept():
            if self.is_reordered:
                (csr, order), (csr_t, _) = self.reordered_csr(), self.reordered_csr(True)
                return find_reach(csr, csr_t, order, nodes, num_steps)
            return find_reach(self.csr(), self.csr(True), None, nodes, num_steps)

    def _find_order(self) -> Tensor | None:
        order = locality_order(self.to_scipy()) if self.device.type == "cpu" else None
        return None if order is None else torch.from_numpy(order.astype(np.int64))

    @property
    def pattern(self) -> Pattern:
        """Where the entries lie, and those of the transpose."""
        return self._pattern

    def without_rows(self, mask: Tensor) -> "SparseMatrix":
        """The constant matrix with nothing in the rows of a mask :math:`(N,)`, not even zeros,
        which infinity would turn into NaN.
        """
        with kept():
            csr, csr_t = _of_entries(self.csr(), ~mask[self.rows()]), None
            if torch.compiler.is_compiling():
                csr_t = self.csr(transpose=True)
                csr_t = _of_entries(csr_t, ~mask[csr_t.col])
            return SparseMatrix.of_csr(csr, csr_t)

    @staticmethod
    def of_csr(
        csr: tuple[Tensor, Tensor, Tensor],
        csr_t: tuple[Tensor, Tensor, Tensor] | None = None,
        permutation: Tensor | None = None,
    ) -> "SparseMatrix":
        """A matrix, with its transpose where it is known, and, of learned entries, the entry behind
        each of the transpose.
        """
        other = object.__new__(SparseMatrix)
        other._pattern, other.value, other._order = Pattern(*csr[:2]), csr[2], None
        other._forget()
        if csr_t is not None:
            other._symmetric, other._transposed = False, CSR(*csr_t)
            if permutation is not None:
                other._pattern._transpose = Pattern(*csr_t[:2]), permutation
        return other

    def rows(self) -> Tensor:
        """The row index of every entry, shape ``(nnz,)``."""
        return self._pattern.row

    def t(self) -> Self:
        """The transposed operator; the same object if the matrix is symmetric."""
        if self.is_symmetric:
            return self
        other = self._copy()
        csr = self.csr(transpose=True)
        other._pattern = self._pattern.transpose
        other.value = csr.value
        other._symmetric = self._symmetric
        other._transposed = self.csr()
        return other

    def to(self, *args: Any, **kwargs: Any) -> Self:
        """The operator on another device or with another floating type, as ``Tensor.to``."""
        value = self.value.to(*args, **kwargs)
        if value is self.value:
            return self
        if not value.is_floating_point():
            raise TypeError(f"Expected 'dtype' to be floating (got {value.dtype})")
        other = self._copy()
        other.value, other._pattern = value, self._pattern.to(value.device)
        other._symmetric = self._symmetric
        if self._order is not None and value.device.type != "cpu":
            other._order = None  # of the CPU kernel
        return other

    def _copy(self) -> Self:
        other = object.__new__(type(self))
        other.__dict__.update(self.__dict__)
        other._forget()
        return other

    _STATE: tuple[str, ...] = ("value", "_order")

    def __getstate__(self) -> dict[str, Any]:
        state = {name: getattr(self, name) for name in self._STATE}
        return state | {"rowptr": self.rowptr, "col": self.col}

    def __setstate__(self, state: dict[str, Any]) -> None:
        for name in self._STATE:
            setattr(self, name, state[name])
        self._pattern = Pattern(state["rowptr"], state["col"])
        self._forget()

    def to_scipy(self) -> scipy.sparse.csr_matrix:
        """The matrix as ``scipy.sparse.csr_matrix`` on the CPU, sharing memory where it can;
        half types, which SciPy lacks, as float32.
        """
        half = self.dtype in (torch.float16, torch.bfloat16)
        value = self.value.float() if half else self.value
        arrays = (t.detach().cpu().numpy() for t in (value, self.col, self.rowptr))
        return scipy.sparse.csr_matrix(tuple(arrays), shape=(self.num_nodes, self.num_nodes))

    def to_dense(self) -> Tensor:
        """The matrix as a dense Tensor of shape :math:`(N, N)`."""
        dense = self.value.new_zeros(self.num_nodes, self.num_nodes)
        index = (self.rows().long(), self.col.long())
        return dense.index_put(index, self.value, accumulate=True)

    def __repr__(self) -> str:
        return f"{self.__class__.__name__}({self._describe()})"

    def _describe(self) -> str:
        return f"num_nodes={self.num_nodes}, nnz={self.nnz}, symmetric={self.is_symmetric}"


def _of_entries(csr: CSR, keep: Tensor) -> CSR:
    """The matrix of the entries of a mask; compiled, of static shapes, the others come last."""
    if torch.compiler.is_compiling():
        some = torch.argsort(~keep, stable=True)
    else:
        some = keep.nonzero().flatten()
    before = torch.nn.functional.pad(keep.cumsum(0), (1, 0))
    rowptr = before[csr.rowptr].to(csr.rowptr.dtype)
    return CSR(rowptr, csr.col[some], csr.value[some])


def _in_order(csr: CSR, order: Tensor) -> CSR:
    """The matrix whose row and column i are those of ``order[i]``."""
    place = torch.argsort(order)
    row, col = place[Pattern(csr.rowptr, csr.col).row], place[csr.col]
    edges = RawEdges(row, col, csr.value, order.numel())
    built = build(edges, Recipe(signed=True))
    return CSR(built.pattern.rowptr, built.pattern.col, built.value)
