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

from .._utils.functorch import alive, apply, is_differentiated, plain, tangents_of
from ._derivatives import Times
from ._extremes import in_range, may_leave
from ._matrix import CSR, SparseMatrix
from ._receptive_field import Reach
from ._sparse import Pattern, SampledProduct, SparseProduct
from .kernels import cpu, kernel_for, reference
from .recurrence import INPUTS, LETTERS, A, B, D, Table, transposed

Bounds = tuple[float, float]
Needs = tuple[bool, bool, bool]
# of a Plan; torch 2.4 traces neither vars() nor __new__
_FIELDS = "operator seeds threshold table bounds reverse copies learned reach".split()


class Plan:  # not a tuple: torch.func would look for Tensors inside
    """What does not differentiate of a call: the graph, the masks and the direction.

    Args:
        operator: The matrix.
        seeds: The seed of the masks of every element of the batch.
        threshold: The drop probability in units of 1/65536.
        table: The coefficients; None for learned ones, which are an argument of their own.
        bounds: What every state but the first is clamped to.
        reverse: Whether the matrix is transposed and the masks come after the product.
        copies: How often the batch, with its masks, lies side by side (under vmap).
        learned: The letters of the coefficients that are learned.
        reach: What the rows that are wanted depend on; None for all rows.
    """

    def __init__(
        self,
        operator: SparseMatrix,
        seeds: Tensor,
        threshold: int,
        table: Table | None,
        bounds: Bounds | None = None,
        reverse: bool = False,
        copies: int = 1,
        learned: str = LETTERS,
        reach: Reach | None = None,
    ) -> None:
        self.operator = operator
        self.seeds = seeds
        self.threshold = threshold
        self.table = table
        self.bounds = bounds
        self.reverse = reverse
        self.copies = copies
        self.learned = learned
        self.reach = reach

    def but(self, **changes: Any) -> "Plan":
        """The plan with some of its fields changed."""
        fields = {name: getattr(self, name) for name in _FIELDS}
        return Plan(**{**fields, **changes})

    def t(self) -> "Plan":
        """The plan of the transpose."""
        table = None if self.table is None else self.table.t
        return self.but(reverse=not self.reverse, table=table)

    @property
    def pattern(self) -> Pattern:
        """Where the entries lie."""
        pattern = self.operator.pattern
        return pattern.transpose if self.reverse else pattern

    def matrix(self, value: Tensor | None) -> tuple[CSR, Tensor | None]:
        """The CSR matrix for the kernel and, of a reordered one, the old index of every row.

        ``value`` holds learned entries, in the order of the pattern.
        """
        if value is not None:
            return CSR(self.pattern.rowptr, self.pattern.col, value), None
        if self.operator.is_reordered and kernel_for(self.operator.device) is cpu:
            return self.operator.reordered_csr(self.reverse)
        return self.operator.csr(self.reverse), None

    def coefficients(self, table: Tensor | None) -> Tensor:
        """The table, learned or not."""
        return self.table.values if table is None else table  # type: ignore[union-attr]

    def run(self, x: Tensor, value: Tensor | None, table: Tensor | None) -> Tensor:
        """Call the kernel of the device."""
        csr: tuple[Tensor, Tensor, Tensor]
        within = None
        if self.reach is None:
            csr, order = self.matrix(value)
        else:
            csr, order = self.reach.csr_t if self.reverse else self.reach.csr, self.reach.order
            within = self.reach.within
        kernel: Any = kernel_for(x.device)
        seeds = self.seeds.repeat(self.copies) if self.copies > 1 else self.seeds
        coefficients = self.coefficients(table)
        rest: Any = (coefficients, self.threshold, seeds, self.reverse, self.bounds)

        def propagate(x: Tensor) -> Tensor:
            if kernel is cpu:
                return kernel.propagate(x, *csr, *rest, order, within)
            with torch.autocast(x.device.type, enabled=False):  # sums stay in full precision
                return kernel.propagate(x.contiguous(), *csr, *rest)

        leaves = may_leave(coefficients) if self.table is None else self.table.may_leave
        return in_range(propagate, x) if leaves and self.bounds is None else propagate(x)

    def drop(self, states: Tensor) -> Tensor:
        """K states [K, B, N, F] times the masks of steps 1 to K."""
        num_steps = len(states)
        if not self.threshold or not num_steps:
            return states
        seeds = plain(self.seeds).tolist() * self.copies
        masks = reference.Masks(states[0], self.threshold, seeds, num_steps)
        keep = torch.stack([masks.keep(k) for k in range(1, num_steps + 1)])
        return reference.drop(states, keep.flip(0) if self.reverse else keep, self.threshold)


def run(x: Tensor, value: Tensor | None, table: Tensor | None, plan: Plan) -> Tensor:
    """[I, B, N, F] to [O, B, N, F], by the path that differentiates as is asked for."""
    if not any(map(is_differentiated, (x, value, table))):
        return plan.run(x, value, table)
    if plan.bounds is not None:
        return _clamped(x, value, table, plan)
    return apply(_Propagate, x, value, table, plan)


class _Propagate(Function):
    """The call in eager mode, under autograd and ``torch.func``."""

    @staticmethod
    def forward(x: Tensor, value: Tensor | None, table: Tensor | None, plan: Plan) -> Tensor:
        return plan.run(x, value, table)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Tensor) -> None:
        x, value, table, ctx.plan = inputs
        learns = ctx.needs_input_grad[1] or ctx.needs_input_grad[2]
        ctx.inputs = len(x)
        ctx.save_for_backward(x if learns else None, value, table)
        ctx.save_for_forward(x, value, table)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        g, x, value, table = alive(*grads, *ctx.saved_tensors)
        plan = ctx.plan
        needs = ctx.needs_input_grad[:3]
        if not (needs[1] or needs[2]):
            back = None if table is None else transposed(table, ctx.inputs)
            return apply(_Propagate, g, turned(value, plan), back, plan.t()), None, None, None
        fused = kernel_for(x.device) is cpu and not plan.reverse
        if torch.is_grad_enabled() or not fused:
            return *gradients(x, g, value, table, plan, needs), None
        (csr, order), (csr_t, _) = plan.matrix(value), plan.t().matrix(turned(value, plan))
        grad_x, grad_value, grad_table = cpu.gradients(
            x, g, csr, csr_t, plan.coefficients(table),
            plan.threshold, plan.seeds, (*needs[:2], plan.learned if needs[2] else ""), order,
        )  # fmt: skip
        if grad_table is not None and bool(grad_table.isnan().any()):
            # infinite states that no gradient reaches
            grad_table = gradients(x, g, value, table, plan, (False, False, True))[2]
        return grad_x, grad_value, grad_table, None

    @staticmethod
    def jvp(ctx: Any, x_t: Any, value_t: Any, table_t: Any, _: Any) -> Any:
        with tangents_of(ctx) as (x, value, table):
            out = None if x_t is None else apply(_Propagate, x_t, value, table, ctx.plan)
            if value_t is None and table_t is None:
                return out
            along = _tangent(x, value, value_t, table, table_t, ctx.plan)
            return along if out is None else out + along

    @staticmethod
    def vmap(info: Any, in_dims: Any, x: Tensor, value: Any, table: Any, plan: Plan) -> Any:
        count = info.batch_size
        if in_dims[1] is None and in_dims[2] is None:
            x = x.movedim(in_dims[0], 1)
            many = plan.but(copies=plan.copies * count)
            out = apply(_Propagate, x.flatten(1, 2), value, table, many)
            return out.unflatten(1, (count, -1)), 1
        outs = []
        for i in range(count):
            one = [
                t if dim is None else t.select(dim, i)
                for t, dim in zip((x, value, table), in_dims[:3], strict=True)
            ]
            outs.append(apply(_Propagate, *one, plan))
        return torch.stack(outs), 0


def turned(value: Tensor | None, plan: Plan) -> Tensor | None:
    """Learned entries in the order of the transpose."""
    return None if value is None else value[plan.pattern.permutation.long()]


def _with_table(x: Tensor, value: Tensor | None, table: Tensor, plan: Plan) -> Tensor:
    """The call with another table than the plan's, learned or not."""
    if is_differentiated(table):
        return apply(_Propagate, x, value, table, plan.but(table=None))
    return apply(_Propagate, x, value, None, plan.but(table=Table(table, len(x))))


def _states(x: Tensor, value: Tensor | None, table: Tensor, plan: Plan) -> Tensor:
    """All states z_0 ... z_K of a recurrence, [K + 1, B, N, F]."""
    each = torch.eye(table.size(1), dtype=table.dtype, device=table.device)
    return _with_table(x, value, torch.cat([table[: INPUTS + len(x)], each]), plan)


def gradients(
    x: Tensor, g: Tensor, value: Tensor | None, table: Tensor | None, plan: Plan, needs: Needs
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    r"""The gradients of the inputs, the entries and the table, which differentiate again.

    With :math:`\lambda_k` the gradient of the state :math:`z_k` and
    :math:`u_k = m_k \odot z_{k-1}`, :math:`\partial P = \sum_k a_k \lambda_k u_k^{\top}`,
    :math:`\partial a_k = \langle \lambda_k, P u_k \rangle`, and so on. Keeps all states of both.
    """
    table = plan.coefficients(table)
    inputs, num_steps = len(x), table.size(1) - 1
    factors = table.to(x)
    z = _states(x, value, table, plan)
    back = transposed(table, inputs)
    lam = _states(g, turned(value, plan), back, plan.t()).flip(0)
    u, after = z[:-1], lam[1:]
    u, after = (u, plan.drop(after)) if plan.reverse else (plan.drop(u), after)
    grad_x = grad_value = grad_table = None
    if needs[0]:
        grad_x = _mixed(factors[INPUTS : INPUTS + inputs], lam)
    if needs[1]:
        weighted = _scaled(after, factors[A, 1:])
        grad_value = apply(SampledProduct, weighted.flatten(0, 1), u.flatten(0, 1), plan.pattern)
    if needs[2]:
        entries = plan.operator.csr(plan.reverse).value if value is None else value
        moved = apply(SparseProduct, entries, u.flatten(0, 1), plan.pattern).view_as(u)
        pairs = (moved, after), (u, after), (z[:-2], lam[2:])
        sums = [apply(Times, one, other).sum((1, 2, 3)) for one, other in pairs]
        sums = [torch.nn.functional.pad(row, (num_steps + 1 - len(row), 0)) for row in sums]
        ends = [_products(x, lam), _products(z, g).t()]
        grad_table = torch.cat([torch.stack(sums), *ends]).to(table)
    return grad_x, grad_value, grad_table


def _scaled(states: Tensor, factors: Tensor) -> Tensor:
    """States [K, B, N, F] times a coefficient each."""
    return apply(Times, states, factors.view(-1, 1, 1, 1))


def _mixed(factors: Tensor, states: Tensor) -> Tensor:
    """The sums of states [K, B, N, F] by rows [I, K] of coefficients."""
    return torch.stack([_scaled(states, row).sum(0) for row in factors])


def _products(one: Tensor, other: Tensor) -> Tensor:
    """The inner products of [I, B, N, F] and [K, B, N, F], the second being gradients."""
    return torch.stack([apply(Times, each, other).sum((1, 2, 3)) for each in one])


def _tangent(
    x: Tensor,
    value: Tensor | None,
    value_t: Tensor | None,
    table: Tensor | None,
    table_t: Tensor | None,
    plan: Plan,
) -> Tensor:
    """The tangent of the outputs along the entries and the table.

    It follows the same recurrence, into which every step puts what the step itself changes.
    """
    table = plan.coefficients(table)
    inputs, num_steps = len(x), table.size(1) - 1
    z = _states(x, value, table, plan)
    u = z[:-1] if plan.reverse else plan.drop(z[:-1])
    factors = table.to(x)
    change = torch.zeros_like(factors) if table_t is None else table_t.to(x)
    put = torch.zeros_like(u)
    if value_t is not None:
        moved = apply(SparseProduct, value_t, u.flatten(0, 1), plan.pattern).view_as(u)
        put = put + _scaled(moved, factors[A, 1:])
    if table_t is not None:
        entries = plan.operator.csr(plan.reverse).value if value is None else value
        moved = apply(SparseProduct, entries, u.flatten(0, 1), plan.pattern).view_as(u)
        put = put + _scaled(moved, change[A, 1:]) + _scaled(u, change[D, 1:])
    if plan.reverse:
        put = plan.drop(put)
    put = torch.cat([torch.zeros_like(x[:1]), put])
    put = put + _mixed(change[INPUTS : INPUTS + inputs].t(), x)
    two = _scaled(z[:-2], change[B, 2:])
    put = torch.cat([put[:2], put[2:] + two])
    each = torch.eye(num_steps + 1, dtype=table.dtype, device=table.device)
    along = torch.cat([table[:INPUTS], each, table[INPUTS + inputs :]])
    out = _with_table(put, value, along, plan)
    return out + _mixed(change[INPUTS + inputs :], z)


def _clamped(x: Tensor, value: Tensor | None, table: Tensor | None, plan: Plan) -> Tensor:
    """Step by step, for a clamp is not linear; keeps every state."""
    pattern, table = plan.pattern, plan.coefficients(table)
    entries = plan.operator.value if value is None else value
    masks = reference.Masks(x[0], plan.threshold, plan.seeds.tolist(), table.size(1) - 1)
    learned = is_differentiated(table)
    return reference.run(
        x,
        lambda z: apply(SparseProduct, entries, z, pattern),
        table if learned else table.tolist(),
        masks,
        plan.reverse,
        plan.bounds,
    )
