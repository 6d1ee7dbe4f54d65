"""Where the entries of a sparse matrix are."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from .._utils.functorch import cacheable, in_memory
from .._utils.native import _C
from .kernels import cpu


def native(index: Tensor) -> bool:
    """Whether C++ may read an index: the extension is there, and the Tensor is a plain one."""
    return (
        not torch.compiler.is_compiling()
        and cpu.available() is None
        and index.device.type == "cpu"
        and type(index) is Tensor
        and not torch._C._functorch.is_functorch_wrapped_tensor(index)
    )


def index_dtype(largest: int) -> torch.dtype:
    """The smaller type that holds an index."""
    return torch.int64 if largest > torch.iinfo(torch.int32).max else torch.int32


class CSR(NamedTuple):
    """A sparse matrix in compressed rows, sorted by column within each row."""

    rowptr: Tensor
    col: Tensor
    value: Tensor


class Stored:
    """What a matrix of stored entries says of itself."""

    value: Tensor

    @property
    def nnz(self) -> int:
        """The number of stored entries."""
        return self.value.numel()

    @property
    def device(self) -> torch.device:
        """Where the matrix lies."""
        return self.value.device

    @property
    def dtype(self) -> torch.dtype:
        """The type of the entries."""
        return self.value.dtype


class Layout(NamedTuple):
    """Another order of the entries of a matrix: where they lie, and which entry each is."""

    rowptr: Tensor
    col: Tensor
    entries: Tensor


def _is_exporting() -> bool:
    compiler = torch.compiler
    return compiler.is_compiling() and (
        not compiler.is_dynamo_compiling() or getattr(compiler, "is_exporting", bool)()
    )


def inverse_permutation(order: Tensor) -> Tensor:
    """Where each index stands in an order of all of them."""
    inverse = torch.empty_like(order)
    inverse[order.long()] = torch.arange(order.numel(), dtype=order.dtype, device=order.device)
    return inverse


class Pattern:
    """The rows and columns of the entries of a square CSR matrix, sorted by row and column.

    Its transpose is found when it is first asked for; operators of one graph share it.
    """

    def __init__(self, rowptr: Tensor, col: Tensor, row: Tensor | None = None) -> None:
        self.rowptr, self.col = rowptr, col
        self._row = row
        self._is_symmetric: bool | None = None
        self._transpose: tuple[Pattern | None, Tensor] | None = None

    @property
    def num_nodes(self) -> int:
        """The number of rows."""
        return self.rowptr.numel() - 1

    @property
    def row(self) -> Tensor:
        """The row of every entry."""
        if self._row is None:
            with cacheable():
                nodes = torch.arange(
                    self.num_nodes, device=self.rowptr.device, dtype=self.rowptr.dtype
                )
                repeats, size = self.rowptr.diff().long(), self.col.numel()
                self._row = torch.repeat_interleave(nodes, repeats, output_size=size)
        return self._row

    @property
    def diagonal(self) -> Tensor:
        """Which entries are the diagonal's: of several in one place, when compiled, the first."""
        loop, row = self.row == self.col, self.row
        repeated = loop[:-1] & (row[1:] == row[:-1])
        return loop & ~torch.nn.functional.pad(repeated, (1, 0))[: loop.numel()]

    @property
    def transposition(self) -> Layout:
        """The entries in the order of the transpose."""
        other, entries = self._transposed()
        return Layout(other.rowptr, other.col, entries)

    @property
    def transpose(self) -> "Pattern":
        """The pattern of the transpose, the same object if it is symmetric."""
        other, entries = self._transposed()
        if other is not self and other._transpose is None:
            with cacheable():  # another object, for no circle of references
                same = Pattern(self.rowptr, self.col, self._row)
                other._transpose = same, inverse_permutation(entries)
        return other

    def _transposed(self) -> "tuple[Pattern, Tensor]":
        if self._transpose is None:
            with cacheable():
                find = self._transpose_native if native(self.col) else self._transpose_torch
                other, entries = find()
            if _is_exporting():
                return other, entries  # which nothing may outlive
            self._transpose = (None if other is self else other), entries
        transpose, entries = self._transpose
        return (self if transpose is None else transpose), entries

    def is_symmetric(self, value: Tensor) -> bool:
        """Whether a matrix of this pattern and these constant entries equals its transpose."""
        if self._is_symmetric is False or torch.compiler.is_compiling():
            return False
        if not native(self.col):
            other, entries = self._transposed()
            return other is self and torch.equal(value[entries], value)
        if value.dtype not in (torch.float32, torch.float64):
            value = value.float()
        symmetry = self._symmetry(in_memory(value))
        self._is_symmetric = symmetry != _C.Symmetry.none
        return bool(symmetry == _C.Symmetry.full)

    def to(self, device: torch.device) -> "Pattern":
        """The pattern on another device."""
        if device == self.rowptr.device:
            return self
        other = Pattern(self.rowptr.to(device), self.col.to(device))
        other._is_symmetric = self._is_symmetric
        if self._transpose is not None:
            transposed, entry = self._transpose
            moved = None if transposed is None else transposed.to(device)
            other._transpose = moved, entry.to(device)
        return other

    def _symmetry(self, value: Tensor | None = None) -> Any:
        return _C.symmetry(self.rowptr, self.col, value, torch.get_num_threads())

    def _transpose_native(self) -> "tuple[Pattern, Tensor]":
        if self._is_symmetric is None:
            self._is_symmetric = self._symmetry() != _C.Symmetry.none
        entry, other = torch.empty_like(self.col), self
        if not self._is_symmetric:
            other = Pattern(torch.empty_like(self.rowptr), torch.empty_like(self.col))
        _C.transpose(
            None if other is self else other.rowptr,
            None if other is self else other.col,
            entry,
            self.rowptr,
            self.col,
            torch.get_num_threads(),
        )
        return other, entry

    def _transpose_torch(self) -> "tuple[Pattern, Tensor]":
        entry = torch.sort(self.col, stable=True).indices
        col, row = self.col[entry], self.row[entry]
        same = not torch.compiler.is_compiling() and torch.equal(col, self.row)
        if same and torch.equal(row, self.col):
            return self, entry
        bounds = torch.arange(self.num_nodes + 1, device=col.device, dtype=col.dtype)
        return Pattern(torch.searchsorted(col, bounds).to(col.dtype), row, col), entry
