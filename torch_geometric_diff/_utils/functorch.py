"""What caches, C++ calls and derivatives need under ``torch.func`` and ``torch.compile``."""

import functools
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function, forward_ad


def cacheable() -> AbstractContextManager:
    """For Tensors that outlive a call: they may take part in training and in other transforms,
    whoever asked for them first.
    """
    if torch.compiler.is_compiling():
        return nullcontext()
    if torch.is_inference_mode_enabled() or torch._C._functorch.peek_interpreter_stack():
        return _outside_transforms()
    return nullcontext()


@contextmanager
def _outside_transforms() -> Iterator[None]:
    with torch.inference_mode(False), torch._C._DisableFuncTorch():
        yield


def uncompiled(function: Callable, reason: str = "it reads the memory of its Tensors") -> Any:
    """The function for use within ``torch.compile``, which must not look into it. The graph breaks
    there, or, with ``fullgraph=True`` and in an export, an error says so, and the ``reason``.
    """
    name = function.__name__
    because = f"'{name}' cannot be part of a compiled graph: {reason}"
    try:
        disabled = torch.compiler.disable(function, reason=because)
    except TypeError:  # before torch 2.7
        disabled = torch.compiler.disable(function)

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        if torch.compiler.is_compiling() and not torch.compiler.is_dynamo_compiling():
            raise NotImplementedError(f"'{name}' cannot be part of an exported graph: {reason}")
        return disabled(*args, **kwargs)

    return call


def is_tracing() -> bool:
    """Whether ``torch.jit.trace`` runs: its own function asks the same more slowly."""
    return not torch.compiler.is_compiling() and torch._C._get_tracing_state() is not None


def refuse_tracing(name: str) -> None:
    """Refuse ``torch.jit.trace``, which would take the results of C++ for constants."""
    if is_tracing():
        raise NotImplementedError(
            f"'{name}' cannot be traced: TorchScript does not see the kernels. Use "
            "'torch.compile' or 'torch.export' instead"
        )


def in_memory(x: Tensor) -> Tensor:
    """The Tensor for C++, contiguous and with its values in memory: torch puts off the sign of an
    imaginary part, and gives no memory to tangents that are zero.
    """
    x = x.contiguous()
    return x.clone() if x.is_neg() or x._is_zerotensor() else x


def unwrap(x: Tensor) -> Tensor:
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


_BATCHED: Any = torch._C._parse_dispatch_key("Batched")


def is_grads_batch(x: Tensor | None) -> bool:
    """Whether a Tensor is a batch of ``torch.autograd.grad(is_grads_batched=True)`` or of
    ``torch.autograd.functional.jacobian(vectorize=True)``, which torch's dispatcher alone unpacks.
    """
    return x is not None and torch._C._dispatch_keys(x).has(_BATCHED)


@contextmanager
def tangents_of(ctx: Any) -> Iterator[tuple[Any, ...]]:
    """What a rule of forward mode saved, without its tangents of this level.

    torch switches forward mode off within such a rule, at the levels of ``torch.func`` outside of
    it too: nested derivatives would lose what plain operations add to them. So it is on here.
    """
    with forward_ad._set_fwd_grad_enabled(True):
        yield tuple(
            None if tensor is None else forward_ad.unpack_dual(tensor, level=0).primal
            for tensor in ctx.saved_tensors
        )


def unwrap_dead(*tensors: Tensor | None) -> tuple[Any, ...]:
    """The Tensors without levels that have ended: a pullback may be called after its ``vjp``."""
    return tuple(
        torch._C._functorch.unwrap_if_dead(tensor) if isinstance(tensor, Tensor) else tensor
        for tensor in tensors
    )


def apply(function: type[Function], *args: Any) -> Any:
    """``function.apply``; outside of ``torch.func`` without its look at the signature, which takes
    as long as a small graph.
    """
    if torch._C._are_functorch_transforms_active():
        return function.apply(*args)
    return super(Function, function).apply(*unwrap_dead(*args))  # type: ignore[misc]
