"""A pytest plugin: this package's classes in the place of PyG's, wherever PyG shows them."""

import sys

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
