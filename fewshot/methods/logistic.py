"""Logistic regression on the support."""

import torch
import torch.nn.functional as F
from torch import Tensor

from ..tasks import Tasks
from .base import Method, at_least


class LogisticRegression(Method):
    r"""Minimises :math:`\tfrac12 \|w\|^2 + C \sum` cross-entropy over the support; intercepts free.

    Inductive. The weights are combinations of the support features, so Nesterov's method runs on
    their coefficients and needs inner products only.

    Args:
        C (float): Weight of the data, as in scikit-learn. (default: ``1``)
        steps (int): Gradient steps. (default: ``300``)
    """

    shifted = False

    def __init__(self, C: float = 1.0, steps: int = 300) -> None:
        at_least(0, C=C, steps=steps)
        self.C, self.steps = C, steps

    def predict(self, tasks: Tasks) -> Tensor:
        w, b = self.fit(tasks)
        return (tasks.query @ w.mT + b).argmax(-1)

    def fit(self, tasks: Tasks) -> tuple[Tensor, Tensor]:
        """Weights [tasks, way, F] and intercepts [tasks, 1, way]."""
        x = tasks.support
        gram = x @ x.mT
        labels = F.one_hot(tasks.support_labels, tasks.way).to(x.dtype)
        # Hessian <= 1 + C/2 (|gram| + n): cross-entropy's is at most 1/2, the intercept adds ones
        n = x.shape[1]
        bound = torch.linalg.matrix_norm(gram, ord=2) + n
        rate = 1 / (1 + self.C * bound / 2)[:, None, None]
        a = torch.zeros(len(x), n, tasks.way, dtype=x.dtype, device=x.device)
        b = torch.zeros(len(x), 1, tasks.way, dtype=x.dtype, device=x.device)
        old_a, old_b = a, b
        for step in range(self.steps):
            momentum = step / (step + 3)
            at_a, at_b = a + momentum * (a - old_a), b + momentum * (b - old_b)
            error = self.C * ((gram @ at_a + at_b).softmax(-1) - labels)
            old_a, old_b = a, b
            a = at_a - rate * (at_a + error)
            b = at_b - rate * error.sum(1, keepdim=True)
        return a.mT @ x, b
