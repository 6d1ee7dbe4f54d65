"""Heat: diffusion for a time, exact to a tolerance."""

import math
from typing import Any

import numpy as np
import torch
from scipy.special import gammaln, ive, xlogy
from torch import Tensor
from torch.autograd import Function

from .._utils.checks import check_real
from .._utils.functorch import plain, tangents_of
from .functional import propagate
from .operator import DiffusionOperator, kind_of
from .recurrence import Recurrence


def heat(
    x: Tensor, operator: DiffusionOperator, t: float | Tensor = 1.0, *, tol: float = 1e-6
) -> Tensor:
    r"""Diffuse features over a graph for a time :math:`t`, exact to a tolerance,

    .. math::
        \mathbf{Y} = e^{- t \mathbf{L}} \, \mathbf{X}

    with :math:`\mathbf{L} = (\mathbf{I} - \mathbf{P}) / h` the Laplacian of the operator, whatever
    its step size :math:`h`: any time is stable. A symmetric Laplacian is expanded in Chebyshev
    polynomials, about :math:`\sqrt{t \lambda_{\max} \log (1 / \mathrm{tol})}` steps in one kernel;
    one that is not in powers of a matrix that averages (uniformization), about
    :math:`t \max_i d_i` steps, of which none can cancel another.

    Args:
        x (Tensor): Node features. float16 and bfloat16 are computed in float32.
        operator (DiffusionOperator): The operator of the graph.
        t (float or Tensor, optional): The time :math:`t \ge 0`; a Tensor of one number may be
            learned. (default: :obj:`1.0`)
        tol (float, optional): A bound in :math:`(0, 1)` of the error that the truncated expansion
            makes, relative to the norm of a column (the largest entry of it where
            :math:`\mathbf{L}` is not symmetric). Rounding comes on top. (default: :obj:`1e-6`)

    Shapes:
        - **input:** features :math:`(N, F)` or batched :math:`(B, N, F)`
        - **output:** the shape and type of the input

    Raises:
        ValueError: If ``t`` is negative or not finite, ``tol`` lies outside :math:`(0, 1)`, or
            ``x`` does not have :math:`N` rows.
        TypeError: If ``x`` is not a floating Tensor or ``operator`` no DiffusionOperator.

    Example:
        >>> operator = DiffusionOperator(torch.tensor([[0, 1], [1, 0]]), normalization=None)
        >>> heat(torch.tensor([[0.0], [2.0]]), operator, t=100.0)
        tensor([[1.0000],
                [1.0000]])
    """
    if not issubclass(kind_of(operator), DiffusionOperator):
        raise TypeError(
            f"Expected 'operator' to be a DiffusionOperator (got {type(operator).__name__})"
        )
    return propagate(x, operator, heat_recurrence(operator, t, tol))


def heat_recurrence(operator: DiffusionOperator, t: float | Tensor, tol: float) -> Recurrence:
    """The recurrence behind :func:`heat`."""
    tol = check_real("tol", tol, lambda v: 0 < v < 1, "lie in (0, 1)")
    if isinstance(t, Tensor):
        if t.numel() != 1 or not t.is_floating_point():
            raise ValueError(f"Expected 't' to be one floating number (got shape {list(t.shape)})")
        if torch.compiler.is_compiling():
            raise NotImplementedError(
                "The number of steps depends on 't': a learned time is not compiled"
            )
        now = float(plain(t.detach()).max())  # under vmap the largest
        time: Any = t.reshape(()).to("cpu", torch.float64)
    else:
        now, time = t, None
    now = check_real("t", now, lambda v: 0 <= v < math.inf, "be at least 0 and finite")
    rate = 1 / operator.gershgorin_step_size  # the largest weighted degree
    step = float(operator.step_size)
    if rate == 0 or now == 0 and time is None:
        return Recurrence(0)
    scale = 1 / (rate * step)
    expand = _bessel if operator.is_symmetric else _poisson
    found = expand(now * rate, _enough(now * rate, tol))
    size = 2 if operator.is_symmetric else 1
    tail = size * found[::-1].cumsum()[::-1]  # what is lost if the sum ends before k
    steps = max(int(np.argmax(tail <= tol)) - 1, 0) + (time is not None)
    at = torch.tensor(now, dtype=torch.float64, device="cpu") if time is None else time
    w = _Expansion.apply(at * rate, steps, expand)
    if not operator.is_symmetric:
        return Recurrence(steps, a=scale, d=1 - scale, w=w)
    # S = L / rate - 1 has its eigenvalues in [-1, 1], and e^{-tL} = sum_k w_k T_k(S)
    signs = [1.0, *[2.0 * (-1) ** k for k in range(1, steps + 1)]]
    first, rest = min(steps, 1), max(steps - 1, 0)
    return Recurrence(
        steps,
        a=[-scale] * first + [-2 * scale] * rest,
        d=[scale - 1] * first + [2 * (scale - 1)] * rest,
        b=[0.0] * first + [-1.0] * rest,
        w=w * torch.tensor(signs, dtype=torch.float64, device="cpu"),
    )


def _enough(rate: float, tol: float) -> int:
    """More terms than an expansion needs."""
    digits = math.log(1 / tol)
    return math.ceil(rate + 8 * math.sqrt(rate * (digits + 1)) + 8 * digits) + 16


def _bessel(rate: float, steps: int) -> np.ndarray:
    """The scaled Bessel functions exp(-rate) I_k(rate), k = 0 ... steps."""
    return ive(np.arange(steps + 1), rate)


def _poisson(rate: float, steps: int) -> np.ndarray:
    """The probabilities of a Poisson variable, k = 0 ... steps."""
    k = np.arange(steps + 1)
    return np.exp(xlogy(k, rate) - rate - gammaln(k + 1))


class _Expansion(Function):
    """Coefficients of an expansion of e^{-tL} as a function of the time, any number of times."""

    @staticmethod
    def forward(rate: Tensor, steps: int, expand: Any) -> Tensor:
        return torch.from_numpy(expand(float(rate), steps))

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Tensor) -> None:
        rate, ctx.steps, ctx.expand = inputs
        ctx.save_for_backward(rate)
        ctx.save_for_forward(rate)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        (rate,) = ctx.saved_tensors
        return (grads[0] * _slope(rate, ctx.steps, ctx.expand)).sum(), None, None

    @staticmethod
    def vmap(info: Any, in_dims: Any, rate: Tensor, steps: int, expand: Any) -> Any:
        each = rate.unbind(in_dims[0])
        return torch.stack([_Expansion.apply(one, steps, expand) for one in each]), 0

    @staticmethod
    def jvp(ctx: Any, rate_t: Tensor, *_: Any) -> Tensor:
        with tangents_of(ctx) as (rate,):
            return rate_t * _slope(rate, ctx.steps, ctx.expand)


def _slope(rate: Tensor, steps: int, expand: Any) -> Tensor:
    """The derivative of the coefficients, made of the same functions."""
    w = _Expansion.apply(rate, steps + 1, expand)
    if expand is _bessel:
        return (torch.cat([w[1:2], w[:-2]]) + w[1:]) / 2 - w[:-1]
    return torch.cat([torch.zeros_like(w[:1]), w[:-2]]) - w[:-1]
