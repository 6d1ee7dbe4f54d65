"""A recurrence step by step, by a product that somebody else makes."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from .derivatives import is_differentiated
from .kernels import reference
from .random import dropout_threshold, make_seeds
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
    seeds = make_seeds(seed, len(batch)).tolist() if threshold or seed is not None else []
    masks = reference.Masks(batch, threshold, seeds, recurrence.num_steps)
    rows = [_as_numbers(row) for row in recurrence.rows()]
    fixed = None
    if held is not None:
        mask = row_mask("held", held, x.size(-2)).to(x.device).unsqueeze(1)
        fixed = mask, batch if bounds is None else batch.clamp(*bounds)
    out = reference.run(batch.unsqueeze(0), product, rows, masks, False, bounds, fixed)
    out = out if x.dim() == 3 else out.squeeze(1)
    return (out if recurrence.steps is not None else out.squeeze(0)).to(x.dtype)


def _as_numbers(row: Sequence[float] | Tensor) -> Sequence[float] | Tensor:
    """Coefficients that are learned, and others as numbers, whose zeros cost nothing."""
    if not isinstance(row, Tensor) or torch.compiler.is_compiling() or is_differentiated(row):
        return row
    return row.tolist()


def row_mask(name: str, rows: Tensor, num_nodes: int) -> Tensor:
    """A mask (N,) of rows that are given by a mask or by indices."""
    if not isinstance(rows, Tensor) or rows.dim() != 1 or rows.is_floating_point():
        got = f"{rows.dtype} of shape {list(rows.shape)}" if isinstance(rows, Tensor) else rows
        raise TypeError(f"Expected '{name}' to be a mask or indices of nodes (got {got})")
    if rows.dtype == torch.bool:
        if len(rows) != num_nodes:
            raise ValueError(f"Expected a mask '{name}' of {num_nodes} nodes (got {len(rows)})")
        return rows
    check_indices(name, rows, num_nodes)
    mask = torch.zeros(num_nodes, dtype=torch.bool, device=rows.device)
    mask[rows] = True
    return mask


def check_indices(name: str, rows: Tensor, num_nodes: int) -> None:
    """Refuse what are no indices (n,) of nodes."""
    if not isinstance(rows, Tensor) or rows.dim() != 1 or rows.dtype not in (torch.int, torch.long):
        got = f"{rows.dtype} of shape {list(rows.shape)}" if isinstance(rows, Tensor) else rows
        raise TypeError(f"Expected '{name}' to be indices of nodes (got {got})")
    if torch.compiler.is_compiling():
        torch._assert_async(((rows >= 0) & (rows < num_nodes)).all(), f"'{name}' names no node")
    elif rows.numel() and not 0 <= int(rows.min()) <= int(rows.max()) < num_nodes:
        raise ValueError(
            f"Expected the indices '{name}' to lie in [0, {num_nodes - 1}] (got "
            f"{int(rows.min())} to {int(rows.max())})"
        )
