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
    memory of its Tensors. The graph breaks there, or, with ``fullgraph=True``, an error says so.
    """
    return torch.compiler.disable(function)


def plain(x: Tensor) -> Tensor:
    """A Tensor without the levels of ``torch.func`` that it was made at: all its values."""
    while not torch.compiler.is_compiling() and torch._C._functorch.is_functorch_wrapped_tensor(x):
        x = torch._C._functorch.get_unwrapped(x)
    return x
