"""The rows of a matrix that one rank owns, from edges that lie with all of them."""

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..graph.adjacency import check_values, parse_edges
from ._build import Recipe, refuse_sums
from ._pattern import index_dtype
from ._ranks import Halo, Ranks

BLOCK = 1 << 20  # edges that are read and sent at once
_SLAB = 1 << 22  # entries that are worked on at once
Edges = tuple[np.ndarray, np.ndarray, np.ndarray | None]


class Layout:
    """Which rank owns which nodes. They are numbered anew, those of each rank in a row.

    Args:
        num_nodes: The number of nodes.
        size: The number of ranks.
        parts: The rank of every node. (default: ranges of as many nodes)
    """

    def __init__(self, num_nodes: int, size: int, parts: np.ndarray | None) -> None:
        self.num_nodes = num_nodes
        self.order: np.ndarray | None = None  # the old number of every node
        self._new: np.ndarray | None = None
        if parts is None:
            self.bounds = np.arange(size + 1, dtype=np.int64) * num_nodes // size
            return
        self.bounds = np.append(0, np.bincount(parts, minlength=size).cumsum())
        self.order = np.argsort(parts, kind="stable")
        self._new = np.empty_like(self.order)
        self._new[self.order] = np.arange(num_nodes)

    def nodes(self, rank: int) -> Tensor:
        """The old numbers of a rank's nodes, ascending."""
        first, last = self.bounds[rank], self.bounds[rank + 1]
        if self.order is None:
            return torch.arange(first, last, device="cpu")
        return torch.from_numpy(self.order[first:last].copy())

    def renumbered(self, nodes: np.ndarray) -> np.ndarray:
        """The new numbers of nodes."""
        return nodes if self._new is None else self._new[nodes]


class Part(NamedTuple):
    """The rows of a rank: columns of its own come first, then those of the halo."""

    csr: tuple[Tensor, Tensor, Tensor]
    halo: Halo
    largest_degree: float
    is_symmetric: bool
    crossing: int  # entries in columns of others


def blocks_of(edges: Any, weight: Any) -> Iterator[tuple[Any, Any]]:
    """Edges, given whole or in blocks, in blocks."""
    if isinstance(edges, (Tensor, np.ndarray)):
        shape = list(edges.shape)
        if len(shape) != 2 or shape[0] != 2:
            raise ValueError(f"Expected 'edge_index' of shape [2, E] (got {shape})")
        if weight is not None and len(weight) != shape[1]:
            raise ValueError(
                f"Expected 'edge_weight' of shape [{shape[1]}], one weight an edge (got "
                f"{list(weight.shape)})"
            )
        for start in range(0, shape[1], BLOCK):
            some = slice(start, start + BLOCK)
            yield edges[:, some], None if weight is None else weight[some]
    elif isinstance(edges, Iterable) and weight is None:
        for block in edges:
            yield block if isinstance(block, tuple) else (block, None)
    else:
        raise TypeError(
            "Expected 'edge_index' to be a Tensor or an array of shape [2, E], or blocks of them "
            f"with their weights (got {type(edges).__name__})"
        )


def _checked(block: tuple[Any, Any], num_nodes: int, signed: bool) -> Edges:
    """The rows, columns and weights of a block."""
    edge_index, weight = (
        torch.from_numpy(np.array(each)) if isinstance(each, np.ndarray) else each for each in block
    )
    edges = parse_edges(edge_index, weight, num_nodes)
    if edges.weight is not None and edges.weight.requires_grad:
        raise ValueError("Expected constant 'edge_weight': entries in parts are not learned")
    check_values(edges, signed)
    weight = None if edges.weight is None else edges.weight.double().cpu().numpy()
    return edges.row.cpu().numpy(), edges.col.cpu().numpy(), weight


def collect(
    blocks: Iterator[tuple[Any, Any]], ranks: Ranks, layout: Layout, undirected: bool, signed: bool
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """The entries of this rank's rows, of all ranks' edges, in the order of these: keys, row times
    the number of nodes plus column, and weights, of which there may be none.
    """
    keys: list[list[np.ndarray]] = [[] for _ in range(ranks.size)]  # by the rank that sent them
    weights: list[list[np.ndarray]] = [[] for _ in range(ranks.size)]
    weighted = None
    while True:
        with ranks.agreement():
            block = next(blocks, None)
            sent, weight, counts = np.empty(0, np.int64), None, [0] * ranks.size
            if block is not None:
                edges = _checked(block, layout.num_nodes, signed)
                weight = edges[2]
                sent, weight, counts = _by_owner(edges, layout, undirected)
        state = ranks.gather([block is not None, 0 if block is None else 1 + (weight is not None)])
        if not bool(state[:, 0].any()):
            break
        kinds = {*state[:, 1].tolist(), 0 if weighted is None else 1 + weighted} - {0}
        if len(kinds) > 1:
            raise ValueError("Expected all edges or none to have weights (got both)")
        weighted = kinds == {2}
        _receive(keys, torch.from_numpy(sent), counts, ranks)
        if weighted:
            weight = np.empty(0) if weight is None else weight
            _receive(weights, torch.from_numpy(weight), counts, ranks)
    return [each for part in keys for each in part], [each for part in weights for each in part]


def _receive(parts: list[list[np.ndarray]], sent: Tensor, counts: list[int], ranks: Ranks) -> None:
    received, each = ranks.exchanged(sent, counts)
    for part, own in zip(parts, received.split(each), strict=True):
        if own.numel():
            part.append(own.numpy().copy() if ranks.size > 1 else own.numpy())


def _by_owner(
    edges: Edges, layout: Layout, undirected: bool
) -> tuple[np.ndarray, np.ndarray | None, list[int]]:
    """The keys and weights of a block, rank by rank, and how many each gets."""
    row, col, weight = edges
    row, col = layout.renumbered(row), layout.renumbered(col)
    if undirected:
        if weight is not None:
            raise ValueError("Expected no 'edge_weight' beside 'undirected=True' (got weights)")
        keep = row != col
        row, col = row[keep], col[keep]
        row, col = np.concatenate([row, col]), np.concatenate([col, row])
    owner = np.searchsorted(layout.bounds, row, side="right") - 1
    keys = (row - layout.bounds[owner]) * layout.num_nodes + col
    size = len(layout.bounds) - 1
    if size > 1:
        order = np.argsort(owner.astype(np.int16), kind="stable")  # a radix sort
        keys, weight = keys[order], None if weight is None else weight[order]
    return keys, weight, np.bincount(owner, minlength=size).tolist()


def _joined(parts: list[np.ndarray], dtype: Any) -> np.ndarray:
    """Arrays one after the other; each is freed when it is copied."""
    whole, at = np.empty(sum(map(len, parts)), dtype), 0
    while parts:
        part = parts.pop(0)
        whole[at : at + len(part)] = part
        at += len(part)
    return whole


def make_part(
    entries: tuple[list[np.ndarray], list[np.ndarray]],
    ranks: Ranks,
    layout: Layout,
    recipe: Recipe,
    dtype: torch.dtype,
    undirected: bool,
) -> Part:
    """The rows of a rank from what was collected, which is used up."""
    rows = _Rows(*entries, ranks, layout, recipe, undirected)
    local, counts, ids = rows.columns()
    requested, sent_counts = ranks.exchanged(torch.from_numpy(ids), counts)
    halo = Halo(ranks, rows.size, requested - rows.first, sent_counts, counts)
    with ranks.agreement():
        degree = rows.degrees()
    inverse = None
    if recipe.normalization == "sym":
        inverse = np.divide(1, np.sqrt(degree), out=np.zeros(rows.size), where=degree > 0)
        inverse = halo.filled(torch.from_numpy(inverse).unsqueeze(1)).flatten().numpy()
    elif recipe.normalization == "row":
        inverse = degree
    index = index_dtype(max(len(rows.key), len(ids) + rows.size))
    col = torch.empty(len(rows.key), dtype=index)
    value = torch.empty(len(rows.key), dtype=dtype)
    with ranks.agreement():
        largest, marks = rows.fill(col.numpy(), value.numpy(), local, inverse)
        if not bool(value.isfinite().all()):
            refuse_sums(dtype)
    told = ranks.gather([*marks, *np.array([largest]).view(np.int64).tolist()])
    largest = float(told[:, 2].numpy().view(np.float64).max())
    sums = told[:, :2].sum(0)  # modulo 2^64
    rowptr = torch.from_numpy(rows.rowptr).to(index)
    return Part((rowptr, col, value), halo, largest, bool(sums[0] == sums[1]), rows.crossing)


class _Rows:
    """The sorted entries of a rank's rows, equal places summed."""

    def __init__(
        self,
        keys: list[np.ndarray],
        weights: list[np.ndarray],
        ranks: Ranks,
        layout: Layout,
        recipe: Recipe,
        undirected: bool,
    ) -> None:
        self.recipe, self.layout, self.num_nodes = recipe, layout, layout.num_nodes
        self.first, last = (int(each) for each in layout.bounds[ranks.rank : ranks.rank + 2])
        self.size = last - self.first
        is_weighted = bool(ranks.gather([bool(weights)]).any())
        self.has_diagonal = recipe.diagonal != "given"
        diagonal = np.arange(self.size) * (self.num_nodes + 1) + self.first  # keys
        if self.has_diagonal:  # in front of all others at their place
            keys.insert(0, diagonal)
            weights.insert(0, np.zeros(self.size))
        key = _joined(keys, np.int64)
        weight = _joined(weights, np.float64) if is_weighted else None
        if weight is None:
            key.sort()
        else:
            order = np.argsort(key, kind="stable")
            key, weight = key[order], weight[order]
        if self.has_diagonal:
            ends = np.searchsorted(key, diagonal, side="right") - 1
            self.looped = ends > np.searchsorted(key, diagonal)
            last_loop = 1.0 if weight is None else weight[ends]
        self.key, self.weight = _merged(key, weight, undirected)
        self.rowptr = np.searchsorted(self.key, np.arange(self.size + 1) * self.num_nodes)
        if self.has_diagonal:
            self._set_loops(np.searchsorted(self.key, diagonal), last_loop, is_weighted)

    def _set_loops(self, at: np.ndarray, last: Any, is_weighted: bool) -> None:
        """The weight of every row's loop, of which one was added to those of the graph."""
        if self.recipe.diagonal == "keep":
            self.loop = np.where(self.looped, last, float(self.recipe.scale))
        elif self.weight is None:
            self.loop = np.zeros(self.size)
        else:
            self.loop = self.weight[at] - (0 if is_weighted else 1)
        if self.weight is not None:
            self.weight[at] = self.loop

    def _slabs(self) -> Iterator[tuple[int, int, slice]]:
        """Some rows at a time, with their entries."""
        first = 0
        while first < self.size:
            most = np.searchsorted(self.rowptr, self.rowptr[first] + _SLAB, side="right") - 1
            last = max(int(most), first + 1)
            yield first, last, slice(self.rowptr[first], self.rowptr[last])
            first = last

    def columns(self) -> tuple[np.ndarray, list[int], np.ndarray]:
        """Where every column lies here, how many columns of each rank are read, and which."""
        last = self.first + self.size
        read = np.zeros(self.num_nodes, bool)
        self.crossing = 0
        for _, _, some in self._slabs():
            col = self.key[some] % self.num_nodes
            read[col] = True
            self.crossing += int(((col < self.first) | (col >= last)).sum())
        read[self.first : last] = False
        ids = np.flatnonzero(read)
        local = np.empty(self.num_nodes, np.int64 if self.num_nodes >= 2**31 else np.int32)
        local[self.first : last] = np.arange(self.size)
        local[ids] = self.size + np.arange(len(ids))
        return local, np.diff(np.searchsorted(ids, self.layout.bounds)).tolist(), ids

    def degrees(self) -> np.ndarray:
        """The weight that enters every row, as the recipe counts it."""
        if self.recipe.normalization is None:
            return np.zeros(0)
        if self.weight is None:
            degree = np.diff(self.rowptr).astype(np.float64)
            degree += self.loop - 1 if self.has_diagonal else 0
        else:
            degree = np.empty(self.size)
            for first, last, some in self._slabs():
                degree[first:last] = self._sums(first, last, self.weight[some])
        if self.recipe.count_loops:
            degree += ~self.looped
        if not np.isfinite(degree).all():
            raise ValueError("Expected 'edge_weight' whose sum at a node is finite (got infinity)")
        return degree

    def _rows(self, first: int, last: int) -> np.ndarray:
        """The row of every entry of a slab, counted from its first."""
        return np.repeat(np.arange(last - first), np.diff(self.rowptr[first : last + 1]))

    def _sums(self, first: int, last: int, weight: np.ndarray) -> np.ndarray:
        return np.bincount(self._rows(first, last), weight, last - first)

    def fill(
        self, cols: np.ndarray, values: np.ndarray, local: np.ndarray, inverse: np.ndarray | None
    ) -> tuple[float, list[int]]:
        """Write the columns and entries; the largest degree of the Laplacian, and sums that are
        equal over all ranks if and only if the matrix is symmetric (but for one case in 2^64).
        """
        largest, here, there = 0.0, 0, 0
        for first, last, some in self._slabs():
            row, key = self._rows(first, last) + first, self.key[some]
            col = local[key % self.num_nodes]
            value = np.ones(len(row)) if self.weight is None else self.weight[some].astype(float)
            diagonal = np.flatnonzero(col == row) if self.has_diagonal else row[:0]
            if self.recipe.diagonal == "keep":
                value[diagonal] = self.loop[first:last]
            elif self.has_diagonal:
                value[diagonal] = 0.0
            value = self._normalized(value, row, col, inverse)
            if self.recipe.diagonal == "step":
                total = self._sums(first, last, value)
                largest = max(largest, float(total.max(initial=0.0)))
                value *= self.recipe.scale
                value[diagonal] = 1 - self.recipe.scale * total
            cols[some] = col
            with np.errstate(over="ignore"):  # the caller asks whether all are finite
                values[some] = value
            row, col = (
                (row + self.first).astype(np.uint64),
                (key % self.num_nodes).astype(np.uint64),
            )
            bits = values[some].view(f"u{values.itemsize}").astype(np.uint64)
            here, there = here + _mark(row, col, bits), there + _mark(col, row, bits)
        return largest, [_signed(here), _signed(there)]

    def _normalized(
        self, value: np.ndarray, row: np.ndarray, col: np.ndarray, inverse: np.ndarray | None
    ) -> np.ndarray:
        if inverse is None:
            return value
        if self.recipe.normalization == "row":
            degree = inverse[row]
            return np.divide(value, degree, out=np.zeros(len(value)), where=degree > 0)
        one, other = inverse[row], inverse[col]
        # the larger factor first, whichever node it is of: symmetric to the last bit
        return value * np.maximum(one, other) * np.minimum(one, other)


def _merged(
    key: np.ndarray, weight: np.ndarray | None, undirected: bool
) -> tuple[np.ndarray, np.ndarray | None]:
    """Sorted entries with those at one place summed, or, of undirected edges, counted once."""
    new = np.ones(len(key), bool)
    np.not_equal(key[1:], key[:-1], out=new[1:])
    if new.all():
        return key, weight
    if weight is not None:
        weight = np.add.reduceat(weight, np.flatnonzero(new))
    elif not undirected:
        weight = np.diff(np.flatnonzero(new), append=len(key)).astype(np.float64)
    at = 0
    for start in range(0, len(key), _SLAB):  # in place
        some = slice(start, start + _SLAB)
        kept = key[some][new[some]]
        key[at : at + len(kept)] = kept
        at += len(kept)
    return key[:at], weight


def _mark(row: np.ndarray, col: np.ndarray, bits: np.ndarray) -> int:
    """The sum of a hash of entries: of the same entries in any order the same."""
    h = row * np.uint64(0x9E3779B97F4A7C15) + col * np.uint64(0xC2B2AE3D27D4EB4F)
    for factor in (0xBF58476D1CE4E5B9, 0x94D049BB133111EB):
        h = (h ^ (h >> np.uint64(31))) * np.uint64(factor) + bits
    return int((h ^ (h >> np.uint64(29))).sum())


def _signed(number: int) -> int:
    """The same modulo 2^64, as int64."""
    return (number + 2**63) % 2**64 - 2**63
