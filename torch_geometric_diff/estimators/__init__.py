"""Estimators: the labels of many from those of a few, for nodes of a graph and for points.

Names are imported when they are first used: the estimators of points need scikit-learn.
"""

from typing import TYPE_CHECKING

from .._utils.lazy import lazy_names

if TYPE_CHECKING:
    from .node import NodeClassifier as NodeClassifier
    from .points import DiffusionClassifier as DiffusionClassifier
    from .points import DiffusionRegressor as DiffusionRegressor

__getattr__, __dir__ = lazy_names(
    __name__, {"node": ("NodeClassifier",), "points": ("DiffusionClassifier", "DiffusionRegressor")}
)
