"""One way to the kernels: a plan, and the call of the kernel of its device."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from .._utils.numerics import in_range
from ._matrix import SparseMatrix
from ._pattern import CSR, Pattern
from ._receptive_field import ReceptiveField
from .kernels import cpu, kernel_for, reference
from .recurrence import LETTERS, Table, may_grow

Bounds = tuple[float, float]


class Rows(NamedTuple):
    """A matrix in the order in which a kernel visits its rows."""

    csr: CSR
    permutation: Tensor | None = None  # the node of every row
    within: Tensor | None = None  # see kernels/cpu.py


class Plan:  # not a tuple: torch.func would look for Tensors inside
    """What does not differentiate of a call: the graph, the coefficients and the direction.

    Args:
        matrix: The matrix.
        threshold: The drop probability in units of 1/65536.
        table: The coefficients; None for learned ones, which are an argument of their own.
        bounds: What every state but the first is clamped to.
        learned: The letters of the coefficients that are learned.
        field: What the rows that are wanted read; None for all rows.
        reverse: Whether the matrix is transposed and the masks come after the product.
    """

    __slots__ = ("bounds", "field", "learned", "matrix", "reverse", "table", "threshold")

    def __init__(
        self,
        matrix: SparseMatrix,
        threshold: int,
        table: Table | None,
        bounds: Bounds | None = None,
        learned: str = LETTERS,
        field: ReceptiveField | None = None,
        reverse: bool = False,
    ) -> None:
        self.matrix = matrix
        self.threshold = threshold
        self.table = table
        self.bounds = bounds
        self.learned = learned
        self.field = field
        self.reverse = reverse

    def t(self) -> "Plan":
        """The plan of the transpose."""
        plan = self.with_table(None if self.table is None else self.table.t)
        plan.reverse = not self.reverse
        return plan

    def with_table(self, table: Table | None) -> "Plan":
        """The plan of another recurrence."""
        rest = (self.bounds, self.learned, self.field, self.reverse)
        return Plan(self.matrix, self.threshold, table, *rest)

    @property
    def pattern(self) -> Pattern:
        """Where the entries lie."""
        pattern = self.matrix.pattern
        return pattern.transpose if self.reverse else pattern

    def rows(self, value: Tensor | None) -> Rows:
        """The matrix for the kernel; ``value`` holds learned entries, in the pattern's order."""
        if value is not None:
            return Rows(CSR(self.pattern.rowptr, self.pattern.col, value))
        if self.field is not None:
            csr = self.field.csr_t if self.reverse else self.field.csr
            return Rows(csr, self.field.permutation, self.field.within)
        if self.matrix.is_reordered and kernel_for(self.matrix.device) is cpu:
            return Rows(*self.matrix.reordered_csr(self.reverse))
        return Rows(self.matrix.csr(self.reverse))

    def coefficients(self, table: Tensor | None) -> Tensor:
        """The table, learned or not."""
        return self.table.values if table is None else table  # type: ignore[union-attr]

    def call(self, x: Tensor, value: Tensor | None, table: Tensor | None, seeds: Tensor) -> Tensor:
        """Call the kernel."""
        coefficients = self.coefficients(table)
        rest = (coefficients, self.threshold, seeds, self.reverse, self.bounds)
        grows = may_grow(coefficients) if self.table is None else self.table.may_grow
        return call_kernel(x, self.rows(value), rest, grows)

    def call_in_batch(
        self, x: Tensor, value: Tensor | None, table: Tensor | None, seeds: Tensor
    ) -> Tensor:
        """Call the kernel for every element of a batch of gradients."""
        (csr, permutation, within), (low, high) = self.rows(value), self.bounds or (None, None)
        settings = (self.threshold, self.reverse, low, high)
        return kernel_op(x, *csr, permutation, within, self.coefficients(table), seeds, *settings)

    def drop(self, states: Tensor, seeds: Tensor) -> Tensor:
        """K states [K, B, N, F] times the masks of steps 1 to K."""
        num_steps = len(states)
        if not self.threshold or not num_steps:
            return states
        masks = reference.Masks(states[0], self.threshold, seeds, num_steps)
        keep = torch.stack([masks.keep(k) for k in range(1, num_steps + 1)])
        return reference.drop(states, keep.flip(0) if self.reverse else keep, self.threshold)


def call_kernel(x: Tensor, rows: Rows, rest: Any, grows: bool) -> Tensor:
    """The kernel of the device, for inputs [I, B, N, F]; ``rest`` is its table, threshold, seeds,
    reverse and bounds, and ``grows`` whether states may be larger than what becomes of them.
    """
    kernel: Any = kernel_for(x.device)

    def propagate(x: Tensor) -> Tensor:
        if kernel is cpu:
            return kernel.propagate(x, *rows.csr, *rest, rows.permutation, rows.within)
        with torch.autocast(x.device.type, enabled=False):  # sums stay in full precision
            return kernel.propagate(x.contiguous(), *rows.csr, *rest)

    return in_range(propagate, x) if grows and rest[-1] is None else propagate(x)


def call_gradients(
    x: Tensor, g: Tensor, rows: Rows, csr_t: CSR, rest: Any
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """The gradients that the kernel of the device fuses; ``rest`` is its table, threshold, seeds
    and need. Not of the reference.
    """
    kernel: Any = kernel_for(x.device)
    permutation = () if rows.permutation is None else (rows.permutation,)
    return kernel.gradients(x, g, rows.csr, csr_t, *rest, *permutation)


@torch.library.custom_op("torch_geometric_diff::kernel", mutates_args=())
def kernel_op(
    x: Tensor,
    rowptr: Tensor,
    col: Tensor,
    value: Tensor,
    permutation: Tensor | None,
    within: Tensor | None,
    table: Tensor,
    seeds: Tensor,
    threshold: int,
    reverse: bool,
    low: float | None,
    high: float | None,
) -> Tensor:
    """:func:`call_kernel` for torch's dispatcher, which takes batches of gradients apart."""
    bounds = None if low is None or high is None else (low, high)
    rest = (table, threshold, seeds, reverse, bounds)
    return call_kernel(x, Rows(CSR(rowptr, col, value), permutation, within), rest, may_grow(table))
