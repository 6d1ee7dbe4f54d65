"""What is kept, or looks at values, steps out of the transforms of ``torch.func``."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor


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
