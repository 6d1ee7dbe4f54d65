r"""Two products that differentiate into each other: :math:`\mathbf{P} \mathbf{x}` and
:math:`\mathbf{g} \mathbf{x}^{\top}` at the entries of :math:`\mathbf{P}`.

Each is linear in both of its arguments, and the derivatives of either are made of the two: so they
can be differentiated any number of times, in either mode and under ``torch.func``.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from .._utils.functorch import apply, is_grads_batch
from ._derivatives import bilinear
from ._dispatch import kernel_op
from ._pattern import Pattern
from .kernels import kernel_for


def product(csr: tuple[Tensor, Tensor, Tensor], x: Tensor) -> Tensor:
    """A matrix times a batch [B, N, F], which no gradient passes."""
    x, seeds = x.contiguous().unsqueeze(0), no_seeds(x.size(0))
    if is_grads_batch(x) or is_grads_batch(csr[2]):
        return kernel_op(x, *csr, None, None, _ONE_STEP, seeds, 0, False, None, None).squeeze(0)
    out = kernel_for(x.device).propagate(x, *csr, _ONE_STEP, 0, seeds, False)
    return out.squeeze_(0)  # in place: a view could not be changed in place afterwards


_ONE_STEP = torch.tensor(
    [[0, 1], [0, 0], [0, 0], [1, 0], [0, 1]], dtype=torch.float64, device="cpu"
)
_NONE = torch.zeros(1, dtype=torch.long, device="cpu")


def no_seeds(count: int) -> Tensor:
    """Seeds of a batch without dropout."""
    if count == 1 and not torch.compiler.is_compiling():  # a graph takes no global of ours
        return _NONE
    return torch.zeros(count, dtype=torch.long, device="cpu")


def _fold(x: Tensor, dim: int | None, count: int) -> Tensor:
    """A vmapped [.., B, N, F] with its dimension merged into the batch [count * B, N, F]."""
    x = x.unsqueeze(0).expand(count, *x.shape) if dim is None else x.movedim(dim, 0)
    return x.reshape(-1, *x.shape[2:])


def _one_by_one(function: Any, info: Any, in_dims: Any, *factors: Tensor, pattern: Pattern) -> Any:
    """The rule of vmap that takes the elements of both factors one by one."""
    outs = []
    for i in range(info.batch_size):
        pair = (
            factor if dim is None else factor.select(dim, i)
            for factor, dim in zip(factors, in_dims, strict=False)
        )
        outs.append(apply(function, *pair, pattern))
    return torch.stack(outs), 0


def _gradients(
    ctx: Any, grad: Tensor, other: type[Function], entries: Tensor, dense: Tensor
) -> tuple[Tensor | None, Tensor | None, None]:
    """The gradient of the first factor, by the ``other`` product, and that of the second, a product
    with the transpose of the matrix of some entries.
    """
    (pattern,), (needs_first, needs_second, _) = ctx.rest, ctx.needs_input_grad
    first = second = None
    if needs_first:
        first = apply(other, grad, ctx.saved_tensors[1], pattern)
    if needs_second:
        moved = entries[pattern.transposition.entries.long()]
        second = apply(SparseProduct, moved, dense, pattern.transpose)
    return first, second, None


@bilinear
class SparseProduct(Function):
    """``(value, x [B, N, F], pattern)`` to the matrix of these entries times ``x``."""

    @staticmethod
    def forward(value: Tensor, x: Tensor, pattern: Pattern) -> Tensor:
        """The product."""
        return product((pattern.rowptr, pattern.col, value.contiguous()), x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        """Products with the transpose and at the entries."""
        return _gradients(ctx, grads[0], SampledProduct, ctx.saved_tensors[0], grads[0])

    @staticmethod
    def vmap(info: Any, in_dims: Any, value: Tensor, x: Tensor, pattern: Pattern) -> Any:
        """Batches of ``x`` side by side, matrices one by one."""
        if in_dims[0] is not None:
            return _one_by_one(SparseProduct, info, in_dims, value, x, pattern=pattern)
        out = apply(SparseProduct, value, _fold(x, in_dims[1], info.batch_size), pattern)
        return out.view(info.batch_size, -1, *out.shape[1:]), 0


@bilinear
class SampledProduct(Function):
    """``(g [B, N, F], x [B, N, F], pattern)`` to g x^T at the entries, summed over the batch."""

    @staticmethod
    def forward(g: Tensor, x: Tensor, pattern: Pattern) -> Tensor:
        """The product, columns in blocks so that memory stays small."""
        total: Any = 0.0
        for left, right in zip(g.split(32, -1), x.split(32, -1), strict=True):
            for i in range(g.size(0)):
                products = left[i][pattern.row] * right[i][pattern.col]
                total = total + products.sum(1)
        return total if isinstance(total, Tensor) else g.new_zeros(pattern.col.numel())

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        """Products with the matrix of the gradients, and with its transpose."""
        return _gradients(ctx, grads[0], SparseProduct, grads[0], ctx.saved_tensors[0])

    @staticmethod
    def vmap(info: Any, in_dims: Any, g: Tensor, x: Tensor, pattern: Pattern) -> Any:
        """One by one: each element has entries of its own."""
        return _one_by_one(SampledProduct, info, in_dims, g, x, pattern=pattern)
