"""A linear layer whose input may be sparse."""

import torch
from torch import Tensor
from torch.nn import Linear


class _SparseLinear(torch.autograd.Function):
    """A constant CSR matrix times the transposed weight; its gradient is one sparse product too.

    torch's own backward densifies or transposes the matrix at every step; the transpose is made
    once here and kept on the Tensor, which is constant through a training.
    """

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor) -> Tensor:  # type: ignore[no-untyped-def]
        ctx.x = x
        # contiguous, and the sum: twice as fast as `x @ weight.t()`
        return torch.sparse.mm(x, weight.t().contiguous(), "sum")

    @staticmethod
    def backward(ctx, grad: Tensor):  # type: ignore[no-untyped-def]
        if ctx.needs_input_grad[0]:
            raise NotImplementedError("A sparse input of a linear layer has no gradient")
        transpose = getattr(ctx.x, "_transposed", None)
        if transpose is None:
            transpose = ctx.x._transposed = ctx.x.t().to_sparse_csr()
        return None, torch.sparse.mm(transpose, grad.contiguous(), "sum").t()


def linear(x: Tensor, layer: Linear) -> Tensor:
    """``layer(x)`` for dense ``x`` or a constant ``torch.sparse`` CSR ``x`` (a bag of words)."""
    if x.layout != torch.sparse_csr:
        return layer(x)
    out = _SparseLinear.apply(x, layer.weight)
    return out if layer.bias is None else out + layer.bias
