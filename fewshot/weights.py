"""The graph on the points of a task: Gaussian weights with local widths, dense, batched."""

import torch
from torch import Tensor


def distances(points: Tensor) -> Tensor:
    """Euclidean distances between all points, [..., N, F] -> [..., N, N].

    From inner products in float64, whose rounding (1e-8 of the length of the points) is far below
    that of float32 features, with an exact zero on the diagonal.
    """
    points = points.double()
    square = points.square().sum(-1)
    gram = points @ points.mT
    r = (square.unsqueeze(-1) + square.unsqueeze(-2) - 2 * gram).clamp(min=0).sqrt()
    r.diagonal(dim1=-2, dim2=-1).zero_()
    return r


def gaussian_weights(points: Tensor, n_top: int = 8, sigma: int = 4) -> Tensor:
    r"""Symmetric normalized Gaussian weights between the points of each task.

    With :math:`r_{ij}` the distances and :math:`\sigma_i` the distance of point i to its
    ``sigma``-th nearest point (itself the first),

    .. math:: w_{ij} = \exp(-(r_{ij} / \sigma_i)^2)

    for :math:`r_{ij}` strictly below the ``n_top``-th smallest of row i, zero elsewhere; then
    :math:`W \leftarrow S^{-1/2} W S^{-1/2}`, S the row sums, and :math:`W \leftarrow (W + W^T)/2`.
    Where duplicates make :math:`\sigma_i` zero, the duplicates get weight 1 and all others 0; a
    point is always its own neighbor.

    Args:
        points (Tensor): The points, ``[..., N, F]``.
        n_top (int): One more than the neighbors kept, the point itself counted. (default: ``8``)
        sigma (int): Index of the neighbor that sets the width. (default: ``4``)

    Raises:
        ValueError: If ``n_top`` or ``sigma`` is not in ``1 ... N``.
    """
    return gaussian_weights_of(distances(points), n_top, sigma).to(points.dtype)


def gaussian_weights_of(r: Tensor, n_top: int = 8, sigma: int = 4) -> Tensor:
    """:func:`gaussian_weights` from the distances between the points, ``[..., N, N]``."""
    n = r.shape[-1]
    for name, value in (("n_top", n_top), ("sigma", sigma)):
        if not 1 <= value <= n:
            raise ValueError(f"'{name}' must be in 1 ... {n}, the points of a task (got {value})")
    smallest = r.topk(max(n_top, sigma), largest=False).values
    width = smallest[..., sigma - 1, None].clamp(min=torch.finfo(r.dtype).tiny)
    kept = r < smallest[..., n_top - 1, None]
    kept.diagonal(dim1=-2, dim2=-1).fill_(True)
    w = torch.exp(-((r / width) ** 2)) * kept
    scale = w.sum(-1).rsqrt()
    w = w * scale.unsqueeze(-1) * scale.unsqueeze(-2)
    return (w + w.mT) / 2


def heat_kernel(weights: Tensor, retention: float) -> Tensor:
    r"""Where heat from each point settles, ``[..., N, N]``, its columns of sum about 1.

    :math:`(1 - \alpha)(I - \alpha S)^{-1} = (1 - \alpha) \sum_k \alpha^k S^k` with S the weights
    scaled by :math:`D^{-1/2}` on both sides: sources that stay on while a share
    :math:`1 - \alpha` is lost at each step.
    """
    scale = weights.sum(-1).rsqrt()
    s = weights * scale.unsqueeze(-1) * scale.unsqueeze(-2)
    eye = torch.eye(s.shape[-1], dtype=s.dtype, device=s.device)
    return (1 - retention) * torch.linalg.inv(eye - retention * s)


def laplacian(weights: Tensor) -> Tensor:
    """``diag(W 1) - W``, [..., N, N]."""
    return torch.diag_embed(weights.sum(-1)) - weights
