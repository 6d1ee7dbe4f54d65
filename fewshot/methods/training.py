r"""Exact training of one small network per task without F x F work for each point.

The network is :math:`h = x + W_2\,\text{relu}(W_1 x + b_1) + b_2`, K diffusion steps, a classifier
:math:`W_c, b_c`, trained by SGD with momentum and weight decay on all points at once. N points, F
features, C classes, F much larger than N and C. Five identities, none an approximation:

1. Diffusion has unit row sums and acts on points, so it commutes with the classifier:
   :math:`Z = P^K (h W_c^T) + b_c` with the N x N matrix :math:`P^K` computed once.
2. The logits need :math:`V = W_c W_2` (C x F) only: :math:`h W_c^T = x W_c^T + A V^T`, A the hidden
   layer. The gradients of the second layer are :math:`W_c^T B` with :math:`B = dY^T A`: rank C.
3. The hidden layer's input :math:`U = x W_1^T + b_1` is a closed system: the gradient of
   :math:`W_1` is :math:`dU^T x`, so SGD on :math:`W_1, b_1` moves U by
   :math:`(x x^T + 1 1^T)\,dU`, momentum and decay acting on U as they do on :math:`W_1`.
4. Momentum is a recurrence over two states, :math:`w_{t+1} = p\,w_t - \rho\,w_{t-1} - lr\,g_t`.
   For :math:`W_2 = a M` with :math:`a_{t+1} = p\,a_t - \rho\,a_{t-1}` it becomes an interpolation
   of two states of M and one product of rank C: two passes over F x F numbers an epoch.
5. The gradients of cross-entropy sum to zero over the classes, so the mean over the classes never
   trains and C - 1 coordinates, orthogonal to it, do: rank C - 1 in place of C.

Biases ride along as one more column of their weights.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Problem:
    """What a network is trained on; the leading dimension counts tasks."""

    points: Tensor  # [tasks, N, F], the support first
    labels: Tensor  # [support], the same for all tasks
    laplacian: Tensor  # [tasks, N, N], symmetric
    step_size: float
    layer_num: int
    cost: Tensor | None = None  # [tasks, queries, C]; adds sum(softmax(query logits) * cost)
    roughness: float = 0.0  # adds roughness * sum_ij w_ij |z_i - z_j|^2, z the logits

    @property
    def classes(self) -> int:
        return int(self.labels.max()) + 1


class Schedule(NamedTuple):
    """SGD as in the paper: the rate falls to a tenth at 50 % and again at 75 % of the epochs."""

    epochs: int = 100
    lr: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 1e-4

    def rate(self, epoch: int) -> float:
        falls = (epoch >= self.epochs // 2) + (epoch >= self.epochs * 3 // 4)
        return self.lr * 0.1**falls


class Network(NamedTuple):
    """The layers of each task's network, the bias as last column."""

    fc1: Tensor  # [tasks, F, F + 1]
    fc2: Tensor  # [tasks, F, F + 1]
    classifier: Tensor  # [tasks, C, F + 1]

    @classmethod
    def draw(cls, seeds: tuple[int, ...], classes: int, like: Tensor) -> "Network":
        """``torch.nn.Linear``'s initial distribution; each task's numbers hang on its seed only."""
        n, bound = like.shape[-1], like.shape[-1] ** -0.5
        layers = [
            torch.empty(len(seeds), rows, n + 1, dtype=like.dtype) for rows in (n, n, classes)
        ]
        for task, seed in enumerate(seeds):
            generator = torch.Generator().manual_seed(seed)
            for layer in layers:
                layer[task].uniform_(-bound, bound, generator=generator)
        return cls(*(layer.to(like.device) for layer in layers))


def _gradient(z: Tensor, problem: Problem, target: Tensor) -> Tensor:
    """Gradient of the loss by the logits, [tasks, N, C]."""
    n = len(target)
    gradient = torch.zeros_like(z)
    gradient[:, :n] = (z[:, :n].softmax(-1) - target) / n
    if problem.cost is not None:
        p = z[:, n:].softmax(-1)
        gradient[:, n:] = p * (problem.cost - (p * problem.cost).sum(-1, keepdim=True))
    if problem.roughness:
        gradient += 4 * problem.roughness * (problem.laplacian @ z)
    return gradient


def train(problem: Problem, network: Network, schedule: Schedule = Schedule()) -> Tensor:  # noqa: B008
    """Train the network of each task; returns the final logits [tasks, N, C].

    The logits' mean over the classes, which nothing depends on, is zero unless the problem has
    roughness.
    """
    x = problem.points
    tasks, points, n = x.shape
    target = F.one_hot(problem.labels).to(x.dtype)
    eye = torch.eye(points, dtype=x.dtype, device=x.device)
    smooth = torch.matrix_power(eye - problem.step_size * problem.laplacian, problem.layer_num)
    basis = torch.eye(problem.classes, dtype=x.dtype, device=x.device)
    if not problem.roughness:
        basis = torch.linalg.qr(basis - basis.mean(0)).Q[:, :-1]  # [C, C - 1], columns sum to 0

    # Rows of `width` numbers: bias column, then zeros up to whole vector registers
    width = (n + 8) // 8 * 8
    inputs = x.new_zeros(tasks, points, 2 * width)  # [hidden layer, 1, 0 | x, 1, 0]
    hidden, ones = inputs[..., :n], [n, width + n]
    inputs[..., width : width + n] = x
    inputs[..., ones] = 1
    x1 = inputs[..., width : width + n + 1]
    gram = x1 @ x1.mT
    u = x1 @ network.fc1.mT
    m = F.pad(network.fc2, (0, width - n - 1))
    w = F.pad(basis.mT @ network.classifier, (0, width - n - 1))
    u_old, m_old, w_old = u.clone(), m.clone(), w.clone()
    a = a_old = 1.0  # fc2 is a * m
    lr_old = schedule.lr

    def forward() -> tuple[Tensor, Tensor]:
        """The product of classifier and second layer, and the logits."""
        torch.clamp_min(u, 0, out=hidden)
        v = (w[..., :n] @ m).mul_(a)
        return v, smooth @ (inputs @ torch.cat([v, w], dim=-1).mT) @ basis.mT

    for epoch in range(schedule.epochs):
        v, z = forward()
        by_y = smooth @ (_gradient(z, problem, target) @ basis)
        by_v, by_w = (by_y.mT @ inputs).split(width, dim=-1)
        by_w[..., :n].baddbmm_(by_v, m.mT, alpha=a)
        by_u = (by_y @ v[..., :n]).mul_(hidden.sign())

        lr = schedule.rate(epoch)
        rho = schedule.momentum * lr / lr_old
        p = 1 + rho - lr * schedule.weight_decay
        a_new = p * a - rho * a_old
        u_old.baddbmm_(gram, by_u, beta=-rho, alpha=-lr).add_(u, alpha=p)
        m_old.lerp_(m, 1 + rho * a_old / a_new)
        m_old.baddbmm_(w[..., :n].mT.contiguous(), by_v, alpha=-lr / a_new)
        w_old.mul_(-rho).add_(w, alpha=p).sub_(by_w, alpha=lr)
        u, u_old, m, m_old, w, w_old = u_old, u, m_old, m, w_old, w
        a, a_old, lr_old = a_new, a, lr
    return forward()[1]
