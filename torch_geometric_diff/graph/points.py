"""Reading points: what is accepted, the sets they lie in, the scale they are searched at."""

from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .._utils.checks import check_has_values, check_integer
from .._utils.functorch import unwrap
from .._utils.numerics import power_of_two

TINY = 2.0**-500  # the least difference of scaled entries whose square is in range


class Points(NamedTuple):
    """Points ready to be searched, in sets; entries are below 1 in size.

    Attributes:
        known (Tensor): Points to find, in double precision, shape :math:`(N, D)`.
        asked (Tensor): Points to find neighbors of, shape :math:`(M, D)`.
        known_start (list): Where each set begins among ``known``, and :math:`N`.
        asked_start (list): The same of ``asked``.
        known_set (Tensor): The number of the set of each known point, from 0 on.
        asked_set (Tensor): The same of ``asked``.
        single (bool): Whether the input has no more than single precision.
        mutual (bool): Whether the points look for each other, and none for itself.
        number (Tensor): The index of each known point.
    """

    known: Tensor
    asked: Tensor
    known_start: list[int]
    asked_start: list[int]
    known_set: Tensor
    asked_set: Tensor
    single: bool
    mutual: bool
    number: Tensor


def check_points(x: Any, name: str = "x") -> Tensor:
    """The points as a matrix."""
    if not isinstance(x, Tensor):
        raise TypeError(f"Expected '{name}' to be a Tensor (got {type(x).__name__})")
    if x.layout != torch.strided:
        raise TypeError(f"Expected '{name}' to be dense (got a Tensor of layout {x.layout})")
    if x.is_complex() or x.dtype == torch.bool:
        raise TypeError(f"Expected '{name}' to hold real numbers (got {x.dtype})")
    if x.dim() == 1:
        x = x.unsqueeze(1)
    if x.dim() != 2 or x.size(1) == 0:
        raise ValueError(
            f"Expected '{name}' of shape [N, D] with D > 0, or [N] (got {list(x.shape)})"
        )
    check_has_values(name, x)
    values = unwrap(x)
    if values.dim() != x.dim():
        raise NotImplementedError(
            "Neighbors cannot be searched under vmap; put all sets into one 'x' with 'batch'"
        )
    low, high = values.detach().aminmax(dim=1)  # NaN where a row has one; no copy of all
    finite = torch.isfinite(low) & torch.isfinite(high)
    if not finite.all():
        row = int((~finite).nonzero()[0])
        raise ValueError(f"Expected '{name}' to be finite (got NaN or infinity in row {row})")
    return x


def check_batch(name: str, batch: Any, num_points: int, batch_size: Any = None) -> Tensor:
    """The number of each point's set as ``batch`` has it, 0 without one, on the CPU."""
    if batch_size is not None:
        batch_size = check_integer("batch_size", batch_size, 1)
    if batch is None:
        if batch_size is not None and batch_size > 1:
            raise ValueError(f"Expected '{name}' beside a 'batch_size' of {batch_size} (got None)")
        return torch.zeros(num_points, dtype=torch.long, device="cpu")
    if not isinstance(batch, Tensor):
        raise TypeError(f"Expected '{name}' to be a Tensor (got {type(batch).__name__})")
    whole = not (batch.is_floating_point() or batch.is_complex() or batch.dtype == torch.bool)
    if not whole or batch.layout != torch.strided or batch.shape != (num_points,):
        raise ValueError(
            f"Expected '{name}' to hold integers in shape [{num_points}], one a point "
            f"(got {batch.dtype} of shape {list(batch.shape)})"
        )
    check_has_values(name, batch)
    batch = batch.cpu().long()
    if (batch[1:] < batch[:-1]).any():
        raise ValueError(f"Expected '{name}' to be sorted (got a number below its predecessor)")
    if batch_size is not None and num_points > 0 and int(batch[-1]) >= batch_size:
        raise ValueError(
            f"Expected '{name}' to number at most {batch_size} sets, the 'batch_size' "
            f"(got {int(batch[-1])})"
        )
    return batch


def read_points(x: Tensor, sets: Tensor, cosine: bool, num_known: int | None) -> Points:
    """The points to search; with ``num_known``, so many are known and those after them ask."""
    single = x.dtype == torch.float32 or x.element_size() < 4
    rows = (coordinates(x, sets, cosine)[0] / 2).contiguous()
    numbers = torch.arange(_count(sets), device="cpu")
    ends = (None,) if num_known is None else (num_known, None)
    starts, parts = [], []
    for begin, end in pairwise((0, *ends)):
        part = sets[begin:end]
        starts.append([*torch.searchsorted(part, numbers).tolist(), len(part)])
        parts.append(part.to(x.device))
    known, asked = rows[:num_known], rows[num_known or 0 :]
    number = torch.arange(len(known), device=x.device)
    mutual = num_known is None
    return Points(known, asked, starts[0], starts[-1], parts[0], parts[-1], single, mutual, number)


def coordinates(x: Tensor, sets: Tensor, cosine: bool) -> tuple[Tensor, Tensor | None]:
    """The points in double precision, each set divided by the power of two that brings its largest
    entry between 1 and 2, so that no square overflows, and these powers (N, 1).

    With ``cosine``, :func:`directions` alone.
    """
    if cosine:
        return directions(x), None
    x, sets = x.double(), sets.to(x.device)
    size = x.detach().abs().amax(dim=1)
    largest = size.new_zeros(_count(sets)).scatter_reduce(0, sets, size, "amax")
    scale = power_of_two(largest)[sets].unsqueeze(1)
    return x / scale, scale


def _count(sets: Tensor) -> int:
    return int(sets.max()) + 1 if len(sets) > 0 else 0


def check_apart(x: Tensor, points: Points, index: Tensor, block_bytes: int) -> None:
    """Refuse neighbors that differ by so little that squares of scaled differences vanish."""
    known, asked = x[: len(points.known)], x[len(x) - len(points.asked) :]
    # a difference that is not 0 is at least the rounding of the smaller entry
    least = TINY / torch.finfo(torch.float64).eps
    small = ((a != 0) & (b.abs() < least) for a, b in zip((known, asked), points[:2], strict=True))
    if not any(bool(entries.any()) for entries in small):
        return
    size = max(1, block_bytes // (64 * x.size(1) * max(1, index.size(1))))
    for rows in torch.arange(len(index), device=index.device).split(size):
        near = index[rows].clamp(min=0)
        gap = (points.known[near] - points.asked[rows].unsqueeze(1)).abs().amax(dim=2)
        differ = (known[near] != asked[rows].unsqueeze(1)).any(dim=2)
        lost = ((index[rows] >= 0) & (gap < TINY) & differ).nonzero()
        if len(lost) > 0:
            row, column = lost[0].tolist()
            raise ValueError(
                "Expected 'x' to hold no neighbors so close beside the largest entry that squares "
                "of their differences vanish (got points "
                f"{int(near[row, column])} and {int(rows[row])})"
            )


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
