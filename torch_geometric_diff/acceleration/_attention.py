"""GATConv and GATv2Conv whose scores, softmax and sums are made by one kernel."""

import functools
import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.utils.parametrize import is_parametrized
from torch_geometric import EdgeIndex
from torch_geometric.nn.aggr import SumAggregation
from torch_geometric.nn.conv import GATConv, GATv2Conv, MessagePassing

from ..ops.attention import EdgeList, edge_attention
from ._graphs import entries_of, is_plain, once
from ._layers import KINDS, is_eager, is_matrix, is_observed, namespace_of, with_memory
from ._proof import Left

_METHODS = ("forward", "edge_update", "message", "aggregate", "update")


class _Scores(NamedTuple):
    """What stands for the weights of the edges between ``edge_updater`` and ``propagate``."""

    target: Tensor
    source: Tensor
    edges: EdgeList


def attention(layer: MessagePassing) -> type[MessagePassing] | None:
    """The class of a layer of PyG's attention; None for others.

    Raises:
        Left: If it has methods of its own.
    """
    cls = type(layer)
    kind = next((known for known in (GATConv, GATv2Conv) if issubclass(cls, known)), None)
    if kind is None:
        return None
    for name in _METHODS:
        if getattr(cls, name) is not getattr(kind, name) or name in vars(layer):
            raise Left(f"has a {name!r} of its own")
    for name in ("propagate", "edge_updater"):  # PyG writes one for every class
        known = {getattr(owner, name) for owner in (MessagePassing, kind)}
        if getattr(cls, f"_orig_{name}") not in known:
            raise Left(f"has a {name!r} of its own")
    if is_parametrized(layer):
        raise Left("is parametrized, which changes its class")
    if type(layer.aggr_module) is not SumAggregation:
        raise Left(f"aggregates by {layer.aggr!r}, not by sums")
    return _accelerated(cls, kind)  # type: ignore[arg-type]


@functools.cache
def _accelerated(cls: type[MessagePassing], kind: type) -> type[MessagePassing]:
    plain, updater, sums = cls.forward, cls.edge_updater, cls._jinja_propagate
    quick: Callable = with_memory(plain) or plain
    signature = inspect.signature(plain)

    @functools.wraps(plain)
    def forward(self: Any, *args: Any, **kwargs: Any) -> Any:
        given = signature.bind(self, *args, **kwargs).arguments
        if given.get("return_attention_weights") is None and is_eager():
            return quick(self, *args, **kwargs)
        layer = object.__new__(cls)  # with the same parts, and PyG's methods
        layer.__dict__.update(self.__dict__)
        return plain(layer, *args, **kwargs)

    @functools.wraps(updater)
    def edge_updater(self: Any, edge_index: Any, **given: Any) -> Any:
        ends = given["alpha"] if kind is GATConv else given["x"]
        scores = None if is_observed(self, node_dim=0) else _scores(self, edge_index, ends, given)
        return updater(self, edge_index, **given) if scores is None else scores

    @functools.wraps(sums)
    def propagate(self: Any, edge_index: Any, *args: Any, **kwargs: Any) -> Tensor:
        scores = kwargs.get("alpha")
        if not isinstance(scores, _Scores):
            return sums(self, edge_index, *args, **kwargs)
        return edge_attention(
            *scores,
            value=kwargs["x"][0],
            score="additive" if kind is GATConv else "joint",
            weight=None if kind is GATConv else self.att[0],
            factor=self.negative_slope,
            dropout=self.dropout if self.training else 0.0,
        )

    namespace = namespace_of(cls, propagate)
    make: Any = type(cls)
    return make(
        cls.__name__, (cls,), namespace | {"forward": forward, "edge_updater": edge_updater}
    )


def _scores(layer: Any, edge_index: Any, ends: Any, given: dict[str, Any]) -> _Scores | None:
    """What the kernel takes; None for what PyG has to do."""
    source, target = ends
    if given.get("edge_attr") is not None or given.get("size") is not None:
        return None
    edge_index = _edges(layer, edge_index)
    if edge_index is None or target is None:
        return None
    if source.shape != target.shape or source.numel() == 0:
        return None
    if layer.flow != "source_to_target" or (layer.training and layer.dropout >= 1):
        return None
    if not source.is_floating_point() or source.device.type != "cpu":
        return None
    if target.dtype != source.dtype or torch.is_autocast_enabled("cpu"):
        return None  # PyG promotes each product
    nodes = source.size(0)
    edges = once(("attention", nodes), lambda: EdgeList(edge_index, nodes), edge_index)
    return _Scores(target, source, edges)


def _edges(layer: Any, graph: Any) -> Tensor | None:
    """The edges of a graph of any form, whose values nobody reads; None where it is no such one."""
    if is_matrix(graph):
        entries = entries_of(graph) if layer.lin_edge is None else None
        return None if entries is None else entries.edge_index
    if type(graph) is EdgeIndex:
        graph = graph.as_tensor()
    return graph if type(graph) is Tensor and is_plain(graph) and graph.dim() == 2 else None


KINDS.append(attention)
