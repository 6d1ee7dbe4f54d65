r"""How a recurrence differentiates.

It is linear in its inputs, and its transpose is a recurrence too: the gradient of the inputs is the
same call with :math:`\mathbf{P}^{\top}`, which keeps nothing. What is learned, coefficients or
entries of :math:`\mathbf{P}`, gets its gradient from products of forward and backward states: fused
in the CPU kernel, or, where derivatives of derivatives are wanted, by calls that differentiate
again.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from .._utils.functorch import (
    apply,
    is_differentiated,
    is_grads_batch,
    tangents_of,
    unwrap_dead,
)
from ._derivatives import Times
from ._dispatch import Plan, call_gradients
from ._sparse import SampledProduct, SparseProduct, no_seeds
from .kernels import kernel_for, reference
from .recurrence import INPUTS, A, B, D, Table, transposed

Needs = tuple[bool, bool, bool]


class Propagate(Function):
    """The call in eager mode, under autograd and ``torch.func``."""

    @staticmethod
    def forward(
        x: Tensor, value: Tensor | None, table: Tensor | None, seeds: Tensor, plan: Plan
    ) -> Tensor:
        if is_grads_batch(x) or is_grads_batch(value) or is_grads_batch(table):
            return plan.call_in_batch(x, value, table, seeds)
        return plan.call(x, value, table, seeds)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Tensor) -> None:
        x, value, table, seeds, ctx.plan = inputs
        learns = ctx.needs_input_grad[1] or ctx.needs_input_grad[2]
        ctx.inputs = len(x)
        drops = seeds if ctx.plan.threshold else None
        ctx.save_for_backward(x if learns else None, value, table, drops)
        ctx.save_for_forward(x, value, table, seeds)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        g, x, value, table, seeds = unwrap_dead(*grads, *ctx.saved_tensors)
        plan, needs = ctx.plan, ctx.needs_input_grad[:3]
        seeds = no_seeds(g.size(1)) if seeds is None else seeds
        if not (needs[1] or needs[2]):
            back = None if table is None else transposed(table, ctx.inputs)
            grad_x = apply(Propagate, g, transpose(value, plan), back, seeds, plan.t())
            return grad_x, None, None, None, None
        fused = kernel_for(x.device) is not reference and not plan.reverse
        if torch.is_grad_enabled() or not fused or is_grads_batch(g):
            return *gradients(x, g, value, table, seeds, plan, needs), None, None
        rows, rows_t = plan.rows(value), plan.t().rows(transpose(value, plan))
        need = (*needs[:2], plan.learned if needs[2] else "")
        rest = (plan.coefficients(table), plan.threshold, seeds, need)
        grad_x, grad_value, grad_table = call_gradients(x, g, rows, rows_t.csr, rest)
        if grad_table is not None and bool(grad_table.isnan().any()):
            # infinite states that no gradient reaches
            grad_table = gradients(x, g, value, table, seeds, plan, (False, False, True))[2]
        return grad_x, grad_value, grad_table, None, None

    @staticmethod
    def jvp(ctx: Any, x_t: Any, value_t: Any, table_t: Any, *_: Any) -> Any:
        with tangents_of(ctx) as (x, value, table, seeds):
            out = None if x_t is None else apply(Propagate, x_t, value, table, seeds, ctx.plan)
            if value_t is None and table_t is None:
                return out
            along = _tangent(x, value, value_t, table, table_t, seeds, ctx.plan)
            return along if out is None else out + along

    @staticmethod
    def vmap(
        info: Any, in_dims: Any, x: Tensor, value: Any, table: Any, seeds: Tensor, plan: Plan
    ) -> Any:
        count = info.batch_size
        if in_dims[1] is None and in_dims[2] is None:
            x = _batch(x, in_dims[0], 1, count).flatten(1, 2)
            seeds = _batch(seeds, in_dims[3], 0, count).flatten().contiguous()
            out = apply(Propagate, x, value, table, seeds, plan)
            return out.unflatten(1, (count, -1)), 1
        outs = []
        for i in range(count):
            element = (
                tensor if dim is None else tensor.select(dim, i)
                for tensor, dim in zip((x, value, table, seeds), in_dims[:4], strict=True)
            )
            outs.append(apply(Propagate, *element, plan))
        return torch.stack(outs), 0


def _batch(tensor: Tensor, dim: int | None, to: int, count: int) -> Tensor:
    """A Tensor whose batch of vmap lies in some dimension."""
    if dim is not None:
        return tensor.movedim(dim, to)
    shape = list(tensor.shape)
    return tensor.unsqueeze(to).expand(*shape[:to], count, *shape[to:])


def transpose(value: Tensor | None, plan: Plan) -> Tensor | None:
    """Learned entries in the order of the transpose."""
    return None if value is None else value[plan.pattern.transposition.entries.long()]


def _with_table(
    x: Tensor, value: Tensor | None, table: Tensor, seeds: Tensor, plan: Plan
) -> Tensor:
    """The call with another table than the plan's, learned or not."""
    if is_differentiated(table) or is_grads_batch(table):
        return apply(Propagate, x, value, table, seeds, plan.with_table(None))
    plan = plan.with_table(Table(table, len(x)))
    return apply(Propagate, x, value, None, seeds, plan)


def _states(x: Tensor, value: Tensor | None, table: Tensor, seeds: Tensor, plan: Plan) -> Tensor:
    """All states z_0 ... z_K of a recurrence, [K + 1, B, N, F]."""
    outputs = torch.eye(table.size(1), dtype=table.dtype, device=table.device)
    return _with_table(x, value, torch.cat([table[: INPUTS + len(x)], outputs]), seeds, plan)


def gradients(
    x: Tensor,
    g: Tensor,
    value: Tensor | None,
    table: Tensor | None,
    seeds: Tensor,
    plan: Plan,
    needs: Needs,
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    r"""The gradients of the inputs, the entries and the table, which differentiate again.

    With :math:`\lambda_k` the gradient of the state :math:`z_k` and
    :math:`u_k = m_k \odot z_{k-1}`, :math:`\partial P = \sum_k a_k \lambda_k u_k^{\top}`,
    :math:`\partial a_k = \langle \lambda_k, P u_k \rangle`, and so on. Keeps all states of both.
    """
    table = plan.coefficients(table)
    inputs, num_steps = len(x), table.size(1) - 1
    factors = table.to(x)
    z = _states(x, value, table, seeds, plan)
    back = transposed(table, inputs)
    lam = _states(g, transpose(value, plan), back, seeds, plan.t()).flip(0)
    u, after = z[:-1], lam[1:]
    u, after = (u, plan.drop(after, seeds)) if plan.reverse else (plan.drop(u, seeds), after)
    grad_x = grad_value = grad_table = None
    if needs[0]:
        grad_x = _mixed(factors[INPUTS : INPUTS + inputs], lam)
    if needs[1]:
        weighted = _scaled(after, factors[A, 1:])
        grad_value = apply(SampledProduct, _merged(weighted), _merged(u), plan.pattern)
    if needs[2]:
        entries = plan.matrix.csr(plan.reverse).value if value is None else value
        moved = apply(SparseProduct, entries, _merged(u), plan.pattern).view_as(u)
        pairs = (moved, after), (u, after), (z[:-2], lam[2:])
        sums = [apply(Times, left, right).sum((1, 2, 3)) for left, right in pairs]
        sums = [torch.nn.functional.pad(row, (num_steps + 1 - len(row), 0)) for row in sums]
        ends = [_products(x, lam), _products(z, g).t()]
        grad_table = torch.cat([torch.stack(sums), *ends]).to(table)
    return grad_x, grad_value, grad_table


def _merged(states: Tensor) -> Tensor:
    """States [K, B, N, F] as one batch."""
    return states.reshape(-1, *states.shape[2:])


def _scaled(states: Tensor, factors: Tensor) -> Tensor:
    """States [K, B, N, F] times a coefficient each."""
    return apply(Times, states, factors.view(-1, 1, 1, 1))


def _mixed(factors: Tensor, states: Tensor) -> Tensor:
    """The sums of states [K, B, N, F] by rows [I, K] of coefficients."""
    return torch.stack([_scaled(states, row).sum(0) for row in factors])


def _products(states: Tensor, grads: Tensor) -> Tensor:
    """The inner products of [I, B, N, F] and [K, B, N, F], the second being gradients."""
    return torch.stack([apply(Times, state, grads).sum((1, 2, 3)) for state in states])


def _tangent(
    x: Tensor,
    value: Tensor | None,
    value_t: Tensor | None,
    table: Tensor | None,
    table_t: Tensor | None,
    seeds: Tensor,
    plan: Plan,
) -> Tensor:
    """The tangent of the outputs along the entries and the table.

    It follows the same recurrence, into which every step puts what the step itself changes.
    """
    table = plan.coefficients(table)
    inputs, num_steps = len(x), table.size(1) - 1
    z = _states(x, value, table, seeds, plan)
    u = z[:-1] if plan.reverse else plan.drop(z[:-1], seeds)
    factors = table.to(x)
    change = torch.zeros_like(factors) if table_t is None else table_t.to(x)
    put = torch.zeros_like(u)
    if value_t is not None:
        moved = apply(SparseProduct, value_t, _merged(u), plan.pattern).view_as(u)
        put = put + _scaled(moved, factors[A, 1:])
    if table_t is not None:
        entries = plan.matrix.csr(plan.reverse).value if value is None else value
        moved = apply(SparseProduct, entries, _merged(u), plan.pattern).view_as(u)
        put = put + _scaled(moved, change[A, 1:]) + _scaled(u, change[D, 1:])
    if plan.reverse:
        put = plan.drop(put, seeds)
    put = torch.cat([torch.zeros_like(x[:1]), put])
    put = put + _mixed(change[INPUTS : INPUTS + inputs].t(), x)
    two = _scaled(z[:-2], change[B, 2:])
    put = torch.cat([put[:2], put[2:] + two])
    entering = torch.eye(num_steps + 1, dtype=table.dtype, device=table.device)
    along = torch.cat([table[:INPUTS], entering, table[INPUTS + inputs :]])
    out = _with_table(put, value, along, seeds, plan)
    return out + _mixed(change[INPUTS + inputs :], z)


def clamped(
    x: Tensor, value: Tensor | None, table: Tensor | None, seeds: Tensor, plan: Plan
) -> Tensor:
    """Step by step, for a clamp is not linear; keeps every state."""
    pattern, table = plan.pattern, plan.coefficients(table)
    entries = plan.matrix.value if value is None else value
    masks = reference.Masks(x[0], plan.threshold, seeds, table.size(1) - 1)
    return reference.run(
        x,
        lambda z: apply(SparseProduct, entries, z, pattern),
        table if is_differentiated(table) else table.tolist(),
        masks,
        plan.reverse,
        plan.bounds,
    )
