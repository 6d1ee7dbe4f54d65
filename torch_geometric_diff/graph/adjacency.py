"""One reading of every form in which PyG users hold a graph."""

import warnings
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch_geometric.utils import scatter

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


def is_sparse_adjacency(adj: Any) -> bool:
    """Whether ``adj`` is a sparse matrix (``adj_t``) rather than an ``edge_index``."""
    if isinstance(adj, Tensor):
        return adj.layout != torch.strided
    return type(adj).__name__ == "SparseTensor" and hasattr(adj, "coo")


def _expand(ptr: Tensor) -> Tensor:
    return torch.repeat_interleave(ptr.diff())


def _from_sparse(adj: Any) -> tuple[Tensor, Tensor, Tensor | None, tuple[int, int]]:
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
            NaN, or an ``edge_weight`` beside a sparse matrix.
        TypeError: On a type that is no adjacency.
    """
    weight: Tensor | None
    if is_sparse_adjacency(adj):
        if edge_weight is not None:
            raise ValueError(
                "Expected 'edge_weight' to be None beside a sparse 'edge_index', whose values are "
                "the weights (got both); set the values of the sparse matrix instead"
            )
        row, col, weight, (rows, columns) = _from_sparse(adj)
        if rows != columns:
            raise ValueError(f"Expected a square sparse 'edge_index' (got {rows} x {columns})")
        if num_nodes is not None and num_nodes != rows:
            raise ValueError(
                f"Expected a sparse 'edge_index' of {num_nodes} x {num_nodes}, one row a node "
                f"(got {rows} x {columns})"
            )
        num_nodes = rows
    elif isinstance(adj, Tensor):
        if adj.dim() != 2 or adj.size(0) != 2:
            raise ValueError(f"Expected 'edge_index' of shape [2, E] (got {list(adj.shape)})")
        if adj.is_floating_point() or adj.is_complex() or adj.dtype == torch.bool:
            raise ValueError(f"Expected 'edge_index' to hold integers (got {adj.dtype})")
        if num_nodes is None:
            size = getattr(adj, "sparse_size", None)  # EdgeIndex knows its size
            known = [n for n in size() if n is not None] if callable(size) else []
            num_nodes = max(known) if known else (int(adj.max()) + 1 if adj.numel() else 0)
        col, row = (adj.as_tensor() if hasattr(adj, "as_tensor") else adj).long()
        weight = edge_weight
    else:
        raise TypeError(
            "Expected 'edge_index' to be a Tensor of shape [2, E], an EdgeIndex, a sparse tensor "
            f"or a torch_sparse.SparseTensor (got {type(adj).__name__})"
        )

    if weight is None:
        weight = torch.ones(row.numel(), dtype=dtype, device=row.device)
    elif not isinstance(weight, Tensor):
        raise TypeError(f"Expected 'edge_weight' to be a Tensor (got {type(weight).__name__})")
    else:
        if weight.dim() == 2 and weight.size(1) == 1:
            weight = weight.squeeze(1)
        if weight.shape != row.shape:
            raise ValueError(
                f"Expected 'edge_weight' of shape [{row.numel()}], one weight an edge "
                f"(got {list(weight.shape)})"
            )
        if dtype is None and not weight.is_floating_point():
            dtype = torch.get_default_dtype()
        weight = weight.to(device=row.device, dtype=dtype or weight.dtype)
    edges = Edges(row, col, weight, num_nodes)
    if not torch.compiler.is_compiling():  # reading values would break the graph
        _check_values(edges, signed)
    return edges


def _check_values(edges: Edges, signed: bool) -> None:
    row, col, weight, num_nodes = edges
    if row.numel() == 0:
        return
    low = min(int(row.min()), int(col.min()))
    high = max(int(row.max()), int(col.max()))
    if low < 0 or high >= num_nodes:
        raise ValueError(
            f"Expected the indices of 'edge_index' to lie in [0, {num_nodes - 1}], the nodes of "
            f"the graph (got {low if low < 0 else high})"
        )
    smallest, largest = (float(bound) for bound in weight.detach().aminmax())
    infinity = float("inf")
    if not (-infinity if signed else 0) <= smallest <= largest < infinity or smallest == -infinity:
        bad = "nan" if smallest != smallest else largest if largest == infinity else smallest
        wanted = "finite" if signed else "finite and not negative"
        raise ValueError(f"Expected 'edge_weight' to be {wanted} (got {bad})")


def normalize(edges: Edges, normalization: str | None, add_self_loops: bool) -> Tensor:
    r"""Normalise the edge weights by degree.

    .. math::
        w_{ij} \leftarrow \frac{w_{ij}}{\sqrt{d_i d_j}} \ (\textrm{sym}) \qquad
        w_{ij} \leftarrow \frac{w_{ij}}{d_i} \ (\textrm{row})

    with :math:`d_i = \sum_j w_{ij}` the weight that enters node :math:`i`. ``add_self_loops``
    counts a loop of weight 1 into the degree of every node that has none. A loop never moves
    anything (:math:`x_i - x_i = 0`), so the degrees are the only place where it is seen.

    Args:
        edges (Edges): The graph.
        normalization (str or None): ``'sym'``, ``'row'`` or ``None``.
        add_self_loops (bool): Whether the degrees count a loop at every node.

    Shapes:
        - **output:** the normalised weights :math:`(E,)`; 0 where a degree is 0.
    """
    if normalization is None:
        return edges.weight
    row, col, weight, num_nodes = edges
    degree = scatter(weight, row, dim_size=num_nodes)
    if add_self_loops:
        looped = scatter((row == col).to(weight.dtype), row, dim_size=num_nodes)
        degree = degree + (looped == 0).to(weight.dtype)
    positive = degree > 0
    safe = torch.where(positive, degree, torch.ones_like(degree))  # no NaN in the gradient either
    if normalization == "sym":
        inverse = torch.where(positive, safe.rsqrt(), torch.zeros_like(degree))
        return weight * (inverse[row] * inverse[col])  # symmetric to the last bit
    return weight * torch.where(positive, safe.reciprocal(), torch.zeros_like(degree))[row]


def loops_of(adj: Any) -> str:
    """What PyG's ``gcn_norm`` does with the loops that a graph of this form holds already."""
    if not is_sparse_adjacency(adj):
        return "keep"
    return "add" if isinstance(adj, Tensor) else "set"


def add_loops(edges: Edges, fill_value: float, existing: str) -> Edges:
    r"""One loop at every node, as PyG's ``gcn_norm`` adds them.

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
        place = torch.arange(1, row.numel() + 1, device=row.device) * loop
        last = place.new_zeros(num_nodes).scatter_reduce(0, row, place, "amax")
        given = torch.cat([weight.new_zeros(1), weight])[last]
        fill = torch.where(last > 0, given, fill)
    if torch.compiler.is_compiling():  # shapes must not depend on values
        weight = weight.masked_fill(loop, 0.0)
    else:
        row, col, weight = row[~loop], col[~loop], weight[~loop]
    nodes = torch.arange(num_nodes, device=row.device)
    row, col = torch.cat([nodes, row]), torch.cat([nodes, col])
    return Edges(row, col, torch.cat([fill, weight]), num_nodes)


def sparse_matrix(edges: Edges) -> Tensor:
    """The weight matrix as a ``torch.sparse`` CSR Tensor of shape ``(N, N)``, rows the targets."""
    index = torch.stack([edges.row, edges.col])
    size = (edges.num_nodes, edges.num_nodes)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta state")
        matrix = torch.sparse_coo_tensor(index, edges.weight, size, check_invariants=False)
        return matrix.coalesce().to_sparse_csr()
