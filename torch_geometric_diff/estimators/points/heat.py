"""Labels as sources of heat on a graph of neighbors."""

import torch
from torch import Tensor

from ...ops import Recurrence, SparseOperator, propagate


def neighbor_weights(distance: Tensor, power: int) -> Tensor:
    """Weights of neighbors from relative distances [N, k], nearest first; copies weigh 1."""
    last = distance[:, -1:].clamp(min=torch.finfo(distance.dtype).tiny)
    return torch.exp(-8 * (distance / last).pow(power))


def mean_of_neighbors(weight: Tensor, index: Tensor, values: Tensor) -> Tensor:
    """The weighted means [B, C] of the values of neighbors [B, k]."""
    mean = (weight.unsqueeze(2) * values[index]).sum(1)
    return mean / weight.sum(1, keepdim=True)


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
