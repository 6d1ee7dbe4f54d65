"""Where the entries of a sparse matrix are."""

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from .._utils.functorch import in_memory, untransformed
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


@contextlib.contextmanager
def _outside() -> Iterator[None]:
    with torch.inference_mode(False), untransformed():
        yield


def kept() -> contextlib.AbstractContextManager:
    """For what is kept over calls: it may take part in training and in other transforms, whoever
    asked for it first.
    """
    if torch.compiler.is_compiling():
        return contextlib.nullcontext()
    if torch.is_inference_mode_enabled() or torch._C._functorch.peek_interpreter_stack():
        return _outside()
    return contextlib.nullcontext()


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
            with kept():
                nodes = torch.arange(
                    self.num_nodes, device=self.rowptr.device, dtype=self.rowptr.dtype
                )
                repeats, size = self.rowptr.diff().long(), self.col.numel()
                self._row = torch.repeat_interleave(nodes, repeats, output_size=size)
        return self._row

    @property
    def permutation(self) -> Tensor:
        """The entry behind each of the transpose."""
        return self._transposed()[1]

    @property
    def rowptr_t(self) -> Tensor:
        """Row pointers of the transpose."""
        return self._transposed()[0].rowptr

    @property
    def col_t(self) -> Tensor:
        """Columns of the transpose."""
        return self._transposed()[0].col

    @property
    def transpose(self) -> "Pattern":
        """The pattern of the transpose, the same object if it is symmetric."""
        other, permutation = self._transposed()
        if other is not self and other._transpose is None:
            with kept():
                place = torch.empty_like(permutation)
                count = torch.arange(place.numel(), dtype=place.dtype, device=place.device)
                place[permutation] = count
                # another object, for no circle of references
                other._transpose = Pattern(self.rowptr, self.col, self._row), place
        return other

    def _transposed(self) -> "tuple[Pattern, Tensor]":
        if self._transpose is None:
            with kept():
                find = self._transpose_native if native(self.col) else self._transpose_torch
                found, permutation = find()
                self._is_symmetric = found is self
                self._transpose = (None if found is self else found), permutation
        other, permutation = self._transpose
        return (self if other is None else other), permutation

    def is_symmetric(self, value: Tensor) -> bool:
        """Whether a matrix of this pattern and these constant entries equals its transpose."""
        if self._is_symmetric is False or torch.compiler.is_compiling():
            return False
        if not native(self.col):
            same = self.transpose is self
            return same and torch.equal(value[self.permutation], value)
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
        if not torch.compiler.is_compiling() and torch.equal(col, self.row):
            if torch.equal(row, self.col):
                return self, entry
        bounds = torch.arange(self.num_nodes + 1, device=col.device, dtype=col.dtype)
        return Pattern(torch.searchsorted(col, bounds).to(col.dtype), row, col), entry
