"""Checks of arguments: numbers (Python's or NumPy's, never a bool), masks and indices."""

import math
from collections.abc import Callable
from numbers import Integral, Real
from typing import Any

import torch
from torch import Tensor


def check_integer(name: str, value: Any, least: int) -> int:
    """A whole number of at least ``least`` as an int.

    Raises:
        TypeError: On anything but a whole number; True is no number.
        ValueError: On a smaller one.
    """
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"Expected '{name}' to be an integer (got {value!r})")
    if value < least:
        raise ValueError(f"Expected '{name}' to be at least {least} (got {value})")
    return int(value)


def check_real(name: str, value: Any, fits: Callable[[float], bool], range: str) -> float:
    """A number that ``fits``, described by ``range``, as a float.

    Raises:
        TypeError: On anything but a real number; True is no number.
        ValueError: On one that does not fit, such as NaN.
    """
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"Expected '{name}' to be a number (got {value!r})")
    # a compiled graph may leave a number open, which can be compared and nothing else
    number: Any = value if torch.compiler.is_compiling() else float(value)
    if not fits(number):
        raise ValueError(f"Expected '{name}' to {range} (got {value})")
    return number


def is_finite(value: float) -> bool:
    """Whether a number is finite."""
    return -math.inf < value < math.inf


def check_dropout(dropout: Any, name: str = "dropout") -> float:
    """A drop probability in [0, 1)."""
    return check_real(name, dropout, lambda p: 0 <= p < 1, "lie in [0, 1)")


def check_has_values(name: str, tensor: Tensor) -> None:
    """Refuse a Tensor of the device 'meta', but for a compiler that traces with it."""
    if tensor.is_meta and not torch.compiler.is_compiling():
        raise ValueError(f"Expected '{name}' to have values (got a Tensor on the device 'meta')")


def row_mask(name: str, rows: Tensor, num_nodes: int) -> Tensor:
    """A mask (N,) of rows that are given by a mask or by indices."""
    if not isinstance(rows, Tensor) or rows.dim() != 1 or rows.is_floating_point():
        got = f"{rows.dtype} of shape {list(rows.shape)}" if isinstance(rows, Tensor) else rows
        raise TypeError(f"Expected '{name}' to be a mask or indices of nodes (got {got})")
    if rows.dtype == torch.bool:
        if len(rows) != num_nodes:
            raise ValueError(f"Expected a mask '{name}' of {num_nodes} nodes (got {len(rows)})")
        return rows
    check_indices(name, rows, num_nodes)
    mask = torch.zeros(num_nodes, dtype=torch.bool, device=rows.device)
    mask[rows] = True
    return mask


def check_indices(name: str, rows: Tensor, num_nodes: int) -> None:
    """Refuse what are no indices (n,) of nodes."""
    if not isinstance(rows, Tensor) or rows.dim() != 1 or rows.dtype not in (torch.int, torch.long):
        got = f"{rows.dtype} of shape {list(rows.shape)}" if isinstance(rows, Tensor) else rows
        raise TypeError(f"Expected '{name}' to be indices of nodes (got {got})")
    if torch.compiler.is_compiling():
        torch._assert_async(((rows >= 0) & (rows < num_nodes)).all(), f"'{name}' names no node")
    elif rows.numel() and not 0 <= int(rows.min()) <= int(rows.max()) < num_nodes:
        raise ValueError(
            f"Expected the indices '{name}' to lie in [0, {num_nodes - 1}] (got "
            f"{int(rows.min())} to {int(rows.max())})"
        )
