"""BD-CSPN: prototypes rectified by confident queries."""

import torch.nn.functional as F
from torch import Tensor

from ..tasks import Tasks, rectified_prototypes
from .base import Method


class BDCSPN(Method):
    """The rectified prototype of greatest cosine (Liu, Song, Qin, "Prototype Rectification", 2020).

    Queries are shifted onto the support (the bias between the two sets), then prototypes are
    rectified by all points (the bias inside the classes).
    """

    shifted = True

    def predict(self, tasks: Tasks) -> Tensor:
        prototypes = F.normalize(rectified_prototypes(tasks), dim=-1)
        return (tasks.query @ prototypes.mT).argmax(-1)  # a query's length does not matter
