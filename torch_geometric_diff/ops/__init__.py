"""The functional core: K steps of diffusion in one call."""

from .diffusion import diffuse as diffuse
from .diffusion import sparse_mm as sparse_mm
from .operator import DiffusionOperator as DiffusionOperator
from .operator import SparseOperator as SparseOperator
