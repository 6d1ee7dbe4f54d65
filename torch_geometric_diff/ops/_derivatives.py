"""A product whose zeros win over infinities, in all derivatives."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from .._utils.functorch import apply, tangents_of, unwrap_dead


class Times(Function):
    """``(z, factor)`` to their product, of shapes that broadcast: 0 where the factor is 0, be ``z``
    infinite, and likewise in all derivatives.
    """

    @staticmethod
    def forward(z: Tensor, factor: Tensor) -> Tensor:
        """The product."""
        return torch.where(factor == 0, 0.0, z * factor)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Tensor) -> None:
        """Keep both."""
        ctx.save_for_backward(*inputs)
        ctx.save_for_forward(*inputs)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        """What does not come in is no factor."""
        g, z, factor = unwrap_dead(*grads, *ctx.saved_tensors)
        grad_z = apply(Times, g, factor).sum_to_size(z.shape)
        return grad_z, apply(Times, z, g).sum_to_size(factor.shape)

    @staticmethod
    def jvp(ctx: Any, z_t: Tensor | None, factor_t: Tensor | None) -> Any:
        """The product rule."""
        with tangents_of(ctx) as (z, factor):
            return add_tangents(
                None if z_t is None else apply(Times, z_t, factor),
                None if factor_t is None else apply(Times, z, factor_t),
            )

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


def add_tangents(first: Tensor | None, second: Tensor | None) -> Tensor | None:
    """The sum of two tangents, of which None is no tangent."""
    return second if first is None else first if second is None else first + second
