"""The C++ kernel: all steps in one pass over column tiles that stay in cache."""

import torch
from torch import Tensor

from ..._utils import native
from ..._utils.functorch import in_memory, uncompiled
from ..._utils.native import _C


def available() -> str | None:
    """Why the kernel cannot be used, or :obj:`None` if it can."""
    return native.MISSING


def levels() -> list[str]:
    """Instruction sets that this processor has, best first; empty without the extension."""
    return [] if native.MISSING else _C.levels()


def tile_widths(columns: int, widest: int, fit: int) -> list[int]:
    """How so many columns are cut into tiles, where ``fit`` of them lie in the nearest cache."""
    return _C.tile_widths(columns, widest, fit)


def propagate(
    x: Tensor,
    rowptr: Tensor,
    col: Tensor,
    value: Tensor,
    table: Tensor,
    threshold: int,
    seeds: Tensor,
    reverse: bool,
    bounds: tuple[float, float] | None = None,
    perm: Tensor | None = None,
    within: Tensor | None = None,
    *,
    level: str = "",
    width: int = 0,
) -> Tensor:
    r"""Run :math:`K` steps of a recurrence from :math:`\mathbf{z}_0 = \sum_i c_{i0} \mathbf{x}_i`,

    .. math::
        \mathbf{z}_k = (a_k \mathbf{P} + d_k \mathbf{I}) (\mathbf{M}_k \odot \mathbf{z}_{k-1})
        + b_k \mathbf{z}_{k-2} + \sum_i c_{ik} \mathbf{x}_i,
        \qquad \mathbf{y}_o = \sum_k w_{ok} \mathbf{z}_k.

    The result does not depend on the number of threads, which is :func:`torch.get_num_threads`, nor
    on the width of the tiles, to the last bit.

    Args:
        x: The inputs, float32 or float64.
        rowptr: Row pointers, contiguous, int32 or int64.
        col: Columns, contiguous, of the type of :obj:`rowptr`.
        value: Values, of the type of :obj:`x`.
        table: The coefficients, contiguous, float64 on the CPU.
        threshold: An element is dropped with probability ``threshold / 65536``; not with
            :math:`b_k \neq 0`.
        seeds: Seed of the dropout masks of every element of the batch, contiguous, int64.
        reverse: Mask the product, last mask first, as the transpose of a recurrence does.
        bounds: What every state but the first is clamped to.
        perm: Row ``i`` of the operator acts on row ``perm[i]`` of the features; of the type of
            :obj:`rowptr`.
        within: The output, in reverse the input, has the first ``within[0]`` rows of the operator
            alone, in its order, and so many first rows, ``within[j]``, lie within j steps of them,
            further on all; contiguous, int64. For :math:`\mathbf{P}^K`, :math:`K \ge 1`. (default:
            all rows)
        level: Instruction set, one of :func:`levels`. (default: the first)
        width: Columns of the widest tile, a power of two. (default: by the size of the caches)

    Shapes:
        - **input:** :math:`(I, B, N, F)`, CSR of an :math:`N \times N` operator, or of any
          :math:`M \times N` matrix for a single plain step without :obj:`perm`; table
          :math:`(3 + I + O, K + 1)`, its rows :math:`a, d, b, c_1, \ldots, c_I, w_1, \ldots, w_O`
        - **output:** :math:`(O, B, N, F)`, or :math:`(O, B, M, F)`
    """
    if torch.compiler.is_compiling():
        arguments = (x, rowptr, col, value, table, threshold, seeds, reverse, bounds, perm, within)
        return _propagate(*arguments, level=level, width=width)
    x, value, table = in_memory(x), in_memory(value), in_memory(table)
    wanted = rowptr.shape[0] - 1
    if within is not None and not reverse:
        wanted = int(within[0])
    y = x.new_empty(table.shape[0] - 3 - x.shape[0], x.shape[1], wanted, x.shape[3])
    _C.propagate(
        y,
        x,
        (rowptr, col, value),
        table,
        seeds,
        threshold,
        reverse,
        bounds,
        perm,
        within,
        torch.get_num_threads(),
        level,
        width,
    )
    return y


_propagate = uncompiled(propagate)
CSR = tuple[Tensor, Tensor, Tensor]


def multiply_tile(y: Tensor, x: Tensor, csr: CSR, first: int, count: int) -> None:
    """Columns ``first`` and on of ``y`` become the product of a matrix of any shape with the first
    ``count`` columns of ``x``, which has 1, 2, 4, 8 or 16 of them.
    """
    threads = torch.get_num_threads()
    _C.multiply_tile(y, in_memory(x), csr, first, count, threads)


def gradients(
    x: Tensor,
    g: Tensor,
    csr: CSR,
    csr_t: CSR,
    table: Tensor,
    threshold: int,
    seeds: Tensor,
    need: tuple[bool, bool, str] = (True, True, "adbcw"),
    perm: Tensor | None = None,
    *,
    level: str = "",
    width: int = 0,
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    r"""The gradients of :func:`propagate`, forward and without bounds, given that by its output.

    They need :math:`K` states of one tile of columns as scratch and nothing else that grows with
    :math:`K`, and do not depend on the number of threads, to the last bit.

    Args:
        x: The inputs.
        g: The gradient by the outputs, of the type of :obj:`x`.
        csr: Row pointers, columns and values of the operator.
        csr_t: Those of its transpose; the same where it is symmetric.
        table: The coefficients.
        threshold: See :func:`propagate`.
        seeds: See :func:`propagate`.
        need: Whether the gradient by the inputs is wanted, whether that by the values, and by which
            coefficients, of the letters ``adbcw``: others are zero. (default: all)
        perm: See :func:`propagate`.
        level: Instruction set, one of :func:`levels`. (default: the first)
        width: Columns of the widest tile, at least 16. (default: by the size of the scratch)

    Shapes:
        - **input:** :math:`(I, B, N, F)` and :math:`(O, B, N, F)`
        - **output:** what is wanted of :math:`(I, B, N, F)`, :math:`(nnz,)` and
          :math:`(3 + I + O, K + 1)`, float64

    Raises:
        ValueError: If the pattern of :obj:`csr_t` is not the transpose of that of :obj:`csr`.
    """
    if torch.compiler.is_compiling():
        arguments = (x, g, csr, csr_t, table, threshold, seeds, need, perm)
        return _gradients(*arguments, level=level, width=width)
    x, g, table = in_memory(x), in_memory(g), in_memory(table)
    value, value_t = in_memory(csr[2]), in_memory(csr_t[2])
    dx = torch.empty_like(x) if need[0] else None
    dvalue = torch.empty_like(csr[2]) if need[1] else None
    dtable = torch.empty_like(table) if need[2] else None
    _C.gradients(
        dx,
        dvalue,
        dtable,
        x,
        g,
        (*csr[:2], value),
        (*csr_t[:2], value_t),
        table,
        seeds,
        threshold,
        need[2],
        perm,
        torch.get_num_threads(),
        level,
        width,
    )
    return dx, dvalue, dtable


_gradients = uncompiled(gradients)
