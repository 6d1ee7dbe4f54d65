"""Distances and weights of listed pairs in double precision, differentiable."""

from collections.abc import Callable

import torch
from torch import Tensor

from .points import coordinates


def pair_distances(
    x: Tensor, edge_index: Tensor, sets: Tensor, cosine: bool, block_bytes: int
) -> Tensor:
    r"""The distances of pairs, in double precision and differentiable any number of times.

    All derivatives of the Euclidean distance of coincident points are taken as 0. Directions that
    differ by no more than the rounding of the entries count as equal (:math:`1 - \cos = 0`).
    """
    points, scale = coordinates(x, sets, cosine)

    def distances(edges: Tensor) -> Tensor:
        gap = _gap(points, edges)
        return _angle(gap, x) if scale is None else _length(gap) * scale[edges[1]].squeeze(1)

    return _in_blocks(distances, edge_index, points, block_bytes)


def pair_gaussian(
    x: Tensor, edge_index: Tensor, sets: Tensor, width: Tensor, cosine: bool, block_bytes: int
) -> Tensor:
    r"""The weights :math:`\exp(-r^2 / \sigma^2)` of pairs with :math:`\sigma` of their targets.

    They are smooth where the distance is 0, which a function of :func:`pair_distances` would not
    be. The limit for :math:`\sigma = 0` is 1 between coincident points and 0 elsewhere.
    """
    points, scale = coordinates(x, sets, cosine)
    width = width if scale is None else width / scale.squeeze(1)

    def weights(edges: Tensor) -> Tensor:
        gap, sigma = _gap(points, edges), width[edges[1]]
        ratio = gap if scale is not None else _angle(gap, x).unsqueeze(1)
        size = (_length(gap) if scale is not None else ratio.squeeze(1)).detach()
        far = size > 32 * sigma.detach()  # the weight and its derivatives round to 0
        constant = far | (sigma.detach() == 0)
        ratio = torch.where(constant.unsqueeze(1), 0.0, ratio)
        ratio = ratio / torch.where(constant, 1.0, sigma).unsqueeze(1)
        return torch.where(far, 0.0, torch.exp(-ratio.square().sum(dim=1)))

    return _in_blocks(weights, edge_index, points, block_bytes)


def _gap(points: Tensor, edge_index: Tensor) -> Tensor:
    return points[edge_index[0]] - points[edge_index[1]]


def _length(gap: Tensor) -> Tensor:
    square = gap.square().sum(dim=1)
    zero = square.detach() == 0
    return torch.where(zero, 0.0, torch.where(zero, 1.0, square).sqrt())


def _angle(gap: Tensor, x: Tensor) -> Tensor:
    """One minus the cosine, from the difference of two directions of entries like those of x."""
    rounding = 6 * torch.finfo(torch.float64).eps
    rounding += torch.finfo(x.dtype).eps if x.is_floating_point() else 0.0
    square = gap.square().sum(dim=1)
    noise = square.detach()
    # the value alone: the second derivative is not 0 where directions are equal
    return (square - torch.where(noise <= rounding**2, noise, 0.0)) / 2


def _in_blocks(
    function: Callable[[Tensor], Tensor], edge_index: Tensor, points: Tensor, block_bytes: int
) -> Tensor:
    size = max(1, block_bytes // (64 * points.size(1)))
    return torch.cat([function(part) for part in edge_index.split(size, dim=1)])
