"""Diffusion on graphs for PyTorch Geometric.

Names are imported when they are first used, so that ``import torch_geometric_diff`` costs nothing.
"""

from typing import TYPE_CHECKING

from ._utils.lazy import lazy_names

if TYPE_CHECKING:  # what type checkers and editors read; the same names as in _HOMES
    from .acceleration import Acceleration as Acceleration
    from .acceleration import accelerate as accelerate
    from .estimators import DiffusionClassifier as DiffusionClassifier
    from .estimators import DiffusionRegressor as DiffusionRegressor
    from .estimators import NodeClassifier as NodeClassifier
    from .graph import gaussian_knn_graph as gaussian_knn_graph
    from .graph import knn_graph as knn_graph
    from .nn import DiffConv as DiffConv
    from .nn import DiffResNet as DiffResNet
    from .ops import DiffusionOperator as DiffusionOperator
    from .ops import Recurrence as Recurrence
    from .ops import SparseOperator as SparseOperator
    from .ops import diffuse as diffuse
    from .ops import heat as heat
    from .ops import propagate as propagate
    from .ops.kernels import kernels as kernels
    from .preprocessing import diffuse_features as diffuse_features

__version__ = "0.2.0"

_HOMES = {
    "acceleration": ("Acceleration", "accelerate"),
    "estimators": ("DiffusionClassifier", "DiffusionRegressor", "NodeClassifier"),
    "graph": ("gaussian_knn_graph", "knn_graph"),
    "nn": ("DiffConv", "DiffResNet"),
    "ops": (
        "DiffusionOperator",
        "Recurrence",
        "SparseOperator",
        "diffuse",
        "heat",
        "propagate",
    ),
    "ops.kernels": ("kernels",),
    "preprocessing": ("diffuse_features",),
}
_MODULES = (
    "data",
    "estimators",
    "graph",
    "metrics",
    "nn",
    "ops",
    "preprocessing",
    "transforms",
)

__all__ = ["__version__", *sorted(name for names in _HOMES.values() for name in names)]
__getattr__, __dir__ = lazy_names(__name__, _HOMES, _MODULES)
