"""The one import of the compiled module."""

from types import ModuleType
from typing import Any

MISSING: str | None = None  #: why there is no compiled module
_C: Any
try:
    from torch_geometric_diff import _C
except ImportError as error:
    MISSING = f"the C++ extension was not built when the package was installed ({error})"
    _C = ModuleType("_C")
