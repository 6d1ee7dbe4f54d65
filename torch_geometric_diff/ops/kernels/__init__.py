"""Kernels of one signature: ``reference`` (torch), ``cpu`` (C++) and ``cuda`` (Triton)."""

from types import ModuleType

import torch

from . import cpu, cuda, reference

KERNELS: dict[str, ModuleType] = {"cpu": cpu, "cuda": cuda, "reference": reference}


def kernels() -> dict[str, str | None]:
    """The kernels and why each cannot run: None for one that can.

    ``'cpu'`` (fused C++) and ``'cuda'`` (Triton) serve their device where they can run, and
    ``'reference'`` (plain torch) everything else.

    Example:
        >>> sorted(kernels())
        ['cpu', 'cuda', 'reference']
    """
    return {name: kernel.available() for name, kernel in KERNELS.items()}


def kernel_for(device: torch.device) -> ModuleType:
    """The kernel that serves a device.

    Example:
        >>> kernel_for(torch.device("meta")).__name__
        'torch_geometric_diff.ops.kernels.reference'
    """
    kernel = KERNELS.get(device.type, reference)
    return kernel if kernel.available() is None else reference
