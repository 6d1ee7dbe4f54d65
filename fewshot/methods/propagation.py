"""Label propagation on the Gaussian graph of the diffusion method."""

import torch
import torch.nn.functional as F
from torch import Tensor

from ..tasks import Tasks
from ..weights import gaussian_weights
from .base import Method, at_least


class LabelPropagation(Method):
    r"""Local and global consistency (Zhou et al., 2004): :math:`(I - \alpha S)^{-1} Y`.

    S is the symmetric normalized Gaussian kNN graph of all points, Y the labels of the support.

    Args:
        alpha (float): Weight of the neighbors, below 1. (default: ``0.9``)
        n_top, sigma (int): As in :func:`fewshot.weights.gaussian_weights`. (default: ``8``, ``4``)
    """

    shifted = True

    def __init__(self, alpha: float = 0.9, n_top: int = 8, sigma: int = 4) -> None:
        if not 0 <= alpha < 1:
            raise ValueError(f"'alpha' must be in [0, 1) (got {alpha})")
        at_least(1, n_top=n_top, sigma=sigma)
        self.alpha, self.n_top, self.sigma = alpha, n_top, sigma

    def predict(self, tasks: Tasks) -> Tensor:
        w = gaussian_weights(tasks.points, self.n_top, self.sigma)
        scale = w.sum(-1).rsqrt()
        s = w * scale.unsqueeze(-1) * scale.unsqueeze(-2)
        n = len(tasks.support_labels)
        y = torch.zeros(*s.shape[:2], tasks.way, dtype=s.dtype, device=s.device)
        y[:, :n] = F.one_hot(tasks.support_labels, tasks.way).to(s.dtype)
        eye = torch.eye(s.shape[-1], dtype=s.dtype, device=s.device)
        return torch.linalg.solve(eye - self.alpha * s, y)[:, n:].argmax(-1)
