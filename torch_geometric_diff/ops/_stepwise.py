"""A recurrence step by step, by a product that somebody else makes."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from .._utils.checks import row_mask
from .._utils.functorch import is_differentiated
from ._random import dropout_threshold, make_seeds
from ._sparse import no_seeds
from .kernels import reference
from .recurrence import Recurrence


def propagate_by(
    product: Callable[[Tensor], Tensor],
    x: Tensor,
    recurrence: Recurrence,
    *,
    dropout: float = 0.0,
    seed: int | Sequence[int] | None = None,
    training: bool = True,
    fixed: Tensor | None = None,
    bounds: tuple[float, float] | None = None,
    rows: Tensor | None = None,
) -> Tensor:
    """:func:`~torch_geometric_diff.ops.propagate` with ``product``, of states :math:`(B, N, F)`, in
    the place of a matrix: the same results, masks included, and every state kept. ``rows`` are the
    indices by which masks are counted.
    """
    threshold = dropout_threshold(dropout) if training else 0
    dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
    batch = (x if x.dim() == 3 else x.unsqueeze(0)).to(dtype)
    seeds = make_seeds(seed, len(batch)) if threshold or seed is not None else no_seeds(len(batch))
    masks = reference.Masks(batch, threshold, seeds, recurrence.num_steps, rows)
    table = [_as_numbers(row) for row in recurrence.rows()]
    fixed_rows = None
    if fixed is not None:
        mask = row_mask("fixed", fixed, x.size(-2)).to(x.device).unsqueeze(1)
        fixed_rows = mask, batch if bounds is None else batch.clamp(*bounds)
    out = reference.run(batch.unsqueeze(0), product, table, masks, False, bounds, fixed_rows)
    out = out if x.dim() == 3 else out.squeeze(1)
    return (out if recurrence.steps is not None else out.squeeze(0)).to(x.dtype)


def _as_numbers(row: Sequence[float] | Tensor) -> Sequence[float] | Tensor:
    """Coefficients that are learned, and others as numbers, whose zeros cost nothing."""
    if not isinstance(row, Tensor) or torch.compiler.is_compiling() or is_differentiated(row):
        return row
    return row.tolist()
