"""Distances of listed pairs in double precision: for ranking, and to be differentiated."""

import math
import warnings
from collections.abc import Callable

import torch
from torch import Tensor

from .._utils.numerics import power_of_two
from .points import directions

FEW_DIMENSIONS = 16


def pair_distances(x: Tensor, edge_index: Tensor, cosine: bool, block_bytes: int) -> Tensor:
    r"""The distances of pairs, in double precision and differentiable any number of times.

    All derivatives of the Euclidean distance of coincident points are taken as 0. Directions that
    differ by no more than the rounding of the entries count as equal (:math:`1 - \cos = 0`).
    """
    points, measure = (directions(x), _angle(x)) if cosine else (x.double(), length)
    return _in_blocks(lambda e: measure(_gap(points, e)), edge_index, points, block_bytes)


def pair_gaussian(
    x: Tensor, edge_index: Tensor, width: Tensor, cosine: bool, block_bytes: int
) -> Tensor:
    r"""The weights :math:`\exp(-r^2 / \sigma^2)` of pairs with :math:`\sigma` of their targets.

    They are smooth where the distance is 0, which a function of :func:`pair_distances` would not
    be. The limit for :math:`\sigma = 0` is 1 between coincident points and 0 elsewhere.
    """
    points, angle = (directions(x), _angle(x)) if cosine else (x.double(), None)

    def weights(edges: Tensor) -> Tensor:
        gap, sigma = _gap(points, edges), width[edges[1]]
        ratio = gap if angle is None else angle(gap).unsqueeze(1)
        size = (length(gap) if angle is None else ratio.squeeze(1)).detach()
        far = size > 32 * sigma.detach()  # the weight and its derivatives round to 0
        constant = far | (sigma.detach() == 0)
        ratio = torch.where(constant.unsqueeze(1), 0.0, ratio)
        ratio = ratio / torch.where(constant, 1.0, sigma).unsqueeze(1)
        return torch.where(far, 0.0, torch.exp(-ratio.square().sum(dim=1)))

    return _in_blocks(weights, edge_index, points, block_bytes)


def length(gap: Tensor) -> Tensor:
    """The norms of the last dimension, without overflow or underflow."""
    largest = gap.detach().abs().amax(dim=-1)
    zero = largest == 0
    scale = power_of_two(largest)  # so that no rounding depends on it
    square = (gap / scale.unsqueeze(-1)).square().sum(dim=-1)
    return torch.where(zero, 0.0, torch.where(zero, 1.0, square).sqrt() * scale)


def _angle(x: Tensor) -> Callable[[Tensor], Tensor]:
    wide = torch.finfo(torch.float64).eps
    rounding = 6 * wide + (torch.finfo(x.dtype).eps if x.is_floating_point() else 0.0)

    def angle(gap: Tensor) -> Tensor:
        square = gap.square().sum(dim=1)
        noise = square.detach()
        # the value alone: the second derivative is not 0 where directions are equal
        return (square - torch.where(noise <= rounding**2, noise, 0.0)) / 2

    return angle


def _gap(points: Tensor, edge_index: Tensor) -> Tensor:
    return points[edge_index[0]] - points[edge_index[1]]


def _in_blocks(
    function: Callable[[Tensor], Tensor], edge_index: Tensor, points: Tensor, block_bytes: int
) -> Tensor:
    size = max(1, block_bytes // (64 * points.size(1)))
    return torch.cat([function(part) for part in edge_index.split(size, dim=1)])


class SquaredDistances:
    """Squared distances between given rows of ``points`` and points listed for each.

    Args:
        points (Tensor): Points of shape :math:`(N, D)` in double precision.
        single (bool): Whether products may replace differences where they decide nothing.
        block_bytes (int): Bound on the intermediates.
    """

    def __init__(self, points: Tensor, single: bool, block_bytes: int) -> None:
        self.points = points
        self.block_bytes = block_bytes
        self.by_product = single and points.size(1) > FEW_DIMENSIONS and points.device.type == "cpu"
        if self.by_product:
            self.centered = points - center(points)
            self.norm = self.centered.square().sum(dim=1)

    def differences(self, rows: Tensor, index: Tensor) -> Tensor:
        """The sums of squared differences in the order of the columns; shape ``index.shape``."""
        points = self.points
        squared = torch.zeros(index.shape, dtype=torch.float64, device=points.device)
        for column in points.t().contiguous() if points.size(1) <= FEW_DIMENSIONS else points.t():
            gap = column[index] - column[rows].unsqueeze(1)
            squared += gap.square_()  # rounded on its own: the compiled search does the same
        return squared

    def products(self, rows: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
        r"""The same as :math:`|a|^2 + |b|^2 - 2 a \cdot b`, much faster, and a bound of the error.

        The pairs are taken as the pattern of a sparse matrix, so that nothing is gathered.
        """
        start = torch.arange(0, index.numel() + 1, index.size(1), device=index.device)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Sparse")  # CSR is in beta state
            pattern = torch.sparse_csr_tensor(
                start,
                index.flatten(),
                torch.zeros(index.numel(), dtype=torch.float64, device=index.device),
                size=(len(rows), len(self.points)),
                device=index.device,
                check_invariants=False,
            )
            product = torch.sparse.sampled_addmm(
                pattern, self.centered[rows], self.centered.t(), beta=0.0
            ).values()
        norm = self.norm[rows].unsqueeze(1) + self.norm[index]
        error = 4 * (self.points.size(1) + 16) * torch.finfo(torch.float64).eps * norm.amax(dim=1)
        return norm - 2 * product.view(index.shape), error


def center(points: Tensor) -> Tensor:
    """A central point that stays with the many where a few lie far off: a median of some."""
    return points[:: max(1, points.size(0) // 128)].t().contiguous().median(dim=1).values


def nearest_by_length(points: Tensor, k: int, block_bytes: int) -> Tensor:
    """The ``k`` others nearest to each point where squares underflow: all distances, sorted."""
    rows, near = torch.arange(len(points), device=points.device), []
    for part in rows.split(max(1, block_bytes // (32 * points.numel()))):
        distance = length(points - points[part].unsqueeze(1))
        distance.scatter_(1, part.unsqueeze(1), math.inf)
        near.append(distance.sort(dim=1, stable=True).indices[:, :k])
    return torch.cat(near)
