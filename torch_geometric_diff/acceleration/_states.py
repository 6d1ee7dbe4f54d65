"""Sums of steps that a layer of anybody takes, as one recurrence.

In the code of a layer whose steps only add up, ``propagate`` returns a :class:`State`, which knows
sums and multiples. Whoever asks for more gets the Tensor that it stands for.
"""

import dis
import inspect
import threading
from collections.abc import Callable
from types import FunctionType
from typing import Any

import torch
from torch import Tensor

from ..ops import Recurrence, propagate
from ..ops._matrix import SparseMatrix
from ._graphs import Graph
from ._proof import CATCHES

LOCAL = threading.local()
_BUILTINS = {"range", "len", "enumerate", "zip", "reversed", "int", "float"}
_KEEPS = {"append", "extend", "insert", "update", "setdefault", "add", "setattr"}
_STORES = {"STORE_ATTR", "STORE_GLOBAL", "STORE_DEREF", "IMPORT_NAME", *CATCHES}


class Chain:
    """Features, the matrix of the steps from them, and the states that somebody asked for."""

    def __init__(self, x: Tensor, graph: Graph, matrix: SparseMatrix) -> None:
        self.graph, self.matrix, self.known = graph, matrix, {0: x}

    def state(self, k: int) -> Tensor:
        """The state after k steps."""
        if k not in self.known:
            last = max(j for j in self.known if j < k)
            self.known[k] = propagate(self.known[last], self.matrix, Recurrence.power(k - last))
        return self.known[k]


def next_state(x: Tensor, graph: Graph, state: "State | None") -> Any:
    """The state after one more step; None if an index is out of range."""
    if state is not None:
        old, step = state.chain.graph, state.step
        same = old.edge_index is graph.edge_index and old.weight is graph.weight
        if step is not None and state.weights[step] == 1 and same and old[2:] == graph[2:]:
            return State(state.chain, {step + 1: 1.0})
        x = state.value()
    dtype = graph.dtype(x)
    if dtype != x.dtype or dtype not in (torch.float32, torch.float64):
        return graph.product(x)
    matrix = graph.matrix(dtype)
    return None if matrix is None else State(Chain(x, graph, matrix), {1: 1.0})


class State:
    """A sum of multiples of states, and a Tensor."""

    def __init__(self, chain: Chain, weights: dict[int, Any], rest: Tensor | None = None) -> None:
        self.chain, self.weights, self.rest = chain, weights, rest

    @property
    def step(self) -> int | None:
        """The number of steps, where it is one state."""
        (k, *more), (weight, *_) = self.weights, self.weights.values()
        return k if not more and self.rest is None and type(weight) is float else None

    def value(self) -> Tensor:
        """The Tensor."""
        if self.step is not None and self.weights[self.step] == 1:
            return self.chain.state(self.step)
        x = self.chain.known[0]
        w: Any = [self.weights.get(k, 0.0) for k in range(max(self.weights) + 1)]
        if any(isinstance(each, Tensor) for each in w):
            w = torch.stack([torch.as_tensor(each, dtype=x.dtype, device=x.device) for each in w])
        out = propagate(x, self.chain.matrix, Recurrence(len(w) - 1, w=w))
        return out if self.rest is None else self.rest + out

    def _times(self, factor: Any) -> Any:
        if isinstance(factor, Tensor):
            known = factor.numel() == 1 and factor.dim() <= 1
            if not known or factor.dtype != self.chain.known[0].dtype:
                return self.value() * factor
            factor = factor.reshape(())
        elif type(factor) not in (int, float):
            return self.value() * settled(factor)
        weights = {k: weight * factor for k, weight in self.weights.items()}
        return State(self.chain, weights, None if self.rest is None else self.rest * factor)

    def _plus(self, other: Any) -> Any:
        x, rest = self.chain.known[0], self.rest
        if isinstance(other, State) and other.chain is self.chain:
            weights = dict(self.weights)
            for k, weight in other.weights.items():
                weights[k] = weights[k] + weight if k in weights else weight
            both = rest if other.rest is None else other.rest if rest is None else rest + other.rest
            return State(self.chain, weights, both)
        if isinstance(other, Tensor) and other.shape == x.shape and other.dtype == x.dtype:
            return State(self.chain, self.weights, other if rest is None else rest + other)
        return self.value() + settled(other)

    __mul__ = __rmul__ = _times
    __add__ = __radd__ = _plus

    @classmethod
    def __torch_function__(cls, function: Any, _: Any, args: Any = (), kwargs: Any = None) -> Any:
        known = _SUMS.get(getattr(function, "__name__", ""))
        if known is not None and len(args) == 2 and not kwargs:
            one, other = args if isinstance(args[0], cls) else args[::-1]
            return known(one, other)
        return function(*settled(args), **settled(kwargs or {}))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.value(), name)


_SUMS: dict[str, Callable] = {"add": State._plus, "__add__": State._plus, "__radd__": State._plus}
_SUMS |= {"mul": State._times, "__mul__": State._times, "__rmul__": State._times}


def _of_the_value(name: str) -> Callable:
    def call(self: State, *args: Any) -> Any:
        return getattr(self.value(), name)(*settled(args))

    return call


for _name in (
    "sub rsub truediv rtruediv pow rpow matmul rmatmul neg pos abs getitem len iter bool float int "
    "eq ne lt le gt ge contains mod floordiv and or xor invert iadd isub imul itruediv"
).split():
    setattr(State, f"__{_name}__", _of_the_value(f"__{_name}__"))


def settled(out: Any) -> Any:
    """The Tensors behind all states in a result."""
    if isinstance(out, State):
        return out.value()
    if type(out) in (tuple, list):
        return type(out)(map(settled, out))
    return {k: settled(v) for k, v in out.items()} if type(out) is dict else out


def only_adds_up(function: Any, is_pure: Callable[[Any], bool]) -> bool:
    """Whether code can keep no state, nor tell it from a Tensor."""
    if type(function) is not FunctionType or hasattr(function, "__wrapped__"):
        return False
    for each in dis.get_instructions(function):
        if each.opname in _STORES or "YIELD" in each.opname or inspect.iscode(each.argval):
            return False
        if "GLOBAL" in each.opname:
            known = function.__globals__.get(each.argval)
            foreign = known is not None or each.argval not in _BUILTINS
            if foreign and known is not torch and not is_pure(known):
                return False
    return not _KEEPS & {*function.__code__.co_names} and not function.__code__.co_freevars


def in_states(forward: Callable, names: tuple[str, ...]) -> Callable:
    """The method with :class:`State` in the place of what ``propagate`` returns."""

    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        if any(name != "propagate" and callable(getattr(self, name, None)) for name in names):
            return forward(self, *args, **kwargs)  # which might look at a state
        LOCAL.layer = self
        try:
            return settled(forward(self, *args, **kwargs))
        finally:
            LOCAL.layer = None

    return call
