"""The C++ kernel: all steps in one pass over column tiles that stay in cache."""

import torch
from torch import Tensor

_missing: str | None = None
try:
    from torch_geometric_diff import _C
except ImportError as error:
    _missing = f"the C++ extension was not built when the package was installed ({error})"


def available() -> str | None:
    """Why the kernel cannot be used, or :obj:`None` if it can."""
    return _missing


def levels() -> list[str]:
    """Instruction sets that this processor has, best first; empty without the extension."""
    return [] if _missing else _C.levels()


def diffuse(
    x: Tensor,
    rowptr: Tensor,
    col: Tensor,
    value: Tensor,
    num_steps: int,
    threshold: int,
    seeds: Tensor,
    reverse: bool,
    perm: Tensor | None = None,
    *,
    level: str = "",
    width: int = 0,
) -> Tensor:
    r"""Apply :math:`K` steps of a CSR operator, with dropout before each (see :mod:`..ops`).

    The result does not depend on the number of threads, which is :func:`torch.get_num_threads`, nor
    on the width of the tiles, to the last bit.

    Args:
        x: Features, contiguous, float32 or float64.
        rowptr: Row pointers, contiguous, int32 or int64.
        col: Columns, contiguous, of the type of :obj:`rowptr`.
        value: Values, contiguous, of the type of :obj:`x`.
        num_steps: Number of steps.
        threshold: An element is dropped with probability ``threshold / 65536``.
        seeds: Seed of the dropout masks of every element of the batch, int64.
        reverse: Mask the output of every step, last step first (the transpose, if the operator is).
        perm: Row ``i`` of the operator acts on row ``perm[i]`` of the features; of the type of
            :obj:`rowptr`.
        level: Instruction set, one of :func:`levels`. (default: the first)
        width: Blocks of 16 columns in a tile, 1, 2 or 4. (default: by the size of the caches)

    Shapes:
        - **input:** :math:`(B, N, F)`, CSR of an :math:`N \times N` operator, or of any
          :math:`M \times N` matrix for a single step without dropout and :obj:`perm`
        - **output:** :math:`(B, N, F)`, or :math:`(B, M, F)`
    """
    batch, rows, channels = x.shape
    y = x.new_empty(batch, rowptr.numel() - 1, channels)
    size = channels * x.element_size()  # of a row
    for i, seed in enumerate(seeds.tolist()):
        _C.diffuse(
            y.data_ptr() + i * y.shape[1] * size,
            x.data_ptr() + i * rows * size,
            rowptr.data_ptr(),
            col.data_ptr(),
            value.data_ptr(),
            0 if perm is None else perm.data_ptr(),
            y.shape[1],
            rows,
            channels,
            x.dtype == torch.float64,
            rowptr.dtype == torch.int64,
            num_steps,
            threshold,
            seed & 0xFFFFFFFFFFFFFFFF,
            reverse,
            torch.get_num_threads(),
            level,
            width,
        )
    return y
