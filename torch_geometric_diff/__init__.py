"""Diffusion on graphs for PyTorch Geometric.

Names are imported when they are first used, so that ``import torch_geometric_diff`` costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # what type checkers and editors read; the same names as in _HOMES
    from .acceleration import Acceleration as Acceleration
    from .acceleration import accelerate as accelerate
    from .classifier import DiffusionClassifier as DiffusionClassifier
    from .graph import gaussian_knn_graph as gaussian_knn_graph
    from .graph import knn_graph as knn_graph
    from .nn import DiffConv as DiffConv
    from .nn import DiffResNet as DiffResNet
    from .node_classifier import NodeClassifier as NodeClassifier
    from .ops import DiffusionOperator as DiffusionOperator
    from .ops import Recurrence as Recurrence
    from .ops import SparseOperator as SparseOperator
    from .ops import diffuse as diffuse
    from .ops import heat as heat
    from .ops import propagate as propagate  # type: ignore[no-redef]
    from .ops.kernels import kernels as kernels
    from .streaming import diffuse_features as diffuse_features

__version__ = "0.2.0"

_HOMES = {
    "acceleration": ("Acceleration", "accelerate"),
    "classifier": ("DiffusionClassifier",),  # needs scikit-learn
    "graph": ("gaussian_knn_graph", "knn_graph"),
    "nn": ("DiffConv", "DiffResNet"),
    "node_classifier": ("NodeClassifier",),
    "ops": (
        "DiffusionOperator",
        "Recurrence",
        "SparseOperator",
        "diffuse",
        "heat",
        "propagate",
    ),
    "ops.kernels": ("kernels",),
    "streaming": ("diffuse_features",),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}
_MODULES = (
    "classifier",
    "data",
    "experiment",
    "graph",
    "metrics",
    "nn",
    "ops",
    "streaming",
    "transforms",
)

__all__ = [*sorted(_HOME_OF), "__version__"]


def __getattr__(name: str) -> Any:
    if name in _HOME_OF:
        value = getattr(import_module(f".{_HOME_OF[name]}", __name__), name)
    elif name in _MODULES:
        value = import_module(f".{name}", __name__)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value  # the next look finds it without this function
    return value


def __dir__() -> list[str]:
    hidden = [name for name in globals() if name.startswith("__")]
    return sorted({*hidden, *__all__, *_MODULES})
