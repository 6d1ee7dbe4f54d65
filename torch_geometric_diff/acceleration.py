"""One line that speeds up existing models."""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
import torch_geometric.nn as pyg
from torch.nn import Module
from torch_geometric.nn.conv import MessagePassing

from . import nn


@dataclass(frozen=True)
class Layer:
    """A layer that was looked at.

    Attributes:
        name (str): Where it is in the model; empty for the model itself.
        was (str): What it was.
        why (str, optional): Why it was left; none if it was replaced.
    """

    name: str
    was: str
    why: str | None = None


@dataclass(frozen=True, repr=False)
class Acceleration:
    """What :func:`accelerate` did.

    Attributes:
        model (torch.nn.Module): The model. It is the one that was given, unless that was itself a
            layer that was replaced.
        replaced (list): The layers that were replaced.
        left (list): The message passing layers that were left, each with the reason.

    Example:
        >>> import torch_geometric.nn as pyg
        >>> done = accelerate(pyg.SGConv(16, 4, K=2))
        >>> done
        1 layers replaced, 0 left
          (the model)  SGConv(16, 4, K=2)  replaced
        >>> type(done.model).__module__
        'torch_geometric_diff.nn.conv.sg_conv'
    """

    model: Module
    replaced: list[Layer] = field(default_factory=list)
    left: list[Layer] = field(default_factory=list)

    def __repr__(self) -> str:
        rows = [(x.name or "(the model)", x.was, "replaced") for x in self.replaced]
        rows += [(x.name or "(the model)", x.was, f"left: {x.why}") for x in self.left]
        sizes = [max((len(row[i]) for row in rows), default=0) for i in (0, 1)]
        lines = [f"{len(self.replaced)} layers replaced, {len(self.left)} left"]
        for name, was, what in rows:
            lines.append(f"  {name:{sizes[0]}}  {was:{sizes[1]}}  {what}")
        return "\n".join(lines)


def accelerate(model: Module) -> Acceleration:
    r"""Replace every layer of PyG that has a fast form here, in place.

    These are :class:`~torch_geometric.nn.APPNP`, :class:`~torch_geometric.nn.SGConv`,
    :class:`~torch_geometric.nn.SSGConv`, :class:`~torch_geometric.nn.LabelPropagation` and
    :class:`~torch_geometric.nn.CorrectAndSmooth`. Parameters stay the same objects, so that an
    optimizer goes on with them; modes, hooks, devices, attributes and the ``state_dict`` stay as
    they are. Results are equal up to rounding. What was cached is made anew at the next call, and
    afterwards another graph is an error.

    Layers stay as they are, and are named in the report, if they are of a subclass, have methods of
    their own, aggregate otherwise than by sums or along another dimension, or drop edges: PyG's
    APPNP drops in each step what the steps before have left, ours draws anew from all edges.

    Args:
        model (torch.nn.Module): The model.

    Returns:
        Acceleration: What was replaced, what was left and why, and the ``model``; if the model is
        itself such a layer, use that one.

    Raises:
        TypeError: If ``model`` is no module.
        ValueError: If it, or a part of it, is scripted or compiled: accelerate it before that.

    Example:
        >>> import torch_geometric.nn as pyg
        >>> model = torch.nn.ModuleList([pyg.SGConv(8, 3, K=2), pyg.GCNConv(3, 2)])
        >>> accelerate(model)
        1 layers replaced, 1 left
          0  SGConv(8, 3, K=2)  replaced
          1  GCNConv(3, 2)      left: has no fast form here
    """
    if not isinstance(model, Module):
        raise TypeError(f"Expected 'model' to be a torch.nn.Module (got {type(model).__name__})")
    for name, module in model.named_modules():
        what = _frozen(module)
        if what is not None:
            raise ValueError(
                "Expected 'model' to be neither scripted nor compiled (got a "
                f"{what} {type(module).__name__}{f' in {name!r}' if name else ''}); accelerate it "
                "before that"
            )
    replaced: list[Layer] = []
    left: list[Layer] = []
    made: dict[int, Module] = {}  # a layer may have several places

    def visit(name: str, module: Module) -> Module:
        if id(module) in made:
            return made[id(module)]
        made[id(module)] = module
        make = _MAKERS.get(type(module))
        why = _why_not(module)
        if make is not None and why is None:
            try:
                made[id(module)] = _moved(module, make(module))
            except (TypeError, ValueError) as error:
                why = str(error)
            else:
                replaced.append(Layer(name, _line(module)))
                return made[id(module)]
        if why is not None:
            left.append(Layer(name, _line(module), why))
        for key, child in module._modules.items():
            if child is not None:
                module._modules[key] = visit(f"{name}.{key}" if name else key, child)
        return module

    return Acceleration(visit("", model), replaced, left)


def _appnp(old: pyg.APPNP) -> Module:
    return nn.APPNP(
        old.K, old.alpha, 0.0, old.cached, old.add_self_loops, old.normalize, flow=old.flow
    )


def _sg_conv(old: pyg.SGConv) -> Module:
    return nn.SGConv(-1, old.out_channels, old.K, old.cached, old.add_self_loops, flow=old.flow)


def _ssg_conv(old: pyg.SSGConv) -> Module:
    return nn.SSGConv(
        -1, old.out_channels, old.alpha, old.K, old.cached, old.add_self_loops, flow=old.flow
    )


def _label_propagation(old: pyg.LabelPropagation) -> Module:
    return nn.LabelPropagation(old.num_layers, old.alpha)


def _correct_and_smooth(old: pyg.CorrectAndSmooth) -> Module:
    new = nn.CorrectAndSmooth(0, 0.0, 0, 0.0)
    for name in ("prop1", "prop2"):
        layer = getattr(old, name)
        why = "is no LabelPropagation of PyG" if type(layer) is not pyg.LabelPropagation else None
        why = why or _why_not(layer)
        if why is not None:
            raise ValueError(f"its part {name!r} {why}")
        setattr(new, name, _moved(layer, _label_propagation(layer)))
    return new


_MAKERS: dict[type, Callable] = {
    pyg.APPNP: _appnp,
    pyg.SGConv: _sg_conv,
    pyg.SSGConv: _ssg_conv,
    pyg.LabelPropagation: _label_propagation,
    pyg.CorrectAndSmooth: _correct_and_smooth,
}

# what a layer knows of its class, and what it has cached
_OWN = {
    "inspector", "_user_args", "_fused_user_args", "_edge_user_args", "fuse",
    "_cached_edge_index", "_cached_adj_t", "_cached_x", "_cached_h",
}  # fmt: skip

_METHODS = ("forward", "propagate", "message", "aggregate", "message_and_aggregate", "update")


def _moved(old: Module, new: Module) -> Module:
    """The new layer with everything that the old one holds: hooks keep their handles."""
    parts = {**old._modules, **(new._modules if isinstance(new, nn.CorrectAndSmooth) else {})}
    new.__dict__.update({key: x for key, x in old.__dict__.items() if key not in _OWN})
    new._modules = parts
    return new


def _why_not(module: Module) -> str | None:
    """Why a message passing layer stays as it is."""
    if type(module) not in _MAKERS:
        for known in _MAKERS:
            if isinstance(module, known):
                return f"is a subclass of {known.__name__}, which may compute something else"
        ours = type(module).__module__.startswith(nn.__name__)
        return "has no fast form here" if isinstance(module, MessagePassing) and not ours else None
    own = [name for name in _METHODS if name in vars(module)]
    if own:
        return f"has a {own[0]!r} of its own"
    if isinstance(module, MessagePassing):
        if module.aggr not in ("add", "sum"):
            return f"aggregates by {module.aggr!r}, not by sums"
        if module.node_dim != -2:
            return f"has 'node_dim' {module.node_dim}, not -2"
    if isinstance(module, pyg.APPNP) and module.dropout > 0:
        return "drops edges, each step what the steps before have left; ours draws anew from all"
    return None


def _frozen(module: Module) -> str | None:
    if isinstance(module, torch.jit.ScriptModule):
        return "scripted"
    compiled = getattr(module, "_compiled_call_impl", None) is not None
    return "compiled" if compiled or hasattr(module, "_orig_mod") else None


def _line(module: Module) -> str:
    return " ".join(repr(module).split())
