"""What forward mode and the transforms of ``torch.func`` ask of code that keeps things."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function, forward_ad


def is_differentiated(x: Tensor | None) -> bool:
    """Whether a gradient, a tangent or a transform of ``torch.func`` may follow a Tensor."""
    if x is None:
        return False
    if x.requires_grad and torch.is_grad_enabled():
        return True
    return not torch.compiler.is_compiling() and is_transformed(x)


def is_transformed(x: Tensor) -> bool:
    """Whether a Tensor carries a tangent, or lies within a transform of ``torch.func``."""
    return torch._C._functorch.is_functorch_wrapped_tensor(x) or (
        forward_ad._current_level >= 0 and forward_ad.unpack_dual(x).tangent is not None
    )


@contextmanager
def tangents_of(ctx: Any) -> Iterator[tuple[Any, ...]]:
    """What a rule of forward mode saved, without its tangents of this level.

    torch switches forward mode off within such a rule, at the levels of ``torch.func`` outside of
    it too: nested derivatives would lose what plain operations add to them. So it is on here.
    """
    with forward_ad._set_fwd_grad_enabled(True):
        yield tuple(
            None if each is None else forward_ad.unpack_dual(each, level=0).primal
            for each in ctx.saved_tensors
        )


def alive(*tensors: Tensor | None) -> tuple[Any, ...]:
    """The Tensors without levels that have ended: a pullback may be called after its ``vjp``."""
    return tuple(
        torch._C._functorch.unwrap_if_dead(each) if isinstance(each, Tensor) else each
        for each in tensors
    )


def apply(function: type[Function], *args: Any) -> Any:
    """``function.apply``; outside of ``torch.func`` without its look at the signature, which takes
    as long as a small graph.
    """
    if torch._C._are_functorch_transforms_active():
        return function.apply(*args)
    return super(Function, function).apply(*alive(*args))  # type: ignore[misc]


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
        g, z, factor = alive(*grads, *ctx.saved_tensors)
        grad_z = apply(Times, g, factor).sum_to_size(z.shape)
        return grad_z, apply(Times, z, g).sum_to_size(factor.shape)

    @staticmethod
    def jvp(ctx: Any, z_t: Tensor | None, factor_t: Tensor | None) -> Any:
        """The product rule."""
        with tangents_of(ctx) as (z, factor):
            one = None if z_t is None else apply(Times, z_t, factor)
            two = None if factor_t is None else apply(Times, z, factor_t)
            return two if one is None else one if two is None else one + two

    @staticmethod
    def vmap(info: Any, in_dims: Any, z: Tensor, factor: Tensor) -> Any:
        """Both with the batch in front and as many dimensions behind it."""
        most = max(t.dim() - (d is not None) for t, d in zip((z, factor), in_dims, strict=True))
        both = []
        for each, dim in zip((z, factor), in_dims, strict=True):
            each = each.unsqueeze(0) if dim is None else each.movedim(dim, 0)
            ones = (1,) * (most + 1 - each.dim())
            both.append(each.reshape(each.shape[:1] + ones + each.shape[1:]))
        return apply(Times, *both), 0
