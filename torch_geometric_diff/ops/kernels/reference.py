"""The reference kernel in plain torch: every device, every torch version, every derivative."""

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ..._utils.functorch import apply
from .._derivatives import Times
from .._random import dropout_scale, keep_mask
from ..recurrence import INPUTS, A, B, D

Bounds = tuple[float, float]


def available() -> str | None:
    """Why this kernel cannot run, or None: plain torch always can."""
    return None


def propagate(
    x: Tensor,
    rowptr: Tensor,
    col: Tensor,
    value: Tensor,
    table: Tensor,
    threshold: int,
    seeds: Tensor,
    reverse: bool,
    bounds: Bounds | None = None,
) -> Tensor:
    r"""Run a recurrence with a CSR matrix, dropout included.

    Forward, step :math:`k` is
    :math:`z_k = (a_k \mathbf{P} + d_k) (m_{k-1} \odot z_{k-1}) + b_k z_{k-2} + \sum_i c_{ik} x_i`.
    With ``reverse`` the masks come after the product, the last step's first: what the backward pass
    needs of the transposed matrix and table.

    Args:
        x (Tensor): The inputs, contiguous, float32 or float64.
        rowptr (Tensor): Row pointers of :math:`\mathbf{P}`, int32 or int64.
        col (Tensor): Column indices, of the same type.
        value (Tensor): The entries, of the type of ``x``.
        table (Tensor): The coefficients (see :mod:`torch_geometric_diff.ops.recurrence`).
        threshold (int): The drop probability in units of 1/65536; 0 drops nothing.
        seeds (Tensor): The seed of the masks of every element of the batch, int64 on the CPU, see
            :mod:`torch_geometric_diff.ops._random`.
        reverse (bool): Whether to run backward.
        bounds (tuple, optional): Every state but the first is clamped to these.

    Shapes:
        - **input:** features :math:`(I, B, N, F)`, row pointers :math:`(N + 1,)`, columns and
          entries :math:`(nnz,)`, table :math:`(3 + I + O, K + 1)`, seeds :math:`(B,)`
        - **output:** :math:`(O, B, N, F)`, never the memory of ``x``
    """
    num_nodes, nnz = x.size(2), int(rowptr[-1])  # entries that no row has may follow
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta state")
        matrix = torch.sparse_csr_tensor(
            rowptr,
            col[:nnz],
            value[:nnz],
            (num_nodes, num_nodes),
            device=x.device,
            check_invariants=False,
        )

    def product(x: Tensor) -> Tensor:
        if x.numel() == 0:
            return x
        return torch.stack([matrix @ each for each in x])

    masks = Masks(x[0], threshold, seeds, table.size(1) - 1)
    return run(x, product, table.tolist(), masks, reverse, bounds)


class Masks:
    """The dropout of a batch [B, N, F]: call it with a state and the number of a step from 1 on.

    ``rows`` are the indices of the rows, by which masks are counted, where they are part of more.
    """

    def __init__(
        self,
        x: Tensor,
        threshold: int,
        seeds: Tensor,
        num_steps: int,
        rows: Tensor | None = None,
    ) -> None:
        self.device = x.device
        self.rows = x.size(-2) if rows is None else rows
        self.channels = x.size(-1)
        self.threshold, self.num_steps = threshold, num_steps
        self.seeds = seeds

    def __call__(self, z: Tensor, step: int) -> Tensor:
        """The state times the mask of a step."""
        return drop(z, self.keep(step), self.threshold) if self.threshold else z

    def keep(self, step: int) -> Tensor:
        """Which entries a step keeps."""
        size = (self.rows, self.channels)
        return keep_mask(self.seeds, step - 1, *size, self.threshold, self.device)


def _times(z: Tensor, factor: Tensor) -> Tensor:
    """A state times a learned coefficient, which leaves out as much as a fixed one if it is 0."""
    if torch.compiler.is_compiling():  # it sees what is infinite at a gradient alone
        return torch.where((factor == 0) & ~z.isfinite(), 0.0, z) * factor
    return apply(Times, z, factor)


def drop(z: Tensor, keep: Tensor, threshold: int) -> Tensor:
    """States times masks: what is dropped is 0, be it infinite."""
    return torch.where(keep, z * dropout_scale(threshold), 0.0)


def run(
    x: Tensor,
    product: Callable[[Tensor], Tensor],
    table: Sequence[Any] | Tensor,
    masks: Masks,
    reverse: bool,
    bounds: Bounds | None = None,
    fixed: tuple[Tensor, Tensor] | None = None,
) -> Tensor:
    """The outputs of a recurrence, whatever makes its products.

    ``table`` holds numbers, of which zeros and ones cost nothing, and Tensors that are learned;
    ``fixed`` a mask [N, 1] of rows that are replaced in every state, and by what [B, N, F].
    """
    steps, inputs = masks.num_steps, len(x)
    outputs = len(table) - INPUTS - inputs

    def added(k: int) -> list[tuple[Any, Tensor]]:
        return [(table[INPUTS + i][k], x[i]) for i in range(inputs)]

    def replaced(z: Tensor) -> Tensor:
        return z if fixed is None else torch.where(fixed[0], fixed[1], z)

    z, before = replaced(_weighted(added(0), x[0])), x[:0]
    ys: list[Tensor | None] = [None] * outputs
    for k in range(steps + 1):
        if k > 0:
            u = z if reverse else masks(z, k)
            moved = _weighted([(table[A][k], product(u)), (table[D][k], u)], x[0])
            if reverse:
                moved = masks(moved, steps + 1 - k)
            rest = [(table[B][k], before)] if k > 1 else []
            z, before = _weighted([(1, moved), *rest, *added(k)], x[0]), z
            z = replaced(z if bounds is None else z.clamp(*bounds))
        for o, y in enumerate(ys):  # no state is kept longer than it is needed
            factor = table[INPUTS + inputs + o][k]
            if isinstance(factor, Tensor) or factor != 0:
                ys[o] = _weighted([(factor, z)] if y is None else [(1, y), (factor, z)], x[0])
    return torch.stack([_weighted([], x[0]) if y is None else y for y in ys])


def _weighted(terms: list[tuple[Any, Tensor]], like: Tensor) -> Tensor:
    """A weighted sum; of nothing, zeros that gradients may pass, as all others."""
    total = None
    for factor, term in terms:
        if isinstance(factor, Tensor):
            term = _times(term, factor.to(term))
        elif factor == 0:
            continue
        elif factor != 1:
            term = term * factor
        total = term if total is None else total + term
    if total is None:
        return like.masked_fill(torch.ones((), dtype=torch.bool, device=like.device), 0.0)
    return total
