"""A recurrence step by step, by a product that somebody else makes."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from .derivatives import is_differentiated
from .kernels import reference
from .propagate import held_table, make_seeds, row_mask
from .random import dropout_threshold
from .recurrence import Recurrence


def propagate_by(
    product: Callable[[Tensor], Tensor],
    x: Tensor,
    recurrence: Recurrence,
    *,
    dropout: float = 0.0,
    seed: int | Sequence[int] | None = None,
    training: bool = True,
    held: Tensor | None = None,
    bounds: tuple[float, float] | None = None,
) -> Tensor:
    """:func:`~torch_geometric_diff.ops.propagate` with ``product``, of states :math:`(B, N, F)`, in
    the place of a matrix: the same results, masks included, and every state kept.
    """
    threshold = dropout_threshold(dropout) if training else 0
    dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
    batch = (x if x.dim() == 3 else x.unsqueeze(0)).to(dtype)
    seeds = make_seeds(0 if seed is None and threshold == 0 else seed, len(batch))
    masks = reference.Masks(batch, threshold, seeds.tolist(), recurrence.num_steps)
    inputs, table, step = batch.unsqueeze(0), recurrence.table(), product
    if held is not None:
        rows = row_mask("held", held, x.size(-2)).to(x.device).unsqueeze(1)
        kept = batch if bounds is None else batch.clamp(*bounds)
        inputs = torch.stack([batch.masked_fill(rows, 0), kept.masked_fill(~rows, 0)])
        table = held_table(table, threshold)

        def step(z: Tensor) -> Tensor:
            return product(z).masked_fill(rows, 0)

    known = table if is_differentiated(table) else table.tolist()
    out = reference.run(inputs, step, known, masks, False, bounds)
    out = out if x.dim() == 3 else out.squeeze(1)
    return (out if recurrence.steps is not None else out.squeeze(0)).to(x.dtype)
