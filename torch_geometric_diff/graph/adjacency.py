"""One reading of every form in which PyG users hold a graph."""

import warnings
from collections.abc import Sequence
from numbers import Integral
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch_geometric import EdgeIndex

from .._utils.checks import check_has_values
from .._utils.functorch import unwrap

NORMALIZATIONS = ("sym", "row", None)


class Edges(NamedTuple):
    r"""A graph as weighted edges from ``col`` (sources) to ``row`` (targets).

    Attributes:
        row (Tensor): The target nodes, the rows of :math:`\mathbf{W}`, shape :math:`(E,)`.
        col (Tensor): The source nodes, the columns of :math:`\mathbf{W}`, shape :math:`(E,)`.
        weight (Tensor): The edge weights :math:`w_{ij}`, shape :math:`(E,)`.
        num_nodes (int): The number of nodes :math:`N`.
    """

    row: Tensor
    col: Tensor
    weight: Tensor
    num_nodes: int


class RawEdges(NamedTuple):
    """Edges as given: no value checked, weights of any real type or None, for ones."""

    row: Tensor
    col: Tensor
    weight: Tensor | None
    num_nodes: int


def is_sparse_adjacency(adj: Any) -> bool:
    """Whether ``adj`` is a sparse matrix (``adj_t``) rather than an ``edge_index``."""
    if isinstance(adj, Tensor):
        return adj.layout != torch.strided
    return type(adj).__name__ == "SparseTensor" and hasattr(adj, "coo")


def _expand(ptr: Tensor) -> Tensor:
    return torch.repeat_interleave(ptr.diff())


def sparse_entries(adj: Any) -> tuple[Tensor, Tensor, Tensor | None, tuple[int, int]]:
    """Rows, columns and values of the entries of a sparse matrix, and its size."""
    if not isinstance(adj, Tensor):  # torch_sparse.SparseTensor
        row, col, weight = adj.coo()
        return row, col, weight, (adj.size(0), adj.size(1))
    if adj.dim() != 2:
        raise ValueError(f"Expected a sparse 'edge_index' of 2 dimensions (got {adj.dim()})")
    if adj.layout == torch.sparse_coo:
        adj = adj.coalesce()
        row, col = adj.indices()
    elif adj.layout == torch.sparse_csr:
        row, col = _expand(adj.crow_indices()), adj.col_indices()
    elif adj.layout == torch.sparse_csc:
        row, col = adj.row_indices(), _expand(adj.ccol_indices())
    else:
        raise ValueError(
            "Expected a sparse 'edge_index' of layout torch.sparse_coo, torch.sparse_csr or "
            f"torch.sparse_csc (got {adj.layout})"
        )
    return row.long(), col.long(), adj.values(), (adj.size(0), adj.size(1))


def parse_edges(
    adj: Any, edge_weight: Tensor | None = None, num_nodes: int | None = None
) -> RawEdges:
    """What :func:`read_edges` reads, before the weights are given a type and values are checked.

    Where there are no weights, they are :obj:`None`; else they are as they were given.
    """
    num_nodes = _as_count(num_nodes)
    if is_sparse_adjacency(adj):
        if edge_weight is not None:
            raise ValueError(
                "Expected 'edge_weight' to be None beside a sparse 'edge_index', whose values are "
                "the weights (got both); set the values of the sparse matrix instead"
            )
        row, col, edge_weight, size = sparse_entries(adj)
        num_nodes = _square(size, num_nodes)
    elif isinstance(adj, Tensor):
        row, col, num_nodes = _from_edge_index(adj, num_nodes)
    else:
        raise TypeError(
            "Expected 'edge_index' to be a Tensor of shape [2, E], an EdgeIndex, a sparse tensor "
            f"or a torch_sparse.SparseTensor (got {type(adj).__name__})"
        )
    check_has_values("edge_index", row)
    weight = None if edge_weight is None else _checked_weight(edge_weight, row)
    return RawEdges(_index(row), _index(col), weight, num_nodes)


def _from_edge_index(adj: Tensor, num_nodes: int | None) -> tuple[Tensor, Tensor, int]:
    """Targets, sources and the number of nodes."""
    if adj.dim() != 2 or adj.size(0) != 2:
        raise ValueError(f"Expected 'edge_index' of shape [2, E] (got {list(adj.shape)})")
    if adj.is_floating_point() or adj.is_complex() or adj.dtype == torch.bool:
        raise ValueError(f"Expected 'edge_index' to hold integers (got {adj.dtype})")
    if isinstance(adj, EdgeIndex):
        num_nodes = _square(adj.sparse_size(), num_nodes)
        adj = adj.as_tensor()
    if num_nodes is None:
        num_nodes = max(int(adj.max()) + 1, 0) if adj.numel() else 0
    col, row = adj.long()
    return row, col, _as_count(num_nodes)


def _checked_weight(weight: Any, row: Tensor) -> Tensor:
    """Weights (E,), one an edge, beside the edges."""
    if not isinstance(weight, Tensor):
        raise TypeError(f"Expected 'edge_weight' to be a Tensor (got {type(weight).__name__})")
    if weight.dim() == 2 and weight.size(1) == 1:
        weight = weight.squeeze(1)
    if weight.shape != row.shape:
        raise ValueError(
            f"Expected 'edge_weight' of shape [{row.numel()}], one weight an edge "
            f"(got {list(weight.shape)})"
        )
    if weight.is_complex():
        raise TypeError(f"Expected 'edge_weight' to be real (got {weight.dtype})")
    check_has_values("edge_weight", weight)
    return weight.to(row.device)


def _square(size: Sequence[int | None], num_nodes: int | None) -> Any:
    """The number of nodes of a square matrix, of whose size a part may be unknown."""
    known = {n for n in size if n is not None}
    if len(known) > 1:
        raise ValueError(f"Expected a square 'edge_index' (got {size[0]} x {size[1]})")
    if known and num_nodes is not None and num_nodes not in known:
        raise ValueError(
            f"Expected an 'edge_index' of {num_nodes} x {num_nodes}, one row a node "
            f"(got {size[0]} x {size[1]})"
        )
    return next(iter(known), num_nodes)


def _index(index: Tensor) -> Tensor:
    if not torch.compiler.is_compiling():
        if torch._C._functorch.is_batchedtensor(index):
            raise NotImplementedError("Expected one 'edge_index' (got a batch of them, by vmap)")
        index = unwrap(index)
    return index


MOST_NODES = 2**48  # bytes of more are no 64-bit number, and memory ends long before


def _as_count(num_nodes: Any) -> Any:
    if num_nodes is None or torch.compiler.is_compiling() or isinstance(num_nodes, torch.SymInt):
        return num_nodes
    if isinstance(num_nodes, bool) or not isinstance(num_nodes, Integral):
        raise TypeError(f"Expected 'num_nodes' to be an integer (got {num_nodes!r})")
    count = int(num_nodes)
    if count < 0:
        raise ValueError(f"Expected 'num_nodes' not to be negative (got {count})")
    if count > MOST_NODES:
        raise ValueError(f"Expected a graph of at most 2^48 nodes (got {count})")
    return count


def weight_dtype(edges: RawEdges, dtype: torch.dtype | None = None) -> torch.dtype:
    """The type of the weights: the one asked for, else theirs if floating, else torch's default."""
    if dtype is not None:
        return dtype
    if edges.weight is not None and edges.weight.is_floating_point():
        return edges.weight.dtype
    return torch.get_default_dtype()


def with_weights(edges: RawEdges, dtype: torch.dtype, signed: bool = False) -> Edges:
    """Parsed edges, their values checked and their weights, or ones, of a floating type."""
    check_values(edges, signed)
    row, col, weight, num_nodes = edges
    if weight is None:
        weight = torch.ones(row.numel(), dtype=dtype, device=row.device)
    return Edges(row, col, weight.to(dtype), num_nodes)


def read_edges(
    adj: Any,
    edge_weight: Tensor | None = None,
    num_nodes: int | None = None,
    dtype: torch.dtype | None = None,
    signed: bool = False,
) -> Edges:
    r"""Read any adjacency form of PyG into one list of weighted edges.

    Args:
        adj (Tensor, EdgeIndex or SparseTensor): An ``edge_index`` of shape :math:`(2, E)` holding
            (source, target) pairs, or a sparse matrix :math:`\mathbf{A}^{\top}` whose rows are
            targets (``torch_sparse.SparseTensor``, ``torch.sparse`` COO, CSR or CSC).
        edge_weight (Tensor, optional): Weights of shape :math:`(E,)` or :math:`(E, 1)` that belong
            to an ``edge_index``. (default: ones)
        num_nodes (int, optional): The number of nodes. (default: read off ``adj``)
        dtype (torch.dtype, optional): The type of the weights. (default: that of the given
            weights if floating, else torch's default type)
        signed (bool, optional): Whether weights may be negative. (default: :obj:`False`)

    Raises:
        ValueError: On a wrong shape, an index out of range, weights that are negative, infinite or
            NaN, or an ``edge_weight`` beside a sparse matrix. Compiled, a RuntimeError on values.
        TypeError: On a type that is no adjacency, or ``num_nodes`` that is no integer.
    """
    edges = parse_edges(adj, edge_weight, num_nodes)
    return with_weights(edges, weight_dtype(edges, dtype), signed)


def check_values(edges: RawEdges, signed: bool) -> None:
    """Refuse indices out of range and weights that are not finite or, unless signed, negative."""
    row, col, weight, num_nodes = edges
    if torch.compiler.is_compiling():
        return _assert_values(edges, signed)
    if row.numel() == 0:
        return
    low = min(int(row.min()), int(col.min()))
    high = max(int(row.max()), int(col.max()))
    if low < 0 or high >= num_nodes:
        raise ValueError(
            f"Expected the indices of 'edge_index' to lie in [0, {num_nodes - 1}], the nodes of "
            f"the graph (got {low if low < 0 else high})"
        )
    if weight is None:
        return
    smallest, largest = (float(bound) for bound in unwrap(weight.detach()).aminmax())
    infinity = float("inf")
    if not (-infinity if signed else 0) <= smallest <= largest < infinity or smallest == -infinity:
        bad = "nan" if smallest != smallest else largest if largest == infinity else smallest
        wanted = "finite" if signed else "finite and not negative"
        raise ValueError(f"Expected 'edge_weight' to be {wanted} (got {bad})")


def _assert_values(edges: RawEdges, signed: bool) -> None:
    """The same inside a compiled graph, where reading a value would break it."""
    for index in (edges.row, edges.col):
        inside = ((index >= 0) & (index < edges.num_nodes)).all()
        torch._assert_async(inside, "Expected the indices of 'edge_index' to lie in the graph")
    if edges.weight is not None:
        good = edges.weight.isfinite() if signed else (edges.weight >= 0) & edges.weight.isfinite()
        wanted = "finite" if signed else "finite and not negative"
        torch._assert_async(good.all(), f"Expected 'edge_weight' to be {wanted}")


def normalize(edges: Edges, normalization: str | None, add_self_loops: bool) -> Tensor:
    r"""Normalize the edge weights by degree.

    .. math::
        w_{ij} \leftarrow \frac{w_{ij}}{\sqrt{d_i d_j}} \ (\textrm{sym}) \qquad
        w_{ij} \leftarrow \frac{w_{ij}}{d_i} \ (\textrm{row})

    with :math:`d_i = \sum_j w_{ij}` the weight that enters node :math:`i`. ``add_self_loops``
    counts a loop of weight 1 into the degree of every node that has none. A loop never moves
    anything (:math:`x_i - x_i = 0`), so the degrees are the only place where it is seen. It is all
    computed in float64 where the device has it: degrees of float16 overflow.

    Args:
        edges (Edges): The graph.
        normalization (str or None): ``'sym'``, ``'row'`` or ``None``.
        add_self_loops (bool): Whether the degrees count a loop at every node.

    Shapes:
        - **output:** the normalized weights :math:`(E,)`; 0 where a degree is 0.
    """
    if normalization is None:
        return edges.weight
    return normalize_by(degrees(edges, add_self_loops), edges, normalization)


def degrees(edges: Edges, add_self_loops: bool) -> Tensor:
    """The weight that enters every node, in float64 where the device has it."""
    row, col, given, num_nodes = edges
    weight = given.to(wide_dtype(given.device))
    degree = weight.new_zeros(num_nodes).index_add(0, row, weight)
    if add_self_loops:
        looped = degree.new_zeros(num_nodes).index_add(0, row, (row == col).to(degree.dtype))
        degree = degree + (looped == 0).to(degree.dtype)
    return degree


def normalize_by(degree: Tensor, edges: Edges, normalization: str | None) -> Tensor:
    """:func:`normalize` by degrees that are known."""
    row, col, given, _ = edges
    if normalization is None:
        return given
    weight = given.to(degree.dtype)
    positive = degree > 0
    safe = torch.where(positive, degree, 1.0)  # no NaN in the gradient either
    if normalization == "row":
        out = torch.where(positive[row], weight / safe[row], 0.0)
    else:
        inverse = torch.where(positive, safe.rsqrt(), 0.0)
        # the larger factor first, whichever node it is of: symmetric to the last bit, and no
        # product of two large factors overflows
        swap = inverse[row] < inverse[col]
        first, second = torch.where(swap, col, row), torch.where(swap, row, col)
        out = weight * inverse[first] * inverse[second]
    if not torch.compiler.is_compiling() and not bool(unwrap(degree.detach()).isfinite().all()):
        raise ValueError("Expected 'edge_weight' whose sum at a node is finite (got infinity)")
    return out.to(given.dtype)


def wide_dtype(device: torch.device) -> torch.dtype:
    """The widest floating type of a device."""
    return torch.float32 if device.type == "mps" else torch.float64


def loops_of(adj: Any) -> str:
    """What PyG's ``gcn_norm`` does with the loops that a graph of this form holds already."""
    if not is_sparse_adjacency(adj):
        return "keep"
    return "add" if isinstance(adj, Tensor) else "set"


def add_loops(edges: Edges, fill_value: float, existing: str) -> Edges:
    """One loop at every node, as PyG's ``gcn_norm`` adds them.

    Args:
        edges (Edges): The graph.
        fill_value (float): The weight of the loops.
        existing (str): Whether loops that exist already keep their weight (``'keep'``, the last one
            of a node), get it raised by ``fill_value`` (``'add'``) or set to it (``'set'``).
    """
    row, col, weight, num_nodes = edges
    loop = row == col
    fill = weight.new_full((num_nodes,), fill_value)
    if existing == "add":
        fill = fill.index_add(0, row, weight.masked_fill(~loop, 0.0))
    elif existing == "keep":
        number = torch.arange(1, row.numel() + 1, device=row.device) * loop
        last = number.new_zeros(num_nodes).scatter_reduce(0, row, number, "amax")
        given = torch.cat([weight.new_zeros(1), weight])[last]
        fill = torch.where(last > 0, given, fill)
    nodes = torch.arange(num_nodes, device=row.device)
    row, col = torch.cat([nodes, row]), torch.cat([nodes, col])
    return Edges(row, col, torch.cat([fill, weight.masked_fill(loop, 0.0)]), num_nodes)


def sparse_matrix(edges: Edges) -> Tensor:
    """The weight matrix as a ``torch.sparse`` CSR Tensor of shape ``(N, N)``, rows the targets."""
    index = torch.stack([edges.row, edges.col])
    size = (edges.num_nodes, edges.num_nodes)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta state")
        device = index.device  # or torch takes its default
        matrix = torch.sparse_coo_tensor(
            index, edges.weight, size, device=device, check_invariants=False
        )
        return matrix.coalesce().to_sparse_csr()
