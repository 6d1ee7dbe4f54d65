"""Gaussian weights on the nearest neighbors, as the paper builds them."""

from numbers import Integral, Real

import torch
from torch import Tensor
from torch_geometric.utils import scatter

from .._utils.checks import check_integer
from .._utils.functorch import uncompiled
from .adjacency import NORMALIZATIONS, Edges, normalize
from .distances import pair_distances, pair_gaussian
from .neighbors import BLOCK_BYTES, listed_edges, neighbor_table, real_dtype
from .points import check_batch, check_points

SYMMETRIZATIONS = ("mean", "max", "mutual", None)


def gaussian_knn_graph(
    x: Tensor,
    n_top: int,
    sigma: float | tuple[str, int],
    batch: Tensor | None = None,
    *,
    cosine: bool = False,
    normalization: str | None = None,
    symmetrize: str | None = None,
    backend: str = "auto",
    block_bytes: int = BLOCK_BYTES,
) -> tuple[Tensor, Tensor]:
    r"""Connect every point to its nearest ones with weights that fall with the distance,

    .. math::
        w_{ij} = \exp \left( - \frac{r_{ij}^2}{\sigma_i^2} \right),

    for the ``n_top`` points :math:`j` nearest to :math:`i`, with :math:`i` itself the first of
    them. :math:`\sigma_i` is a fixed width, or the distance to one of the neighbors
    (`"Self-Tuning Spectral Clustering" <https://papers.nips.cc/paper/2619>`_). From `"Diffusion
    Mechanism in Residual Neural Network: Theory and Applications"
    <https://arxiv.org/abs/2105.03155>`_, which uses

    * ``gaussian_knn_graph(x, 25, 0.5, normalization="row")`` for its toys, where a diffusion step
      is :math:`\mathbf{x} \leftarrow \mathbf{W} \mathbf{x}`;
    * ``gaussian_knn_graph(x, 7, ("local", 4), normalization="sym", symmetrize="mean")`` for
      few-shot tasks. (Its ``n_top`` of 8 keeps what lies strictly below the 8th smallest distance,
      hence 7 points.)

    The normalization comes first and the symmetrization second, as there. To normalize a symmetric
    graph, leave the normalization to :class:`~torch_geometric_diff.DiffusionOperator`.

    Args:
        x (Tensor): Finite real points of shape :math:`(N, D)`, or :math:`(N,)` on a line.
        n_top (int): The number of weights kept for each point, that of the point itself included;
            all points of a set of fewer.
        sigma (float or tuple): The width :math:`\sigma > 0`, or :obj:`("local", s)` to set
            :math:`\sigma_i` to the distance of the :math:`s`-th nearest point, the point itself
            being the first, or of the farthest in a set of fewer points. A point with :math:`s`
            or more copies then weighs its copies by 1 and all others by 0.
        batch (Tensor, optional): Sorted vector :math:`(N,)` of integers that assigns each point to
            one of several sets. (default: :obj:`None`)
        cosine (bool, optional): Use :math:`1 - \cos(x_i, x_j)` for :math:`r_{ij}`, as
            :func:`~torch_geometric_diff.graph.knn_graph` does. (default: :obj:`False`)
        normalization (str, optional): :obj:`"row"` for :math:`\mathbf{D}^{-1} \mathbf{W}`,
            :obj:`"sym"` for :math:`\mathbf{D}^{-1/2} \mathbf{W} \mathbf{D}^{-1/2}` with
            :math:`\mathbf{D}` the row sums. (default: :obj:`None`)
        symmetrize (str, optional): :obj:`"mean"` for :math:`(w_{ij} + w_{ji}) / 2`, :obj:`"max"`
            for the larger of both, :obj:`"mutual"` for the mean where both exist and no edge
            elsewhere, or :obj:`None` for the directed graph. (default: :obj:`None`)
        backend (str, optional): See :func:`~torch_geometric_diff.graph.knn_graph`.
            (default: :obj:`"auto"`)
        block_bytes (int, optional): See :func:`~torch_geometric_diff.graph.knn_graph`.
            (default: 64 MiB)

    Raises:
        ValueError: On what :func:`~torch_geometric_diff.graph.knn_graph` refuses, a ``sigma`` that
            is not positive, a rank below 2, or an unknown name.
        TypeError: On what that function refuses, or if ``n_top`` is not an integer.

    Shapes:
        - **output:** ``edge_index`` :math:`(2, E)` sorted by target, and ``edge_weight``
          :math:`(E,)`, twice differentiable with respect to :obj:`x` and of its type (the default
          type for integers); :math:`E = N \cdot` ``n_top`` without symmetrization, if no set has
          fewer points.

    Example:
        >>> points = torch.tensor([[0.0], [1.0], [3.0]])
        >>> edge_index, weight = gaussian_knn_graph(points, n_top=2, sigma=1.0)
        >>> edge_index
        tensor([[0, 1, 1, 0, 2, 1],
                [0, 0, 1, 1, 2, 2]])
        >>> weight
        tensor([1.0000, 0.3679, 1.0000, 0.3679, 1.0000, 0.0183])
    """
    if torch.compiler.is_compiling():
        how = {"cosine": cosine, "normalization": normalization, "symmetrize": symmetrize}
        search = {"backend": backend, "block_bytes": block_bytes}
        return _uncompiled(x, n_top, sigma, batch, **how, **search)
    if normalization not in NORMALIZATIONS:
        raise ValueError(
            f"Expected 'normalization' to be 'sym', 'row' or None (got {normalization!r})"
        )
    if symmetrize not in SYMMETRIZATIONS:
        raise ValueError(
            f"Expected 'symmetrize' to be 'mean', 'max', 'mutual' or None (got {symmetrize!r})"
        )
    width, nearest = _read_sigma(sigma)
    n_top = check_integer("n_top", n_top, 1)
    x = check_points(x)
    sets = check_batch("batch", batch, x.size(0)).unique_consecutive(return_inverse=True)[1]
    index = neighbor_table(x, max(n_top, nearest), sets, True, cosine, backend, block_bytes)
    edge_index = listed_edges(index[:, :n_top])
    if nearest:
        rank = (index[:, :nearest] >= 0).sum(dim=1, keepdim=True) - 1
        # the farthest there is in a set of fewer points
        reached = torch.stack([index.gather(1, rank).squeeze(1), index[:, 0]])
        sigmas = pair_distances(x, reached, sets, cosine, block_bytes)
    else:
        sigmas = torch.full((x.size(0),), width, dtype=torch.float64, device=x.device)
    weight = pair_gaussian(x, edge_index, sets, sigmas, cosine, block_bytes)
    col, row = edge_index
    weight = normalize(Edges(row, col, weight, x.size(0)), normalization, False)
    if symmetrize is not None:
        edge_index, weight = _symmetrize(edge_index, weight, x.size(0), symmetrize)
    return edge_index, weight.to(real_dtype(x.dtype))


_uncompiled = uncompiled(gaussian_knn_graph)


def _read_sigma(sigma: float | tuple[str, int]) -> tuple[float, int]:
    """A fixed width and 0, or 0 and the rank of the neighbor that sets the width."""
    if isinstance(sigma, Real) and not isinstance(sigma, bool):
        if 0 < sigma < float("inf"):
            return float(sigma), 0
    elif isinstance(sigma, (tuple, list)) and len(sigma) == 2 and sigma[0] == "local":
        rank = sigma[1]
        if isinstance(rank, Integral) and not isinstance(rank, bool) and rank >= 2:
            return 0.0, int(rank)
    raise ValueError(
        "Expected 'sigma' to be a positive finite number or ('local', s) with an integer s >= 2 "
        f"(got {sigma!r})"
    )


def _symmetrize(
    edge_index: Tensor, weight: Tensor, num_points: int, how: str
) -> tuple[Tensor, Tensor]:
    """Join each edge with its opposite; the edges come out sorted by target and source."""
    col, row = edge_index
    key = torch.cat([row * num_points + col, col * num_points + row])
    key, edge, size = torch.unique(key, return_inverse=True, return_counts=True)
    reduce = "max" if how == "max" else "sum"
    weight = scatter(torch.cat([weight, weight]), edge, dim_size=key.numel(), reduce=reduce)
    if how != "max":
        weight = weight / 2
    if how == "mutual":
        key, weight = key[size == 2], weight[size == 2]
    return torch.stack([key % num_points, key // num_points]), weight
