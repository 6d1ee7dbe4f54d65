"""Diffusion on graphs for PyTorch Geometric."""

from .graph import DiffusionOperator as DiffusionOperator
from .ops import diffuse as diffuse
from .ops.diffusion import kernels as kernels

__version__ = "0.1.0"
