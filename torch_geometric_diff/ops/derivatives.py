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
