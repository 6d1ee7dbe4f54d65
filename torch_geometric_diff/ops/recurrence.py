r"""What K steps of a linear propagation compute, as plain data.

.. math::
    \mathbf{z}_0 = \mathbf{x}, \qquad
    \mathbf{z}_{k+1} = (a_k \mathbf{P} + d_k \mathbf{I}) (\mathbf{M}_k \odot \mathbf{z}_k)
    + b_k \mathbf{z}_{k-1} + c_k \mathbf{x}, \qquad
    \mathbf{y} = \sum_{k=0}^{K} w_k \mathbf{z}_k

The kernels see it as a *table* of float64 numbers of shape :math:`(3 + I + O, K + 1)` for :math:`I`
inputs and :math:`O` outputs. Column k makes :math:`\mathbf{z}_k`: rows a, d, b, then what each
input adds to :math:`\mathbf{z}_k` (:math:`\mathbf{z}_0` is made of inputs alone), then what each
output takes of it. Tables are closed under transposition, see :func:`transposed`, so the backward
pass of a recurrence is a recurrence.
"""

import functools
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from .._utils.checks import check_has_values, check_integer, check_real, is_finite
from .._utils.functorch import cacheable

LETTERS = "adbcw"  # of the coefficients, in the order of the rows of a table
A, D, B, INPUTS = 0, 1, 2, 3  # rows of a table; the inputs' start at the last

Coefficients = float | Sequence[float] | Tensor


def _cached(make: Callable[..., "Recurrence"]) -> Callable[..., "Recurrence"]:
    """Cache the recurrences that were asked for last, with their tables, by their numbers."""
    cached = functools.lru_cache(256, typed=True)(make)

    @functools.wraps(make)
    def recurrence(*settings: Any) -> "Recurrence":
        for number in settings:
            if isinstance(number, Tensor):
                return make(*settings)
        return (make if torch.compiler.is_compiling() else cached)(*settings)

    return recurrence


class Recurrence:
    r"""A linear recurrence of :math:`K` steps with a matrix :math:`\mathbf{P}`,

    .. math::
        \mathbf{z}_{k+1} = (a_k \mathbf{P} + d_k \mathbf{I}) (\mathbf{M}_k \odot \mathbf{z}_k)
        + b_k \mathbf{z}_{k-1} + c_k \mathbf{x}, \qquad
        \mathbf{y} = \sum_{k=0}^{K} w_k \mathbf{z}_k

    with :math:`\mathbf{z}_0 = \mathbf{x}` and :math:`\mathbf{z}_{-1} = \mathbf{0}`. Coefficients
    may be numbers, one for all steps, sequences, or Tensors, which may be learned. A recurrence
    cannot be changed: sequences become tuples.

    Args:
        num_steps (int): The number of steps :math:`K \ge 0`.
        a (float, sequence or Tensor, optional): :math:`a_k`, one number or :math:`K`.
            (default: :obj:`1.0`)
        b (float, sequence or Tensor, optional): :math:`b_k`. (default: :obj:`0.0`)
        c (float, sequence or Tensor, optional): :math:`c_k`. (default: :obj:`0.0`)
        d (float, sequence or Tensor, optional): :math:`d_k`. (default: :obj:`0.0`)
        w (sequence or Tensor, optional): The :math:`K + 1` weights :math:`w_k` of the result.
            (default: the last state)
        steps (sequence of int, optional): Instead of ``w``, the :math:`k` whose states
            :math:`\mathbf{z}_k` are returned, stacked in this order.

    Raises:
        TypeError: If ``num_steps`` or a step is no integer, or a coefficient is no number.
        ValueError: If ``num_steps`` is negative, a list of coefficients has the wrong length or is
            not finite, a step lies outside :math:`[0, K]`, or both ``w`` and ``steps`` are given.

    Example:
        >>> recurrence = Recurrence(2, a=0.9, c=0.1)  # two steps of personalized PageRank
        >>> recurrence.table()[0]
        tensor([0.0000, 0.9000, 0.9000], dtype=torch.float64)
    """

    num_steps: int
    a: Any
    b: Any
    c: Any
    d: Any
    w: Any
    steps: tuple[int, ...] | None
    _constant: "Table | None"

    _FIELDS = ("num_steps", "a", "b", "c", "d", "w", "steps", "_constant")

    def __init__(
        self,
        num_steps: int,
        a: Coefficients = 1.0,
        b: Coefficients = 0.0,
        c: Coefficients = 0.0,
        d: Coefficients = 0.0,
        w: Sequence[float] | Tensor | None = None,
        steps: Sequence[int] | None = None,
    ) -> None:
        num_steps = check_integer("num_steps", num_steps, 0)
        a, b, c, d, w = map(_unchanging, (a, b, c, d, w))
        for name, value in zip("abcd", (a, b, c, d), strict=True):
            _check_coefficients(name, value, num_steps)
        if w is not None and steps is not None:
            raise ValueError("Expected 'w' or 'steps' (got both)")
        if w is not None:
            _check_coefficients("w", w, num_steps + 1, scalar=False)
        if steps is not None:
            steps = tuple(check_integer("steps", k, 0) for k in steps)
            if not steps or max(steps) > num_steps:
                raise ValueError(
                    f"Expected 'steps' to lie in [0, {num_steps}], the steps of the recurrence "
                    f"(got {steps})"
                )
        values: tuple[Any, ...] = (num_steps, a, b, c, d, w, steps, None)
        for field, content in zip(self._FIELDS, values, strict=True):
            object.__setattr__(self, field, content)

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"A recurrence cannot be changed: make another for another '{name}'")

    def __delattr__(self, name: str) -> None:
        self.__setattr__(name, None)

    @property
    def learned(self) -> str:
        """The letters of the coefficients that may be learned."""
        return "".join(name for name in LETTERS if isinstance(getattr(self, name), Tensor))

    @property
    def is_learned(self) -> bool:
        """Whether a coefficient is a Tensor, which may require a gradient."""
        return bool(self.learned)

    @property
    def is_second_order(self) -> bool:
        """Whether a state may depend on the one before the last."""
        return not _is_zero(self.b)

    @property
    def has_own_states(self) -> bool:
        """Whether a node's state may depend on its earlier ones beside the matrix."""
        return not (_is_zero(self.b) and _is_zero(self.d))

    @property
    def is_power(self) -> bool:
        """Whether it is one or more plain steps."""
        last = self.w is None and self.steps is None and self.num_steps > 0
        unmixed = not self.has_own_states and _is_zero(self.c)
        return last and unmixed and not self.is_learned and self.a == 1

    @property
    def constant(self) -> "Table":
        """The table of coefficients that are not learned, made once."""
        if self._constant is None:
            with cacheable():
                object.__setattr__(self, "_constant", Table(self.table()))
        return self._constant  # type: ignore[return-value]

    def table(self) -> Tensor:
        """The coefficients as the kernels read them (see the module), float64 on the CPU."""
        steps = self.num_steps
        if self.steps is not None:
            weights = torch.zeros(len(self.steps), steps + 1, dtype=torch.float64, device="cpu")
            weights[torch.arange(len(self.steps), device="cpu"), list(self.steps)] = 1
        elif self.w is None:
            weights = torch.zeros(1, steps + 1, dtype=torch.float64, device="cpu")
            weights[0, -1] = 1
        else:
            weights = _row(self.w, steps + 1).unsqueeze(0)
        rows = [_row(c, steps) for c in (self.a, self.d, self.b, self.c)]
        first = torch.tensor([[0.0], [0.0], [0.0], [1.0]], dtype=torch.float64, device="cpu")
        return torch.cat([torch.cat([first, torch.stack(rows)], dim=1), weights])

    def rows(self) -> list[Any]:
        """The rows of the table, of numbers; those that are learned are Tensors."""
        states = range(self.num_steps + 1)
        if self.steps is not None:
            weights = [[float(k == step) for k in states] for step in self.steps]
        else:
            last = [float(k == self.num_steps) for k in states]
            weights = [last if self.w is None else self.w]
        return [*map(self._from_first, (self.a, self.d, self.b, self.c), (0, 0, 0, 1)), *weights]

    def _from_first(self, value: Any, first: float) -> Any:
        if isinstance(value, Tensor):
            return torch.cat([value.new_tensor([first]), value.expand(self.num_steps)])
        return [first, *(value if isinstance(value, Iterable) else [value] * self.num_steps)]

    @staticmethod
    @_cached
    def power(num_steps: int) -> "Recurrence":
        r""":math:`\mathbf{P}^K \mathbf{x}`: Euler diffusion, and SGC with the normalized adjacency
        (`"Simplifying Graph Convolutional Networks" <https://arxiv.org/abs/1902.07153>`_).
        """
        return Recurrence(num_steps)

    @staticmethod
    @_cached
    def ppr(num_steps: int, alpha: float | Tensor) -> "Recurrence":
        r"""Personalized PageRank, :math:`\mathbf{z}_{k+1} = (1 - \alpha) \mathbf{P} \mathbf{z}_k +
        \alpha \mathbf{x}` (APPNP, `"Predict then Propagate" <https://arxiv.org/abs/1810.05997>`_).
        """
        return Recurrence(num_steps, a=1 - alpha, c=alpha)

    @staticmethod
    @_cached
    def ssgc(num_steps: int, alpha: float | Tensor) -> "Recurrence":
        r"""The mean of the powers, :math:`\alpha \mathbf{x} + \frac{1 - \alpha}{K} \sum_{k=1}^K
        \mathbf{P}^k \mathbf{x}` (`"Simple Spectral Graph Convolution"
        <https://openreview.net/forum?id=CYO5T-YjWZV>`_).
        """
        steps = check_integer("num_steps", num_steps, 1)
        if isinstance(alpha, Tensor):
            rest = ((1 - alpha) / steps).expand(steps)
            return Recurrence(steps, w=torch.cat([alpha.reshape(1), rest]))
        return Recurrence(steps, w=[alpha, *[(1 - alpha) / steps] * steps])

    @staticmethod
    def states(steps: Sequence[int]) -> "Recurrence":
        r"""Several powers :math:`\mathbf{P}^k \mathbf{x}` in one pass (SIGN, `"Scalable Inception
        Graph Neural Networks" <https://arxiv.org/abs/2004.11198>`_).
        """
        return Recurrence(max(steps, default=0), steps=steps)


class Table:  # not a tuple: torch.func would look for Tensors inside
    """A constant table, with its transpose at hand."""

    def __init__(self, values: Tensor, inputs: int = 1) -> None:
        self.values = values
        self.inputs = inputs
        self._t: Table | None = None
        self._may_grow: bool | None = None

    @property
    def may_grow(self) -> bool:
        """See :func:`may_grow`."""
        if self._may_grow is None:
            with cacheable():
                self._may_grow = may_grow(self.values)
        return self._may_grow

    @property
    def t(self) -> "Table":
        """The table of the transpose, made once."""
        if self._t is None:
            with cacheable():
                values = transposed(self.values, self.inputs)
                self._t = Table(values, len(values) - INPUTS - self.inputs)
        return self._t


def may_grow(table: Tensor) -> bool:
    """Whether the states of a recurrence may be larger than what becomes of them: with coefficients
    of one sign, none above 1, they are not.
    """
    least, most = table.aminmax()
    return bool(least < 0) or bool(most > 1)


def transposed(table: Tensor, inputs: int) -> Tensor:
    """The table of the transpose, whose inputs are the outputs and the other way round.

    Run with the transposed matrix, and the masks in reverse order, it gives the gradient of the
    inputs.
    """
    back = table[:INPUTS].flip(1)
    head = [back[:B].roll(1, 1), back[B:].roll(2, 1)]  # a_{K+1-j}, d_{K+1-j} and b_{K+2-j}
    ends = table[INPUTS:].flip(1)
    return torch.cat([*head, ends[inputs:], ends[:inputs]])


def _unchanging(value: Any) -> Any:
    """Coefficients that nobody else can change; Tensors may be learned, and stay."""
    is_sequence = isinstance(value, Iterable) and not isinstance(value, (Tensor, str))
    return tuple(value) if is_sequence else value


def _is_zero(value: Coefficients) -> bool:
    """Whether coefficients are constant and vanish."""
    if isinstance(value, Tensor):
        return False
    return not any(value) if isinstance(value, Iterable) else value == 0


def _check_coefficients(name: str, value: Any, length: int, scalar: bool = True) -> None:
    if isinstance(value, Tensor):
        check_has_values(name, value)
        if not value.is_floating_point():
            raise TypeError(f"Expected '{name}' to hold floating numbers (got {value.dtype})")
        shapes = [(length,), ()] if scalar else [(length,)]
        if tuple(value.shape) not in shapes:
            raise ValueError(
                f"Expected '{name}' of shape [{length}] (got {list(value.shape)}), a coefficient "
                f"for every {'step' if scalar else 'state'}"
            )
        return
    if not isinstance(value, Iterable) or isinstance(value, str):
        if not scalar:
            raise TypeError(f"Expected '{name}' to be a sequence of numbers (got {value!r})")
        check_real(name, value, is_finite, "be finite")
        return
    numbers = [check_real(name, number, is_finite, "be finite") for number in value]
    if len(numbers) != length:
        raise ValueError(
            f"Expected '{name}' of length {length}, a coefficient for every "
            f"{'step' if scalar else 'state'} (got {len(numbers)})"
        )


def _row(value: Any, length: int) -> Tensor:
    if not isinstance(value, Tensor):
        value = torch.tensor(value, dtype=torch.float64, device="cpu")
    return value.to("cpu", torch.float64).expand(length)
