"""Scaling by powers of two, which changes no bit but the exponent's."""

import torch
from torch import Tensor


def scaled(x: Tensor) -> Tensor:
    """The entries, in at least float32, divided by a power of two that brings the largest below 2,
    which changes no bit: squares and sums stay in range.
    """
    x = x.to(torch.promote_types(x.dtype, torch.float32))
    return x / power_of_two(x.abs().amax()) if x.numel() > 0 else x


def power_of_two(x: Tensor) -> Tensor:
    """A power of two between half of each entry and the entry; 1 for 0."""
    exponent = torch.frexp(x).exponent - 1
    return torch.where(x > 0, torch.ldexp(torch.ones_like(x), exponent), torch.ones_like(x))
