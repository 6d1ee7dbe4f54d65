"""The reference kernel in plain torch: every device, every torch version."""

import warnings

import torch
from torch import Tensor

from ..random import dropout_scale, keep_mask


def available() -> str | None:
    """Why this kernel cannot run, or None: plain torch always can."""
    return None


def diffuse(
    x: Tensor,
    rowptr: Tensor,
    col: Tensor,
    value: Tensor,
    num_steps: int,
    threshold: int,
    seeds: Tensor,
    reverse: bool,
) -> Tensor:
    r"""Apply ``num_steps`` products with a CSR matrix :math:`\mathbf{P}`, dropout included.

    Forward, step :math:`k` is :math:`x \leftarrow \mathbf{P} (m_k \odot x)`, in ascending order.
    With ``reverse`` it is :math:`x \leftarrow m_k \odot (\mathbf{P} x)`, in descending order: the
    backward pass of the forward one when given the transposed matrix.

    Args:
        x (Tensor): The features, contiguous, float32 or float64.
        rowptr (Tensor): Row pointers of :math:`\mathbf{P}`, int32 or int64.
        col (Tensor): Column indices, of the same type.
        value (Tensor): The entries, of the type of ``x``.
        num_steps (int): The number of steps :math:`K \ge 0`.
        threshold (int): The drop probability in units of 1/65536; 0 drops nothing.
        seeds (Tensor): The seed of the masks of every element of the batch, int64 on the CPU, see
            :mod:`torch_geometric_diff.ops.random`.
        reverse (bool): Whether to run backward.

    Shapes:
        - **input:** features :math:`(B, N, F)`, row pointers :math:`(N + 1,)`, columns and
          entries :math:`(nnz,)`, seeds :math:`(B,)`
        - **output:** :math:`(B, N, F)`, never the memory of ``x``
    """
    _, num_nodes, channels = x.shape
    if x.numel() == 0 or num_steps == 0:
        return x.clone()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta state")
        matrix = torch.sparse_csr_tensor(
            rowptr, col, value, (num_nodes, num_nodes), check_invariants=False
        )
    scale = dropout_scale(threshold)

    def dropped(x: Tensor, seed: int, step: int) -> Tensor:
        if threshold == 0:
            return x
        keep = keep_mask(seed, step, num_nodes, channels, threshold, x.device)
        return x * (keep.to(x.dtype) * scale)

    outs = []
    for y, seed in zip(x, seeds.tolist(), strict=True):
        for step in reversed(range(num_steps)) if reverse else range(num_steps):
            y = dropped(matrix @ y, seed, step) if reverse else matrix @ dropped(y, seed, step)
        outs.append(y)
    return torch.stack(outs) if len(outs) > 1 else outs[0].unsqueeze(0)
