"""A square sparse matrix with its transpose, as the kernels take it."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse
import torch
from torch import Tensor
from typing_extensions import Self

from .._utils.functorch import cacheable, is_differentiated
from ._build import Built, compress
from ._pattern import CSR, Layout, Pattern, Stored, inverse_permutation
from ._receptive_field import ReceptiveField, find_receptive_field
from ._reorder import locality_order


class Reordered(NamedTuple):
    """The matrix and its transpose with rows and columns in another order."""

    permutation: Tensor  # the node of every row
    layout: Layout
    transpose: Layout


class SparseMatrix(Stored):
    """A square sparse matrix stored once as CSR, with its transpose (the same object when it is
    symmetric): all that a recurrence asks of a
    :class:`~torch_geometric_diff.ops.SparseOperator`, which builds it from a graph.

    What follows from the entries is computed again where these were changed in place.
    """

    value: Tensor
    _pattern: Pattern
    reordered: Reordered | None

    def _set(self, built: Built, reorder: bool) -> None:
        self._pattern, self.value = built.pattern, _versioned(built.value)
        is_compiling = torch.compiler.is_compiling()
        self._forget()
        self._reorder(None)
        if reorder and not is_compiling and self.device.type == "cpu":
            order = locality_order(self.to_scipy())
            self._reorder(None if order is None else torch.from_numpy(order.astype(np.int64)))
        if torch.is_grad_enabled() and not self.requires_grad and not is_compiling:
            self.csr(transpose=True)  # so that no compiled call need find it

    def _forget(self) -> None:
        """Drop what was computed from the entries."""
        self._source: tuple[Tensor, int | None] | None = None
        self._cache: dict[str, Any] = {}

    def _derived(self, name: str, compute: Callable[[], Any]) -> Any:
        """What follows from the entries, computed once for each version of them."""
        if torch.compiler.is_compiling():
            return compute()
        version = None if self.value.is_inference() else self.value._version
        if self._source is None or self._source[0] is not self.value or self._source[1] != version:
            self._forget()
            self._source = self.value, version
        if name not in self._cache:
            self._cache[name] = compute()
        return self._cache[name]

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
    def requires_grad(self) -> bool:
        """Whether the entries are learned: a gradient, or a tangent, may follow them."""
        return self.value.requires_grad or is_differentiated(self.value)

    @property
    def is_symmetric(self) -> bool:
        """Whether the matrix equals its transpose exactly; never of learned entries."""
        if torch.compiler.is_compiling() or self.requires_grad or self.value.is_meta:
            return False  # it may be, but nobody can tell
        return self._derived("symmetric", lambda: self._pattern.is_symmetric(self.value))

    @property
    def pattern(self) -> Pattern:
        """Where the entries lie, and those of the transpose."""
        return self._pattern

    def rows(self) -> Tensor:
        """The row index of every entry, shape ``(nnz,)``."""
        return self._pattern.row

    def csr(self, transpose: bool = False) -> CSR:
        """The matrix, or its transpose, as CSR; of a symmetric matrix both are the same object."""
        if not transpose or self.is_symmetric:
            return CSR(self.rowptr, self.col, self.value)
        return self._in_layout("transpose", self._pattern.transposition)

    def _in_layout(self, name: str, layout: Layout) -> CSR:
        """The matrix with its entries in another order."""

        def gather() -> Tensor:
            return self.value.index_select(0, layout.entries)

        def gather_once() -> Tensor:
            with cacheable():
                return gather()

        learned = self.requires_grad
        return CSR(*layout[:2], gather() if learned else self._derived(name, gather_once))

    @property
    def is_reordered(self) -> bool:
        """Whether ``reorder`` found an order that pays."""
        return self.reordered is not None

    def _reorder(self, permutation: Tensor | None) -> None:
        self.reordered = None
        if permutation is None:
            return
        inverse = inverse_permutation(permutation.long())
        row, col = inverse[self.rows().long()], inverse[self.col.long()]
        layouts = []
        for index in ((row, col), (col, row)):
            pattern, target = compress(*index, self.num_nodes)
            layouts.append(Layout(pattern.rowptr, pattern.col, inverse_permutation(target)))
        self.reordered = Reordered(permutation.to(self.rowptr.dtype), *layouts)

    def reordered_csr(self, transpose: bool = False) -> tuple[CSR, Tensor]:
        """The matrix in the order of ``reorder`` and the node of every row (CPU kernel). Needs
        :attr:`is_reordered`.
        """
        assert self.reordered is not None
        permutation, layout, other = self.reordered
        if transpose and not self.is_symmetric:
            return self._in_layout("reordered transpose", other), permutation
        return self._in_layout("reordered", layout), permutation

    def receptive_field(self, nodes: Tensor, num_steps: int) -> ReceptiveField | None:
        """What so many steps to ``nodes`` read, computed when the same are asked for again and
        cached; None where it is not known or most of all (CPU kernel).
        """
        asked = self._derived("asked", list)
        if not asked or asked[0] != num_steps or not torch.equal(asked[1], nodes):
            asked[:] = num_steps, nodes.clone()
            return None
        if len(asked) == 2:
            asked.append(self._find_receptive_field(nodes, num_steps))
        return asked[2]

    def _find_receptive_field(self, nodes: Tensor, num_steps: int) -> ReceptiveField | None:
        if nodes.numel() == 0 or nodes.unique().numel() < nodes.numel():
            return None
        with cacheable():
            if self.is_reordered:
                (csr, permutation), (csr_t, _) = self.reordered_csr(), self.reordered_csr(True)
                return find_receptive_field(csr, csr_t, permutation, nodes, num_steps)
            return find_receptive_field(self.csr(), self.csr(True), None, nodes, num_steps)

    def without_rows(self, mask: Tensor) -> "SparseMatrix":
        """The constant matrix with nothing in the rows of a mask :math:`(N,)`, not even zeros,
        which infinity would turn into NaN.
        """
        with cacheable():
            row, col, value = self.rows(), self.col, self.value
            keep = ~mask[row]
            if torch.compiler.is_compiling():  # of static shapes: the others come last
                entries = torch.argsort(~keep, stable=True)
                col = torch.where(keep, col, self.num_nodes)
            else:
                entries = keep.nonzero().flatten()
            before = torch.nn.functional.pad(keep.cumsum(0), (1, 0))
            rowptr = before[self.rowptr].to(self.rowptr.dtype)
            pattern = Pattern(rowptr, col[entries].to(self.col.dtype), row[entries])
            return SparseMatrix.of_entries(pattern, value[entries])

    @staticmethod
    def of_entries(
        pattern: Pattern, value: Tensor, reordered: Reordered | None = None
    ) -> "SparseMatrix":
        """A matrix of a pattern."""
        other = object.__new__(SparseMatrix)
        other._pattern, other.value, other.reordered = pattern, value, reordered
        other._forget()
        return other

    def t(self) -> Self:
        """The transposed operator; the same object if the matrix is symmetric."""
        if self.is_symmetric:
            return self
        other = self._copy(self._transposed(self.value))
        other._pattern = self._pattern.transpose
        other._reorder(None if self.reordered is None else self.reordered.permutation)
        return other

    def _transposed(self, entries: Tensor) -> Tensor:
        """Entries of this pattern in the order of the transpose."""
        return entries.index_select(0, self._pattern.transposition.entries)

    def to(self, *args: Any, **kwargs: Any) -> Self:
        """The operator on another device or with another floating type, as ``Tensor.to``."""
        value = self.value.to(*args, **kwargs)
        if value is self.value:
            return self
        if not value.is_floating_point():
            raise TypeError(f"Expected 'dtype' to be floating (got {value.dtype})")
        other = self._copy(value)
        other._pattern = self._pattern.to(value.device)
        symmetric = self.is_symmetric
        if not self.requires_grad:
            other._derived("symmetric", lambda: symmetric)
        if value.device.type != "cpu":
            other.reordered = None  # of the CPU kernel
        return other

    def _copy(self, value: Tensor) -> Self:
        """The operator with other entries in the same pattern."""
        other = object.__new__(type(self))
        other.__dict__.update(self.__dict__)
        other.value = _versioned(value)
        other._forget()
        return other

    _STATE: tuple[str, ...] = ("value",)

    def __getstate__(self) -> dict[str, Any]:
        state = {name: getattr(self, name) for name in self._STATE}
        permutation = None if self.reordered is None else self.reordered.permutation
        return state | {"rowptr": self.rowptr, "col": self.col, "permutation": permutation}

    def __setstate__(self, state: dict[str, Any]) -> None:
        for name in self._STATE:
            setattr(self, name, state[name])
        self._pattern = Pattern(state["rowptr"], state["col"])
        self._reorder(state["permutation"])
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


def _versioned(value: Tensor) -> Tensor:
    """Entries that count changes in place, which Tensors of inference mode do not."""
    if torch.compiler.is_compiling() or not value.is_inference():
        return value
    with cacheable():
        return value.clone()
