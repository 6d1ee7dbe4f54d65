"""Layers of PyG whose steps are one recurrence.

PyG's own code prepares the graph and comes to its first step; there it is interrupted.
"""

import threading
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
import torch_geometric.nn as pyg
from torch import Tensor

from ..ops import Recurrence, propagate
from ._exchange import summed_columns
from ._graphs import Graph

_LOCAL = threading.local()


class FirstStep(BaseException):
    """The first step that a layer comes to; no error, so no handler of errors sees it."""

    def __init__(self, x: Tensor, graph: Graph) -> None:
        self.x, self.graph = x, graph


def is_interrupted(layer: Any) -> bool:
    """Whether the steps of a layer are taken otherwise."""
    return getattr(_LOCAL, "layer", None) is layer


def is_product(cls: Any) -> bool:
    """Whether a class multiplies a sparse matrix with the features, and does nothing else."""
    return cls.message_and_aggregate in _PRODUCTS


def in_one_recurrence(forward: Any, quick: Callable | None) -> Callable | None:
    """A method that takes all steps of ``forward`` at once; None if it is not one of PyG's that are
    known. Up to the first step it is ``quick``, which has equal results.
    """
    known, prepare = _LOOPS.get(forward), quick or forward
    if known is None:
        return None

    def call(self: Any, *args: Any, **kwargs: Any) -> Tensor:
        recurrence = known(self, *args, **kwargs)
        if recurrence is None:
            return prepare(self, *args, **kwargs)
        _LOCAL.layer = self
        try:
            return prepare(self, *args, **kwargs)
        except FirstStep as step:
            x, graph = step.x, step.graph
        finally:
            _LOCAL.layer = None
        out = _run(self, x, graph, recurrence)
        return prepare(self, *args, **kwargs) if out is None else out

    return call


def _run(layer: Any, x: Tensor, graph: Graph, recurrence: Recurrence) -> Tensor | None:
    dtype = graph.dtype(x)
    matrix = graph.matrix(torch.float64 if dtype == torch.float64 else torch.float32)
    if matrix is None:
        return None
    if isinstance(layer, pyg.LabelPropagation):
        with torch.no_grad():
            return propagate(x.to(dtype), matrix, recurrence, bounds=(0.0, 1.0))
    lin = getattr(layer, "lin", None)
    if lin is None:
        return propagate(x.to(dtype), matrix, recurrence)
    columns = summed_columns(lin, x)
    if columns is None or columns[1] >= columns[0]:
        return lin(propagate(x.to(dtype), matrix, recurrence))
    out = propagate(F.linear(x, lin.weight).to(dtype), matrix, recurrence)
    return out if lin.bias is None else out + lin.bias


def _appnp(layer: pyg.APPNP, *_: Any, **__: Any) -> Recurrence | None:
    drops = layer.dropout > 0 and layer.training  # of what the steps before have left
    if drops or not isinstance(layer.alpha, (int, float)):
        return None
    return Recurrence.ppr(layer.K, layer.alpha)


def _sg_conv(layer: pyg.SGConv, *_: Any, **__: Any) -> Recurrence | None:
    return None if layer.cached else Recurrence.power(layer.K)  # what is cached is made once


def _ssg_conv(layer: pyg.SSGConv, *_: Any, **__: Any) -> Recurrence | None:
    if layer.cached or not isinstance(layer.alpha, (int, float)):
        return None
    return Recurrence.ssgc(layer.K, layer.alpha)


def _label_propagation(
    layer: pyg.LabelPropagation,
    y: Any,
    edge_index: Any,
    mask: Any = None,
    edge_weight: Any = None,
    post_step: Any = None,
) -> Recurrence | None:
    if post_step is not None or not isinstance(layer.alpha, (int, float)):
        return None
    return Recurrence.ppr(layer.num_layers, 1 - layer.alpha)


_LOOPS: dict[Any, Callable] = {
    pyg.APPNP.forward: _appnp,
    pyg.SGConv.forward: _sg_conv,
    pyg.SSGConv.forward: _ssg_conv,
    pyg.LabelPropagation.forward: _label_propagation,
}
_PRODUCTS = {kind.message_and_aggregate for kind in (pyg.APPNP, pyg.SGConv, pyg.SSGConv)}
_PRODUCTS.add(pyg.LabelPropagation.message_and_aggregate)
