"""The public names of the package, module by module: what the API pages list and the tests hold."""

import sys
from importlib import import_module
from types import ModuleType

import torch_geometric_diff

PACKAGE = "torch_geometric_diff"
MODULES = [f"{PACKAGE}.{name}" for name in (*torch_geometric_diff._MODULES, "ops.kernels")]


def public_names() -> dict[str, list[str]]:
    """The names of every module; those that are at the front door too are listed at their home."""
    found = {PACKAGE: [*torch_geometric_diff.__all__]}
    for name in sorted(MODULES):
        module = import_module(name)
        found[name] = [key for key in dir(module) if _is_public(module, key, getattr(module, key))]
    homes = {key for name, names in found.items() if name != PACKAGE for key in names}
    found[PACKAGE] = [key for key in found[PACKAGE] if key not in homes and key != "__version__"]
    return {name: sorted(names, key=str.lower) for name, names in found.items() if names}


def _is_public(module: ModuleType, key: str, value: object) -> bool:
    """Whether a module offers a name: classes and functions of its own or of the files below it."""
    if key.startswith("_") or not callable(value):
        return False
    home = getattr(value, "__module__", None) or ""
    if hasattr(module, "__path__"):  # a package offers what it imports from its files
        return home.startswith(PACKAGE) and getattr(sys.modules[home], key, None) is value
    return home == module.__name__
