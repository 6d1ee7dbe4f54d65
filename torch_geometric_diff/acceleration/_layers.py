"""The class of an accelerated layer: that of the layer, with another way to sum its messages.

Everything else is inherited, and so is the way of summing wherever somebody may look at it: hooks
on messages, explanations, ``torch.compile``, ``torch.jit``, ``torch.func``.
"""

import contextlib
import dis
import functools
import re
from collections.abc import Callable
from types import FunctionType
from typing import Any

import torch
import torch.nn.modules.module as torch_module
import torch_geometric.utils as utils
from torch import Tensor
from torch.nn.utils.parametrize import is_parametrized
from torch_geometric import EdgeIndex
from torch_geometric.nn.aggr import MeanAggregation, SumAggregation
from torch_geometric.nn.conv import ChebConv, MessagePassing
from torch_geometric.nn.conv.gcn_conv import gcn_norm
from torch_geometric.typing import SparseTensor, torch_sparse

from ._exchange import exchanged
from ._graphs import Graph, entries_of, is_cheap, is_plain, memoized
from ._loops import FirstStep, in_one_recurrence, is_interrupted, is_product
from ._proof import Case, Left, Messages, messages_of
from ._states import LOCAL, State, in_states, next_state, only_adds_up, settled

_METHODS = ("message", "aggregate", "update")
_HOOKS = tuple(
    f"_{part}_forward_{when}"
    for part in ("propagate", "message", "aggregate", "message_and_aggregate", "edge_update")
    for when in ("pre_hooks", "hooks")
)
# functions of a graph alone, which change nothing
_PURE = {
    function: memoized(function)
    for function in (
        gcn_norm,
        utils.add_self_loops,
        utils.add_remaining_self_loops,
        utils.remove_self_loops,
        utils.degree,
        utils.get_laplacian,
    )
}


def _quick_product(plain: Callable) -> Callable:
    """PyG's, or torch_sparse's, product of a sparse matrix and a dense one by the kernel."""

    @functools.wraps(plain)
    def multiply(src: Any, other: Any, reduce: str = "sum") -> Any:
        other = settled(other)
        known = is_eager() and (plain is utils.spmm or isinstance(src, SparseTensor))
        graph = matrix_graph(src, other, reduce) if known else None
        out = None if graph is None else graph.product(other)
        return plain(src, other, reduce) if out is None else out

    return multiply


def matrix_graph(adj: Any, x: Any, reduce: str) -> Graph | None:
    """A sparse matrix whose product with ``x`` is asked for; None for what PyG has to do."""
    if type(x) not in (Tensor, torch.nn.Parameter) or reduce not in ("sum", "add", "mean"):
        return None
    if x.numel() == 0 or x.dtype not in (torch.float32, torch.float64):
        return None
    most = 3 if isinstance(adj, SparseTensor) else 2 if is_matrix(adj) else 0
    if not 2 <= x.dim() <= most:
        return None
    entries = None if torch.is_autocast_enabled(x.device.type) else entries_of(adj)
    if entries is None or entries.columns != x.size(-2) or entries.edge_index.device != x.device:
        return None
    if entries.weight is not None and entries.weight.dtype != x.dtype:
        return None
    if is_cheap(entries.edge_index, x.size(-1)):
        return None
    edge_index, weight, rows, columns = entries
    return Graph(edge_index, weight, "source_to_target", rows, columns, reduce == "mean")


def is_matrix(adj: Any) -> bool:
    """Whether a graph is a sparse matrix."""
    return isinstance(adj, SparseTensor) or (type(adj) is Tensor and adj.layout != torch.strided)


_PRODUCTS = {utils.spmm: _quick_product(utils.spmm)}
with contextlib.suppress(AttributeError):  # torch_sparse is not there
    _PRODUCTS[torch_sparse.matmul] = _quick_product(torch_sparse.matmul)
_QUICK = _PURE | _PRODUCTS


def is_eager() -> bool:
    """Whether code runs as it is written, on Tensors that hold their values."""
    return not (
        torch.compiler.is_compiling()
        or torch._C._is_tracing()
        or torch._C._are_functorch_transforms_active()
        or torch._C._len_torch_dispatch_stack()
    )


def is_observed(layer: MessagePassing, node_dim: int = -2) -> bool:
    """Whether somebody looks at single messages, or has changed what becomes of them."""
    known = layer.__dict__
    aggregation = layer.aggr_module
    return bool(
        known["_explain"]
        or known["_decomposed_layers"] != 1
        or known["node_dim"] != node_dim
        or any(known[name] for name in _HOOKS)
        or "message" in known
        or "aggregate" in known
        or "update" in known
        or "edge_update" in known
        or type(aggregation) not in (SumAggregation, MeanAggregation)
        or aggregation._forward_hooks
        or aggregation._forward_pre_hooks
        or aggregation._backward_hooks
        or aggregation._backward_pre_hooks
        or torch_module._has_any_global_hook()
    )


def as_edges(
    layer: Any, messages: Messages, graph: Any, given: dict[str, Any]
) -> tuple[Tensor, Tensor, dict[str, Any]] | None:
    """Edges, the features of their sources, and what is given beside them; None where PyG does
    something else with a graph of this form.
    """
    x = given.get(messages.x)
    first = x[0] if isinstance(x, (tuple, list)) and x else x
    if not isinstance(first, Tensor) or first.dim() < 2:
        return None
    if type(graph) is EdgeIndex:
        return graph.as_tensor(), first, {**given, "size": graph.sparse_size()}
    if type(graph) is Tensor and graph.layout == torch.strided:
        return graph, first, given
    if not is_matrix(graph) or layer.flow != "source_to_target" or "edge_type" in messages.scalars:
        return None
    if getattr(graph, "layout", None) == torch.sparse_csc:
        return None  # PyG lists no entries of it
    if layer.fuse and not (is_interrupted(layer) and is_product(layer._plain_class)):
        return None  # PyG calls a product of its own, which is a quick one here
    entries = entries_of(graph)
    if entries is None or (entries.weight is not None and entries.weight.dtype != first.dtype):
        return None
    edge_index, weight, rows, columns = entries
    given = {**given, "size": (columns, rows)}
    if "edge_weight" in messages.scalars and given.get("edge_weight") is None:
        given["edge_weight"] = weight
    return edge_index, first, given


def take_step(
    found: tuple[Tensor, Graph, float], state: State | None, interrupted: bool, adds_up: bool
) -> Any:
    """The sums of messages, or what stands for them in a layer whose steps are one recurrence."""
    x, graph, factor = found
    if factor == 1 and graph.rows == graph.columns:
        if interrupted:
            raise FirstStep(x, graph)
        if adds_up:
            return next_state(x, graph, state)
    out = graph.product(x if state is None else state.value())
    return out if out is None or factor == 1 else out * factor


def graph_of(
    layer: MessagePassing, messages: Messages, edge_index: Tensor, given: dict[str, Any]
) -> tuple[Tensor, Graph, float] | None:
    """The features, what their messages are summed over, and a factor; None where that is not what
    has been proved.
    """
    x, size, flow = given[messages.x], given.get("size"), layer.flow
    if edge_index.dim() != 2 or len(edge_index) != 2 or not is_plain(edge_index):
        return None
    sizes: list[Any] = [None, None] if size is None else [*size]
    source = 0 if flow == "source_to_target" else 1
    if isinstance(x, (tuple, list)):
        if len(x) != 2 or source:
            return None
        ends = [*x]
    else:
        ends = [None, None]
        ends[source] = x
    for side, end in enumerate(ends):
        if end is not None:
            if not _is_features(end) or sizes[side] not in (None, end.size(-2)):
                return None
            sizes[side] = end.size(-2)
    x = ends[source]
    if x is None or x.numel() == 0 or x.device != edge_index.device:
        return None
    case = messages.cases.get(tuple(n for n in messages.scalars if given.get(n) is not None))
    if case is None:
        return None
    weight = _weight(case, given, edge_index)
    if weight is None and case.weights:
        return None
    columns = sizes[source]
    rows = columns if sizes[1 - source] is None else sizes[1 - source]
    mean = type(layer.aggr_module) is MeanAggregation
    return x, Graph(edge_index, weight, flow, rows, columns, mean), case.factor


def _is_features(x: Any) -> bool:
    return (
        isinstance(x, Tensor)
        and type(x) in (Tensor, torch.nn.Parameter)
        and x.layout == torch.strided
        and x.is_floating_point()
        and x.dim() in (2, 3)
    )


def _weight(case: Case, given: dict[str, Any], edge_index: Tensor) -> Tensor | None:
    """The product of the scalars of the edge; None if they are none."""
    count, out = edge_index.size(1), None
    for name, dims in case.weights:
        weight = given[name]
        if not isinstance(weight, Tensor) or type(weight) not in (Tensor, torch.nn.Parameter):
            return None
        if weight.dim() not in dims or weight.numel() != count or weight.is_complex():
            return None
        if weight.layout != torch.strided or weight.device != edge_index.device:
            return None
        if weight.dim() == 2 and weight.size(1) != 1:
            return None
        out = weight if out is None else out.reshape(-1) * weight.reshape(-1)
    return out


@functools.cache
def accelerated(cls: type[MessagePassing]) -> type[MessagePassing]:
    """The class that sums the messages of ``cls`` as a product with a matrix.

    Raises:
        Left: If its messages do not allow that, with the reason.
    """
    messages = messages_of(cls)
    plain, message = cls._jinja_propagate, cls.message

    @functools.wraps(plain)
    def propagate(self: Any, edge_index: Any, *args: Any, **kwargs: Any) -> Tensor:
        out = None if args or not is_eager() else quick_sums(self, edge_index, kwargs)
        return plain(self, edge_index, *args, **settled(kwargs)) if out is None else out

    def quick_sums(self: Any, graph: Any, given: dict[str, Any]) -> Any:
        x = given.get(messages.x)
        state = x if type(x) is State else None
        if state is not None:  # of the features that it began with, to see the graph
            given = {**given, messages.x: state.chain.known[0]}
        edges = as_edges(self, messages, graph, given)
        if edges is None:
            return None
        edge_index, first, given = edges
        interrupted, adds_up = is_interrupted(self), getattr(LOCAL, "layer", None) is self
        if not (interrupted or adds_up) and is_cheap(edge_index, first.size(-1)):
            return None
        if cls.message is not message or is_observed(self) or not given.keys() <= known:
            return None
        found = graph_of(self, messages, edge_index, given)
        return None if found is None else take_step(found, state, interrupted, adds_up)

    known = {"size", messages.x, *messages.scalars}
    namespace = namespace_of(cls, propagate)
    products = with_memory(getattr(cls, "message_and_aggregate", None))
    if products is not None:
        namespace["message_and_aggregate"] = _eagerly(products, cls.message_and_aggregate)
    forward = _quick_forward(cls)
    if forward is not None:
        namespace["forward"] = _eagerly(forward, cls.forward)
    if issubclass(cls, ChebConv) and cls.__norm__ is ChebConv.__norm__:
        namespace["__norm__"] = _eagerly(memoized(cls.__norm__, skip=1), cls.__norm__)
    make: Any = type(cls)
    return make(cls.__name__, (cls,), namespace)


def _quick_forward(cls: type[MessagePassing]) -> Callable | None:
    """A forward that remembers, sums in one recurrence, adds states up, or moves its linear map."""
    forward = with_memory(cls.forward)
    forward = in_one_recurrence(cls.forward, forward) or forward
    if only_adds_up(cls.forward, _is_pure) and changes_nothing(cls.forward):
        forward = in_states(forward or cls.forward, cls.forward.__code__.co_names)
    return exchanged(cls.forward, forward or cls.forward, is_observed) or forward


def namespace_of(cls: type[MessagePassing], propagate: Callable) -> dict[str, Any]:
    """What a class made of ``cls`` defines, beside a way of its own to propagate."""
    return {
        "__module__": cls.__module__,
        "__qualname__": cls.__qualname__,
        "__doc__": cls.__doc__,
        "_plain_class": cls,
        "propagate": propagate,
        "_jinja_propagate": propagate,  # where PyG goes back to after an explanation
        "__reduce_ex__": _reduce,
        "__prepare_scriptable__": _plain_copy,
    }


def _eagerly(quick: Callable, plain: Callable) -> Callable:
    """A method that is another one where code runs as it is written."""

    @functools.wraps(plain)
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        return (quick if is_eager() else plain)(self, *args, **kwargs)

    return call


class _Globals(dict):
    """The globals of a function as they are now, but for some."""

    def __init__(self, others: dict[str, Any], outer: dict[str, Any]) -> None:
        super().__init__(others)
        self.outer = outer

    def __missing__(self, name: str) -> Any:
        return self.outer[name]


def with_memory(function: Any) -> Callable | None:
    """The method with functions of a graph that remember; None if it calls none of them, or, being
    no method of PyG, may change Tensors in place.
    """
    if type(function) is not FunctionType or hasattr(function, "__wrapped__"):
        return None
    outer = function.__globals__
    names = function.__code__.co_names
    others: dict[str, Any] = {x: _QUICK[outer[x]] for x in names if _is_pure(outer.get(x))}
    ours = function.__module__.startswith("torch_geometric.")
    if not others or not (ours or changes_nothing(function)):
        return None
    quick = FunctionType(
        function.__code__,
        _Globals(others, outer),
        function.__name__,
        function.__defaults__,
        function.__closure__,
    )
    quick.__kwdefaults__ = function.__kwdefaults__
    return quick


def _is_pure(function: Any) -> bool:
    return isinstance(function, FunctionType) and function in _QUICK


def changes_nothing(function: FunctionType) -> bool:
    """Whether code has no operation in place: ``x[i] = y``, ``x += y``, ``x.mul_(y)``."""
    for each in dis.get_instructions(function):
        if each.opname in ("STORE_SUBSCR", "DELETE_SUBSCR", "STORE_SLICE"):
            return False
        if "INPLACE" in each.opname or (each.opname == "BINARY_OP" and each.argrepr[-1:] == "="):
            return False
    names = function.__code__.co_names
    return not any(re.fullmatch(r"[a-z]\w*[a-z0-9]_|out|copy_to", name) for name in names)


def _reduce(self: Any, _: Any) -> Any:
    """As a layer of PyG that becomes this again, for copies and pickles."""
    state = {name: x for name, x in self.__dict__.items() if name != "propagate"}
    if self.explain:  # PyG sums itself
        state["propagate"] = self.__dict__["propagate"]
    return _Waiting, (), {**state, "_plain_class": self._plain_class}


class _Waiting:
    """A layer that waits for its state."""

    def __setstate__(self: Any, state: dict[str, Any]) -> None:
        self.__class__ = cls = state.pop("_plain_class")
        cls.__setstate__(self, state)
        with contextlib.suppress(Left):
            become(self)


def _plain_copy(self: Any) -> Any:
    """The layer of PyG, for TorchScript."""
    layer = self._plain_class.__new__(self._plain_class)
    layer.__dict__.update(self.__dict__)
    return layer


def become(layer: MessagePassing) -> None:
    """Accelerate a layer in place.

    Raises:
        Left: If that cannot be done, with the reason.
    """
    mine = vars(layer).get("propagate")
    known = type(layer)._jinja_propagate, type(layer)._orig_propagate
    if mine is not None and getattr(mine, "__func__", None) not in known:
        raise Left("has a 'propagate' of its own")
    reasons = []
    for kind in KINDS:
        try:
            new = kind(layer)
        except Left as why:
            reasons.append(why)
            continue
        if new is None:
            continue
        if mine is not None and not layer.explain:
            del layer.propagate  # as an explanation that has ended left it
        layer.__class__ = new
        return
    raise reasons[-1]


def linear(layer: MessagePassing) -> type[MessagePassing]:
    """The class of a layer whose sums of messages are a product with a matrix."""
    own = next((name for name in _METHODS if name in vars(layer)), None)
    if own is not None:
        raise Left(f"has a {own!r} of its own")
    if is_parametrized(layer):
        raise Left("is parametrized, which changes its class")
    if type(layer.aggr_module) not in (SumAggregation, MeanAggregation):
        raise Left(f"aggregates by {layer.aggr!r}, not by sums or means")
    if layer.node_dim != -2:
        raise Left(f"has 'node_dim' {layer.node_dim}, not -2")
    return accelerated(type(layer))  # type: ignore[arg-type]


# each returns the class that a layer becomes, none where it knows no such layer, or says why not
KINDS: list[Callable[[MessagePassing], type[MessagePassing] | None]] = [linear]
