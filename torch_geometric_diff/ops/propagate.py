r"""One differentiable call over a recurrence.

A recurrence is linear in its inputs, and its transpose is one too: the gradient of the inputs is
the same call with :math:`\mathbf{P}^{\top}`, which keeps nothing. What is learned, coefficients or
entries of :math:`\mathbf{P}`, gets its gradient from products of forward and backward states: fused
in the CPU kernel, or, where derivatives of derivatives are wanted, by calls that differentiate
again.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from ..graph.arguments import check_dropout, check_integer, check_real
from ..graph.untransformed import untransformed
from .derivatives import alive, apply, is_differentiated, tangents_of
from .kernels import cpu, kernel_for, reference
from .operator import CSR, SparseOperator
from .random import draw_seeds, dropout_threshold
from .recurrence import INPUTS, LETTERS, A, B, D, Recurrence, Table, transposed
from .sparse import Pattern, SampledProduct, SparseProduct, no_seeds

Bounds = tuple[float, float]
Needs = tuple[bool, bool, bool]


def propagate(
    x: Tensor,
    operator: SparseOperator,
    recurrence: Recurrence,
    *,
    dropout: float = 0.0,
    seed: int | Sequence[int] | None = None,
    training: bool = True,
    held: Tensor | None = None,
    bounds: Bounds | None = None,
) -> Tensor:
    r"""Run a linear recurrence of propagation steps over a graph,

    .. math::
        \mathbf{z}_{k+1} = (a_k \mathbf{P} + d_k \mathbf{I}) (\mathbf{M}_k \odot \mathbf{z}_k)
        + b_k \mathbf{z}_{k-1} + c_k \mathbf{x}, \qquad
        \mathbf{y} = \sum_{k=0}^{K} w_k \mathbf{z}_k

    from :math:`\mathbf{z}_0 = \mathbf{x}` (see :class:`Recurrence`), with :math:`\mathbf{M}_k` the
    dropout mask of step :math:`k`, of entries 0 and :math:`1 / (1 - p)`.

    All steps run in one kernel. With constant coefficients and a constant matrix nothing is kept
    for the backward pass: memory does not grow with :math:`K`. Where coefficients or entries of
    :math:`\mathbf{P}` are learned, ``x`` is kept, and the CPU kernel makes the states anew, a tile
    of columns at a time. Everything can be differentiated again, and by ``torch.func``.

    Args:
        x (Tensor): Node features. float16 and bfloat16 are computed in float32.
        operator (SparseOperator): The matrix :math:`\mathbf{P}`.
        recurrence (Recurrence): The coefficients.
        dropout (float, optional): The probability :math:`p \in [0, 1)` to drop a **feature** before
            each step, rounded to a multiple of 1/65536. (default: :obj:`0.0`)
        seed (int or sequence of int, optional): The seed of the masks; the same seed gives the same
            masks on every device. Of a batch, a seed for each element, or one number :math:`s` for
            :math:`s, s + 1, \ldots` modulo :math:`2^{63}`. (default: drawn from torch's CPU
            generator)
        training (bool, optional): Whether dropout applies. (default: :obj:`True`)
        held (Tensor, optional): Rows that keep the values of ``x`` in every state, such as known
            labels: a mask :math:`(N,)` or indices. (default: none)
        bounds (tuple of float, optional): Every state but the first is clamped to
            :obj:`(low, high)`. A gradient through bounds keeps every state. (default: none)

    Shapes:
        - **input:** features :math:`(N, F)` or batched :math:`(B, N, F)`
        - **output:** the shape and type of the input; with ``recurrence.steps``
          :math:`(S, N, F)` or :math:`(S, B, N, F)`

    Raises:
        ValueError: If ``x`` does not have :math:`N` rows, ``dropout`` lies outside :math:`[0, 1)`
            or goes with :math:`b_k \ne 0` or with ``held`` and :math:`d_k \ne 0`, ``seed`` lies
            outside :math:`[0, 2^{63})` or has another length than the batch, ``held`` names no row
            or goes with a learned matrix, ``bounds`` do not ascend, or ``x`` and ``operator`` are
            on different devices.
        TypeError: If ``x`` is not a floating Tensor, or an argument is of a wrong type.

    Example:
        >>> operator = SparseOperator.gcn_norm(torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]]))
        >>> propagate(torch.eye(3), operator, Recurrence.ppr(10, alpha=0.1)).shape
        torch.Size([3, 3])
    """
    _check(x, operator)
    threshold = dropout_threshold(check_dropout(dropout)) if training else 0
    bounds = _checked_bounds(bounds)
    dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
    batch = (x if x.dim() == 3 else x.unsqueeze(0)).to(dtype).unsqueeze(0)
    if operator.dtype != dtype:
        operator = operator.to(dtype)
    if threshold:
        _check_undropped(recurrence)
    table = recurrence.table() if recurrence.is_learned else None
    constant = None if recurrence.is_learned else recurrence.constant
    if held is not None:
        batch, operator = _hold(held, batch, operator)
        if table is not None:
            table = _held_table(table, threshold)
        if constant is not None:
            with untransformed():
                constant = Table(_held_table(constant.values, threshold), 2)
    if seed is None and threshold == 0:
        seeds = no_seeds(batch.size(1))
    else:
        with untransformed():
            seeds = make_seeds(seed, batch.size(1))
    plan = Plan(
        operator,
        seeds,
        threshold,
        constant,
        bounds,
        learned=LETTERS if held is not None else recurrence.learned,
    )
    out = _dispatch(batch, operator.value if operator.requires_grad else None, table, plan)
    out = out if x.dim() == 3 else out.squeeze(1)
    return (out if recurrence.steps is not None else out.squeeze(0)).to(x.dtype)


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
    """

    def __init__(
        self,
        operator: SparseOperator,
        seeds: Tensor,
        threshold: int,
        table: Table | None,
        bounds: Bounds | None = None,
        reverse: bool = False,
        copies: int = 1,
        learned: str = LETTERS,
    ) -> None:
        self.operator = operator
        self.seeds = seeds
        self.threshold = threshold
        self.table = table
        self.bounds = bounds
        self.reverse = reverse
        self.copies = copies
        self.learned = learned

    def but(self, **changes: Any) -> "Plan":
        """The plan with some of its fields changed."""
        other = Plan.__new__(Plan)
        other.__dict__.update(self.__dict__, **changes)
        return other

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
            return CSR(self.pattern.rowptr, self.pattern.col, value.contiguous()), None
        if self.operator.is_reordered and kernel_for(self.operator.device) is cpu:
            return self.operator.reordered_csr(self.reverse)
        return self.operator.csr(self.reverse), None

    def coefficients(self, table: Tensor | None) -> Tensor:
        """The table, learned or not."""
        return self.table.values if table is None else table  # type: ignore[union-attr]

    def run(self, x: Tensor, value: Tensor | None, table: Tensor | None) -> Tensor:
        """Call the kernel of the device."""
        csr, order = self.matrix(value)
        kernel: Any = kernel_for(x.device)
        seeds = self.seeds.repeat(self.copies) if self.copies > 1 else self.seeds
        coefficients = self.coefficients(table).contiguous()
        rest: Any = (coefficients, self.threshold, seeds, self.reverse, self.bounds)
        if kernel is cpu:
            return kernel.propagate(x.contiguous(), *csr, *rest, order)
        with torch.autocast(x.device.type, enabled=False):  # sums stay in full precision
            return kernel.propagate(x.contiguous(), *csr, *rest)

    def masks(self, x: Tensor, num_steps: int) -> Tensor:
        """The masks of steps 1 to K of a batch [I, B, N, F], stacked: [K, B, N, F]."""
        seeds = self.seeds.tolist() * self.copies
        masks = reference.Masks(x[0], self.threshold, seeds, num_steps)
        ones = torch.ones_like(x[0])
        each = torch.stack([masks(ones, k) for k in range(1, num_steps + 1)])
        return each.flip(0) if self.reverse else each


def _dispatch(x: Tensor, value: Tensor | None, table: Tensor | None, plan: Plan) -> Tensor:
    """[I, B, N, F] to [O, B, N, F], by the path that differentiates as is asked for."""
    if torch.compiler.is_compiling():
        return _compiled(x, value, table, plan)
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
            return apply(_Propagate, g, _turned(value, plan), back, plan.t()), None, None, None
        fused = kernel_for(x.device) is cpu and not plan.reverse
        if torch.is_grad_enabled() or not fused:
            return *_gradients(x, g, value, table, plan, needs), None
        (csr, order), (csr_t, _) = plan.matrix(value), plan.t().matrix(_turned(value, plan))
        return *cpu.gradients(
            x.contiguous(), g.contiguous(), csr, csr_t, plan.coefficients(table).contiguous(),
            plan.threshold, plan.seeds, (*needs[:2], plan.learned if needs[2] else ""), order,
        ), None  # fmt: skip

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


def _turned(value: Tensor | None, plan: Plan) -> Tensor | None:
    """Learned entries in the order of the transpose."""
    return None if value is None else value[plan.pattern.permutation]


def _with_table(x: Tensor, value: Tensor | None, table: Tensor, plan: Plan) -> Tensor:
    """The call with another table than the plan's, learned or not."""
    if is_differentiated(table):
        return apply(_Propagate, x, value, table, plan.but(table=None))
    return apply(_Propagate, x, value, None, plan.but(table=Table(table, len(x))))


def _states(x: Tensor, value: Tensor | None, table: Tensor, plan: Plan) -> Tensor:
    """All states z_0 ... z_K of a recurrence, [K + 1, B, N, F]."""
    each = torch.eye(table.size(1), dtype=table.dtype, device=table.device)
    return _with_table(x, value, torch.cat([table[: INPUTS + len(x)], each]), plan)


def _gradients(
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
    lam = _states(g, _turned(value, plan), back, plan.t()).flip(0)
    u, after = z[:-1], lam[1:]
    if plan.threshold and num_steps:
        masks = plan.masks(x, num_steps)
        u, after = (u, after * masks) if plan.reverse else (u * masks, after)
    grad_x = grad_value = grad_table = None
    if needs[0]:
        grad_x = torch.einsum("ik,kbnf->ibnf", factors[INPUTS : INPUTS + inputs], lam)
    if needs[1]:
        weighted = factors[A, 1:].view(-1, 1, 1, 1) * after
        grad_value = apply(SampledProduct, weighted.flatten(0, 1), u.flatten(0, 1), plan.pattern)
    if needs[2]:
        entries = plan.operator.csr(plan.reverse).value if value is None else value
        moved = apply(SparseProduct, entries, u.flatten(0, 1), plan.pattern).view_as(u)
        rows = [(after * moved).sum((1, 2, 3)), (after * u).sum((1, 2, 3))]
        rows.append((lam[2:] * z[:-2]).sum((1, 2, 3)))
        rows = [torch.nn.functional.pad(row, (num_steps + 1 - len(row), 0)) for row in rows]
        c = torch.einsum("ibnf,kbnf->ik", x, lam)
        w = torch.einsum("obnf,kbnf->ok", g, z)
        grad_table = torch.cat([torch.stack(rows), c, w]).to(table)
    return grad_x, grad_value, grad_table


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
    u, masks = z[:-1], None
    if plan.threshold and num_steps:
        masks = plan.masks(x, num_steps)
        u = u if plan.reverse else u * masks
    factors = table.to(x)
    change = torch.zeros_like(factors) if table_t is None else table_t.to(x)
    put = torch.zeros_like(u)
    if value_t is not None:
        moved = apply(SparseProduct, value_t, u.flatten(0, 1), plan.pattern).view_as(u)
        put = put + factors[A, 1:].view(-1, 1, 1, 1) * moved
    if table_t is not None:
        entries = plan.operator.csr(plan.reverse).value if value is None else value
        moved = apply(SparseProduct, entries, u.flatten(0, 1), plan.pattern).view_as(u)
        put = put + change[A, 1:].view(-1, 1, 1, 1) * moved + change[D, 1:].view(-1, 1, 1, 1) * u
    if plan.reverse and masks is not None:
        put = put * masks
    put = torch.cat([torch.zeros_like(x[:1]), put])
    put = put + torch.einsum("ik,ibnf->kbnf", change[INPUTS : INPUTS + inputs], x)
    two = change[B, 2:].view(-1, 1, 1, 1) * z[:-2]
    put = torch.cat([put[:2], put[2:] + two])
    each = torch.eye(num_steps + 1, dtype=table.dtype, device=table.device)
    along = torch.cat([table[:INPUTS], each, table[INPUTS + inputs :]])
    out = _with_table(put, value, along, plan)
    return out + torch.einsum("ok,kbnf->obnf", change[INPUTS + inputs :], z)


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


# Under torch.compile and torch.export the call is one node of the graph. ##########################


def _compiled(x: Tensor, value: Tensor | None, table: Tensor | None, plan: Plan) -> Tensor:
    table = plan.coefficients(table)
    csr, order = plan.matrix(value)
    csr_t, _ = plan.t().matrix(_turned(value, plan))
    permutation = None if value is None else plan.pattern.permutation
    return _op(
        x, *csr, *csr_t, permutation, order, table, plan.seeds, plan.threshold, plan.reverse,
        None if plan.bounds is None else list(plan.bounds),
    )  # fmt: skip


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
    bounds: Sequence[float] | None,
) -> Tensor:
    """The kernel of the device; the transpose rides along for the backward pass."""
    arguments = (x.contiguous(), rowptr, col, value, table, threshold, seeds, reverse)
    limits = None if bounds is None else (bounds[0], bounds[1])
    if order is not None:
        return cpu.propagate(*arguments, limits, order)
    with torch.autocast(x.device.type, enabled=False):
        return kernel_for(x.device).propagate(*arguments, limits)


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
    if kernel_for(x.device) is not cpu or reverse:
        raise NotImplementedError(
            f"Learned coefficients or weights are not compiled on {x.device}; run this layer "
            "outside of torch.compile"
        )
    grads = cpu.gradients(
        x.contiguous(), g.contiguous(), csr, csr_t, table.contiguous(), threshold, seeds,
        (True, permutation is not None, LETTERS), order,
    )  # fmt: skip
    dx, dvalue, dtable = (x.new_empty(0) if grad is None else grad for grad in grads)
    return dx, dvalue, dtable


@_gradients_op.register_fake
def _(x: Tensor, g: Tensor, *args: Any) -> tuple[Tensor, Tensor, Tensor]:
    value, permutation, table = args[2], args[6], args[8]
    grad_value = x.new_empty(0) if permutation is None else torch.empty_like(value)
    return torch.empty_like(x), grad_value, torch.empty_like(table)


def _setup_context(ctx: Any, inputs: Any, output: Tensor) -> None:
    x, *tensors, ctx.threshold, ctx.reverse, ctx.bounds = inputs
    ctx.learns = ctx.needs_input_grad[3] or ctx.needs_input_grad[9]
    ctx.inputs = len(x)
    ctx.save_for_backward(x if ctx.learns else None, *tensors)


def _backward(ctx: Any, g: Tensor) -> Any:
    if ctx.bounds is not None:
        raise NotImplementedError("A gradient through 'bounds' is not compiled")
    x, *csrs, permutation, order, table, seeds = ctx.saved_tensors
    grads: list[Any] = [None] * 14
    if ctx.learns:
        rest = (*csrs, permutation, order, table, seeds, ctx.threshold, ctx.reverse)
        grad_x, grad_value, grad_table = _gradients_op(x, g, *rest)
        grads[0], grads[9] = grad_x, grad_table
        grads[3] = None if permutation is None else grad_value
    else:
        back, turned = transposed(table, ctx.inputs), (*csrs[3:], *csrs[:3])
        grads[0] = _op(
            g, *turned, permutation, order, back, seeds, ctx.threshold, not ctx.reverse, None
        )
    return tuple(grads)


_op.register_autograd(_backward, setup_context=_setup_context)


# What is asked of the arguments. ##################################################################


def make_seeds(seed: int | Sequence[int] | None, count: int) -> Tensor:
    """A seed for each element of a batch, as a Tensor, which torch.compile need not read."""
    if seed is None:
        return draw_seeds(count)
    if isinstance(seed, Sequence):
        each = [check_integer("seed", number, 0) for number in seed]
        if len(each) != count:
            raise ValueError(
                f"Expected 'seed' to be one number or {count}, one for each element of the batch "
                f"(got {len(each)})"
            )
    else:
        first = check_integer("seed", seed, 0)
        each = [first, *((first + i) & (2**63 - 1) for i in range(1, count))]
    if max(each, default=0) >= 2**63:
        raise ValueError(f"Expected 'seed' to lie in [0, 2^63) (got {max(each)})")
    return torch.tensor(each, dtype=torch.long, device="cpu")


def check_features(x: Any) -> None:
    """Refuse node features that are no dense floating Tensor of 2 or 3 dimensions."""
    if not isinstance(x, Tensor) or not x.is_floating_point():
        got = x.dtype if isinstance(x, Tensor) else type(x).__name__
        raise TypeError(f"Expected 'x' to be a floating Tensor (got {got})")
    if x.layout != torch.strided:
        raise TypeError(f"Expected 'x' to be a dense Tensor (got layout {x.layout})")
    if x.dim() not in (2, 3):
        raise ValueError(f"Expected 'x' of shape [N, F] or [B, N, F] (got {list(x.shape)})")


def _check(x: Tensor, operator: SparseOperator) -> None:
    check_features(x)
    if not isinstance(operator, SparseOperator):
        raise TypeError(
            f"Expected 'operator' to be a SparseOperator (got {type(operator).__name__})"
        )
    if x.size(-2) != operator.num_nodes:
        raise ValueError(
            f"Expected 'x' of shape [{operator.num_nodes}, F] or [B, {operator.num_nodes}, F], "
            f"one row a node of the graph (got {list(x.shape)})"
        )
    if x.device != operator.device:
        raise ValueError(
            f"Expected 'x' and 'operator' on one device (got {x.device} and {operator.device})"
        )


def _checked_bounds(bounds: Bounds | None) -> Bounds | None:
    if bounds is None:
        return None
    if not isinstance(bounds, Sequence) or len(bounds) != 2:
        raise TypeError(f"Expected 'bounds' to be a pair of numbers (got {bounds!r})")
    low, high = (check_real("bounds", each, lambda v: v == v, "hold numbers") for each in bounds)
    if low > high:
        raise ValueError(f"Expected 'bounds' to ascend (got {bounds})")
    return low, high


def _check_undropped(recurrence: Recurrence) -> None:
    if recurrence.is_second_order:
        raise ValueError(
            "Expected 'dropout' to be 0 beside coefficients 'b': a state that is used two steps on "
            "would have to be kept without its mask"
        )


def _hold(held: Tensor, x: Tensor, operator: SparseOperator) -> tuple[Tensor, SparseOperator]:
    """Held rows as an input of their own: the matrix does not reach them, every step adds them."""
    if operator.requires_grad:
        raise ValueError(
            "Expected 'operator' to be constant beside 'held' rows (got a learned one)"
        )
    mask = row_mask("held", held, operator.num_nodes).to(x.device)
    free = (~mask).to(x.dtype).unsqueeze(1)
    return torch.cat([x * free, x * (1 - free)]), operator.without_rows(mask)


def _held_table(table: Tensor, threshold: int) -> Tensor:
    """The table with a second input, the held rows: what a step lacks of them it adds."""
    if threshold and bool(table[D].any()):
        raise ValueError("Expected 'dropout' to be 0 beside 'held' rows and coefficients 'd'")
    b = torch.nn.functional.pad(table[B, 2:], (min(2, table.size(1)), 0))
    keep = 1 - torch.nn.functional.pad(table[D, 1:], (1, 0)) - b
    return torch.cat([table[: INPUTS + 1], keep.unsqueeze(0), table[INPUTS + 1 :]])


def row_mask(name: str, rows: Tensor, num_nodes: int) -> Tensor:
    """A mask (N,) of rows that are given by a mask or by indices."""
    if not isinstance(rows, Tensor) or rows.dim() != 1 or rows.is_floating_point():
        got = f"{rows.dtype} of shape {list(rows.shape)}" if isinstance(rows, Tensor) else rows
        raise TypeError(f"Expected '{name}' to be a mask or indices of nodes (got {got})")
    if rows.dtype == torch.bool:
        if len(rows) != num_nodes:
            raise ValueError(f"Expected a mask '{name}' of {num_nodes} nodes (got {len(rows)})")
        return rows
    if rows.numel() and not 0 <= int(rows.min()) <= int(rows.max()) < num_nodes:
        raise ValueError(
            f"Expected the indices '{name}' to lie in [0, {num_nodes - 1}] (got "
            f"{int(rows.min())} to {int(rows.max())})"
        )
    mask = torch.zeros(num_nodes, dtype=torch.bool, device=rows.device)
    mask[rows] = True
    return mask
