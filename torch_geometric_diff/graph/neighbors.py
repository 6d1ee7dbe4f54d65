"""k nearest neighbors: exact and reproducible on every backend."""

from itertools import pairwise
from typing import Any, Literal, overload

import torch
from torch import Tensor

from .._utils.checks import check_integer
from .._utils.functorch import cacheable, uncompiled, unwrap
from .distances import pair_distances
from .points import check_apart, check_batch, check_points, read_points
from .search import BACKENDS, missing, nearest

BLOCK_BYTES = 64 * 2**20
FLOWS = ("source_to_target", "target_to_source")


@overload
def knn_graph(
    x: Tensor, k: int, *args: Any, return_distances: Literal[False] = False, **options: Any
) -> Tensor: ...


@overload
def knn_graph(
    x: Tensor, k: int, *args: Any, return_distances: Literal[True], **options: Any
) -> tuple[Tensor, Tensor]: ...


def knn_graph(  # type: ignore[misc]  # the other arguments as below
    x: Tensor,
    k: int,
    batch: Tensor | None = None,
    loop: bool = False,
    flow: str = "source_to_target",
    cosine: bool = False,
    num_workers: int = 1,
    batch_size: int | None = None,
    *,
    return_distances: bool = False,
    backend: str = "auto",
    block_bytes: int = BLOCK_BYTES,
) -> Tensor | tuple[Tensor, Tensor]:
    r"""Connect every point to its :math:`k` nearest neighbors, as PyG's function of this name.

    Every point gets exactly :math:`k` neighbors, or all others of its set if these are fewer,
    whatever duplicates there are, nearest first. The point itself is told apart by its index, and
    of points at the same distance the lowest index comes first. All backends give the same edges,
    those of squared distances in double precision, :math:`\sum_c (x_{ic} - x_{jc})^2`.

    ================= ============================================ ===============================
    ``backend``       what it is                                   ``"auto"`` takes it
    ================= ============================================ ===============================
    ``compiled``      vectors of the CPU, with a tree of boxes up  on the CPU, if the extension is
                      to 12 dimensions                             built: up to 384 dimensions, or
                                                                   sets of up to 1,024 points
    ``torch_cluster`` tree on the CPU, brute force on the GPU      if installed: on a GPU up to 32
                                                                   dimensions and 64 neighbors
    ``blocked``       matrix products and top-k, any device        everywhere else
    ================= ============================================ ===============================

    Args:
        x (Tensor): Finite real points of shape :math:`(N, D)`, or :math:`(N,)` on a line. Integers
            are taken in double precision.
        k (int): The number of neighbors of each point.
        batch (Tensor, optional): Sorted vector :math:`(N,)` of integers that assigns each point to
            one of several sets, among which there are no edges. Numbers may be left out. (default:
            :obj:`None`)
        loop (bool, optional): Count the point itself as its first neighbor.
            (default: :obj:`False`)
        flow (str, optional): Edges lead from the neighbor to the point
            (:obj:`"source_to_target"`) or to the neighbor (:obj:`"target_to_source"`).
            (default: :obj:`"source_to_target"`)
        cosine (bool, optional): Use :math:`1 - \cos(x_i, x_j)` in place of the Euclidean distance.
            It does not depend on the lengths of rows, and is 0 between rows that are parallel up to
            the rounding of their entries. Rows of zeros are at distance 0 of one another and 1 of
            all others. (default: :obj:`False`)
        num_workers (int, optional): Taken for the sake of PyG's signature, as torch's number of
            threads decides. (default: :obj:`1`)
        batch_size (int, optional): The number of sets, all of which ``batch`` must number below it.
            (default: as many as there are)
        return_distances (bool, optional): Return distances as well, computed in double precision.
            They carry gradients of any order to :obj:`x` (all 0 between coincident points, and for
            rows of zeros with ``cosine``), which takes memory :math:`O(N k D)`; under
            ``torch.no_grad()`` it does not. (default: :obj:`False`)
        backend (str, optional): :obj:`"auto"` or a name of the table. (default: :obj:`"auto"`)
        block_bytes (int, optional): Bound on the intermediates, beside copies of the input and the
            output: rows go through in blocks of this size, of one row at least.
            (default: 64 MiB)

    Raises:
        ValueError: On entries that are not finite, neighbors whose differences are so small beside
            the largest entry of their set (below :math:`2^{-500}`) that squares vanish, ``k`` below
            1, a ``batch`` that is not sorted or does not match, an unknown flow, an unknown backend
            or one that is not installed.
        TypeError: If :obj:`x` is not a dense Tensor of real numbers or ``k`` not an integer.

    Shapes:
        - **output:** ``edge_index`` :math:`(2, E)`, sorted by point, with :math:`E = N k` if no
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
        common = (flow, cosine, num_workers, batch_size)
        return _knn_graph(x, k, batch, loop, *common, **options, block_bytes=block_bytes)
    if flow not in FLOWS:
        raise ValueError(f"Expected 'flow' to be one of {FLOWS} (got {flow!r})")
    check_integer("num_workers", num_workers, 1)
    x = check_points(x)
    sets = check_batch("batch", batch, x.size(0), batch_size)
    sets = sets.unique_consecutive(return_inverse=True)[1]
    edge_index = listed_edges(neighbor_table(x, k, sets, loop, cosine, backend, block_bytes))
    if return_distances:
        distance = pair_distances(x, edge_index, sets, cosine, block_bytes).to(real_dtype(x.dtype))
    edge_index = edge_index if flow == "source_to_target" else edge_index.flip(0)
    return (edge_index, distance) if return_distances else edge_index


_knn_graph = uncompiled(knn_graph)


@overload
def knn(
    x: Tensor, y: Tensor, k: int, *args: Any, return_distances: Literal[False] = False, **how: Any
) -> Tensor: ...


@overload
def knn(
    x: Tensor, y: Tensor, k: int, *args: Any, return_distances: Literal[True], **how: Any
) -> tuple[Tensor, Tensor]: ...


def knn(  # type: ignore[misc]
    x: Tensor,
    y: Tensor,
    k: int,
    batch_x: Tensor | None = None,
    batch_y: Tensor | None = None,
    cosine: bool = False,
    num_workers: int = 1,
    batch_size: int | None = None,
    *,
    return_distances: bool = False,
    backend: str = "auto",
    block_bytes: int = BLOCK_BYTES,
) -> Tensor | tuple[Tensor, Tensor]:
    r"""Find the :math:`k` points of ``x`` nearest to each point of ``y``, as PyG's function.

    A point of ``y`` gets all points of its set if these are fewer, and none if there are none.
    Order, precision, backends and what else is said of
    :func:`~torch_geometric_diff.graph.knn_graph` hold here too.

    Args:
        x (Tensor): The points to find, shape :math:`(N, D)` or :math:`(N,)`.
        y (Tensor): The points to find neighbors of, shape :math:`(M, D)` or :math:`(M,)`.
        k (int): The number of neighbors of each point.
        batch_x (Tensor, optional): Sorted vector :math:`(N,)` that assigns each point of ``x`` to a
            set. (default: :obj:`None`)
        batch_y (Tensor, optional): The same of ``y``: neighbors are of the same number.
            (default: :obj:`None`)
        cosine (bool, optional): Use :math:`1 - \cos(x_i, y_j)`. (default: :obj:`False`)
        num_workers (int, optional): See there. (default: :obj:`1`)
        batch_size (int, optional): See there. (default: as many as there are)
        return_distances (bool, optional): Return distances as well, which carry gradients to
            ``x`` and ``y``. (default: :obj:`False`)
        backend (str, optional): See there. (default: :obj:`"auto"`)
        block_bytes (int, optional): See there. (default: 64 MiB)

    Raises:
        ValueError: On what :func:`~torch_geometric_diff.graph.knn_graph` refuses, points of
            different dimensions or devices, or one of ``batch_x`` and ``batch_y`` alone that tells
            more than one set.
        TypeError: On what that function refuses.

    Shapes:
        - **output:** :math:`(2, E)`, the index of a point of ``y`` above that of its neighbor in
          ``x``, sorted by point; with ``return_distances`` also the distances :math:`(E,)`.

    Example:
        >>> x = torch.tensor([[-1.0, -1.0], [-1.0, 1.0], [1.0, -1.0], [1.0, 1.0]])
        >>> knn(x, torch.tensor([[-1.0, 0.5], [1.0, 0.5]]), k=2)
        tensor([[0, 0, 1, 1],
                [1, 0, 3, 2]])
    """
    if torch.compiler.is_compiling():
        options = {"return_distances": return_distances, "backend": backend}
        common = (cosine, num_workers, batch_size)
        return _knn(x, y, k, batch_x, batch_y, *common, **options, block_bytes=block_bytes)
    check_integer("num_workers", num_workers, 1)
    x, y = check_points(x), check_points(y, "y")
    if x.size(1) != y.size(1) or x.device != y.device:
        raise ValueError(
            f"Expected 'y' of as many dimensions as 'x', {x.size(1)}, on {x.device} "
            f"(got {y.size(1)} on {y.device})"
        )
    numbers_x = check_batch("batch_x", batch_x, len(x), batch_size)
    numbers_y = check_batch("batch_y", batch_y, len(y), batch_size)
    sets = torch.cat([numbers_x, numbers_y])
    if (batch_x is None) != (batch_y is None) and sets.any():
        raise ValueError("Expected both 'batch_x' and 'batch_y' (got several sets in one alone)")
    sets = sets.unique(return_inverse=True)[1]
    dtype = torch.promote_types(x.dtype, y.dtype)
    points = torch.cat([x, y] if x.dtype == y.dtype else [x.double(), y.double()])
    search = (backend, block_bytes)
    source, target = listed_edges(neighbor_table(points, k, sets, False, cosine, *search, len(x)))
    edge_index = torch.stack([target, source])
    if not return_distances:
        return edge_index
    pairs = torch.stack([source, target + len(x)])
    distance = pair_distances(points, pairs, sets, cosine, block_bytes)
    return edge_index, distance.to(real_dtype(dtype))


_knn = uncompiled(knn)


def real_dtype(dtype: torch.dtype) -> torch.dtype:
    """The floating type of results: that of the points, or the default for integers."""
    return dtype if dtype.is_floating_point else torch.get_default_dtype()


def listed_edges(index: Tensor) -> Tensor:
    """The edges to each row from the points it lists, without its -1."""
    with cacheable():
        target = torch.arange(index.size(0), device=index.device).repeat_interleave(index.size(1))
        edge_index = torch.stack([index.flatten(), target])
        return edge_index[:, edge_index[0] >= 0] if (edge_index[0] < 0).any() else edge_index


@torch.no_grad()
def neighbor_table(
    x: Tensor,
    k: int,
    sets: Tensor,
    loop: bool,
    cosine: bool,
    backend: str,
    block_bytes: int,
    num_known: int | None = None,
) -> Tensor:
    """The neighbors of every point, nearest first and followed by -1 where there are fewer.

    It has as many columns as the largest set fills, at most ``k``; see :func:`knn_graph`. With
    ``num_known``, the first points of ``x`` are those to find, for all points after them.
    """
    k = check_integer("k", k, 1)
    block_bytes = check_integer("block_bytes", block_bytes, 1)
    if backend != "auto" and backend not in BACKENDS:
        names = ", ".join(repr(name) for name in ("auto", *BACKENDS))
        raise ValueError(f"Expected 'backend' to be one of {names} (got {backend!r})")
    if backend != "auto" and (reason := missing(backend)):
        raise ValueError(f"Expected 'backend' to be installed (got {backend!r}: {reason})")
    with cacheable():
        x = unwrap(x).detach()
        points = read_points(x, sets, cosine, num_known)
        largest = max((b - a for a, b in pairwise(points.known_start)), default=0)
        others = max(0, min(k - loop, largest - points.mutual))
        index = torch.full((len(points.asked), others + loop), -1, device=x.device)
        if loop:
            index[:, 0] = torch.arange(len(points.asked), device=x.device)
        if others > 0:
            index[:, int(loop) :] = nearest(points, others, backend, block_bytes)
        if not (points.single or cosine):
            check_apart(x, points, index, block_bytes)
    return index
