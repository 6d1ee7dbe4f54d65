"""What single nodes depend on, so that steps compute no other rows."""

from typing import NamedTuple

import torch
from torch import Tensor

CSR = tuple[Tensor, Tensor, Tensor]
WORTH = 1 / 16  # the share of the work that has to go


class Reach(NamedTuple):
    """A matrix whose first rows are some nodes, then what they read in one step, in two, ..."""

    csr: CSR
    csr_t: CSR
    order: Tensor  # the old index of every row
    within: Tensor  # [L], so many first rows lie within 0, 1, ..., L - 1 steps; further on all


def find_reach(
    csr: CSR, csr_t: CSR, order: Tensor | None, nodes: Tensor, num_steps: int
) -> Reach | None:
    """The rows that ``num_steps`` steps to ``nodes`` read, or None where these are most of them.

    Args:
        csr: The matrix, on the CPU.
        csr_t: Its transpose.
        order: The node of every row; None: the row is the node.
        nodes: Different nodes.
        num_steps: The number of steps.
    """
    rowptr, col, _ = csr
    num_rows, length = rowptr.numel() - 1, rowptr.diff().long()
    new = nodes if order is None else _places(order.long())[nodes]
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
    moved = torch.cat([*levels, (~seen).nonzero().flatten()])
    return Reach(
        _renamed(csr, moved),
        _renamed(csr_t, moved),
        (moved if order is None else order.long()[moved]).to(rowptr.dtype),
        torch.tensor(within, dtype=torch.long, device="cpu"),
    )


def _places(order: Tensor) -> Tensor:
    place = torch.empty_like(order)
    place[order] = torch.arange(order.numel(), device="cpu")
    return place


def _entries(rowptr: Tensor, length: Tensor, rows: Tensor) -> Tensor:
    """The entries of some rows, one row after the other."""
    length = length[rows]
    before = length.cumsum(0) - length
    first = (rowptr[rows] - before).repeat_interleave(length)
    return first + torch.arange(first.numel(), device="cpu")


def _renamed(csr: CSR, order: Tensor) -> CSR:
    """The matrix whose row and column i are those of ``order[i]``; a row keeps the order of its
    entries, which a build would sort, so that its sums round as before.
    """
    rowptr, col, value = csr
    length = rowptr.diff().long()
    entry = _entries(rowptr, length, order)
    bounds = torch.nn.functional.pad(length[order].cumsum(0), (1, 0))
    place = _places(order)[col[entry].long()]
    return bounds.to(rowptr.dtype), place.to(col.dtype), value[entry]
