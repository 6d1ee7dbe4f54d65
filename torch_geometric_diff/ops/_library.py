"""The call under torch.compile and torch.export: one node of the graph.

Only what the pattern of a matrix says enters a graph beside the entries: these may change in place
between two calls.
"""

from typing import Any

import torch
from torch import Tensor

from .._utils.functorch import apply, is_differentiated, is_transformed
from ._autograd import Propagate, clamped, gradients
from ._dispatch import Plan, Rows, call_gradients, call_kernel
from ._matrix import SparseMatrix
from ._pattern import CSR, Pattern
from .kernels import kernel_for, reference
from .recurrence import INPUTS, LETTERS, Table, may_grow, transposed


def run(x: Tensor, value: Tensor | None, table: Tensor | None, seeds: Tensor, plan: Plan) -> Tensor:
    """[I, B, N, F] to [O, B, N, F], by the path that differentiates as is asked for.

    Args:
        x: The inputs.
        value: Learned entries.
        table: The coefficients, if some are learned.
        seeds: The seed of the masks of every element of the batch.
        plan: What does not differentiate.
    """
    if torch.compiler.is_compiling():
        return propagate_in_graph(x, value, table, seeds, plan)
    drops = plan.threshold and is_transformed(seeds)
    if not any(map(is_differentiated, (x, value, table))) and not drops:
        return plan.call(x, value, table, seeds)
    if plan.bounds is not None:
        return clamped(x, value, table, seeds, plan)
    return apply(Propagate, x, value, table, seeds, plan)


def propagate_in_graph(
    x: Tensor, value: Tensor | None, table: Tensor | None, seeds: Tensor, plan: Plan
) -> Tensor:
    """[I, B, N, F] to [O, B, N, F]."""
    matrix, pattern = plan.matrix, plan.matrix.pattern
    permutation: Tensor | None = None
    layout: Any = (pattern.rowptr, pattern.col, None)
    transpose: Any = pattern.transposition
    if value is None and matrix.is_reordered:
        permutation, layout, transpose = matrix.reordered  # type: ignore[misc]
    low, high = (None, None) if plan.bounds is None else plan.bounds
    return propagate_op(
        x, matrix.value if value is None else value, *layout, *transpose, permutation,
        plan.coefficients(table), seeds, plan.threshold, plan.reverse, low, high,
    )  # fmt: skip


def _in_order(value: Tensor, entries: Tensor | None) -> Tensor:
    return value if entries is None else value.index_select(0, entries)


@torch.library.custom_op("torch_geometric_diff::propagate", mutates_args=())
def propagate_op(
    x: Tensor,
    value: Tensor,
    rowptr: Tensor,
    col: Tensor,
    entries: Tensor | None,
    rowptr_t: Tensor,
    col_t: Tensor,
    entries_t: Tensor | None,
    permutation: Tensor | None,
    table: Tensor,
    seeds: Tensor,
    threshold: int,
    reverse: bool,
    low: float | None,
    high: float | None,
) -> Tensor:
    """The kernel of the device; the transpose rides along for the backward pass."""
    bounds = None if low is None or high is None else (low, high)
    rows = Rows(CSR(rowptr, col, _in_order(value, entries)), permutation)
    return call_kernel(x, rows, (table, threshold, seeds, reverse, bounds), may_grow(table))


@propagate_op.register_fake
def _(x: Tensor, *args: Any) -> Tensor:
    outputs = args[8].size(0) - INPUTS - x.size(0)
    return x.new_empty(outputs, *x.shape[1:])


@torch.library.custom_op("torch_geometric_diff::propagate_gradients", mutates_args=())
def gradients_op(
    x: Tensor,
    g: Tensor,
    value: Tensor,
    rowptr: Tensor,
    col: Tensor,
    entries: Tensor | None,
    rowptr_t: Tensor,
    col_t: Tensor,
    entries_t: Tensor,
    permutation: Tensor | None,
    table: Tensor,
    seeds: Tensor,
    threshold: int,
    learns_value: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of the inputs, the entries (if they are learned) and the table."""
    if kernel_for(x.device) is not reference:
        rows = Rows(CSR(rowptr, col, _in_order(value, entries)), permutation)
        csr_t = CSR(rowptr_t, col_t, _in_order(value, entries_t))
        need = (True, learns_value, LETTERS)
        grads = call_gradients(x, g, rows, csr_t, (table, threshold, seeds, need))
    else:
        pattern = Pattern(rowptr, col)
        pattern._transpose = Pattern(rowptr_t, col_t), entries_t
        plan = Plan(SparseMatrix.of_entries(pattern, value), threshold, Table(table, len(x)))
        needs = (True, learns_value, True)
        grads = gradients(x, g, value if learns_value else None, None, seeds, plan, needs)
    dx, dvalue, dtable = (x.new_empty(0) if grad is None else grad for grad in grads)
    return dx, dvalue, dtable


@gradients_op.register_fake
def _(x: Tensor, g: Tensor, value: Tensor, *args: Any) -> tuple[Tensor, Tensor, Tensor]:
    grad_value = torch.empty_like(value) if args[-1] else x.new_empty(0)
    return torch.empty_like(x), grad_value, torch.empty_like(args[7])


def _setup_context(ctx: Any, inputs: Any, output: Tensor) -> None:
    x, *tensors, ctx.threshold, ctx.reverse, ctx.low, _ = inputs
    ctx.learns = ctx.needs_input_grad[1] or ctx.needs_input_grad[9]
    ctx.inputs = len(x)
    ctx.save_for_backward(x if ctx.learns else None, *tensors)


def _backward(ctx: Any, g: Tensor) -> Any:
    if ctx.low is not None:
        raise NotImplementedError("A gradient through 'bounds' is not compiled")
    x, value, *layouts, permutation, table, seeds = ctx.saved_tensors
    grads: list[Any] = [None] * 15
    if ctx.learns:
        if ctx.reverse:
            raise NotImplementedError("Second derivatives of learned coefficients are not compiled")
        rest = (permutation, table, seeds, ctx.threshold, ctx.needs_input_grad[1])
        grads[0], grad_value, grads[9] = gradients_op(x, g, value, *layouts, *rest)
        grads[1] = grad_value if ctx.needs_input_grad[1] else None
    else:
        layouts = (*layouts[3:], *layouts[:3])
        rest = (permutation, transposed(table, ctx.inputs), seeds, ctx.threshold, not ctx.reverse)
        grads[0] = propagate_op(g, value, *layouts, *rest, None, None)
    return tuple(grads)


propagate_op.register_autograd(_backward, setup_context=_setup_context)
