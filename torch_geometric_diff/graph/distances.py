"""Squared distances of listed pairs in double precision, for the ranking of neighbours."""

import warnings

import torch
from torch import Tensor

FEW_DIMENSIONS = 16


class SquaredDistances:
    """Squared distances between given rows of ``points`` and points listed for each.

    Args:
        points (Tensor): Points of shape :math:`(N, D)`.
        block_bytes (int): Bound on the intermediates.
    """

    def __init__(self, points: Tensor, block_bytes: int) -> None:
        self.points = points
        self.block_bytes = block_bytes
        # in single precision on the CPU, products replace differences where these decide nothing
        self.by_product = (
            points.size(1) > FEW_DIMENSIONS
            and points.dtype == torch.float32
            and points.device.type == "cpu"
        )
        if self.by_product:
            self.wide = points.double()
            self.wide -= centre(points).double()
            self.norm = self.wide.square().sum(dim=1)

    def differences(self, rows: Tensor, index: Tensor) -> Tensor:
        """The sums of squared differences, equal for coincident points; shape ``index.shape``."""
        points = self.points
        if points.size(1) <= FEW_DIMENSIONS:
            squared = torch.zeros(index.shape, dtype=torch.float64, device=points.device)
            for column in points.t().contiguous():
                gap = column[index].double() - column[rows].double().unsqueeze(1)
                squared.addcmul_(gap, gap)
            return squared
        source, target = index.flatten(), rows.repeat_interleave(index.size(1))
        size = max(1, self.block_bytes // (24 * points.size(1)))
        parts = [
            (points[i].double() - points[j]).square_().sum(dim=1)
            for i, j in zip(source.split(size), target.split(size), strict=True)
        ]
        return torch.cat(parts).view(index.shape)

    def products(self, rows: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
        r"""The same as :math:`|a|^2 + |b|^2 - 2 a \cdot b`, much faster, and a bound of the error.

        Products of single-precision numbers are exact in double precision; the pairs are taken as
        the pattern of a sparse matrix, so that nothing is gathered.
        """
        start = torch.arange(0, index.numel() + 1, index.size(1))
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Sparse")  # CSR is in beta state
            pattern = torch.sparse_csr_tensor(
                start,
                index.flatten(),
                torch.zeros(index.numel(), dtype=torch.float64),
                size=(len(rows), len(self.points)),
                check_invariants=False,
            )
            product = torch.sparse.sampled_addmm(
                pattern, self.wide[rows], self.wide.t(), beta=0.0
            ).values()
        norm = self.norm[rows].unsqueeze(1) + self.norm[index]
        error = 2 * (self.points.size(1) + 16) * torch.finfo(torch.float64).eps * norm.amax(dim=1)
        return norm - 2 * product.view(index.shape), error


def centre(points: Tensor) -> Tensor:
    """A central point that stays with the many where a few lie far off: a median of some."""
    return points[:: max(1, points.size(0) // 1024)].median(dim=0).values
