"""TIM-GD: a linear classifier trained by mutual information on the queries."""

import torch
import torch.nn.functional as F
from torch import Tensor

from ..tasks import Tasks
from .base import Method, at_least


class TIM(Method):
    r"""Transductive information maximisation by gradient descent (Boudiaf et al., NeurIPS 2020).

    Class weights start at the prototypes; :math:`p = \text{softmax}(-\tau/2 \|z - w\|^2)`. Adam
    minimises 0.1 (cross-entropy on the support) - (entropy of the mean of p over the queries) + 0.1
    (mean entropy of p over the queries). The middle term favours balanced queries.

    Args:
        temperature (float): :math:`\tau`. (default: ``15``)
        steps (int): Steps of Adam. (default: ``1000``)
        lr (float): Its rate. (default: ``1e-4``)
    """

    shifted = False

    def __init__(self, temperature: float = 15.0, steps: int = 1000, lr: float = 1e-4) -> None:
        at_least(0, temperature=temperature, steps=steps, lr=lr)
        self.temperature, self.steps, self.lr = temperature, steps, lr

    def _logits(self, points: Tensor, w: Tensor) -> Tensor:
        # -|z|^2 is the same for all classes and left out
        return self.temperature * (points @ w.mT - w.square().sum(-1).unsqueeze(1) / 2)

    @torch.no_grad()
    def predict(self, tasks: Tasks) -> Tensor:
        points, n = tasks.points, len(tasks.support_labels)
        labels = F.one_hot(tasks.support_labels, tasks.way).to(points.dtype)
        w = tasks.prototypes.clone()
        optimizer = torch.optim.Adam([w], lr=self.lr, fused=w.device.type in ("cpu", "cuda"))
        for _ in range(self.steps):
            p = self._logits(points, w).softmax(-1)
            support, query = p[:, :n], p[:, n:]
            # gradient of the two entropies by p of a query, then through the softmax
            by_p = query.mean(1, keepdim=True).log() - 0.1 * (query + 1e-12).log()
            by_query = query * (by_p - (query * by_p).sum(-1, keepdim=True)) / query.shape[1]
            by_support = 0.1 * (support - labels) / n
            by_logits = self.temperature * torch.cat([by_support, by_query], dim=1)
            w.grad = by_logits.mT @ points - by_logits.sum(1).unsqueeze(-1) * w
            optimizer.step()
        return self._logits(tasks.query, w).argmax(-1)
