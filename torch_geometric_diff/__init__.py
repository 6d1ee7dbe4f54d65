"""Diffusion on graphs for PyTorch Geometric."""

from typing import Any

from .node_classifier import NodeClassifier as NodeClassifier
from .ops import DiffusionOperator as DiffusionOperator
from .ops import diffuse as diffuse
from .ops.kernels import kernels as kernels
from .streaming import diffuse_features as diffuse_features

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name == "DiffusionClassifier":  # on demand, for only this needs scikit-learn
        from .classifier import DiffusionClassifier

        return DiffusionClassifier
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
