"""Linear maps before or behind a sum of messages, whichever sums fewer columns.

The two commute, so a layer of PyG runs its own code with the map moved to the other side.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
import torch_geometric.nn as pyg
from torch import Tensor
from torch.nn import Identity, Module, Parameter, Sequential
from torch.nn.parameter import is_lazy
from torch_geometric.nn.dense.linear import Linear

from .._utils.modules import is_untouched


def summed_columns(lin: Any, x: Any) -> tuple[int, int] | None:
    """How many columns are summed, in both passes, of the input of a linear map and of its output;
    None where these have to be what PyG's are, as somebody may look at them.
    """
    if type(x) not in (Tensor, Parameter) or x.layout != torch.strided:
        return None
    if not is_untouched(lin, Linear, torch.nn.Linear) or is_lazy(lin.weight):
        return None
    wide, with_grad = lin.weight.size(1) == x.size(-1), torch.is_grad_enabled()
    if not wide or lin.weight.dtype != x.dtype or torch.is_autocast_enabled(x.device.type):
        return None
    inputs = 1 + (with_grad and x.requires_grad)
    outputs = 1 + (with_grad and (x.requires_grad or lin.weight.requires_grad))
    return inputs * lin.weight.size(1), outputs * lin.weight.size(0)


class _Bias(Module):
    """What is left of a linear map whose product was taken before, and what follows it."""

    def __init__(self, bias: Tensor | None, rest: Sequential | None) -> None:
        super().__init__()
        self._rest = bias, rest

    def forward(self, x: Tensor) -> Tensor:
        bias, rest = self._rest
        x = x if bias is None else x + bias
        return x if rest is None else rest(x)


class _Behind(NamedTuple):
    """A linear map behind the sums, and whether it is also one of what a node has itself."""

    name: str
    is_of_both: bool = False


_BEHIND = {
    pyg.SAGEConv.forward: _Behind("lin_l"),
    pyg.GraphConv.forward: _Behind("lin_rel"),
    pyg.GINConv.forward: _Behind("nn", True),
}


def _changed(layer: Any, **modules: Module) -> Any:
    """The layer with other modules, for one call."""
    other = object.__new__(type(layer))
    other.__dict__.update(layer.__dict__, _modules={**layer._modules, **modules})
    return other


def exchanged(plain: Any, forward: Callable, is_observed: Callable[[Any], bool]) -> Callable | None:
    """A method equal to ``forward``, which does what PyG's ``plain`` does, with the linear map
    where that pays; None if it has none that is known.
    """
    place = _BEHIND.get(plain)

    def before(self: Any, x: Any, *args: Any, **kwargs: Any) -> Tensor:
        assert place is not None
        source, target = x if isinstance(x, (tuple, list)) and len(x) == 2 else (x, x)
        lin, rest = getattr(self, place.name), None
        if is_untouched(lin, Sequential) and len(lin):
            lin, rest = lin[0], lin[1:]
        columns = None if getattr(self, "project", False) else summed_columns(lin, source)
        if columns is None or columns[1] >= columns[0] or is_observed(self):
            return forward(self, x, *args, **kwargs)
        mapped = F.linear(source, lin.weight)
        if place.is_of_both and target is not None:
            target = mapped if target is source else F.linear(target, lin.weight)
        other = _changed(self, **{place.name: _Bias(lin.bias, rest)})
        return forward(other, (mapped, target), *args, **kwargs)

    def behind(self: Any, x: Any, *args: Any, **kwargs: Any) -> Tensor:
        lin = self.lin
        columns = summed_columns(lin, x)
        if columns is None or columns[0] >= columns[1] or lin.bias is not None or is_observed(self):
            return forward(self, x, *args, **kwargs)
        other = _changed(self, lin=Identity())
        other._parameters = {**self._parameters, "bias": None}
        out = forward(other, x, *args, **kwargs)
        self._cached_edge_index, self._cached_adj_t = other._cached_edge_index, other._cached_adj_t
        bias = None if self.bias is None else self.bias.to(out.dtype)
        return F.linear(out, lin.weight.to(out.dtype), bias)  # float64, if weights of edges are

    if place is not None:
        return before
    return behind if plain is pyg.GCNConv.forward else None
