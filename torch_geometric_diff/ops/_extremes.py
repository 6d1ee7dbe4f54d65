"""Results that can be represented although what they are made of cannot."""

from collections.abc import Callable

import torch
from torch import Tensor

from .._utils.numerics import power_of_two


def may_leave(table: Tensor) -> bool:
    """Whether the states of a recurrence may be larger than what becomes of them: with coefficients
    of one sign, none above 1, they are not.
    """
    least, most = table.aminmax()
    return bool(least < 0) or bool(most > 1)


def in_range(run: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """``run(x)``, a recurrence; again with inputs of about 1 where terms overflowed, or all of it
    is so small that they were rounded off.

    It is linear, and a power of two for every column changes no bit. Beside what overflowed, finite
    results are kept: what lies far below the largest entry may vanish in the second run.
    """
    y = run(x)
    if y.numel() == 0 or (y.is_cuda and torch.cuda.is_current_stream_capturing()):
        return y  # nothing can be read there
    kind = torch.finfo(y.dtype)
    largest = float(torch.stack(y.aminmax()).abs().max())
    if kind.smallest_normal / kind.eps < largest < torch.inf or largest == 0:
        return y
    scale = power_of_two(torch.where(x.isfinite(), x.abs(), 0.0).amax((0, 2), keepdim=True))
    again = run(x / scale) * scale
    return again if largest < 1 else torch.where(y.isfinite(), y, again)
