"""Graphs of what nodes are like, beside or in place of the graph that they come with."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .._utils.numerics import scaled
from .adjacency import read_edges
from .gaussian import gaussian_knn_graph
from .points import check_points


def is_bag_of_words(x: Tensor) -> bool:
    """Whether features are counts or the like: none is negative and most are zero."""
    return bool((x >= 0).all()) and bool(2 * torch.count_nonzero(x > 0) < x.numel())


def rare_words(x: Tensor) -> Tensor:
    """Words weighted by how rare they are (tf-idf), in rows of unit length."""
    documents = (x > 0).sum(dim=0).clamp(min=1)
    return _unit_rows(x * (x.size(0) / documents).log())


def _unit_rows(x: Tensor) -> Tensor:
    """The rows at length 1, whatever their scale; zeros stay."""
    x = scaled(x)
    return F.normalize(x, dim=-1, eps=torch.finfo(x.dtype).tiny)


def feature_graph(x: Tensor, k: int) -> tuple[Tensor, Tensor]:
    r"""Connect every node to those with the most similar features, with Gaussian weights.

    Similar is what forms a small angle: of bags of words with rare words counting more (tf-idf), of
    other features after their mean is subtracted. The width of a node's weights is the distance to
    the one in the middle of its neighbors, and both directions of an edge weigh their mean.

    Args:
        x (Tensor): Dense features :math:`(N, F)`.
        k (int): The number of neighbors of each node, less than :math:`N`.

    Shapes:
        - **output:** ``edge_index`` :math:`(2, E)`, without self-loops, and ``edge_weight``
          :math:`(E,)` between 0 and 1

    Raises:
        ValueError: On what :func:`~torch_geometric_diff.graph.gaussian_knn_graph` refuses.

    Example:
        >>> x = torch.tensor([[0.0, 1.0], [0.1, 1.0], [1.0, 0.0], [1.0, 0.1]])
        >>> edge_index, weight = feature_graph(x, k=1)
        >>> edge_index
        tensor([[1, 0, 3, 2],
                [0, 1, 2, 3]])
    """
    x = scaled(check_points(x))
    points = rare_words(x) if is_bag_of_words(x) else _unit_rows(x - x.mean(dim=0))
    width = ("local", k // 2 + 2)
    edge_index, weight = gaussian_knn_graph(points, k + 1, width, symmetrize="mean")
    others = edge_index[0] != edge_index[1]
    return edge_index[:, others], weight[others]


def with_feature_neighbors(
    x: Tensor,
    edge_index: Any,
    edge_weight: Tensor | None = None,
    k: int = 4,
    mix: float = 0.75,
) -> tuple[Tensor, Tensor]:
    """The edges of a graph of any form, of weight 1 where no others are given, and ``mix`` times
    those of :func:`feature_graph`; an edge of both is listed twice, and adds up in every operator.

    Example:
        >>> x = torch.tensor([[0.0, 1.0], [0.1, 1.0], [1.0, 0.0], [1.0, 0.1]])
        >>> edges = torch.tensor([[0, 2], [2, 0]])
        >>> edge_index, weight = with_feature_neighbors(x, edges, k=1)
        >>> edge_index
        tensor([[0, 2, 1, 0, 3, 2],
                [2, 0, 0, 1, 2, 3]])
    """
    edges = read_edges(edge_index, edge_weight, x.size(0))
    edge_index = torch.stack([edges.col, edges.row])
    if k == 0 or mix == 0:
        return edge_index, edges.weight
    others, weight = feature_graph(x, k)
    return torch.cat([edge_index, others], dim=1), torch.cat([edges.weight, mix * weight])
