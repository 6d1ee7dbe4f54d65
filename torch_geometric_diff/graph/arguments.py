"""What is asked of numbers that users pass: Python's or NumPy's, never a bool."""

import math
from collections.abc import Callable
from numbers import Integral, Real
from typing import Any

import torch


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


def check_has_values(name: str, tensor: torch.Tensor) -> None:
    """Refuse a Tensor of the device 'meta', but for a compiler that traces with it."""
    if tensor.is_meta and not torch.compiler.is_compiling():
        raise ValueError(f"Expected '{name}' to have values (got a Tensor on the device 'meta')")
