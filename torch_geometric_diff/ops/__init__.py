"""The functional core: linear propagation of features over a graph in one call."""

from .diffusion import diffuse as diffuse
from .diffusion import sparse_mm as sparse_mm
from .heat_kernel import heat as heat
from .operator import DiffusionOperator as DiffusionOperator
from .operator import SparseOperator as SparseOperator
from .propagate import propagate as propagate
from .recurrence import Recurrence as Recurrence
