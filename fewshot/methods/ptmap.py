"""PT-MAP: power transform, optimal transport to the classes, moving centers."""

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from ..tasks import Tasks, power_transform
from .base import Method, at_least


def transport(cost: Tensor, sharpness: float, max_iter: int = 1000) -> Tensor:
    """Sinkhorn's plan from queries (mass 1 each) to equal classes, [tasks, queries, way]."""
    cost = cost - cost.amin(2, keepdim=True)  # changes no plan, and no row underflows
    kernel = torch.exp(-sharpness * cost)
    share = cost.shape[1] / cost.shape[2]
    row = torch.ones_like(kernel[..., :1])
    for _ in range(max_iter):
        column = share / (kernel.mT @ row)
        mass = kernel @ column
        error = (row * mass - 1).abs().max()
        row = 1 / mass
        if error < 1e-6:
            break
    return row * kernel * column.mT


class PTMAP(Method):
    """Power transform and maximum a posteriori (Hu, Gripon, Pateux, 2021).

    Assumes that the queries are balanced over the classes; on unbalanced ones it suffers.

    Args:
        sharpness (float): Factor on the squared distances in the transport. (default: ``10``)
        rate (float): Part of the way that a center moves in one step. (default: ``0.2``)
        steps (int): Steps of the centers. (default: ``20``)
    """

    shifted = False

    def __init__(self, sharpness: float = 10.0, rate: float = 0.2, steps: int = 20) -> None:
        at_least(0, sharpness=sharpness, rate=rate, steps=steps)
        self.sharpness, self.rate, self.steps = sharpness, rate, steps

    def prepare(self, tasks: Tasks, base_mean: Tensor) -> Tasks:
        """Power transform, then support and queries centerd each on its own mean, length 1."""
        tasks = power_transform(tasks)
        support, query = (
            F.normalize(x - x.mean(1, keepdim=True), dim=-1) for x in (tasks.support, tasks.query)
        )
        return replace(tasks, support=support, query=query)

    def _plan(self, tasks: Tasks, centers: Tensor) -> Tensor:
        """Shares of the queries in the classes, [tasks, queries, way]."""
        return transport(torch.cdist(tasks.query, centers).square(), self.sharpness)

    def predict(self, tasks: Tasks) -> Tensor:
        labels = F.one_hot(tasks.support_labels, tasks.way).to(tasks.query.dtype)
        labels = labels.expand(len(tasks.query), -1, -1)
        centers = tasks.prototypes
        for _ in range(self.steps):
            weight = torch.cat([labels, self._plan(tasks, centers)], dim=1)
            mean = weight.mT @ tasks.points / weight.sum(1).unsqueeze(-1)
            centers = centers + self.rate * (mean - centers)
        return self._plan(tasks, centers).argmax(-1)


class PriorFreePTMAP(PTMAP):
    """PT-MAP without its prior: each query is shared out by itself, whatever the classes' sizes.

    The shares are ``softmax(-sharpness * squared distance)``, the transport's plan without a
    constraint on the classes.
    """

    def _plan(self, tasks: Tasks, centers: Tensor) -> Tensor:
        return (-self.sharpness * torch.cdist(tasks.query, centers).square()).softmax(-1)
