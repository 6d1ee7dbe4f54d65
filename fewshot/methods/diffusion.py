"""The paper's method: one residual block with diffusion, trained afresh on each task."""

from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor

from ..tasks import Tasks, rectified_prototypes
from ..weights import gaussian_weights, laplacian
from .base import Method, at_least
from .training import Network, Problem, Schedule, train


class Diffusion(Method):
    r"""Diff-ResNet (Wang et al., 2024): :math:`h = x + f(x)`, K steps on the graph, a classifier.

    The loss is the mean cross-entropy on the support, plus ``alpha`` times the sum over the queries
    of softmax . distance to the rectified prototypes, plus ``mu`` times
    :math:`\sum_{ij} w_{ij} \|z_i - z_j\|^2` over the logits.

    On the CPU each thread trains one task, which stays in its cache; elsewhere 256 tasks go side by
    side. The results do not depend on the number of threads.

    Args:
        step_size (float): Of the diffusion. (default: ``0.5``)
        layer_num (int): Diffusion steps K. (default: ``6``)
        n_top, sigma (int): As in :func:`fewshot.weights.gaussian_weights`. (default: ``8``, ``4``)
        alpha (float): Weight of the distance term. (default: ``0``)
        mu (float): Weight of the smoothness term. (default: ``0``)
        schedule (Schedule): Of the training. (default: the paper's)
    """

    shifted = True

    def __init__(
        self,
        step_size: float = 0.5,
        layer_num: int = 6,
        n_top: int = 8,
        sigma: int = 4,
        alpha: float = 0.0,
        mu: float = 0.0,
        schedule: Schedule = Schedule(),  # noqa: B008
    ) -> None:
        at_least(0, step_size=step_size, layer_num=layer_num, alpha=alpha, mu=mu)
        at_least(1, n_top=n_top, sigma=sigma)
        self.step_size, self.layer_num = step_size, layer_num
        self.n_top, self.sigma = n_top, sigma
        self.alpha, self.mu, self.schedule = alpha, mu, schedule

    def problem(self, tasks: Tasks) -> Problem:
        cost = None
        if self.alpha:
            cost = self.alpha * torch.cdist(tasks.query, rectified_prototypes(tasks))
        weights = gaussian_weights(tasks.points, self.n_top, self.sigma)
        return Problem(
            points=tasks.points,
            labels=tasks.support_labels,
            laplacian=laplacian(weights),
            step_size=self.step_size,
            layer_num=self.layer_num,
            cost=cost,
            roughness=self.mu,
        )

    def _predict(self, tasks: Tasks) -> Tensor:
        network = Network.draw(tasks.seeds, tasks.way, tasks.query)
        logits = train(self.problem(tasks), network, self.schedule)
        if not logits.isfinite().all():
            raise ValueError(
                f"the training diverged; 'step_size' {self.step_size} (stable below about 2), "
                f"'alpha' {self.alpha} or 'mu' {self.mu} may be too large"
            )
        return logits[:, len(tasks.support_labels) :].argmax(-1)

    def predict(self, tasks: Tasks) -> Tensor:
        if tasks.query.device.type != "cpu":
            return torch.cat([self._predict(group) for group in tasks.split(256)])
        threads = torch.get_num_threads()
        try:  # a thread of ours uses one of torch's; the setting is the process's
            with ThreadPoolExecutor(threads, "task", torch.set_num_threads, (1,)) as pool:
                return torch.cat(list(pool.map(self._predict, tasks.split(1))))
        finally:
            torch.set_num_threads(threads)
