"""What single nodes depend on, so that steps compute no other rows."""

from typing import NamedTuple

import torch
from torch import Tensor

from ._pattern import CSR, inverse_permutation

WORTH = 1 / 16  # the share of the work that has to go


class ReceptiveField(NamedTuple):
    """A matrix whose first rows are some nodes, then what they read in one step, in two, ..."""

    csr: CSR
    csr_t: CSR
    permutation: Tensor  # the node of every row
    within: Tensor  # [L], so many first rows lie within 0, 1, ..., L - 1 steps; further on all


def find_receptive_field(
    csr: CSR, csr_t: CSR, permutation: Tensor | None, nodes: Tensor, num_steps: int
) -> ReceptiveField | None:
    """The rows that ``num_steps`` steps to ``nodes`` read, or None where these are most of them.

    Args:
        csr: The matrix, on the CPU.
        csr_t: Its transpose.
        permutation: The node of every row; None: the row is the node.
        nodes: Different nodes.
        num_steps: The number of steps.
    """
    rowptr, col, _ = csr
    num_rows, length = rowptr.numel() - 1, rowptr.diff().long()
    new = nodes if permutation is None else inverse_permutation(permutation.long())[nodes]
    seen = torch.zeros(num_rows, dtype=torch.bool, device="cpu")
    levels, within, saved = [], [], 0.0
    entries = rows = 0
    for _ in range(num_steps):
        seen[new] = True
        levels.append(new)
        rows += new.numel()
        entries += int(length[new].sum())
        within.append(rows)
        saved += 1 - entries / max(col.numel(), 1)
        read = torch.zeros_like(seen)
        read[col[_entries(rowptr, length, new)].long()] = True
        new = (read & ~seen).nonzero().flatten()
        if new.numel() == 0:
            break
    if saved < WORTH * num_steps:
        return None
    order = torch.cat([*levels, (~seen).nonzero().flatten()])
    return ReceptiveField(
        _reordered(csr, order),
        _reordered(csr_t, order),
        (order if permutation is None else permutation.long()[order]).to(rowptr.dtype),
        torch.tensor(within, dtype=torch.long, device="cpu"),
    )


def _entries(rowptr: Tensor, length: Tensor, rows: Tensor) -> Tensor:
    """The entries of some rows, one row after the other."""
    length = length[rows]
    before = length.cumsum(0) - length
    first = (rowptr[rows] - before).repeat_interleave(length)
    return first + torch.arange(first.numel(), device="cpu")


def _reordered(csr: CSR, order: Tensor) -> CSR:
    """The matrix whose row and column i are those of ``order[i]``; a row keeps the order of its
    entries, which a build would sort, so that its sums round as before.
    """
    rowptr, col, value = csr
    length = rowptr.diff().long()
    entries = _entries(rowptr, length, order)
    bounds = torch.nn.functional.pad(length[order].cumsum(0), (1, 0))
    col = inverse_permutation(order)[col[entries].long()].to(col.dtype)
    return CSR(bounds.to(rowptr.dtype), col, value[entries])
