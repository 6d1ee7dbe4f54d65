"""Nearest prototypes, plain (SimpleShot) and after a power transform."""

from torch import Tensor

from ..tasks import Tasks, power_transform
from .base import Method, nearest


class SimpleShot(Method):
    """The class whose support mean is nearest (Wang et al., "SimpleShot", 2019).

    Inductive: each query is labeled by itself.
    """

    shifted = False

    def predict(self, tasks: Tasks) -> Tensor:
        return nearest(tasks.query, tasks.prototypes)


class PowerPrototype(SimpleShot):
    """The nearest support mean after a power transform in place of centring (Hu et al., 2021)."""

    def prepare(self, tasks: Tasks, base_mean: Tensor) -> Tasks:
        return power_transform(tasks)
