"""The original form of the diffusion method's training, kept to test and to measure against."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .training import Network, Problem, Schedule


def train_plain(problem: Problem, network: Network, schedule: Schedule = Schedule()) -> Tensor:  # noqa: B008
    """What :func:`fewshot.methods.training.train` computes, for one task, by the book.

    Feature diffusion with a dense Laplacian, autograd and ``torch.optim.SGD``; returns the logits
    of the single task, [1, N, C].
    """
    x, lap, n = problem.points[0], problem.laplacian[0], len(problem.labels)
    layers = []
    for layer in network:
        weight, bias = layer[0, :, :-1], layer[0, :, -1]
        linear = nn.Linear(weight.shape[1], weight.shape[0], dtype=x.dtype)
        with torch.no_grad():
            linear.weight.copy_(weight)
            linear.bias.copy_(bias)
        layers.append(linear)
    fc1, fc2, classifier = layers

    def forward() -> Tensor:
        h = x + fc2(torch.relu(fc1(x)))
        for _ in range(problem.layer_num):
            h = h - problem.step_size * (lap @ h)
        return classifier(h)

    optimizer = torch.optim.SGD(
        nn.ModuleList(layers).parameters(),
        lr=schedule.lr,
        momentum=schedule.momentum,
        weight_decay=schedule.weight_decay,
    )
    falls = [schedule.epochs // 2, schedule.epochs * 3 // 4]
    scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, falls, gamma=0.1)
    for _ in range(schedule.epochs):
        z = forward()
        loss = F.cross_entropy(z[:n], problem.labels)
        if problem.cost is not None:
            loss = loss + (z[n:].softmax(-1) * problem.cost[0]).sum()
        if problem.roughness:
            w = -lap  # the diagonal meets zero differences
            loss = loss + problem.roughness * (w * torch.cdist(z, z).square()).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        scheduler.step()
    with torch.no_grad():
        return forward().unsqueeze(0)
