"""The rows of a matrix that one rank owns, from edges that lie with all of them."""

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..graph.adjacency import (
    Edges,
    RawEdges,
    add_loops,
    check_values,
    degrees,
    normalize_by,
    parse_edges,
)
from ._build import Recipe, build
from ._pattern import index_dtype
from ._ranks import CSR, Halo, Ranks

_BLOCK = 1 << 20  # edges that are read and sent at once
_SLAB = 1 << 21  # entries that are worked on at once
Entries = tuple[list[np.ndarray], list[np.ndarray]]  # keys, see collect, and weights if there are


class Layout:
    """Which rank owns which nodes, numbered anew so that each rank's follow each other."""

    def __init__(self, num_nodes: int, size: int, parts: np.ndarray | None) -> None:
        self.num_nodes, self.order = num_nodes, None
        if parts is None:
            self.bounds = np.arange(size + 1, dtype=np.int64) * num_nodes // size
            return
        self.bounds = np.append(0, np.bincount(parts, minlength=size).cumsum())
        self.order = np.argsort(parts, kind="stable")  # the old number of every node
        self.new = np.empty_like(self.order)
        self.new[self.order] = np.arange(num_nodes)

    def nodes(self, rank: int) -> Tensor:
        """The old numbers of a rank's nodes, ascending."""
        own = slice(self.bounds[rank], self.bounds[rank + 1])
        return torch.from_numpy(
            np.arange(own.start, own.stop) if self.order is None else self.order[own].copy()
        )


class Part(NamedTuple):
    """The rows of a rank: columns of its own come first, then those of the halo."""

    csr: CSR
    halo: Halo
    largest_degree: float
    crossing: int  # entries in columns of others


def blocks_of(edges: Any, weight: Any) -> Iterator[tuple[Any, Any]]:
    """Edges, given whole or in blocks, in blocks."""
    if isinstance(edges, (Tensor, np.ndarray)):
        if edges.ndim != 2 or len(edges) != 2:
            raise ValueError(f"Expected 'edge_index' of shape [2, E] (got {list(edges.shape)})")
        for start in range(0, edges.shape[1], _BLOCK):
            some = slice(start, start + _BLOCK)
            yield edges[:, some], None if weight is None else weight[some]
        if weight is not None and len(weight) != edges.shape[1]:
            raise ValueError(
                f"Expected 'edge_weight' of shape [{edges.shape[1]}], one weight an edge (got "
                f"{list(weight.shape)})"
            )
    elif isinstance(edges, Iterable) and weight is None:
        yield from (block if isinstance(block, tuple) else (block, None) for block in edges)
    else:
        raise TypeError(
            "Expected 'edge_index' to be a Tensor or an array of shape [2, E], or blocks of them "
            f"with their weights (got {type(edges).__name__})"
        )


def collect(
    blocks: Iterator[tuple[Any, Any]], ranks: Ranks, layout: Layout, undirected: bool, signed: bool
) -> Entries:
    """The entries of this rank's rows, of all ranks' edges and in their order: keys, row times the
    number of nodes plus column, and weights.
    """
    keys: list[list[np.ndarray]] = [[] for _ in range(ranks.size)]  # by the rank that sent them
    weights: list[list[np.ndarray]] = [[] for _ in range(ranks.size)]
    kinds: set[int] = set()
    while True:
        with ranks.agreement():
            block = next(blocks, None)
            sent, weight, counts = np.empty(0, np.int64), None, [0] * ranks.size
            if block is not None:
                sent, weight, counts = _by_owner(block, layout, undirected, signed)
        state = ranks.gather([0 if block is None else 1 + (weight is not None)]).flatten().tolist()
        if not any(state):
            break
        kinds |= {*state} - {0}
        if len(kinds) > 1:
            raise ValueError("Expected 'edge_weight' for all edges or none (got both)")
        _receive(keys, sent, counts, ranks)
        if kinds == {2}:
            _receive(weights, np.empty(0) if weight is None else weight, counts, ranks)
    whole = [each for part in keys for each in part], [each for part in weights for each in part]
    if kinds == {2} and not whole[1]:
        whole[1].append(np.empty(0))
    return whole


def _by_owner(
    block: tuple[Any, Any], layout: Layout, undirected: bool, signed: bool
) -> tuple[np.ndarray, np.ndarray | None, list[int]]:
    """The keys and weights of a block, checked, rank by rank, and how many each gets."""
    edge_index, weight = (
        torch.from_numpy(np.array(each)) if isinstance(each, np.ndarray) else each for each in block
    )
    edges = parse_edges(edge_index, weight, layout.num_nodes)
    check_values(edges, signed)
    if edges.weight is not None and (edges.weight.requires_grad or undirected):
        raise ValueError(
            "Expected constant 'edge_weight', and none beside 'undirected': entries in parts are "
            "not learned"
        )
    row, col = edges.row.cpu().numpy(), edges.col.cpu().numpy()
    weight = None if edges.weight is None else edges.weight.double().cpu().numpy()
    if layout.order is not None:
        row, col = layout.new[row], layout.new[col]
    if undirected:
        row, col = row[row != col], col[row != col]
        row, col = np.concatenate([row, col]), np.concatenate([col, row])
    owner = (np.searchsorted(layout.bounds, row, side="right") - 1).astype(np.int16)
    keys, order = (
        (row - layout.bounds[owner]) * layout.num_nodes + col,
        np.argsort(owner, kind="stable"),
    )
    counts = np.bincount(owner, minlength=len(layout.bounds) - 1).tolist()
    return keys[order], None if weight is None else weight[order], counts


def _receive(parts: list[list[np.ndarray]], sent: Any, counts: list[int], ranks: Ranks) -> None:
    received, each = ranks.exchanged(torch.from_numpy(sent), counts)
    for part, own in zip(parts, received.split(each), strict=True):
        if own.numel():
            part.append(own.numpy().copy())


def _joined(parts: list[np.ndarray], dtype: Any) -> Any:
    """Arrays one after the other; each is freed when it is copied."""
    whole, at = np.empty(sum(map(len, parts)), dtype), 0
    while parts:
        part = parts.pop(0)
        whole[at : at + len(part)] = part
        at += len(part)
    return whole


class _Slabs:
    """The sorted entries of a rank's rows, some rows at a time, weights in float64."""

    def __init__(self, entries: Entries, ranks: Ranks, layout: Layout, recipe: Recipe) -> None:
        self.recipe, self.num_nodes = recipe, layout.num_nodes
        self.first, last = (int(each) for each in layout.bounds[ranks.rank : ranks.rank + 2])
        self.size, self.key, self.weight = last - self.first, _joined(entries[0], np.int64), None
        if entries[1]:
            order = np.argsort(self.key, kind="stable")
            self.weight = torch.from_numpy(_joined(entries[1], np.float64)[order])
            self.key = self.key[order]
        else:
            self.key.sort()
        self.rowptr = np.searchsorted(self.key, np.arange(self.size + 1) * self.num_nodes)

    def edges(self, undirected: bool) -> Iterator[tuple[int, Edges]]:
        """The first row of every slab and its edges: rows and columns are counted from there."""
        a = 0
        while a < self.size:
            most = int(np.searchsorted(self.rowptr, self.rowptr[a] + _SLAB, side="right")) - 1
            b = max(most, a + 1)
            some = slice(self.rowptr[a], self.rowptr[b])
            key = self.key[some]
            if undirected:  # each once
                key = key[np.diff(key, prepend=-1) != 0]
            row, col = (torch.from_numpy(each) for each in np.divmod(key, self.num_nodes))
            weight = torch.ones(len(row), dtype=torch.float64, device="cpu")
            weight = weight if self.weight is None else self.weight[some]
            edges = Edges(row - a, col - (a + self.first), weight, b - a)
            if self.recipe.diagonal == "keep":
                edges = add_loops(edges, float(self.recipe.scale), "keep")
            yield a, edges
            a = b


def make_part(
    entries: Entries,
    ranks: Ranks,
    layout: Layout,
    recipe: Recipe,
    dtype: torch.dtype,
    undirected: bool,
) -> Part:
    """The rows of a rank from what was collected, which is used up."""
    slabs = _Slabs(entries, ranks, layout, recipe)
    first, size, crossing = slabs.first, slabs.size, 0
    own = torch.arange(first, first + size, device="cpu")
    index = index_dtype(layout.num_nodes)
    local = torch.zeros(layout.num_nodes, dtype=index, device="cpu")  # where a column lies
    degree = torch.zeros(size, dtype=torch.float64, device="cpu")
    for a, edges in slabs.edges(undirected):
        col = edges.col + (a + first)
        local[col] = 1
        crossing += int(((col < first) | (col >= first + size)).sum())
        if recipe.normalization is not None:
            degree[a : a + edges.num_nodes] = degrees(edges, recipe.count_loops)
    local[own] = 0
    read = local.nonzero().flatten()
    counts = np.diff(np.searchsorted(read.numpy(), layout.bounds)).tolist()
    requested, sent_counts = ranks.exchanged(read, counts)
    halo = Halo(ranks, size, requested - first, sent_counts, counts, len(slabs.key))
    local[torch.cat([own, read])] = torch.arange(size + len(read), dtype=index, device="cpu")
    degree = halo.filled(degree.unsqueeze(1)).flatten()
    index = index_dtype(max(len(slabs.key) + size, size + len(read)))
    rowptr, cols, values, largest = torch.zeros(size + 1, dtype=index), [], [], 0.0
    with ranks.agreement():
        for a, edges in slabs.edges(undirected):
            end = a + edges.num_nodes
            edges = edges._replace(row=edges.row + a, col=local[edges.col + (a + first)].long())
            entries_here, most = _entries(edges, a, end, degree, recipe)
            built = build(entries_here, Recipe(signed=True), dtype)
            rowptr[a + 1 : end + 1] = built.pattern.rowptr[a + 1 : end + 1] + rowptr[a]
            cols.append(built.pattern.col.numpy())
            values.append(built.value.numpy())
            largest = max(largest, most)
    value = torch.from_numpy(_joined(values, values[0].dtype if values else None)).to(dtype)
    col = torch.from_numpy(_joined(cols, cols[0].dtype if cols else None)).to(index)
    return Part((rowptr, col, value), halo, largest, crossing)


def _entries(
    edges: Edges, first: int, last: int, degree: Tensor, recipe: Recipe
) -> tuple[RawEdges, float]:
    """The entries of some rows, to be summed, and the largest degree of the Laplacian there."""
    row, col, weight, _ = edges._replace(weight=normalize_by(degree, edges, recipe.normalization))
    size, largest = len(degree), 0.0
    if recipe.diagonal == "step":  # the diagonal comes first, and loops cancel
        weight = weight.masked_fill(row == col, 0.0)
        total = weight.new_zeros(size).index_add(0, row, weight)[first:last]
        nodes, largest = torch.arange(first, last, device="cpu"), float(total.max())
        row, col = torch.cat([nodes, row]), torch.cat([nodes, col])
        weight = torch.cat([1 - recipe.scale * total, recipe.scale * weight])
    return RawEdges(row, col, weight, size), largest
