"""Scaling by powers of two, which changes no bit but the exponent's."""

from collections.abc import Callable

import torch
from torch import Tensor


def scaled(x: Tensor) -> Tensor:
    """The entries, in at least float32, divided by a power of two that brings the largest below 2,
    which changes no bit: squares and sums stay in range.
    """
    x = x.to(torch.promote_types(x.dtype, torch.float32))
    return x / power_of_two(x.abs().amax()) if x.numel() > 0 else x


def power_of_two(x: Tensor) -> Tensor:
    """A power of two between half of each entry and the entry; 1 for 0 and what is not finite."""
    mantissa, _ = torch.frexp(x)
    return torch.nan_to_num(x / (2 * mantissa), nan=1.0)


def in_range(linear: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """A linear function of inputs [I, B, N, F]. Columns near the ends of the range of their type
    are scaled by a power of two for it, so that no term of a result that can be represented
    overflows, or is rounded off.
    """
    if x.numel() == 0:
        return linear(x)
    kind = torch.finfo(x.dtype)
    high, low = kind.max * 2.0**-32, kind.smallest_normal**0.5
    scale = power_of_two(x.abs().amax((0, 2), keepdim=True))
    scale = scale / scale.clamp(low, high)
    return linear(x / scale) * scale
