"""k nearest neighbors: one function, exact and reproducible on every backend."""

from itertools import pairwise
from typing import Any, Literal, overload

import torch
from torch import Tensor

from .._utils.checks import check_integer
from .._utils.functorch import plain, uncompiled, untransformed
from .distances import pair_distances
from .points import check_points, read_points, set_starts
from .sets import NAMES, missing, nearest_in_sets

BLOCK_BYTES = 64 * 2**20


@overload
def knn_graph(
    x: Tensor,
    k: int,
    batch: Tensor | None = None,
    loop: bool = False,
    cosine: bool = False,
    *,
    return_distances: Literal[False] = False,
    backend: str = "auto",
    block_bytes: int = BLOCK_BYTES,
) -> Tensor: ...


@overload
def knn_graph(
    x: Tensor,
    k: int,
    batch: Tensor | None = None,
    loop: bool = False,
    cosine: bool = False,
    *,
    return_distances: Literal[True],
    backend: str = "auto",
    block_bytes: int = BLOCK_BYTES,
) -> tuple[Tensor, Tensor]: ...


def knn_graph(
    x: Tensor,
    k: int,
    batch: Tensor | None = None,
    loop: bool = False,
    cosine: bool = False,
    *,
    return_distances: bool = False,
    backend: str = "auto",
    block_bytes: int = BLOCK_BYTES,
) -> Tensor | tuple[Tensor, Tensor]:
    r"""Connect every point to its :math:`k` nearest neighbors.

    Edges point from the neighbor to the point, as in ``torch_cluster.knn_graph``. Every point gets
    exactly :math:`k` of them, or all others of its set if these are fewer, whatever duplicates
    there are, nearest first. The point itself is told apart by its index, and of points at the same
    distance the lowest index comes first. All backends but ``"pynndescent"`` give the same edges,
    those of squared distances in double precision, :math:`\sum_c (x_{ic} - x_{jc})^2`, or of
    distances where squares of float64 entries would underflow.

    ================= ============================================ =================================
    ``backend``       what it is                                   ``"auto"`` takes it
    ================= ============================================ =================================
    ``compiled``      vectors of the CPU, with a tree of boxes up  on the CPU, if the C++ extension
                      to 12 dimensions                             is built: up to 64 dimensions, or
                                                                   sets of up to 1,024 points
    ``torch_cluster`` tree on the CPU, brute force on the GPU      if installed: on a GPU up to 32
                                                                   dimensions and 64 neighbors
    ``kdtree``        scipy's ``cKDTree``, on the CPU              on the CPU up to 8 dimensions
    ``blocked``       matrix products and top-k, any device        everywhere else
    ``pynndescent``   approximate (most neighbors are right),     never: pays off past about
                      on the CPU; an extra                         100,000 points in high dimension
    ================= ============================================ =================================

    Where ``compiled`` cannot be used, ``"auto"`` searches sets of up to 256 points together, as
    padded matrices of distances.

    Args:
        x (Tensor): Finite real points of shape :math:`(N, D)`, or :math:`(N,)` on a line. Integers
            are taken in double precision.
        k (int): The number of neighbors of each point.
        batch (Tensor, optional): Sorted vector :math:`(N,)` of integers that assigns each point to
            one of several sets, among which there are no edges. Numbers may be left out. (default:
            :obj:`None`)
        loop (bool, optional): Count the point itself as its first neighbor.
            (default: :obj:`False`)
        cosine (bool, optional): Use :math:`1 - \cos(x_i, x_j)` in place of the Euclidean distance.
            It does not depend on the lengths of rows, and is 0 between rows that are parallel up to
            the rounding of their entries. Rows of zeros are at distance 0 of one another and 1 of
            all others. (default: :obj:`False`)
        return_distances (bool, optional): Return distances as well, computed in double precision.
            They carry gradients of any order to :obj:`x` (all 0 between coincident points, and for
            rows of zeros with ``cosine``), which takes memory :math:`O(N k D)`; under
            ``torch.no_grad()`` it does not. (default: :obj:`False`)
        backend (str, optional): :obj:`"auto"` or a name of the table. (default: :obj:`"auto"`)
        block_bytes (int, optional): Bound on the intermediates, beside copies of the input and the
            output: rows go through in blocks of this size, of one row at least.
            (default: 64 MiB)

    Raises:
        ValueError: On entries that are not finite, ``k`` below 1, a ``batch`` that is not sorted or
            does not match, an unknown backend or one that is not installed.
        TypeError: If :obj:`x` is not a dense Tensor of real numbers or ``k`` not an integer.

    Shapes:
        - **output:** ``edge_index`` :math:`(2, E)`, sorted by target, with :math:`E = N k` if no
          set is too small; with ``return_distances`` also the distances :math:`(E,)`, of the type
          of :obj:`x` (the default type for integers).

    Example:
        >>> points = torch.tensor([[0.0], [1.0], [3.0]])
        >>> knn_graph(points, k=1)
        tensor([[1, 0, 1],
                [0, 1, 2]])
        >>> knn_graph(points, k=1, return_distances=True)[1]
        tensor([1., 1., 2.])
    """
    if torch.compiler.is_compiling():
        options = {"return_distances": return_distances, "backend": backend}
        return _uncompiled(x, k, batch, loop, cosine, **options, block_bytes=block_bytes)
    x = check_points(x)
    index = neighbor_table(x, k, batch, loop, cosine, backend, block_bytes)
    edge_index = listed_edges(index)
    if not return_distances:
        return edge_index
    dtype = x.dtype if x.is_floating_point() else torch.get_default_dtype()
    return edge_index, pair_distances(x, edge_index, cosine, block_bytes).to(dtype)


_uncompiled = uncompiled(knn_graph)


def listed_edges(index: Tensor) -> Tensor:
    """The edges to each row from the points it lists, without its -1."""
    with untransformed():
        target = torch.arange(index.size(0), device=index.device).repeat_interleave(index.size(1))
        edge_index = torch.stack([index.flatten(), target])
        return edge_index[:, edge_index[0] >= 0] if (edge_index[0] < 0).any() else edge_index


@torch.no_grad()
def neighbor_table(
    x: Tensor, k: int, batch: Any, loop: bool, cosine: bool, backend: str, block_bytes: int
) -> Tensor:
    """The neighbors of every point, nearest first and followed by -1 where there are fewer.

    It has as many columns as the largest set fills, at most ``k``; see :func:`knn_graph`.
    """
    k = check_integer("k", k, 1)
    block_bytes = check_integer("block_bytes", block_bytes, 1)
    if backend != "auto" and backend not in NAMES:
        names = ", ".join(repr(name) for name in ("auto", *NAMES))
        raise ValueError(f"Expected 'backend' to be one of {names} (got {backend!r})")
    if backend != "auto" and (reason := missing(backend)):
        raise ValueError(f"Expected 'backend' to be installed (got {backend!r}: {reason})")
    x = plain(x).detach()
    with untransformed():
        start = set_starts(batch, x.size(0))
        points = read_points(x, start, cosine)
        others = min(k - loop, max((b - a for a, b in pairwise(start)), default=1) - 1)
        index = torch.full((x.size(0), others + loop), -1, device=x.device)
        if loop:
            index[:, 0] = torch.arange(x.size(0), device=x.device)
        if others > 0:
            nearest_in_sets(index[:, int(loop) :], points, backend, block_bytes)
    return index
