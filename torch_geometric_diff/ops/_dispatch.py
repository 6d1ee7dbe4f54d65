"""The call under torch.compile and torch.export: one node of the graph."""

from typing import Any

import torch
from torch import Tensor

from . import _autograd as autograd
from ._autograd import Plan, gradients, turned
from ._extremes import in_range, may_leave
from ._matrix import SparseMatrix
from .kernels import cpu, kernel_for
from .recurrence import INPUTS, LETTERS, Table, transposed


def run(x: Tensor, value: Tensor | None, table: Tensor | None, plan: Plan) -> Tensor:
    """[I, B, N, F] to [O, B, N, F]: in eager mode, or as one node of the graph."""
    if not torch.compiler.is_compiling():
        return autograd.run(x, value, table, plan)
    csr, order = plan.matrix(value)
    csr_t, _ = plan.t().matrix(turned(value, plan))
    permutation = None if value is None else plan.pattern.permutation
    limits = (None, None) if plan.bounds is None else plan.bounds
    rest = (plan.coefficients(table), plan.seeds, plan.threshold, plan.reverse, *limits)
    return _op(x, *csr, *csr_t, permutation, order, *rest)


@torch.library.custom_op("torch_geometric_diff::propagate", mutates_args=())
def _op(
    x: Tensor,
    rowptr: Tensor,
    col: Tensor,
    value: Tensor,
    rowptr_t: Tensor,
    col_t: Tensor,
    value_t: Tensor,
    permutation: Tensor | None,
    order: Tensor | None,
    table: Tensor,
    seeds: Tensor,
    threshold: int,
    reverse: bool,
    lower: float | None,
    upper: float | None,
) -> Tensor:
    """The kernel of the device; the transpose rides along for the backward pass."""
    limits = None if lower is None or upper is None else (lower, upper)
    rest = (rowptr, col, value, table, threshold, seeds, reverse, limits)

    def propagate(x: Tensor) -> Tensor:
        if order is not None:
            return cpu.propagate(x.contiguous(), *rest, order)
        with torch.autocast(x.device.type, enabled=False):
            return kernel_for(x.device).propagate(x.contiguous(), *rest)

    return in_range(propagate, x) if limits is None and may_leave(table) else propagate(x)


@_op.register_fake
def _(x: Tensor, *args: Any) -> Tensor:
    outputs = args[8].size(0) - INPUTS - x.size(0)
    return x.new_empty(outputs, *x.shape[1:])


@torch.library.custom_op("torch_geometric_diff::propagate_gradients", mutates_args=())
def _gradients_op(
    x: Tensor,
    g: Tensor,
    rowptr: Tensor,
    col: Tensor,
    value: Tensor,
    rowptr_t: Tensor,
    col_t: Tensor,
    value_t: Tensor,
    permutation: Tensor | None,
    order: Tensor | None,
    table: Tensor,
    seeds: Tensor,
    threshold: int,
    reverse: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of the inputs, the entries (where there is a permutation) and the table."""
    csr, csr_t = (rowptr, col, value), (rowptr_t, col_t, value_t)
    if reverse:
        raise NotImplementedError("Second derivatives of learned coefficients are not compiled")
    if kernel_for(x.device) is cpu:
        grads = cpu.gradients(
            x, g, csr, csr_t, table, threshold, seeds,
            (True, permutation is not None, LETTERS), order,
        )  # fmt: skip
    else:
        matrix = SparseMatrix.of_csr(csr, csr_t, permutation)
        plan = Plan(matrix, seeds, threshold, Table(table, len(x)))
        needs = (True, permutation is not None, True)
        grads = gradients(x, g, value if needs[1] else None, None, plan, needs)
    dx, dvalue, dtable = (x.new_empty(0) if grad is None else grad for grad in grads)
    return dx, dvalue, dtable


@_gradients_op.register_fake
def _(x: Tensor, g: Tensor, *args: Any) -> tuple[Tensor, Tensor, Tensor]:
    value, permutation, table = args[2], args[6], args[8]
    grad_value = x.new_empty(0) if permutation is None else torch.empty_like(value)
    return torch.empty_like(x), grad_value, torch.empty_like(table)


def _setup_context(ctx: Any, inputs: Any, output: Tensor) -> None:
    x, *tensors, ctx.threshold, ctx.reverse, ctx.lower, _ = inputs
    ctx.learns = ctx.needs_input_grad[3] or ctx.needs_input_grad[9]
    ctx.inputs = len(x)
    ctx.save_for_backward(x if ctx.learns else None, *tensors)


def _backward(ctx: Any, g: Tensor) -> Any:
    if ctx.lower is not None:
        raise NotImplementedError("A gradient through 'bounds' is not compiled")
    x, *csrs, permutation, order, table, seeds = ctx.saved_tensors
    grads: list[Any] = [None] * 15
    if ctx.learns:
        rest = (*csrs, permutation, order, table, seeds, ctx.threshold, ctx.reverse)
        grad_x, grad_value, grad_table = _gradients_op(x, g, *rest)
        grads[0], grads[9] = grad_x, grad_table
        grads[3] = None if permutation is None else grad_value
    else:
        back, turned = transposed(table, ctx.inputs), (*csrs[3:], *csrs[:3])
        grads[0] = _op(
            g, *turned, permutation, order, back, seeds, ctx.threshold, not ctx.reverse, None, None
        )
    return tuple(grads)


_op.register_autograd(_backward, setup_context=_setup_context)
