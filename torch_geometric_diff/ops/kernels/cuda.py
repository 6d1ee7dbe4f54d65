"""The Triton kernel: one launch a step, dropout inside, no atomics and so the same result always.

Rows are taken by falling degree, which puts rows of like length in one program, and a long row (the
hub of a power-law graph) gets a program of its own that starts first. The mask of the *next* step
is applied when a row is written, so once per node and not once per edge. All elements of a batch
are worked on in the same launch.
"""

import functools
import itertools

import torch
from torch import Tensor

LONG = 256  # entries above which a row has its own program
ROWS, CHUNK = 16, 4  # rows of the other programs, and entries of each that are gathered at once
# no overflow checks under TRITON_DEBUG: the hash means to wrap
OPTIONS = {"enable_fp_fusion": True, "sanitize_overflow": False}


@functools.cache
def available() -> str | None:
    """Why this kernel cannot run, or None: it needs Triton and a GPU.

    Without a GPU Triton's interpreter serves, slowly, if ``TRITON_INTERPRET=1`` was in the
    environment before anything imported Triton.
    """
    try:
        from . import triton_code as code
    except ImportError as error:
        return f"triton cannot be imported ({error})"
    if torch.cuda.is_available() or not isinstance(code.step, code.triton.JITFunction):
        return None
    return "torch finds no GPU (and Triton was imported without TRITON_INTERPRET=1)"


def diffuse(
    x: Tensor,
    rowptr: Tensor,
    col: Tensor,
    value: Tensor,
    num_steps: int,
    threshold: int,
    seeds: Tensor,
    reverse: bool,
) -> Tensor:
    r"""Apply ``num_steps`` products with a CSR matrix, dropout included, on a GPU.

    The interface is that of :func:`torch_geometric_diff.ops.kernels.reference.diffuse`, and so are
    the masks. Beside its input and output it needs one more buffer of their size and a permutation
    of the rows, whatever the number of steps.
    """
    if x.numel() == 0 or num_steps == 0:
        return x.clone()
    from . import triton_code as code  # late: Triton is slow to import and need not be there

    batch, num_rows, channels = x.shape
    order = torch.argsort(rowptr.diff(), descending=True, stable=True)
    # no more rows than that can be long; counting them would make the host wait for the GPU
    num_long = min(num_rows, col.numel() // (LONG + 1))
    columns = 32 if channels > 8 else 8
    row_blocks = code.triton.cdiv(num_rows, ROWS)
    column_blocks = batch * code.triton.cdiv(channels, columns)
    buffers = itertools.cycle([torch.empty_like(x), torch.empty_like(x)])
    # the only transfer to the GPU; its programs make the keys of a step themselves
    device_seeds = seeds.to(x.device, non_blocking=True) if threshold else None

    steps: list[int | None] = list(range(num_steps))  # whose mask follows the product
    if reverse:
        steps.reverse()
    else:
        steps = [*steps[1:], None]
    with torch.cuda.device_of(x):
        if threshold and not reverse:
            dropped = next(buffers)
            code.drop[(row_blocks * column_blocks,)](
                x, dropped, device_seeds, num_rows, channels, threshold,
                ROWS=ROWS, COLUMNS=columns, **OPTIONS,
            )  # fmt: skip
            x = dropped
        for step in steps:
            drop = threshold > 0 and step is not None
            y = next(buffers)
            code.step[((num_long + row_blocks) * column_blocks,)](
                x, y, rowptr, col, value, order, device_seeds if drop else None,
                num_rows, channels, num_long, step or 0, threshold,
                LONG=LONG, DROP=drop, ROWS=ROWS, CHUNK=CHUNK, COLUMNS=columns, **OPTIONS,
            )  # fmt: skip
            x = y
    return x
