"""Linear propagation of features over a graph: any recurrence, and Euler steps of diffusion."""

from collections.abc import Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

from .._utils.checks import (
    check_dropout,
    check_has_values,
    check_indices,
    check_integer,
    check_real,
    row_mask,
)
from .._utils.functorch import (
    cacheable,
    is_differentiated,
    is_transformed,
    refuse_tracing,
    uncompiled,
)
from ._dispatch import Bounds, Plan
from ._library import run
from ._matrix import SparseMatrix
from ._random import dropout_threshold, make_seeds
from ._receptive_field import ReceptiveField
from ._sparse import no_seeds
from ._stepwise import propagate_by
from .kernels import cpu, kernel_for
from .partition import PartitionedOperator
from .recurrence import INPUTS, Recurrence, Table

Matrix = TypeVar("Matrix", SparseMatrix, PartitionedOperator)

WIDE = 16  # narrower tiles sort all rows by length, which is worth more than to leave out some


def propagate(
    x: Tensor,
    operator: SparseMatrix | PartitionedOperator,
    recurrence: Recurrence,
    *,
    dropout: float = 0.0,
    seed: int | Sequence[int] | None = None,
    training: bool = True,
    fixed: Tensor | None = None,
    bounds: Bounds | None = None,
    nodes: Tensor | None = None,
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
        x (Tensor): Node features, whose type decides: entries of float64 beside float32 features
            are rounded. float16 and bfloat16 are computed in float32.
        operator (SparseOperator or PartitionedOperator): The matrix :math:`\mathbf{P}`.
        recurrence (Recurrence): The coefficients.
        dropout (float, optional): The probability :math:`p \in [0, 1)` to drop a **feature** before
            each step, rounded to a multiple of 1/65536. (default: :obj:`0.0`)
        seed (int or sequence of int, optional): The seed of the masks; the same seed gives the same
            masks on every device. Of a batch, a seed for each element, or one number :math:`s` for
            :math:`s, s + 1, \ldots` modulo :math:`2^{63}`. (default: drawn from torch's CPU
            generator)
        training (bool, optional): Whether dropout applies. (default: :obj:`True`)
        fixed (Tensor, optional): Rows that keep the values of ``x`` in every state, such as known
            labels: a mask :math:`(N,)` or indices. Beside ``bounds`` they keep those values
            clamped, from the first state on. Beside a learned matrix, or coefficients ``b`` or
            ``d``, the steps run one by one. (default: none)
        bounds (tuple of float, optional): Every state but the first is clamped to
            :obj:`(low, high)`. A gradient through bounds keeps every state. (default: none)
        nodes (Tensor, optional): Indices :math:`(n,)` of the nodes whose rows of the result are
            wanted, such as those of a loss. Where the same are asked for again, the CPU kernel
            makes only what they depend on, forward and backward, if coefficients and matrix are
            constant and the recurrence is a power. (default: all)

    Shapes:
        - **input:** features :math:`(N, F)` or batched :math:`(B, N, F)`
        - **output:** the shape and type of the input; with ``recurrence.steps``
          :math:`(S, N, F)` or :math:`(S, B, N, F)`; with ``nodes``, :math:`n` in the place of
          :math:`N`

    Raises:
        ValueError: If ``x`` does not have :math:`N` rows, ``dropout`` lies outside :math:`[0, 1)`
            or goes with :math:`b_k \ne 0`, ``seed`` lies outside :math:`[0, 2^{63})` or has
            another length than the batch, ``fixed`` or ``nodes`` names no row, ``bounds`` do not
            ascend, or ``x`` and ``operator`` are on different devices.
        TypeError: If ``x`` is not a floating Tensor, or an argument is of a wrong type.

    Example:
        >>> operator = SparseOperator.gcn_norm(torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]]))
        >>> propagate(torch.eye(3), operator, Recurrence.ppr(10, 0.1)).shape
        torch.Size([3, 3])
    """
    if isinstance(operator, PartitionedOperator):
        settings: Any = {"dropout": dropout, "seed": seed, "training": training}
        settings |= {"fixed": fixed, "bounds": bounds, "nodes": nodes}
        return _in_parts(x, operator, recurrence, **settings)
    checked = _checked(x, operator, recurrence, dropout, training, fixed, bounds, nodes)
    threshold, bounds, fixed = checked
    dtype = _precision(x)
    batch = (x if x.dim() == 3 else x.unsqueeze(0)).to(dtype).unsqueeze(0)
    if operator.dtype != dtype:
        operator = operator.to(dtype)
    if _goes_stepwise(x, operator, recurrence, fixed, bounds):
        settings = {"dropout": dropout, "seed": seed, "training": training}

        def product(z: Tensor) -> Tensor:
            return propagate(z, operator, Recurrence.power(1))

        out = propagate_by(product, x, recurrence, **settings, fixed=fixed, bounds=bounds)
        return select(out, nodes)
    table = recurrence.table() if recurrence.is_learned else None
    constant = None if recurrence.is_learned else recurrence.constant
    if fixed is not None:
        batch, operator = _fix_rows(fixed, batch, operator, bounds)
        if table is not None:
            table = _with_fixed(table)
        if constant is not None:
            with cacheable():
                constant = Table(_with_fixed(constant.values), 2)
    nothing = seed is None and threshold == 0
    seeds = no_seeds(batch.size(1)) if nothing else make_seeds(seed, batch.size(1))
    field = None
    if nodes is not None and fixed is None and bounds is None and recurrence.is_power:
        field = _receptive_field(batch, operator, nodes, recurrence.num_steps)
    plan = Plan(operator, threshold, constant, bounds, recurrence.learned, field)
    out = run(batch, operator.value if operator.requires_grad else None, table, seeds, plan)
    out = out if x.dim() == 3 else out.squeeze(1)
    out = out if recurrence.steps is not None else out.squeeze(0)
    return (out if field is not None else select(out, nodes)).to(x.dtype)


def _propagate_in_parts(
    x: Tensor,
    operator: PartitionedOperator,
    recurrence: Recurrence,
    *,
    dropout: float,
    seed: int | Sequence[int] | None,
    training: bool,
    fixed: Tensor | None,
    bounds: Bounds | None,
    nodes: Tensor | None,
) -> Tensor:
    """:func:`propagate` on one rank of several: the transposed recurrence is the gradient where
    coefficients are constant, and nothing cuts off; else every state is kept.
    """
    seed = seed.tolist() if isinstance(seed, Tensor) else seed  # a layer drew it
    with operator.ranks.agreement() as facts:
        checked = _checked(x, operator, recurrence, dropout, training, fixed, bounds, nodes)
        threshold, bounds, fixed = checked
        facts |= {"columns of 'x'": (*x.shape[:-2], x.size(-1)), "dtype of 'x'": x.dtype}
        facts |= {"gradients of 'x'": is_differentiated(x), "dropout": threshold, "seed": seed}
        facts |= {"num_steps": recurrence.num_steps, "bounds": bounds}
        facts["coefficients"] = recurrence.table().tolist()
    operator = operator.to(_precision(x))
    batch = (x if x.dim() == 3 else x.unsqueeze(0)).to(operator.dtype)
    drawn = threshold or seed is not None
    seeds = operator.same_seeds(seed, len(batch)) if drawn else [0] * len(batch)
    learned = any(is_differentiated(getattr(recurrence, name)) for name in recurrence.learned)
    clamps = bounds is not None and is_differentiated(x)
    if learned or clamps or (fixed is not None and recurrence.has_own_states):
        out = propagate_by(
            operator.__matmul__,
            x,
            recurrence,
            dropout=dropout,
            seed=seeds,
            training=training,
            fixed=fixed,
            bounds=bounds,
            rows=operator.nodes,
        )
        return select(out, nodes)
    table = Table(recurrence.table().detach()) if recurrence.is_learned else recurrence.constant
    batch = batch.unsqueeze(0)
    if fixed is not None:
        batch, operator = _fix_rows(fixed, batch, operator, bounds)
        table = Table(_with_fixed(table.values), 2)
    out = operator.run(batch, table, seeds, threshold, bounds)
    out = out if x.dim() == 3 else out.squeeze(1)
    out = out if recurrence.steps is not None else out.squeeze(0)
    return select(out, nodes).to(x.dtype)


_in_parts = uncompiled(_propagate_in_parts, "its ranks exchange rows")


def diffuse(
    x: Tensor,
    operator: SparseMatrix | PartitionedOperator,
    num_steps: int,
    dropout: float = 0.0,
    seed: int | Sequence[int] | None = None,
    training: bool = True,
    nodes: Tensor | None = None,
) -> Tensor:
    r"""Diffuse features over a graph by :math:`K` explicit Euler steps,

    .. math::
        \mathbf{X} \leftarrow \mathbf{P} \, (\mathbf{M}_k \odot \mathbf{X}),
        \qquad k = 0, \ldots, K - 1,

    with :math:`\mathbf{P} = \mathbf{I} - h \mathbf{L}` and :math:`\mathbf{M}_k` the dropout mask of
    step :math:`k`, of entries 0 and :math:`1 / (1 - p)` (Algorithm 1 of `"Diffusion Mechanism in
    Residual Neural Network" <https://arxiv.org/abs/2105.03155>`_).

    The elements of a batch are diffused side by side, each as it would be alone, with masks of its
    own. With constant weights nothing is kept for the backward pass, with learned ones ``x`` alone:
    memory does not grow with :math:`K` (see :func:`propagate`).

    Args:
        x (Tensor): Node features. float16 and bfloat16 are computed in float32.
        operator (SparseOperator): The matrix :math:`\mathbf{P}`, most often a DiffusionOperator.
        num_steps (int): The number of steps :math:`K \ge 0`.
        dropout (float, optional): The probability :math:`p \in [0, 1)` to drop a **feature**
            before each step, rounded to a multiple of 1/65536. (default: :obj:`0.0`)
        seed (int or sequence of int, optional): The seed of the masks; the same seed gives the same
            masks on every device. Of a batch, a seed for each element, or one number :math:`s` for
            :math:`s, s + 1, \ldots` modulo :math:`2^{63}`. (default: drawn from torch's CPU
            generator)
        training (bool, optional): Whether dropout applies. (default: :obj:`True`)
        nodes (Tensor, optional): Indices :math:`(n,)` of the nodes whose rows are wanted (see
            :func:`propagate`). (default: all)

    Shapes:
        - **input:** features :math:`(N, F)` or batched :math:`(B, N, F)`
        - **output:** the shape and type of the input; with ``nodes``, :math:`n` in the place of
          :math:`N`

    Raises:
        ValueError: If ``x`` does not have :math:`N` rows, ``num_steps`` is negative, ``dropout``
            lies outside :math:`[0, 1)`, ``seed`` lies outside :math:`[0, 2^{63})` or has another
            length than the batch, ``nodes`` names no node, or ``x`` and ``operator`` are on
            different devices.
        TypeError: If ``x`` is not a floating Tensor or ``num_steps`` is not an integer.

    Example:
        >>> operator = DiffusionOperator(torch.tensor([[0, 1], [1, 0]]), normalization=None)
        >>> diffuse(torch.tensor([[0.0], [1.0]]), operator, num_steps=1)
        tensor([[0.2500],
                [0.7500]])
    """
    recurrence = Recurrence.power(check_integer("num_steps", num_steps, 0))
    drop: dict[str, Any] = {"dropout": dropout, "seed": seed, "training": training}
    return propagate(x, operator, recurrence, **drop, nodes=nodes)


def select(x: Tensor, nodes: Tensor | None) -> Tensor:
    """The rows of some nodes, all where None."""
    return x if nodes is None else x.index_select(-2, nodes)


def _receptive_field(
    x: Tensor, operator: SparseMatrix, nodes: Tensor, num_steps: int
) -> ReceptiveField | None:
    if torch.compiler.is_compiling() or kernel_for(x.device) is not cpu:
        return None
    if operator.requires_grad or x.size(-1) < WIDE or is_transformed(nodes):
        return None
    return operator.receptive_field(nodes, num_steps)


def check_features(x: Any) -> None:
    """Refuse node features that are no dense floating Tensor of 2 or 3 dimensions."""
    if not isinstance(x, Tensor) or not x.is_floating_point():
        got = x.dtype if isinstance(x, Tensor) else type(x).__name__
        raise TypeError(f"Expected 'x' to be a floating Tensor (got {got})")
    if x.layout != torch.strided:
        raise TypeError(f"Expected 'x' to be a dense Tensor (got layout {x.layout})")
    refuse_tracing("propagate")
    check_has_values("x", x)
    if x.dim() not in (2, 3):
        raise ValueError(f"Expected 'x' of shape [N, F] or [B, N, F] (got {list(x.shape)})")


def _precision(x: Tensor) -> torch.dtype:
    """The type in which ``x`` is propagated."""
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def _checked(
    x: Tensor,
    operator: SparseMatrix | PartitionedOperator,
    recurrence: Recurrence,
    dropout: float,
    training: bool,
    fixed: Tensor | None,
    bounds: Bounds | None,
    nodes: Tensor | None,
) -> tuple[int, Bounds | None, Tensor | None]:
    """The threshold of dropout, the bounds and the mask of fixed rows, once all is checked."""
    check_input(x, operator)
    threshold = dropout_threshold(check_dropout(dropout)) if training else 0
    bounds = _checked_bounds(bounds)
    if threshold:
        _check_undropped(recurrence)
    if nodes is not None:
        check_indices("nodes", nodes, operator.num_rows)
    if fixed is not None:
        fixed = row_mask("fixed", fixed, operator.num_rows).to(x.device)
    return threshold, bounds, fixed


def check_input(x: Tensor, operator: SparseMatrix | PartitionedOperator) -> None:
    """Refuse features that are not those of the nodes of an operator."""
    check_features(x)
    if not isinstance(operator, (SparseMatrix, PartitionedOperator)):
        raise TypeError(
            f"Expected 'operator' to be a SparseOperator (got {type(operator).__name__})"
        )
    rows = operator.num_rows
    if x.size(-2) != rows:
        of = "the graph" if isinstance(operator, SparseMatrix) else "this rank"
        raise ValueError(
            f"Expected 'x' of shape [{rows}, F] or [B, {rows}, F], one row a node of {of} "
            f"(got {list(x.shape)})"
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
    low, high = (check_real("bounds", bound, lambda v: v == v, "hold numbers") for bound in bounds)
    if low > high:
        raise ValueError(f"Expected 'bounds' to ascend (got {bounds})")
    return low, high


def _check_undropped(recurrence: Recurrence) -> None:
    if recurrence.is_second_order:
        raise ValueError(
            "Expected 'dropout' to be 0 beside coefficients 'b': a state that is used two steps on "
            "would have to be kept without its mask"
        )


def _goes_stepwise(
    x: Tensor,
    operator: SparseMatrix,
    recurrence: Recurrence,
    fixed: Tensor | None,
    bounds: Bounds | None,
) -> bool:
    """Whether a call is more than the kernels do in one go."""
    if fixed is not None and (operator.requires_grad or recurrence.has_own_states):
        return True
    if bounds is None or not torch.compiler.is_compiling():
        return False
    return is_differentiated(x) or operator.requires_grad or recurrence.is_learned


def _fix_rows(
    mask: Tensor, x: Tensor, operator: Matrix, bounds: Bounds | None
) -> tuple[Tensor, Matrix]:
    """Fixed rows as an input of their own: the matrix does not reach them, every step adds them."""
    rows = mask.unsqueeze(1)
    values = x if bounds is None else x.clamp(*bounds)  # or a step would be off by what it cut
    inputs = torch.cat([x.masked_fill(rows, 0), values.masked_fill(~rows, 0)])
    return inputs, operator.without_rows(mask)


def _with_fixed(table: Tensor) -> Tensor:
    """The table with a second input, the fixed rows, which every step adds."""
    ones = torch.ones_like(table[:1])
    return torch.cat([table[: INPUTS + 1], ones, table[INPUTS + 1 :]])
