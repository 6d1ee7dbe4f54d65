r"""Heat: diffusion for a time, exact to a tolerance.

With all eigenvalues of :math:`\mathbf{L}` within :math:`\rho` of :math:`c`, and
:math:`\mathbf{M} = (c \mathbf{I} - \mathbf{L}) / \rho`,

.. math::
    e^{-t \mathbf{L}} = e^{-t (c - \rho)} \sum_{k \ge 0} w_k(t \rho) \, f_k(\mathbf{M})

where :math:`f_k` are Chebyshev polynomials and :math:`w_k` scaled Bessel functions, or powers and
the probabilities of a Poisson variable. For weights that are not negative
:math:`c = \rho = \max_i d_i`, and :math:`\mathbf{M}` is a step that averages.
"""

import functools
import math
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.special import gammaln, ive, xlogy
from torch import Tensor
from torch.autograd import Function

from .._utils.checks import check_real
from .._utils.functorch import cacheable, tangents_of, uncompiled, unwrap
from ._matrix import SparseMatrix
from .functional import check_input, propagate
from .operator import DiffusionOperator, kind_of
from .recurrence import Recurrence

DENSE_NODES = 512  # up to which dense algebra serves long times
LONG = 64.0  # t rho from which on float32 loses more than a few of its last bits
MOST_DERIVATIVES = 4  # in the time: so many more terms keep them exact
LONGEST = {"chebyshev": 5e7, "powers": 1e6, "dense": 1e10}  # t rho: steps, or digits, run out


class Interval(NamedTuple):
    """Where the eigenvalues of a Laplacian lie."""

    center: float
    radius: float


@functools.partial(uncompiled, reason="the number of its steps depends on values")
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
    :math:`t \max_i d_i` steps, of which none can cancel another. Long times,
    :math:`t \max_i d_i > 64`, are computed in float64, and in dense algebra on up to 512 nodes.

    The number of steps depends on values: within ``torch.compile`` the graph breaks here, and
    ``fullgraph=True`` is refused.

    Args:
        x (Tensor): Node features. float16 and bfloat16 are computed in float32.
        operator (DiffusionOperator): The operator of the graph.
        t (float or Tensor, optional): The time :math:`t \ge 0`; a Tensor of one number may be
            learned, and differentiated up to four times. (default: :obj:`1.0`)
        tol (float, optional): A bound in :math:`(0, 1)` of the error that the truncated expansion
            makes, relative to the norm of a column (the largest entry of it where
            :math:`\mathbf{L}` is not symmetric). Rounding comes on top. (default: :obj:`1e-6`)

    Shapes:
        - **input:** features :math:`(N, F)` or batched :math:`(B, N, F)`
        - **output:** the shape and type of the input

    Raises:
        ValueError: If ``t`` is negative, not finite or so long that the expansion would take over
            a million steps, ``tol`` lies outside :math:`(0, 1)`, or ``x`` does not have :math:`N`
            rows.
        TypeError: If ``x`` is not a floating Tensor or ``operator`` no DiffusionOperator.

    Example:
        >>> operator = DiffusionOperator(torch.tensor([[0, 1], [1, 0]]), normalization=None)
        >>> heat(torch.tensor([[0.0], [2.0]]), operator, t=100.0)
        tensor([[1.],
                [1.]])
    """
    if not issubclass(kind_of(operator), DiffusionOperator):
        raise TypeError(
            f"Expected 'operator' to be a DiffusionOperator (got {type(operator).__name__})"
        )
    check_input(x, operator)
    if not isinstance(operator, DiffusionOperator):  # in parts
        return propagate(x, operator, heat_recurrence(operator, t, tol))
    tol, now, time = _check(t, tol)
    center, radius = interval = _interval(operator)
    if not operator.requires_grad and (radius == center == 0 or (now == 0 and time is None)):
        return propagate(x, operator, Recurrence(0))
    is_long = now * radius > LONG
    if is_long and operator.num_nodes <= DENSE_NODES and not operator.requires_grad:
        return _dense_heat(x, operator, interval, now, time)
    dtype = torch.float64 if is_long or x.dtype == torch.float64 else torch.float32
    matrix = _averaging(operator, interval, dtype)
    recurrence = _expansion(operator, interval, now, time, tol)
    return propagate(x.to(dtype), matrix, recurrence).to(x.dtype)


def heat_recurrence(operator: DiffusionOperator, t: float | Tensor, tol: float) -> Recurrence:
    """The recurrence of :func:`heat` for the operator itself."""
    check_digits(operator)
    tol, now, time = _check(t, tol)
    center, radius = interval = _interval(operator)
    if radius == 0:
        return Recurrence(0)
    # M = r P + (c / rho - r) I
    r = 1 / (radius * float(operator.step_size))
    return _expansion(operator, interval, now, time, tol, r, center / radius - r)


def check_digits(operator: DiffusionOperator) -> None:
    """Refuse an operator whose diagonal, close to 1, has lost the Laplacian."""
    least = 1e5 * torch.finfo(operator.dtype).eps * operator.gershgorin_step_size
    if operator.step_size < least < math.inf:
        raise ValueError(
            f"Expected an operator with a 'step_size' of at least {least:.3g}, as its entries in "
            f"{operator.dtype} tell too little of the Laplacian (got {operator.step_size:.3g})"
        )


def _check(t: float | Tensor, tol: float) -> tuple[float, float, Tensor | None]:
    """The tolerance, the time and, where it is a Tensor, the same in float64 on the CPU."""
    tol = check_real("tol", tol, lambda v: 0 < v < 1, "lie in (0, 1)")
    now, time = t, None
    if isinstance(t, Tensor):
        if t.numel() != 1 or not t.is_floating_point():
            raise ValueError(f"Expected 't' to be one floating number (got shape {list(t.shape)})")
        now = float(unwrap(t.detach()).max())  # under vmap the largest
        time = t.reshape(()).to("cpu", torch.float64)
    return tol, check_real("t", now, lambda v: 0 <= v < math.inf, "be at least 0 and finite"), time


def _interval(operator: DiffusionOperator) -> Interval:
    if operator.is_step:
        center = radius = operator._largest_degree
    else:
        center, radius = operator._derived("interval", lambda: _gershgorin(operator))
    # of learned weights that are all zero, any radius serves
    return Interval(center, radius if radius > 0 or not operator.requires_grad else 1.0)


def _gershgorin(operator: DiffusionOperator) -> Interval:
    """The interval of any entries."""
    laplacian = unwrap(operator.laplacian().detach())
    row, loop = operator.rows(), operator.rows() == operator.col
    zeros = laplacian.new_zeros(operator.num_nodes)
    diagonal = zeros.index_add(0, row, laplacian.masked_fill(~loop, 0))
    others = zeros.index_add(0, row, laplacian.masked_fill(loop, 0).abs())
    low, high = float((diagonal - others).min()), float((diagonal + others).max())
    if not operator.is_symmetric:
        high = 2 * float(diagonal.max()) - low  # the center is the largest entry of the diagonal
    return Interval((low + high) / 2, (high - low) / 2)


def _averaging(operator: DiffusionOperator, interval: Interval, dtype: torch.dtype) -> SparseMatrix:
    """The matrix M of the expansion."""

    def make() -> SparseMatrix:
        laplacian, (center, radius) = operator.laplacian(), interval
        diagonal = operator.pattern.diagonal.to(laplacian)
        value = ((center * diagonal - laplacian) / radius).to(dtype)
        return SparseMatrix.of_entries(operator.pattern, value, operator.reordered)

    if operator.requires_grad:
        return make()
    with cacheable():
        return operator._derived(f"averaging in {dtype}", make)


def _expansion(
    operator: DiffusionOperator,
    interval: Interval,
    now: float,
    time: Tensor | None,
    tol: float,
    a: float = 1.0,
    d: float = 0.0,
) -> Recurrence:
    """The expansion in M = a P + d I, P the matrix that the recurrence is run with."""
    center, radius = interval
    symmetric, rate = operator.is_symmetric, now * radius
    kind, expand = ("chebyshev", _bessel) if symmetric else ("powers", _poisson)
    _check_rate(rate, radius, kind)
    terms = expand(rate, _enough(rate, tol, symmetric))
    terms[1:] *= 2 if symmetric else 1
    tail = terms[::-1].cumsum()[::-1]  # what is lost if the sum ends before k
    # those that derivatives need are there always: values must not depend on what is learned
    steps = max(int(np.argmax(tail <= tol)) - 1, 0) + MOST_DERIVATIVES
    at = torch.tensor(now, dtype=torch.float64, device="cpu") if time is None else time
    w = _Coefficients.apply(at * radius, steps, expand, 0) * torch.exp((radius - center) * at)
    w = w / terms[: steps + 1].sum()  # so that constants stay
    if not symmetric:
        return Recurrence(steps, a=a, d=d, w=w)
    sizes = torch.full((steps + 1,), 2.0, dtype=torch.float64, device="cpu")
    sizes[0] = 1
    first, rest = min(steps, 1), max(steps - 1, 0)
    return Recurrence(
        steps,
        a=[a] * first + [2 * a] * rest,
        d=[d] * first + [2 * d] * rest,
        b=[0.0] * first + [-1.0] * rest,
        w=w * sizes,
    )


def _check_rate(rate: float, radius: float, kind: str) -> None:
    if rate > LONGEST[kind]:
        raise ValueError(
            f"Expected 't' to be at most {LONGEST[kind] / radius:.3g} on this graph, where the "
            f"expansion still has all its digits in a million steps (got {rate / radius:.6g})"
        )


def _dense_heat(
    x: Tensor, operator: DiffusionOperator, interval: Interval, now: float, time: Tensor | None
) -> Tensor:
    """Heat for long times on a small graph."""
    time = torch.tensor(now, device=x.device) if time is None else time
    if operator.is_symmetric:
        value, vector = operator._derived("spectrum", lambda: _spectrum(operator))
        y = vector @ ((-time.to(value) * value).exp().unsqueeze(1) * (vector.t() @ x.to(value)))
        return y.to(x.dtype)
    _check_rate(now * interval.radius, interval.radius, "dense")
    matrix = _dense_laplacian(operator)
    kernel = torch.linalg.matrix_exp(-time.to(matrix) * matrix)
    if operator.is_step:  # sums that are 1 in exact arithmetic
        kernel = kernel / kernel.sum(int(not operator._is_transposed), keepdim=True)
    return (kernel @ x.to(matrix)).to(x.dtype)


def _spectrum(operator: DiffusionOperator) -> tuple[Tensor, Tensor]:
    """The eigenvalues and eigenvectors; what rounding leaves of an eigenvalue of 0 is 0."""
    with cacheable():
        value, vector = torch.linalg.eigh(_dense_laplacian(operator))
        zero = value.abs() <= len(value) * torch.finfo(value.dtype).eps * value.abs().max()
        return value.masked_fill(zero, 0.0), vector


def _dense_laplacian(operator: DiffusionOperator) -> Tensor:
    return SparseMatrix.of_entries(operator.pattern, operator.laplacian()).to_dense()


def _enough(rate: float, tol: float, symmetric: bool) -> int:
    """More terms than an expansion needs: Bernstein's bound of what lies beyond."""
    digits = math.log(4 / tol)
    spread = digits / 3 + math.sqrt(digits**2 / 9 + 2 * rate * digits)
    return math.ceil(spread if symmetric else rate + spread) + 4


def _bessel(rate: float, steps: int) -> np.ndarray:
    """The scaled Bessel functions exp(-rate) I_k(rate), k = 0 ... steps."""
    return ive(np.arange(steps + 1), rate)


def _poisson(rate: float, steps: int) -> np.ndarray:
    """The probabilities of a Poisson variable, k = 0 ... steps."""
    k = np.arange(steps + 1)
    return np.exp(xlogy(k, rate) - rate - gammaln(k + 1))


class _Coefficients(Function):
    """The coefficients of an expansion of e^{-tL} as a function of the time."""

    @staticmethod
    def forward(rate: Tensor, steps: int, expand: Any, order: int) -> Tensor:
        return torch.from_numpy(expand(float(rate), steps))

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Tensor) -> None:
        rate, *ctx.settings = inputs
        ctx.save_for_backward(rate)
        ctx.save_for_forward(rate)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        (rate,) = ctx.saved_tensors
        return (grads[0] * _slope(rate, *ctx.settings)).sum(), None, None, None

    @staticmethod
    def vmap(info: Any, in_dims: Any, rate: Tensor, *settings: Any) -> Any:
        rates = rate.unbind(in_dims[0])
        return torch.stack([_Coefficients.apply(rate, *settings) for rate in rates]), 0

    @staticmethod
    def jvp(ctx: Any, rate_t: Tensor, *_: Any) -> Tensor:
        with tangents_of(ctx) as (rate,):
            return rate_t * _slope(rate, *ctx.settings)


def _slope(rate: Tensor, steps: int, expand: Any, order: int) -> Tensor:
    """The derivative of the coefficients, made of the same functions."""
    if order == MOST_DERIVATIVES:
        raise NotImplementedError(
            f"'heat' has no more than {MOST_DERIVATIVES} derivatives in the time"
        )
    w = _Coefficients.apply(rate, steps + 1, expand, order + 1)
    if expand is _bessel:
        return (torch.cat([w[1:2], w[:-2]]) + w[1:]) / 2 - w[:-1]
    return torch.cat([torch.zeros_like(w[:1]), w[:-2]]) - w[:-1]
