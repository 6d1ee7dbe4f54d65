"""The product rule of bilinear functions, and a product whose zeros win over infinities."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from .._utils.functorch import apply, tangents_of, unwrap_dead


def bilinear(function: type[Function]) -> type[Function]:
    """Give a function of two factors, linear in each, and of constants its context and tangent."""

    def setup_context(ctx: Any, inputs: Any, output: Tensor) -> None:
        left, right, *ctx.rest = inputs
        ctx.save_for_backward(left, right)
        ctx.save_for_forward(left, right)

    def jvp(ctx: Any, left_t: Tensor | None, right_t: Tensor | None, *_: Any) -> Tensor | None:
        with tangents_of(ctx) as (left, right):
            first = None if left_t is None else apply(function, left_t, right, *ctx.rest)
            second = None if right_t is None else apply(function, left, right_t, *ctx.rest)
            return second if first is None else first if second is None else first + second

    function.setup_context = staticmethod(setup_context)  # type: ignore[method-assign]
    function.jvp = staticmethod(jvp)  # type: ignore[method-assign]
    return function


@bilinear
class Times(Function):
    """``(z, factor)`` to their product, of shapes that broadcast: 0 where the factor is 0, be ``z``
    infinite, and likewise in all derivatives.
    """

    @staticmethod
    def forward(z: Tensor, factor: Tensor) -> Tensor:
        """The product."""
        return torch.where(factor == 0, 0.0, z * factor)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        """What does not come in is no factor."""
        g, z, factor = unwrap_dead(*grads, *ctx.saved_tensors)
        grad_z = apply(Times, g, factor).sum_to_size(z.shape)
        return grad_z, apply(Times, z, g).sum_to_size(factor.shape)

    @staticmethod
    def vmap(info: Any, in_dims: Any, z: Tensor, factor: Tensor) -> Any:
        """Both with the batch in front and as many dimensions behind it."""
        most = max(t.dim() - (d is not None) for t, d in zip((z, factor), in_dims, strict=True))
        both = []
        for part, dim in zip((z, factor), in_dims, strict=True):
            part = part.unsqueeze(0) if dim is None else part.movedim(dim, 0)
            ones = (1,) * (most + 1 - part.dim())
            both.append(part.reshape(part.shape[:1] + ones + part.shape[1:]))
        return apply(Times, *both), 0
