"""Diffusion by Euler steps, and the plain sparse product."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..graph.arguments import check_integer
from .derivatives import is_differentiated
from .kernels import cpu, kernel_for
from .matrix import SparseMatrix
from .propagate import propagate
from .recurrence import Recurrence
from .sparse import product


def diffuse(
    x: Tensor,
    operator: SparseMatrix,
    num_steps: int,
    dropout: float = 0.0,
    seed: int | Sequence[int] | None = None,
    training: bool = True,
    nodes: Tensor | None = None,
) -> Tensor:
    r"""Diffuse features over a graph by :math:`K` explicit Euler steps,

    .. math::
        \mathbf{X} \leftarrow \mathbf{P} \, (\mathbf{M}_k \odot \mathbf{X}),
        \qquad k = 0, \ldots, K - 1,

    with :math:`\mathbf{P} = \mathbf{I} - h \mathbf{L}` and :math:`\mathbf{M}_k` the dropout mask of
    step :math:`k`, of entries 0 and :math:`1 / (1 - p)` (Algorithm 1 of `"Diffusion Mechanism in
    Residual Neural Network" <https://arxiv.org/abs/2105.03155>`_).

    The elements of a batch are diffused side by side, each as it would be alone, with masks of its
    own. With constant weights nothing is kept for the backward pass, with learned ones ``x`` alone:
    memory does not grow with :math:`K` (see :func:`propagate`).

    Args:
        x (Tensor): Node features. float16 and bfloat16 are computed in float32.
        operator (SparseOperator): The matrix :math:`\mathbf{P}`, most often a DiffusionOperator.
        num_steps (int): The number of steps :math:`K \ge 0`.
        dropout (float, optional): The probability :math:`p \in [0, 1)` to drop a **feature**
            before each step, rounded to a multiple of 1/65536. (default: :obj:`0.0`)
        seed (int or sequence of int, optional): The seed of the masks; the same seed gives the same
            masks on every device. Of a batch, a seed for each element, or one number :math:`s` for
            :math:`s, s + 1, \ldots` modulo :math:`2^{63}`. (default: drawn from torch's CPU
            generator)
        training (bool, optional): Whether dropout applies. (default: :obj:`True`)
        nodes (Tensor, optional): Indices :math:`(n,)` of the nodes whose rows are wanted (see
            :func:`propagate`). (default: all)

    Shapes:
        - **input:** features :math:`(N, F)` or batched :math:`(B, N, F)`
        - **output:** the shape and type of the input; with ``nodes``, :math:`n` in the place of
          :math:`N`

    Raises:
        ValueError: If ``x`` does not have :math:`N` rows, ``num_steps`` is negative, ``dropout``
            lies outside :math:`[0, 1)`, ``seed`` lies outside :math:`[0, 2^{63})` or has another
            length than the batch, ``nodes`` names no node, or ``x`` and ``operator`` are on
            different devices.
        TypeError: If ``x`` is not a floating Tensor or ``num_steps`` is not an integer.

    Example:
        >>> operator = DiffusionOperator(torch.tensor([[0, 1], [1, 0]]), normalization=None)
        >>> diffuse(torch.tensor([[0.0], [1.0]]), operator, num_steps=1)
        tensor([[0.2500],
                [0.7500]])
    """
    recurrence = Recurrence.power(check_integer("num_steps", num_steps, 0))
    drop: dict[str, Any] = {"dropout": dropout, "seed": seed, "training": training}
    return propagate(x, operator, recurrence, **drop, nodes=nodes)


def sparse_mm(matrix: Tensor, x: Tensor) -> Tensor:
    r"""The product of a constant ``torch.sparse`` CSR matrix and a dense one, several times as fast
    on the CPU as torch's own: columns are worked on in tiles that stay in cache.

    No gradient passes, and an argument that asks for one is refused.

    Args:
        matrix (Tensor): The matrix, of the type of :obj:`x`.
        x (Tensor): The dense matrix, float32 or float64.

    Shapes:
        - **input:** :math:`(M, N)` and :math:`(N, F)`
        - **output:** :math:`(M, F)`

    Raises:
        ValueError: If ``x`` does not have one row for every column of ``matrix``, or either
            requires a gradient.
        TypeError: If ``matrix`` is not of the type of ``x``.

    Example:
        >>> matrix = torch.tensor([[0.0, 2.0], [1.0, 0.0]]).to_sparse_csr()
        >>> sparse_mm(matrix, torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
        tensor([[6., 8.],
                [1., 2.]])
    """
    if is_differentiated(x) or matrix.requires_grad:
        raise ValueError("Expected constant 'matrix' and 'x': no gradient passes")
    return multiply(matrix, x)


def multiply(matrix: Tensor, x: Tensor) -> Tensor:
    """:func:`sparse_mm` within a function that knows its gradient."""
    if x.dim() != 2 or x.size(0) != matrix.size(1):
        raise ValueError(
            f"Expected 'x' of shape [{matrix.size(1)}, F], one row a column of 'matrix' "
            f"(got {list(x.shape)})"
        )
    if x.dtype != matrix.dtype:
        raise TypeError(
            f"Expected 'matrix' to be of type {x.dtype}, that of 'x' (got {matrix.dtype})"
        )
    if x.device.type != "cpu":  # torch's reduction of sparse products is for the CPU alone
        return matrix @ x
    if kernel_for(x.device) is not cpu or x.dtype not in (torch.float32, torch.float64):
        return torch.sparse.mm(matrix, x.contiguous(), "sum")
    csr = (matrix.crow_indices(), matrix.col_indices(), matrix.values())
    batch = x.contiguous().unsqueeze(0)
    return _product(csr, batch).squeeze_(0)  # in place: no view


_product = torch.compiler.disable(product)  # torch.compile cannot look at views of sparse Tensors
