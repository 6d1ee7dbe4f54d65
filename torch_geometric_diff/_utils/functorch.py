"""What caches, C++ calls and derivatives need under ``torch.func`` and ``torch.compile``."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function, forward_ad


def untransformed() -> AbstractContextManager:
    """For what is kept over calls: no level of ``torch.func`` may cling to it."""
    return nullcontext() if torch.compiler.is_compiling() else torch._C._DisableFuncTorch()


def uncompiled(function: Callable) -> Any:
    """The function for use within ``torch.compile``, which must not look into it: C++ reads the
    memory of its Tensors. The graph breaks there, or, with ``fullgraph=True`` and in an export, an
    error says so.
    """
    disabled = torch.compiler.disable(function)

    def call(*args: Any, **kwargs: Any) -> Any:
        if torch.compiler.is_compiling() and not torch.compiler.is_dynamo_compiling():
            raise NotImplementedError(f"'{function.__name__}' cannot be part of an exported graph")
        return disabled(*args, **kwargs)

    return call


def in_memory(x: Tensor) -> Tensor:
    """The Tensor for C++, contiguous and with its values in memory: torch puts off the sign of an
    imaginary part, and gives no memory to tangents that are zero.
    """
    x = x.contiguous()
    return x.clone() if x.is_neg() or x._is_zerotensor() else x


def plain(x: Tensor) -> Tensor:
    """A Tensor without the levels of ``torch.func`` that it was made at: all its values."""
    while not torch.compiler.is_compiling() and torch._C._functorch.is_functorch_wrapped_tensor(x):
        x = torch._C._functorch.get_unwrapped(x)
    return x


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
