"""K steps of diffusion as one differentiable call."""

from collections.abc import Sequence
from types import ModuleType
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.autograd.function import once_differentiable

from .kernels import cpu, cuda, reference
from .operator import CSR, DiffusionOperator, SparseOperator
from .random import draw_seeds, dropout_scale, dropout_threshold, keep_mask

_KERNELS: dict[str, ModuleType] = {"cpu": cpu, "cuda": cuda, "reference": reference}


def kernels() -> dict[str, str | None]:
    """The kernels and why each cannot run: None for one that can.

    ``'cpu'`` (fused C++) and ``'cuda'`` (Triton) serve their device where they can run, and
    ``'reference'`` (plain torch) everything else.
    """
    return {name: kernel.available() for name, kernel in _KERNELS.items()}


def _kernel_for(device: torch.device) -> ModuleType:
    kernel = _KERNELS.get(device.type, reference)
    return kernel if kernel.available() is None else reference


@torch.library.custom_op("torch_geometric_diff::diffuse", mutates_args=())
def _diffuse(
    x: Tensor,
    rowptr: Tensor,
    col: Tensor,
    value: Tensor,
    rowptr_t: Tensor,
    col_t: Tensor,
    value_t: Tensor,
    order: Tensor | None,
    seeds: Tensor,
    num_steps: int,
    threshold: int,
    reverse: bool,
) -> Tensor:
    """All steps of a batch [B, N, F], a seed for each element, on the kernel of the device.

    The transpose rides along for the backward pass. With ``order``, row i of the matrices is row
    ``order[i]`` of the features: the CPU kernel's.
    """
    arguments = (x.contiguous(), rowptr, col, value, num_steps, threshold, seeds, reverse)
    if order is not None:
        return cpu.diffuse(*arguments, order)
    with torch.autocast(x.device.type, enabled=False):  # the accumulation stays in full precision
        return _kernel_for(x.device).diffuse(*arguments)


@_diffuse.register_fake
def _(x: Tensor, *args: object) -> Tensor:
    return torch.empty_like(x, memory_format=torch.contiguous_format)


def _setup_context(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
    _, *csr, order, seeds, ctx.num_steps, ctx.threshold, ctx.reverse = inputs
    ctx.save_for_backward(*csr, order, seeds)


def _backward(ctx, grad: Tensor):  # type: ignore[no-untyped-def]
    rowptr, col, value, rowptr_t, col_t, value_t, order, seeds = ctx.saved_tensors
    grad = _linear(
        grad,
        *(rowptr_t, col_t, value_t),
        *(rowptr, col, value),
        order,
        seeds,
        ctx.num_steps,
        ctx.threshold,
        not ctx.reverse,
    )
    return grad, *[None] * 11


_diffuse.register_autograd(_backward, setup_context=_setup_context)


def _linear(x: Tensor, rowptr: Tensor, col: Tensor, value: Tensor, *arguments: Any) -> Tensor:
    """Diffusion that forward-mode differentiation passes: linear, it carries tangents as features.

    A custom operator has no rule for that, and torch would take its tangent for zero.
    """
    arguments = (rowptr, col, value, *arguments)
    if torch.compiler.is_compiling():
        return _diffuse(x, *arguments)
    if forward_ad.unpack_dual(value).tangent is not None:
        raise NotImplementedError(
            "Forward-mode differentiation of diffusion by its weights or step size is not "
            "supported; use reverse mode"
        )
    primal, tangent = forward_ad.unpack_dual(x)
    out = _diffuse(primal, *arguments)
    return out if tangent is None else forward_ad.make_dual(out, _diffuse(tangent, *arguments))


def _product(csr: CSR, x: Tensor) -> Tensor:
    """One product of a matrix with a batch [B, N, F], which no gradient passes."""
    return _diffuse(x, *csr, *csr, None, _no_seeds(x.size(0)), 1, 0, False)


def _no_seeds(count: int) -> Tensor:
    return torch.zeros(count, dtype=torch.long)


class _WeightedStep(torch.autograd.Function):
    """One product P x that also differentiates the entries of P; keeps x."""

    @staticmethod
    def forward(ctx, x: Tensor, value: Tensor, operator: DiffusionOperator):  # type: ignore[no-untyped-def]
        ctx.operator = operator
        ctx.save_for_backward(x)
        return _product(operator.csr(), x)

    @staticmethod
    @once_differentiable  # its own gradient would miss that of the entries
    def backward(ctx, grad: Tensor):  # type: ignore[no-untyped-def]
        (x,) = ctx.saved_tensors
        grad_x = grad_value = None
        if ctx.needs_input_grad[0]:
            grad_x = _product(ctx.operator.csr(transpose=True), grad)
        if ctx.needs_input_grad[1]:
            grad_value = _sampled_product(grad, x, ctx.operator)
        return grad_x, grad_value, None


def _sampled_product(grad: Tensor, x: Tensor, operator: DiffusionOperator) -> Tensor:
    """(grad x^T) at the entries of the operator, columns in blocks so that memory stays small."""
    row, col = operator.rows(), operator.col
    total = grad.new_zeros(operator.nnz)
    for one_grad, one_x in zip(grad, x, strict=True):
        for start in range(0, x.size(-1), 32):
            block = slice(start, start + 32)
            total += (one_grad[:, block][row] * one_x[:, block][col]).sum(1)
    return total


def sparse_mm(matrix: Tensor, x: Tensor) -> Tensor:
    r"""The product of a constant ``torch.sparse`` CSR matrix and a dense one, several times as fast
    on the CPU as torch's own: columns are worked on in tiles that stay in cache.

    No gradient passes.

    Args:
        matrix (Tensor): The matrix, of the type of :obj:`x`.
        x (Tensor): The dense matrix, float32 or float64.

    Shapes:
        - **input:** :math:`(M, N)` and :math:`(N, F)`
        - **output:** :math:`(M, F)`

    Raises:
        ValueError: If ``x`` does not have one row for every column of ``matrix``.
        TypeError: If ``matrix`` is not of the type of ``x``.
    """
    if x.dim() != 2 or x.size(0) != matrix.size(1):
        raise ValueError(
            f"Expected 'x' of shape [{matrix.size(1)}, F], one row a column of 'matrix' "
            f"(got {list(x.shape)})"
        )
    if x.dtype != matrix.dtype:
        raise TypeError(
            f"Expected 'matrix' to be of type {x.dtype}, that of 'x' (got {matrix.dtype})"
        )
    if x.device.type != "cpu":  # torch's reduction of sparse products is for the CPU alone
        return matrix @ x
    if _kernel_for(x.device) is not cpu or x.dtype not in (torch.float32, torch.float64):
        return torch.sparse.mm(matrix, x.contiguous(), "sum")
    csr = (matrix.crow_indices(), matrix.col_indices(), matrix.values())
    batch = x.contiguous().unsqueeze(0)
    return cpu.diffuse(batch, *csr, 1, 0, _no_seeds(1), False).squeeze_(0)  # in place: no view


def diffuse(
    x: Tensor,
    operator: DiffusionOperator,
    num_steps: int,
    dropout: float = 0.0,
    seed: int | Sequence[int] | None = None,
    training: bool = True,
) -> Tensor:
    r"""Diffuse features over a graph by :math:`K` explicit Euler steps,

    .. math::
        \mathbf{X} \leftarrow \mathbf{P} \, (\mathbf{M}_k \odot \mathbf{X}),
        \qquad k = 0, \ldots, K - 1,

    with :math:`\mathbf{P} = \mathbf{I} - h \mathbf{L}` and :math:`\mathbf{M}_k` the dropout mask of
    step :math:`k`, of entries 0 and :math:`1 / (1 - p)` (Algorithm 1 of `"Diffusion Mechanism in
    Residual Neural Network" <https://arxiv.org/abs/2105.03155>`_).

    The elements of a batch are diffused side by side, each as it would be alone, with masks of its
    own. With constant weights nothing is kept for the backward pass: memory does not grow with
    :math:`K`. Weights or a step size that require gradients keep the features of every step,
    :math:`K \cdot N \cdot F` numbers.

    Args:
        x (Tensor): Node features. float16 and bfloat16 are computed in float32.
        operator (DiffusionOperator): The matrix :math:`\mathbf{P}`.
        num_steps (int): The number of steps :math:`K \ge 0`.
        dropout (float, optional): The probability :math:`p \in [0, 1)` to drop a **feature**
            before each step, rounded to a multiple of 1/65536. (default: :obj:`0.0`)
        seed (int or sequence of int, optional): The seed of the masks; the same seed gives the same
            masks on every device. Of a batch, a seed for each element, or one number :math:`s` for
            :math:`s, s + 1, \ldots` modulo :math:`2^{63}`. (default: drawn from torch's CPU
            generator)
        training (bool, optional): Whether dropout applies. (default: :obj:`True`)

    Shapes:
        - **input:** features :math:`(N, F)` or batched :math:`(B, N, F)`
        - **output:** the shape and type of the input

    Raises:
        ValueError: If ``x`` does not have :math:`N` rows, ``num_steps`` is negative, ``dropout``
            lies outside :math:`[0, 1)`, ``seed`` lies outside :math:`[0, 2^{63})` or has another
            length than the batch, or ``x`` and ``operator`` are on different devices.
        TypeError: If ``x`` is not a floating Tensor or ``num_steps`` is not an integer.
        NotImplementedError: In forward-mode differentiation by weights or the step size.
    """
    _check(x, operator, num_steps, dropout)
    threshold = dropout_threshold(dropout) if training else 0
    dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
    batch = x if x.dim() == 3 else x.unsqueeze(0)
    if seed is None and threshold == 0:
        seeds = _no_seeds(batch.size(0))
    else:
        seeds = _seeds(seed, batch.size(0))
    batch = batch.to(dtype)
    if operator.dtype != dtype:
        operator = operator.to(dtype)
    if operator.requires_grad:
        out = _diffuse_weighted(batch, operator, num_steps, threshold, seeds)
    else:
        csr, csr_t, order = operator.csr(), operator.csr(transpose=True), None
        if operator.is_reordered and _kernel_for(x.device) is cpu:
            (csr, order), (csr_t, _) = operator.reordered_csr(), operator.reordered_csr(True)
        out = _linear(batch, *csr, *csr_t, order, seeds, num_steps, threshold, False)
    return (out if x.dim() == 3 else out.squeeze(0)).to(x.dtype)


def _seeds(seed: int | Sequence[int] | None, count: int) -> Tensor:
    """A seed for each element of a batch, as a Tensor, which torch.compile need not read."""
    if seed is None:
        return draw_seeds(count)
    each = seed if isinstance(seed, Sequence) else [seed]
    for number in each:
        if not 0 <= number < 2**63:
            raise ValueError(f"Expected 'seed' to lie in [0, 2^63) (got {number})")
    seeds = torch.tensor(each)
    if not isinstance(seed, Sequence):
        return (seeds + torch.arange(count)) & (2**63 - 1)
    if len(seeds) != count:
        raise ValueError(
            f"Expected 'seed' to be one number or {count}, one for each element of the batch "
            f"(got {len(seeds)})"
        )
    return seeds


def _diffuse_weighted(
    x: Tensor, operator: DiffusionOperator, num_steps: int, threshold: int, seeds: Tensor
) -> Tensor:
    _, rows, columns = x.shape
    each = seeds.tolist() if threshold else []
    for step in range(num_steps):
        if threshold:
            keep = [keep_mask(seed, step, rows, columns, threshold, x.device) for seed in each]
            x = torch.where(torch.stack(keep), x * dropout_scale(threshold), 0)
        x = _WeightedStep.apply(x, operator.value, operator)
    return x


def _check(x: Tensor, operator: DiffusionOperator, num_steps: int, dropout: float) -> None:
    if not isinstance(x, Tensor) or not x.is_floating_point():
        got = x.dtype if isinstance(x, Tensor) else type(x).__name__
        raise TypeError(f"Expected 'x' to be a floating Tensor (got {got})")
    if not isinstance(operator, SparseOperator):
        raise TypeError(
            f"Expected 'operator' to be a DiffusionOperator (got {type(operator).__name__})"
        )
    if x.dim() not in (2, 3) or x.size(-2) != operator.num_nodes:
        raise ValueError(
            f"Expected 'x' of shape [{operator.num_nodes}, F] or [B, {operator.num_nodes}, F], "
            f"one row a node of the graph (got {list(x.shape)})"
        )
    if x.device != operator.device:
        raise ValueError(
            f"Expected 'x' and 'operator' on one device (got {x.device} and {operator.device})"
        )
    check_num_steps(num_steps)
    check_dropout(dropout)


def check_num_steps(num_steps: int) -> None:
    """Refuse a number of steps that is not a whole number from 0 on."""
    if isinstance(num_steps, bool) or not isinstance(num_steps, int):
        raise TypeError(f"Expected 'num_steps' to be an integer (got {num_steps!r})")
    if num_steps < 0:
        raise ValueError(f"Expected 'num_steps' to be at least 0 (got {num_steps})")


def check_dropout(dropout: float) -> None:
    """Refuse a drop probability outside [0, 1)."""
    if not 0 <= dropout < 1:
        raise ValueError(f"Expected 'dropout' to lie in [0, 1) (got {dropout})")
