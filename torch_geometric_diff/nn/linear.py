"""A linear layer whose input may be sparse, such as a bag of words."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..ops import sparse_mm


class _SparseLinear(torch.autograd.Function):
    """A constant CSR matrix times a weight, and the one sparse product of its gradient.

    torch's own backward transposes the matrix at every call; here the transpose is made once.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.x = x
        return sparse_mm(x, weight.t()).add_(bias)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[None, Tensor, Tensor]:
        (grad,) = grads
        transpose = _once(ctx.x, "_transposed", lambda x: x.t().to_sparse_csr())
        return None, sparse_mm(transpose, grad).t(), grad.sum(0)


def _once(x: Tensor, name: str, function: Callable[[Tensor], Tensor]) -> Tensor:
    """``function(x)`` of a sparse matrix, kept on it until its values are changed in place."""
    values = x.values()
    version = 0 if values.is_inference() else values._version
    kept = getattr(x, name, None)
    if kept is None or kept[0] != version:
        kept = (version, function(x))
        setattr(x, name, kept)
    return kept[1]


def densify(x: Tensor) -> Tensor:
    """A dense form of ``x``, made once for a sparse matrix."""
    return x if x.layout != torch.sparse_csr else _once(x, "_dense", Tensor.to_dense)


class Linear(torch.nn.Linear):
    r"""A :class:`torch.nn.Linear` that also takes a constant ``torch.sparse`` CSR matrix.

    The weight lies in memory by columns, so that neither the sparse product nor its gradient needs
    to transpose it.

    Shapes:
        - **input:** features :math:`(*, F_{in})`, dense, or CSR of shape :math:`(N, F_{in})`
        - **output:** dense features :math:`(*, F_{out})`
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels)
        self.weight.data = self.weight.data.t().contiguous().t()

    def forward(self, input: Tensor) -> Tensor:
        """Apply the layer."""
        if input.layout != torch.sparse_csr:
            return super().forward(input)
        if input.requires_grad:
            raise ValueError(
                "Expected a constant 'input' in CSR form (got one that requires a gradient); "
                "make it dense"
            )
        return _SparseLinear.apply(input, self.weight, self.bias)
