"""From the edges of a graph to the CSR of an operator: in C++, or in torch where gradients pass."""

from typing import NamedTuple

import torch
from torch import Tensor

from .._utils.functorch import cacheable, in_memory, is_differentiated, unwrap
from .._utils.native import _C
from ..graph.adjacency import (
    RawEdges,
    add_loops,
    check_values,
    normalize,
    weight_dtype,
    wide_dtype,
    with_weights,
)
from ._pattern import Pattern, index_dtype, native


class Recipe(NamedTuple):
    r"""What the entries of an operator are.

    Attributes:
        normalization (str or None): ``'sym'``, ``'row'`` or ``None``.
        diagonal (str): ``'given'`` for the graph as it is, ``'step'`` for
            :math:`\mathbf{I} - h \mathbf{L}`, or how loops are added, see
            :func:`~torch_geometric_diff.graph.adjacency.add_loops`.
        scale (float or Tensor): The step size :math:`h`, or the weight of the added loops.
        count_loops (bool): Whether degrees count a loop at every node.
        signed (bool): Whether weights may be negative.
    """

    normalization: str | None = None
    diagonal: str = "given"
    scale: float | Tensor = 1.0
    count_loops: bool = False
    signed: bool = False


class Built(NamedTuple):
    """An operator's pattern, its entries, and of a step the largest degree of the Laplacian, and
    the Laplacian's entries where those of the operator do not tell them.
    """

    pattern: Pattern
    value: Tensor
    largest_degree: float | None = None
    laplacian: Tensor | None = None


def build(edges: RawEdges, recipe: Recipe, dtype: torch.dtype | None = None) -> Built:
    """The operator of parsed edges, whose values are checked on the way.

    Degrees and sums are taken in float64; both ways give the same bits.
    """
    dtype, scale = weight_dtype(edges, dtype), recipe.scale
    learned = is_differentiated(edges.weight)
    if not isinstance(scale, Tensor) and not learned and native(edges.row):
        with cacheable():
            return _build_native(edges, recipe, scale, dtype)
    if not torch.compiler.is_compiling() and torch.is_inference_mode_enabled():
        # the entries may take part in training later
        with torch.inference_mode(False), torch.no_grad():
            return _build_torch(edges, recipe, dtype)
    return _build_torch(edges, recipe, dtype)


def _build_native(edges: RawEdges, recipe: Recipe, scale: float, dtype: torch.dtype) -> Built:
    row, col, weight, num_nodes = edges
    if weight is not None:
        if weight.dtype not in (torch.float32, torch.float64):
            half = weight.dtype in (torch.float16, torch.bfloat16)
            weight = weight.to(torch.float32 if half else torch.float64)
        weight = in_memory(weight)
    row, col, threads = in_memory(row), in_memory(col), torch.get_num_threads()
    made = _C.build(
        row,
        col,
        weight,
        num_nodes,
        _C.Normalization[recipe.normalization or "none"],
        _C.Diagonal[recipe.diagonal],
        scale,
        recipe.count_loops,
        recipe.signed,
        threads,
    )
    if not made.valid:
        check_values(edges, recipe.signed)
    index, size = torch.int64 if made.is_int64 else torch.int32, made.entries
    exact = torch.float32 if dtype == torch.float32 else torch.float64
    rowptr = torch.empty(num_nodes + 1, dtype=index, device=row.device)
    entries = torch.empty(size, dtype=index, device=row.device)
    value = torch.empty(size, dtype=exact, device=row.device)
    finite = made.fill(rowptr, entries, value, threads)
    pattern, laplacian = Pattern(rowptr, entries), None
    if exact != dtype:
        if recipe.diagonal == "step":
            laplacian = laplacian_of(pattern, value, scale)
        value = value.to(dtype)
        finite = finite and bool(value.isfinite().all())
    if not finite:
        _refuse(dtype)
    return Built(pattern, value, made.largest_degree, laplacian)


def laplacian_of(
    pattern: Pattern, value: Tensor, step_size: float | Tensor, transposed: bool = False
) -> Tensor:
    """The entries of the Laplacian of a step, or its transpose, whose rows sum to zero: that tells
    its diagonal to more digits than the diagonal of the step, which is close to 1.
    """
    loop = pattern.row == pattern.col
    weight = value.to(wide_dtype(value.device)).masked_fill(loop, 0.0) / step_size
    target = pattern.col if transposed else pattern.row
    degree = weight.new_zeros(pattern.num_nodes).index_add(0, target, weight)
    return torch.where(pattern.diagonal, degree[pattern.row], -weight)


def _build_torch(given: RawEdges, recipe: Recipe, dtype: torch.dtype) -> Built:
    edges = with_weights(given, wide_dtype(given.row.device), recipe.signed)
    num_nodes, step = edges.num_nodes, recipe.diagonal == "step"
    if recipe.diagonal not in ("given", "step"):
        edges = add_loops(edges, float(recipe.scale), recipe.diagonal)
    row, col, weight, _ = edges
    weight = normalize(edges, recipe.normalization, recipe.count_loops)
    if step:  # the diagonal comes first, and loops cancel
        nodes = torch.arange(num_nodes, device=row.device)
        weight = weight.masked_fill(row == col, 0.0)
        weight = torch.cat([weight.new_zeros(num_nodes), weight])
        row, col = torch.cat([nodes, row]), torch.cat([nodes, col])
    pattern, target = compress(row, col, num_nodes)
    value = weight.new_zeros(pattern.col.numel()).index_add(0, target, weight)
    largest = laplacian = None
    if step:
        degree = value.new_zeros(num_nodes).index_add(0, pattern.row, value)
        scale = recipe.scale
        if isinstance(scale, Tensor):
            scale = scale.reshape(()).to(value)
        diagonal = target[:num_nodes].long()
        laplacian = (-value).index_copy(0, diagonal, degree)
        value = (scale * value).index_copy(0, diagonal, 1 - scale * degree)
        if not torch.compiler.is_compiling():
            largest = float(unwrap(degree.detach()).max()) if num_nodes else 0.0
    value = value.to(dtype)
    seen = not torch.compiler.is_compiling() and not is_differentiated(value)
    if seen and not bool(value.isfinite().all()):
        _refuse(dtype)
    return Built(pattern, value, largest, laplacian)


def _refuse(dtype: torch.dtype) -> None:
    raise ValueError(
        f"Expected 'edge_weight' whose sums, and the entries made of them, are finite in {dtype} "
        "(got infinity)"
    )


def compress(row: Tensor, col: Tensor, num_nodes: int) -> tuple[Pattern, Tensor]:
    """The pattern that edges make, and the entry that each of them goes to.

    Compiled, each edge has an entry of its own: shapes must not depend on values.
    """
    with cacheable():
        return (_compress_native if native(row) else _compress_torch)(row, col, num_nodes)


def _compress_torch(row: Tensor, col: Tensor, num_nodes: int) -> tuple[Pattern, Tensor]:
    size = max(num_nodes, 1)
    if torch.compiler.is_compiling():  # a bad index is refused, but perhaps only afterwards
        row, col = row.clamp(0, size - 1), col.clamp(0, size - 1)
    key, order = torch.sort(row * size + col, stable=True)
    target = torch.arange(key.numel(), device=key.device)
    if not torch.compiler.is_compiling():
        key, target = torch.unique_consecutive(key, return_inverse=True)
    target = torch.empty_like(target).scatter_(0, order, target)
    index = index_dtype(max(row.numel(), num_nodes))
    row, col = (key // size).to(index), (key % size).to(index)
    bounds = torch.arange(num_nodes + 1, device=row.device, dtype=index)
    return Pattern(torch.searchsorted(row, bounds).to(index), col, row), target


def _compress_native(row: Tensor, col: Tensor, num_nodes: int) -> tuple[Pattern, Tensor]:
    row, col, threads = in_memory(row), in_memory(col), torch.get_num_threads()
    made = _C.pattern(row, col, num_nodes, threads)
    assert made.valid, "the indices were checked"
    index = torch.int64 if made.is_int64 else torch.int32
    sizes = num_nodes + 1, made.entries, row.numel()
    rowptr, entries, target = (torch.empty(n, dtype=index, device=row.device) for n in sizes)
    made.fill(rowptr, entries, target, threads)
    return Pattern(rowptr, entries), target
