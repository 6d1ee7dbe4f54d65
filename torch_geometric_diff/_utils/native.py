"""The one import of the compiled module."""

import warnings
from types import ModuleType
from typing import Any

MISSING: str | None = None  #: why there is no compiled module
_C: Any
try:
    from torch_geometric_diff import _C
except ImportError as error:
    MISSING = f"the C++ extension was not built when the package was installed ({error})"
    _C = ModuleType("_C")
    warnings.warn(
        "torch-geometric-diff has no compiled kernels here, so on the CPU everything runs in plain "
        "torch, many times slower; install a C++ compiler and reinstall the package from source "
        "('pip install --force-reinstall --no-deps .'), or see torch_geometric_diff.kernels()",
        RuntimeWarning,
        stacklevel=2,
    )
