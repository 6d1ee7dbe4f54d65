"""Reading points: what is accepted, and at which scale they are searched."""

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from .._utils.checks import check_has_values
from .._utils.functorch import plain


class Points(NamedTuple):
    """Points ready to be searched, in sets.

    Attributes:
        rows (Tensor): Double precision, shape :math:`(N, D)`; every set scaled by a power of two
            into [-1, 1], but for wide ones.
        start (list): Where each set begins, and :math:`N`; no set is empty.
        wide (list): Whether squares of differences could underflow within each set.
        single (bool): Whether the input has no more than single precision.
    """

    rows: Tensor
    start: list[int]
    wide: list[bool]
    single: bool


def check_points(x: Any) -> Tensor:
    """The points as a matrix."""
    if not isinstance(x, Tensor):
        raise TypeError(f"Expected 'x' to be a Tensor (got {type(x).__name__})")
    if x.layout != torch.strided:
        raise TypeError(f"Expected 'x' to be dense (got a Tensor of layout {x.layout})")
    if x.is_complex() or x.dtype == torch.bool:
        raise TypeError(f"Expected 'x' to hold real numbers (got {x.dtype})")
    if x.dim() == 1:
        x = x.unsqueeze(1)
    if x.dim() != 2 or x.size(1) == 0:
        raise ValueError(f"Expected 'x' of shape [N, D] with D > 0, or [N] (got {list(x.shape)})")
    check_has_values("x", x)
    values = plain(x)
    if values.dim() != x.dim():
        raise NotImplementedError(
            "Neighbors cannot be searched under vmap; put all sets into one 'x' with 'batch'"
        )
    finite = torch.isfinite(values.detach()).all(dim=1)
    if not finite.all():
        row = int((~finite).nonzero()[0])
        raise ValueError(f"Expected 'x' to be finite (got NaN or infinity in row {row})")
    return x


def set_starts(batch: Any, num_points: int) -> list[int]:
    """Where the sets that hold points begin, and ``num_points``."""
    if batch is None:
        return [0, num_points] if num_points > 0 else [0]
    if not isinstance(batch, Tensor):
        raise TypeError(f"Expected 'batch' to be a Tensor (got {type(batch).__name__})")
    whole = not (batch.is_floating_point() or batch.is_complex() or batch.dtype == torch.bool)
    if not whole or batch.layout != torch.strided or batch.shape != (num_points,):
        raise ValueError(
            f"Expected 'batch' to hold integers in shape [{num_points}], one a point "
            f"(got {batch.dtype} of shape {list(batch.shape)})"
        )
    if (batch[1:] < batch[:-1]).any():
        raise ValueError("Expected 'batch' to be sorted (got a number below its predecessor)")
    sizes = torch.unique_consecutive(batch, return_counts=True)[1].cpu()
    return [0, *sizes.cumsum(0).tolist()]


def read_points(x: Tensor, start: list[int], cosine: bool) -> Points:
    """The points to search; with ``cosine``, directions (see :func:`directions`)."""
    single = x.dtype not in (torch.float64, torch.int32, torch.int64)
    rows = directions(x) if cosine else x.double()
    if cosine or rows.numel() == 0:
        return Points(rows.contiguous(), start, [False] * (len(start) - 1), single)
    size = rows.abs()
    largest = np.maximum.reduceat(size.amax(dim=1).cpu().numpy(), start[:-1])
    wide = np.zeros(len(largest), dtype=bool)
    if not single:
        # a difference that is not 0 is at least the rounding of the smaller entry
        smallest = size.masked_fill_(size == 0, torch.inf).amin(dim=1).cpu().numpy()
        smallest = np.minimum.reduceat(smallest, start[:-1])
        wide = smallest < np.ldexp(largest, -430)
    exponent = -np.frexp(largest)[1]
    exponent[wide] = np.where(largest[wide] > 2.0**1020, -4, 0)  # as it is, if differences exist
    first, sets = exponent // 2, np.diff(start)
    for part in (first, exponent - first):  # either factor is in range
        factor = torch.from_numpy(np.ldexp(1.0, part).repeat(sets)).to(rows.device)
        rows = rows * factor.unsqueeze(1)
    return Points(rows.contiguous(), start, wide.tolist(), single)


def directions(x: Tensor) -> Tensor:
    r"""The rows at length 1 in double precision, whose squared distances are
    :math:`2 - 2 \cos(x_i, x_j)`; differentiable.

    Parallel rows whose entries are exact multiples become the same bits, as the entries are divided
    by the largest of their row first. Rows of zeros become one direction of their own, in an
    additional column, which is at a right angle to all others.
    """
    x = x.double()
    largest = x.detach().abs().amax(dim=1, keepdim=True)
    zero = largest == 0
    x = x / torch.where(zero, 1.0, largest)
    square = x.square().sum(dim=1, keepdim=True)
    x = x / torch.where(zero, 1.0, square).sqrt()
    if zero.any():
        x = torch.cat([torch.where(zero, 0.0, x), zero.to(x.dtype)], dim=1)
    return x
