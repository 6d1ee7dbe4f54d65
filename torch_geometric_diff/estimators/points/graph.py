"""The graph of neighbors on which labels and targets diffuse."""

from math import ceil, log, sqrt

import numpy as np
import torch
from torch import Tensor

from ...ops import Recurrence, SparseOperator, propagate


class HeatGraph:
    r"""The random walk :math:`\mathbf{P} = \mathbf{D}^{-1} \mathbf{W}` of a graph of neighbors.

    Args:
        edge_index (Tensor): Edges, each of which counts in both directions.
        weight (Tensor): Their weights.
        num_nodes (int): The number of points.
    """

    def __init__(self, edge_index: Tensor, weight: Tensor, num_nodes: int) -> None:
        edge_index = torch.cat([edge_index, edge_index.flip(0)], dim=1)
        weight = weight.repeat(2)
        self.degree = weight.new_zeros(num_nodes).index_add_(0, edge_index[1], weight)
        step = weight / self.degree[edge_index[1]]
        self.operator = SparseOperator(edge_index, step, num_nodes=num_nodes)

    def heat(self, nodes: Tensor, heat: Tensor, num_steps: int) -> Tensor:
        r""":math:`\sum_{k=0}^{K} \mathbf{P}^k \mathbf{D}^{-1} \mathbf{Y}` for sources at nodes.

        Args:
            nodes (Tensor): Where the sources are [S].
            heat (Tensor): What they give, [S, C] of any floating type, which is that of the result.
            num_steps (int): The number of steps K.
        """
        source = heat.new_zeros(len(self.degree), heat.size(1))
        source[nodes] = heat / self.degree[nodes].unsqueeze(1).to(heat)
        return propagate(source, self.operator, Recurrence(num_steps, c=1.0))

    def mean(self, values: Tensor) -> Tensor:
        """The means over the neighbors of all points."""
        return self.operator @ values

    def walk(self, values: Tensor, num_steps: int) -> Tensor:
        r""":math:`\mathbf{P}^K` times values."""
        return propagate(values, self.operator, Recurrence(num_steps))


class ResolventKernel:
    r"""The kernel :math:`(\mathbf{I} - \gamma \mathbf{P})^{-1} \mathbf{D}^{-1}`, which is what
    sources send to each other if a walk goes on with probability :math:`\gamma` after each step.

    It is computed as :math:`h(\mathbf{P})^2 \mathbf{D}^{-1}`, h a Chebyshev polynomial close to
    :math:`(1 - \gamma x)^{-1/2}`, and so is positive semidefinite at any precision. The constant
    functions are projected out: whoever estimates the mean has them, and their large variance
    would hide that of all others.

    Args:
        graph (HeatGraph): The graph.
        horizon (float): The mean number of steps :math:`1 / (1 - \gamma)`.
        precision (float): How far the polynomial may be off, as a share of its largest term.
        probes (Tensor): Vectors [N, Q] with :math:`\mathbf{Z} \mathbf{Z}^{\top} \approx
            \mathbf{I}`, for variances.
    """

    def __init__(self, graph: HeatGraph, horizon: float, precision: float, probes: Tensor) -> None:
        self.graph = graph
        self.root = inverse_root(1 - 1 / horizon, precision)
        # a point without neighbors has no heat to share: its own variance is set below
        self.inverse_degree = torch.where(graph.degree > 0, 1 / graph.degree, 0)[:, None]
        self.constant = (graph.degree > 0)[:, None] / graph.degree.sum()
        source = self.inverse_degree.sqrt() * probes
        source -= self.constant * (graph.degree.sqrt() @ probes.to(graph.degree))
        rows = propagate(source, graph.operator, self.root)
        variance = rows.square().sum(1)
        self.scale = float((rows - rows.mean(0)).square().sum(1).mean()) or 1.0
        alone = graph.degree == 0
        self.variance = torch.where(alone, 1.0, variance / self.scale)

    def columns(self, nodes: Tensor) -> Tensor:
        """The columns [N, S] of nodes, in units of the mean variance about the mean."""
        source = -self.constant.repeat(1, len(nodes))
        column = torch.arange(len(nodes), device=nodes.device)
        source[nodes, column] += self.inverse_degree[nodes, 0]
        for _ in range(2):
            source = propagate(source, self.graph.operator, self.root)
        return source / self.scale


def inverse_root(gamma: float, precision: float) -> Recurrence:
    r""":math:`\sum_k w_k T_k(\mathbf{P})`, close to :math:`(1 - \gamma x)^{-1/2}` on [-1, 1].

    Args:
        gamma (float): A number from 0 to below 1.
        precision (float): How far the last term has fallen.
    """
    rate = gamma / (1 + sqrt(1 - gamma**2))  # by which terms fall
    num_steps = max(1, ceil(log(precision) / log(rate))) if gamma > 0 else 1
    count = 4 * (num_steps + 1)
    angle = np.pi * (np.arange(count) + 0.5) / count
    value = (1 - gamma * np.cos(angle)) ** -0.5
    weight = 2 / count * np.cos(np.outer(np.arange(num_steps + 1), angle)) @ value
    weight[0] /= 2
    return Recurrence(num_steps, a=[1.0] + [2.0] * (num_steps - 1), b=-1.0, w=weight.tolist())
