"""What is made of a graph once, and again when the graph changes.

A Tensor is known by its identity, its place in memory and the version that torch counts up whenever
it is changed in place; an EdgeIndex and a SparseTensor by those of the Tensors that they are made
of, and a torch.sparse Tensor by its entries, as it may share memory with Tensors that count for
themselves. What was made of a graph ends with it: nothing here keeps one alive.
"""

import functools
import weakref
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import Function, forward_ad
from torch_geometric import EdgeIndex
from torch_geometric.typing import SparseTensor

from .._utils.functorch import apply, cacheable
from ..graph.adjacency import sparse_entries
from ..ops import Recurrence
from ..ops._build import compress
from ..ops._dispatch import Plan
from ..ops._library import run
from ..ops._matrix import SparseMatrix
from ..ops._pattern import Pattern
from ..ops._sparse import SparseProduct, no_seeds, product
from ..ops.kernels import cpu, kernel_for

TINY = 400  # edges up to which messages cost no more than a product
PAYS = 192  # columns summed over a small graph that cost as much as its matrix
SMALL = 50_000  # edges
MOST = 16  # things made of one Tensor: more come from Tensors beside it that come and go


class _State:
    """A graph, or a Tensor, as it is now, and what was made of it."""

    __slots__ = ("columns", "graph", "made", "stamp")

    def __init__(self, graph: Any, gone: Callable) -> None:
        self.graph, self.stamp = weakref.ref(graph, gone), _stamp_to_keep(graph)
        self.made: dict[Any, Any] = {}
        self.columns = 0  # that were summed without a matrix


_STATES: dict[int, _State] = {}
_MEMBERS = {
    torch.sparse_coo: ("_indices", "_values"),
    torch.sparse_csr: ("crow_indices", "col_indices", "values"),
    torch.sparse_csc: ("ccol_indices", "row_indices", "values"),
}


class _Contents:
    """What a torch.sparse Tensor holds, equal where all numbers are."""

    __hash__ = None  # type: ignore[assignment]

    def __init__(self, members: list[Tensor]) -> None:
        self.members = [member.detach() for member in members]

    def __eq__(self, other: object) -> bool:
        return type(other) is _Contents and all(
            one.shape == two.shape and one.dtype == two.dtype and torch.equal(one, two)
            for one, two in zip(self.members, other.members, strict=True)
        )


def _stamp_to_keep(graph: Any) -> Any:
    """A stamp that does not change with the graph."""
    stamp = _stamp(graph)
    if type(stamp) is _Contents:
        stamp.members = [member.clone() for member in stamp.members]
    return stamp


def _stamp(graph: Any) -> Any:
    """What differs after each change of a graph; None where torch counts no changes."""
    if isinstance(graph, SparseTensor):
        states = *map(_state, _parts(graph)), _state_of_value(graph)
        return None if None in states else (*states, *graph.sparse_sizes())
    if graph.is_inference():
        return None
    if graph.layout != torch.strided:
        members = _MEMBERS.get(graph.layout)
        return None if members is None else _Contents([getattr(graph, m)() for m in members])
    if type(graph) is EdgeIndex:
        return graph._version, _state(graph.as_tensor()), graph.sparse_size()
    return graph._version, graph.data_ptr()


def _parts(graph: Any) -> tuple[Tensor, Tensor]:
    """What the places of the entries of a SparseTensor are read from."""
    storage = graph.storage
    return storage._rowptr if storage._row is None else storage._row, storage._col


def _state_of_value(graph: Any) -> Any:
    value = graph.storage.value()
    return () if value is None else _state(value)


def _state(graph: Any) -> _State | None:
    """The state of a graph; None where torch does not count changes."""
    key = id(graph)
    state, stamp = _STATES.get(key), _stamp(graph)
    if state is not None and state.graph() is graph and state.stamp == stamp:
        return state
    if stamp is None:
        return None
    forget = _STATES.pop  # the module may end before the graph
    _STATES[key] = state = _State(graph, lambda _: forget(key, None))
    return state


def is_cheap(edge_index: Tensor, channels: int) -> bool:
    """Whether messages cost less than the matrix of a small graph that was seldom used yet."""
    edges = edge_index.size(-1)
    if edges <= TINY or edges >= SMALL or channels >= PAYS:
        return edges <= TINY
    state = _state(edge_index)
    if state is None:
        return True
    state.columns += channels
    return state.columns < PAYS


def once(key: Any, make: Callable[[], Any], *graphs: Any) -> Any:
    """What ``make`` returns, made once for these graphs and Tensors as they are."""
    states = [_state(graph) for graph in graphs]
    home = states[-1]
    if home is None or None in states:
        return make()
    whole = (key, *states[:-1])
    try:
        return home.made[whole]
    except KeyError:
        if len(home.made) >= MOST:
            home.made.clear()
        with cacheable():
            home.made[whole] = made = make()
        return made


class _Result(NamedTuple):
    """The values of a function: graphs with their stamps, or the index of an argument."""

    values: list[Any]
    is_tuple: bool

    def get(self, given: tuple) -> Any:
        """The values; None if one of them was changed in place since."""
        out = []
        for value in self.values:
            if isinstance(value, tuple):
                graph, stamp = value
                if _stamp(graph) != stamp:
                    return None
                out.append(graph)
            else:
                out.append(None if value is None else given[value])
        return tuple(out) if self.is_tuple else out[0]


def _result(out: Any, given: tuple) -> _Result | None:
    """A result that may be kept: of whole Tensors, none of them part of an argument."""
    values: list[Any] = []
    for value in out if isinstance(out, tuple) else (out,):
        same = [i for i, each in enumerate(given) if each is value]
        if value is None or same:
            values.append(same[0] if same and value is not None else None)
        elif is_constant(value) and not (isinstance(value, Tensor) and value._is_view()):
            values.append((value, _stamp_to_keep(value)))
        else:
            return None
    return _Result(values, isinstance(out, tuple))


def memoized(function: Callable, skip: int = 0) -> Callable:
    """A function that depends on nothing but its arguments behind the first ``skip``, whose results
    are kept for a graph that does not change.
    """

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        given = (*args[skip:], *kwargs.values())
        graphs = [x for x in given if isinstance(x, (Tensor, SparseTensor))]
        if not graphs or not all(map(is_constant, graphs)):
            return function(*args, **kwargs)
        device = graphs[0].device
        device = (device() if callable(device) else device).type
        key: Any = [None if isinstance(x, (Tensor, SparseTensor)) else x for x in given]
        key += [*kwargs, torch.get_default_dtype(), torch.is_autocast_enabled(device)]
        key = (function, tuple(key))
        for _ in range(2):  # the second time if a value was changed in place
            result = once(key, lambda: _result(function(*args, **kwargs), given), *graphs)
            out = None if result is None else result.get(given)
            if out is not None:
                return out
            state = _state(graphs[-1])
            if state is not None and result is not None:
                state.made.clear()
        return function(*args, **kwargs)

    return call


def is_plain(tensor: Tensor) -> bool:
    """Whether a Tensor is one in memory that no gradient follows."""
    return (
        type(tensor) in (Tensor, torch.nn.Parameter)
        and tensor.layout == torch.strided
        and not (tensor.requires_grad and torch.is_grad_enabled())
    )


def is_constant(graph: Any) -> bool:
    """Whether a graph of any form, or a Tensor, is known by its stamp, and no gradient follows."""
    if isinstance(graph, SparseTensor):
        learned = graph.requires_grad()
    elif type(graph) in (Tensor, torch.nn.Parameter, EdgeIndex):
        learned = graph.requires_grad
    else:
        return False
    return not (learned and torch.is_grad_enabled()) and _stamp(graph) is not None


class Entries(NamedTuple):
    """A sparse matrix as edges, a weight of each or None, and its size."""

    edge_index: Tensor
    weight: Tensor | None
    rows: int
    columns: int


def entries_of(graph: Any) -> Entries | None:
    """The entries of a sparse matrix, listed once; None where PyG has to look at them."""
    if isinstance(graph, SparseTensor):
        weight, size = graph.storage.value(), graph.sparse_sizes()
        if weight is not None and weight.dim() != 1:
            return None
        edges = once("edges", lambda: _listed(graph)[0], *_parts(graph))
        return Entries(edges, weight, *size)
    if graph.dim() != 2 or graph.dense_dim() or not is_constant(graph):
        return None
    if graph.layout == torch.sparse_coo and not graph.is_coalesced():
        return None
    return Entries(*once("edges", lambda: _listed(graph), graph), *graph.shape)


def _listed(graph: Any) -> tuple[Tensor, Tensor | None]:
    row, col, weight, _ = sparse_entries(graph)
    return torch.stack([col, row]), None if weight is None else weight.detach()


class Sums:
    """Where messages go: a matrix of shape ``rows`` x ``columns`` without its entries."""

    def __init__(self, col: Tensor, row: Tensor, rows: int, columns: int) -> None:
        self.pattern, self.place = compress(row, col, max(rows, columns))
        if rows != columns:  # without the empty last rows, or columns
            square = self.pattern
            self.pattern = Pattern(square.rowptr[: rows + 1], square.col)
            rowptr, col, entries = square.transposition
            self.pattern._transpose = Pattern(rowptr[: columns + 1], col), entries
            self.pattern._is_symmetric = False

    def entries(self, weight: Tensor | None, dtype: torch.dtype, mean: bool) -> Tensor:
        """The entries that weights of the edges make, or ones, summed or averaged."""
        if weight is None:
            weight = torch.ones(self.place.numel(), dtype=dtype, device=self.place.device)
        weight = weight.reshape(-1).to(dtype)
        if mean:
            row = self.pattern.row.index_select(0, self.place)
            ones = torch.ones_like(weight, requires_grad=False)
            count = ones.new_zeros(self.pattern.num_nodes).index_add_(0, row, ones)
            weight = weight * count.reciprocal_().index_select(0, row)
        return weight.new_zeros(self.pattern.col.numel()).index_add(0, self.place, weight)

    def matrix(self, value: Tensor) -> SparseMatrix:
        """The matrix of these entries."""
        return SparseMatrix.of_entries(self.pattern, value)


class Graph(NamedTuple):
    """What messages are summed over: edges, the weight of each, and the sizes of both ends."""

    edge_index: Tensor
    weight: Tensor | None
    flow: str
    rows: int
    columns: int
    mean: bool

    def matrix(self, dtype: torch.dtype) -> SparseMatrix | None:
        """The matrix of a type; None if an index is out of range."""
        edge_index, weight, *key = self
        if weight is None:
            return once((dtype, *key), lambda: self._build(dtype), edge_index)
        if is_plain(weight):
            return once((dtype, *key), lambda: self._build(dtype), edge_index, weight)
        return self._build(dtype)

    def _build(self, dtype: torch.dtype) -> SparseMatrix | None:
        edge_index, key = self.edge_index, self[2:5]
        sums = once(key, lambda: _sums(edge_index, *key), edge_index)
        return None if sums is None else sums.matrix(sums.entries(self.weight, dtype, self.mean))

    def dtype(self, x: Tensor) -> torch.dtype:
        """The type of weighted messages."""
        if self.weight is None or self.weight.dtype == x.dtype:
            return x.dtype
        return torch.promote_types(x.dtype, self.weight.dtype)

    def product(self, x: Tensor) -> Tensor | None:
        """The sums of the messages of ``x``, shape [N, F] or [B, N, F]; None as above, or where no
        kernel takes a matrix of this shape.
        """
        dtype = self.dtype(x)
        wide = dtype if dtype in (torch.float32, torch.float64) else torch.float32
        learned, square = None, self.rows == self.columns
        native = kernel_for(x.device) is cpu
        matrix = self.matrix(wide) if square or native else None
        if matrix is None:
            return None
        if matrix.value.requires_grad:
            learned = matrix.value
        x = x.to(wide)
        if native and learned is None:
            y = _times(x, matrix, False)
        elif square:
            plan = Plan(matrix, 0, Recurrence.power(1).constant)
            y = run(_batch(x).unsqueeze(0), learned, None, no_seeds(1), plan).squeeze_(0)
        else:
            y = apply(SparseProduct, learned, _batch(x), matrix.pattern)
        # in place: a view could not be changed in place afterwards
        return (y.squeeze_(0) if y.dim() > x.dim() else y).to(dtype)


def _batch(x: Tensor) -> Tensor:
    return x.unsqueeze(0) if x.dim() == 2 else x


def _times(x: Tensor, matrix: SparseMatrix, transpose: bool) -> Tensor:
    """The product of a constant matrix, or its transpose, with ``x``."""
    if x.requires_grad or forward_ad._current_level >= 0:
        return super(Function, _Times).apply(x, matrix, transpose)
    y = product(matrix.csr(transpose), _batch(x))
    return y.squeeze_(0) if x.dim() == 2 else y


class _Times(Function):
    """:func:`_times` under autograd, which keeps nothing."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, matrix: SparseMatrix, transpose: bool) -> Tensor:
        """The product."""
        ctx.rest = matrix, transpose
        y = product(matrix.csr(transpose), _batch(x))
        return y.squeeze_(0) if x.dim() == 2 else y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        """The product with the transpose."""
        matrix, transpose = ctx.rest
        return _times(grads[0], matrix, not transpose), None, None

    @staticmethod
    def jvp(ctx: Any, x: Tensor, *_: Any) -> Tensor:
        """The same product."""
        return _times(x, *ctx.rest)


def _sums(edge_index: Tensor, flow: str, rows: int, columns: int) -> Sums | None:
    one, other = edge_index.long()
    col, row = (one, other) if flow == "source_to_target" else (other, one)
    if row.numel():
        (low, high), (first, last) = torch.aminmax(row), torch.aminmax(col)
        if min(int(low), int(first)) < 0 or int(high) >= rows or int(last) >= columns:
            return None
    return Sums(col, row, rows, columns)
