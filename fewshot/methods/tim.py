"""TIM-GD and alpha-TIM: a linear classifier trained by mutual information on the queries."""

from typing import ClassVar

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
    support_weight: ClassVar[float] = 0.1

    def __init__(self, temperature: float = 15.0, steps: int = 1000, lr: float = 1e-4) -> None:
        at_least(0, temperature=temperature, steps=steps, lr=lr)
        self.temperature, self.steps, self.lr = temperature, steps, lr

    def _logits(self, points: Tensor, w: Tensor) -> Tensor:
        """[tasks, way, points]: classes first, where products and softmax are several times faster.

        The term -|z|^2, the same for all classes, is left out.
        """
        return self.temperature * (w @ points.mT - w.square().sum(-1, keepdim=True) / 2)

    def _by_p(self, query: Tensor, shot: int) -> Tensor:
        """Gradient of the two entropies by p of each query (times their number)."""
        return query.mean(2, keepdim=True).log() - 0.1 * (query + 1e-12).log()

    def _gradient(self, points: Tensor, w: Tensor, labels: Tensor) -> Tensor:
        """Gradient of the loss by the class weights; ``labels`` is one-hot [way, way * shot]."""
        n = labels.shape[1]
        p = self._logits(points, w).softmax(1)
        support, query = p[..., :n], p[..., n:]
        by_p = self._by_p(query, n // len(labels))  # then through the softmax
        by_query = query * (by_p - (query * by_p).sum(1, keepdim=True)) / query.shape[2]
        by_support = self.support_weight * (support - labels) / n
        by_logits = self.temperature * torch.cat([by_support, by_query], dim=2)
        return by_logits @ points - by_logits.sum(2, keepdim=True) * w

    @torch.no_grad()
    def predict(self, tasks: Tasks) -> Tensor:
        points, w = tasks.points, tasks.prototypes.clone()
        labels = F.one_hot(tasks.support_labels, tasks.way).to(points.dtype).T
        optimizer = torch.optim.Adam([w], lr=self.lr, fused=w.device.type in ("cpu", "cuda"))
        for _ in range(self.steps):
            w.grad = self._gradient(points, w, labels)
            optimizer.step()
        return self._logits(tasks.query, w).argmax(1)


class AlphaTIM(TIM):
    r"""TIM with Tsallis entropies, for unbalanced queries (Veilleux et al., NeurIPS 2021).

    Minimises (cross-entropy on the support) - (entropy of the mean of p over the queries) + (mean
    entropy of p over the queries), both entropies :math:`(1 - \sum_c p_c^\alpha) / (\alpha - 1)`,
    which forgive unequal class shares.

    Args:
        alpha (float, optional): :math:`\alpha`, above 1. (default: the paper's, ``2`` with fewer
            than 5 shots and ``7`` with more)
        temperature, steps, lr: As in :class:`TIM`.
    """

    support_weight = 1.0

    def __init__(
        self,
        alpha: float | None = None,
        temperature: float = 15.0,
        steps: int = 1000,
        lr: float = 1e-4,
    ) -> None:
        super().__init__(temperature, steps, lr)
        if alpha is not None and not alpha > 1:
            raise ValueError(f"'alpha' must be above 1 (got {alpha})")
        self.alpha = alpha

    def _by_p(self, query: Tensor, shot: int) -> Tensor:
        alpha = self.alpha or (2.0 if shot < 5 else 7.0)
        power = alpha - 1
        return alpha / power * (query.mean(2, keepdim=True) ** power - query**power)
