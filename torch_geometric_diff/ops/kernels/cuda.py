"""The Triton kernel: one launch a step, dropout inside, no atomics and so the same result always.

Rows are taken by falling degree, which puts rows of like length in one program, and a long row (the
hub of a power-law graph) gets a program of its own that starts first. The mask of the *next* step
is applied when a row is written, so once per node and not once per edge. All elements of a batch
are worked on in the same launch.
"""

import functools

import torch
from torch import Tensor

from ..recurrence import INPUTS, B

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
    if torch.cuda.is_available() or not isinstance(code.advance, code.triton.JITFunction):
        return None
    return "torch finds no GPU (and Triton was imported without TRITON_INTERPRET=1)"


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
) -> Tensor:
    r"""Run a recurrence with a CSR matrix, dropout included, on a GPU.

    The interface is that of :func:`torch_geometric_diff.ops.kernels.reference.propagate`, and so
    are the masks. Beside its inputs and outputs it needs two states and a permutation of the rows,
    whatever the number of steps.
    """
    inputs, batch, num_rows, channels = x.shape
    outputs, steps = len(table) - INPUTS - inputs, table.size(1) - 1
    if x.numel() == 0:
        return x.new_zeros(outputs, batch, num_rows, channels)
    from . import triton_code as code  # late: Triton is slow to import and need not be there

    order = torch.argsort(rowptr.diff(), descending=True, stable=True)
    # no more rows than that can be long; counting them would make the host wait for the GPU
    num_long = min(num_rows, col.numel() // (LONG + 1))
    columns = 32 if channels > 8 else 8
    row_blocks = code.triton.cdiv(num_rows, ROWS)
    column_blocks = batch * code.triton.cdiv(channels, columns)
    numbers = table.tolist()
    # a last state that is the result needs no sum, and a product alone no coefficients
    sums = outputs != 1 or numbers[-1] != [0.0] * steps + [1.0]
    front, back = torch.empty_like(x[0]), torch.empty_like(x[0])
    y = x.new_zeros(outputs, batch, num_rows, channels) if sums else front
    # the only transfers to the GPU; its programs make the keys of a step themselves
    device_seeds = seeds.to(x.device, non_blocking=True) if threshold else None
    table = table.to(x.device, x.dtype)
    low, high = bounds or (0.0, 0.0)
    with torch.cuda.device_of(x):
        code.begin[(row_blocks * column_blocks,)](
            x, y, front, table, device_seeds, num_rows, channels, threshold, x[0].numel(),
            steps, inputs, outputs,
            DROP=threshold > 0 and not reverse and steps > 0, SUMS=sums,
            ROWS=ROWS, COLUMNS=columns, **OPTIONS,
        )  # fmt: skip
        for k in range(1, steps + 1):
            put = any(row[k] for row in numbers[INPUTS : INPUTS + inputs])
            plain = [row[k] for row in numbers[:B]] == [1.0, 0.0] and not put
            plain = plain and (k == 1 or numbers[B][k] == 0)
            masked = steps - k if reverse else k  # the step whose masks follow
            drop = threshold > 0 and (reverse or k < steps)
            code.advance[((num_long + row_blocks) * column_blocks,)](
                x, y, front, back, rowptr, col, value, order, table,
                device_seeds if drop else None, num_rows, channels, num_long,
                masked, k, steps, inputs, outputs, threshold, x[0].numel(), low, high,
                LONG=LONG, DROP=drop, REVERSE=reverse, PLAIN=plain, SUMS=sums,
                CLAMP=bounds is not None, ROWS=ROWS, CHUNK=CHUNK, COLUMNS=columns, **OPTIONS,
            )  # fmt: skip
            front, back = back, front
    return y if sums else front.unsqueeze(0)
