"""The functional core: linear propagation of features over a graph in one call."""

from .attention import EdgeList as EdgeList
from .attention import edge_attention as edge_attention
from .functional import diffuse as diffuse
from .functional import propagate as propagate
from .heat_kernel import heat as heat
from .operator import DiffusionOperator as DiffusionOperator
from .operator import SparseOperator as SparseOperator
from .partition import PartitionedOperator as PartitionedOperator
from .recurrence import Recurrence as Recurrence
from .sparse_product import sparse_mm as sparse_mm
