"""The product of a constant sparse matrix and a dense one."""

import functools

import torch
from torch import Tensor

from .._utils.functorch import is_differentiated, uncompiled
from ._sparse import product
from .kernels import cpu, kernel_for


@functools.partial(uncompiled, reason="torch.compile does not take sparse Tensors")
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
