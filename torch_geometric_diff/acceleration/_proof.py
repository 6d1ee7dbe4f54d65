"""Whether the messages of a class are products of a neighbor and scalars of the edge.

``message`` is called with symbols that know multiplication and views of one column, nothing else.
Its code may read nothing but its arguments: so whatever it does with symbols it does with Tensors.
"""

import dis
import inspect
from itertools import product
from types import FunctionType
from typing import Any, NamedTuple

import torch
from torch_geometric.nn.conv import MessagePassing

_METHODS = {"mul", "multiply", "view", "reshape", "unsqueeze"}
_COLUMN = ((-1, 1), ((-1, 1),), ([-1, 1],))  # arguments of a view of one column
CATCHES = {"SETUP_FINALLY", "SETUP_WITH", "PUSH_EXC_INFO", "BEFORE_WITH"}
# what `propagate` is made of, beside messages
_MACHINERY = "aggregate _check_input _set_size _lift _index_select _index_select_safe".split()

Weights = tuple[tuple[str, frozenset[int]], ...]


class Left(Exception):
    """Why a layer is left as it is."""


class Case(NamedTuple):
    """A message: the neighbor times scalars of the edge, each with the numbers of dimensions that
    it may have, and a number.
    """

    weights: Weights
    factor: float


class Messages(NamedTuple):
    """What messages are, in terms of the arguments of ``propagate``.

    Attributes:
        x (str): The features that are sent.
        scalars (tuple): The scalars of the edge that may be given.
        cases (dict): The message by which of them are.
    """

    x: str
    scalars: tuple[str, ...]
    cases: dict[tuple[str, ...], Case]


class _Symbol:
    """A product: of the neighbor or not, of scalars of the edge, and of a number."""

    def __init__(self, x: int, weights: Weights = (), factor: float = 1) -> None:
        self.x, self.weights, self.factor = x, weights, factor

    def __mul__(self, other: Any) -> "_Symbol":
        if isinstance(other, (int, float)) and not isinstance(other, bool):
            return _Symbol(self.x, self.weights, self.factor * other)
        if type(other) is not _Symbol:
            self._refuse()
        if self.x + other.x > 1:
            raise Left("its messages are not linear in the neighbor")
        weights = (*self.weights, *other.weights)
        return _Symbol(self.x + other.x, weights, self.factor * other.factor)

    __rmul__ = mul = multiply = __mul__

    def __neg__(self) -> "_Symbol":
        return self * -1

    def _column(self, *dims: int) -> "_Symbol":
        """A scalar of the edge seen as a column, which it may be if it has so many dimensions."""
        if self.x or len(self.weights) != 1 or self.weights[0][1] != {2}:
            raise Left("its messages change the shape of more than a weight")
        return _Symbol(0, ((self.weights[0][0], frozenset(dims)),), self.factor)

    def view(self, *shape: Any) -> "_Symbol":
        return self._column(1, 2) if shape in _COLUMN else self._refuse()

    reshape = view

    def unsqueeze(self, dim: Any) -> "_Symbol":
        return self._column(1) if dim in (1, -1) else self._refuse()

    def __getitem__(self, index: Any) -> "_Symbol":
        same = index in ((slice(None), None), (Ellipsis, None))
        return self._column(1) if same else self._refuse()

    def _refuse(self, *_: Any) -> Any:
        raise Left("its messages are more than a neighbor times scalars of the edge")

    @classmethod
    def __torch_function__(cls, function: Any, _: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function in (torch.mul, torch.multiply) and len(args) == 2 and not kwargs:
            return args[0] * args[1]
        raise Left(f"its messages use 'torch.{function.__name__}'")

    __bool__ = __len__ = __iter__ = __index__ = __float__ = __int__ = __eq__ = __ne__ = _refuse
    __lt__ = __le__ = __gt__ = __ge__ = __contains__ = __setitem__ = __imul__ = _refuse
    __add__ = __radd__ = __sub__ = __rsub__ = __truediv__ = __rtruediv__ = __pow__ = _refuse
    __call__ = __getattr__ = __matmul__ = __rmatmul__ = __abs__ = __mod__ = _refuse
    __hash__ = None  # type: ignore[assignment]


class _Layer(_Symbol):
    """The layer, of which a message may read nothing."""

    __mul__ = __rmul__ = view = reshape = unsqueeze = __getitem__ = _Symbol._refuse  # type: ignore


def messages_of(cls: type[MessagePassing]) -> Messages:
    """What the messages of a class are.

    Raises:
        Left: If they are not proved to be products of a neighbor and scalars of the edge, or are
            put together otherwise than PyG does it.
    """
    _check_machinery(cls)
    parameters = _parameters(cls, "message")
    sent = [name for name in parameters if name[-2:] in ("_i", "_j")]
    if len(sent) != 1 or sent[0][-2:] != "_j":
        raise Left("its messages are of more than one neighbor")
    special = sorted(MessagePassing.special_args & parameters.keys())
    if special:
        raise Left(f"its messages depend on {special[0]!r}")
    scalars = tuple(name for name in parameters if name != sent[0])
    cases = {}
    for given in product((True, False), repeat=min(len(scalars), 4)):
        used = tuple(name for name, there in zip(scalars, given, strict=True) if there)
        arguments = {name: _Symbol(0, ((name, frozenset({2})),)) for name in used}
        arguments |= {sent[0]: _Symbol(1)}
        try:
            out = cls.message(_Layer(0), **dict.fromkeys(scalars) | arguments)
        except (TypeError, AttributeError, AssertionError):
            if all(given):
                raise Left("its messages are more than products of Tensors") from None
            continue  # it needs what is not given here
        if type(out) is not _Symbol or out.x != 1:
            raise Left("its messages are not linear in the neighbor")
        cases[used] = Case(out.weights, out.factor)
    return Messages(sent[0][:-2], scalars, cases)


def _check_machinery(cls: type[MessagePassing]) -> None:
    for kind in cls.__mro__[: cls.__mro__.index(MessagePassing)]:
        known = vars(kind)
        made = known.get("_jinja_propagate")  # from PyG's template, for this class
        if "propagate" in known and (
            known["propagate"] is not made or made is known["_orig_propagate"]
        ):
            raise Left("has a 'propagate' of its own")
    for name in _MACHINERY:
        if getattr(cls, name) is not getattr(MessagePassing, name):
            raise Left(f"has a {name!r} of its own")
    if cls.update is not MessagePassing.update:
        symbol = _Symbol(1)
        if len(_parameters(cls, "update")) != 1 or cls.update(_Layer(0), symbol) is not symbol:
            raise Left("its 'update' changes the sums")


def _parameters(cls: type[MessagePassing], name: str) -> dict[str, inspect.Parameter]:
    """The parameters of a method, whose code reads nothing but them."""
    function = getattr(cls, name)
    if type(function) is not FunctionType:
        raise Left(f"its {name!r} is no plain function")
    code = function.__code__
    if inspect.isgeneratorfunction(function) or inspect.iscoroutinefunction(function):
        raise Left(f"its {name!r} is no plain function")
    for each in dis.get_instructions(code):
        if each.opname in CATCHES or inspect.iscode(each.argval):
            raise Left(f"its {name!r} is more than one expression")
        if "GLOBAL" in each.opname and not (
            each.argval == "torch" and function.__globals__.get("torch") is torch
        ):
            raise Left(f"its {name!r} uses {each.argval!r}")
    foreign = {*code.co_names} - _METHODS - {"torch"}
    foreign |= {*code.co_freevars}
    if foreign:
        raise Left(f"its {name!r} uses {min(foreign)!r}")
    _, *parameters = inspect.signature(function).parameters.values()
    for parameter in parameters:
        known = parameter.default is None or parameter.default is parameter.empty
        if parameter.kind is not parameter.POSITIONAL_OR_KEYWORD or not known:
            raise Left(f"its {name!r} has an argument {parameter.name!r} that may be anything")
    return {parameter.name: parameter for parameter in parameters}
