"""One line that speeds up existing models."""

from dataclasses import dataclass, field

import torch
from torch.nn import Module
from torch.nn.parameter import is_lazy
from torch_geometric.nn.conv import MessagePassing
from torch_geometric.nn.dense.linear import Linear

from .. import nn
from . import _attention  # noqa: F401  adds its kind of layers
from ._layers import Left, become

WIDE = 300  # columns of a linear map that takes longer than what follows


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
        model (torch.nn.Module): The model that was given.
        replaced (list): The layers whose propagation was replaced.
        left (list): The message passing layers that were left, each with the reason.
        offered (list): Wide linear maps before the first layer, each with what makes them faster
            where their input is sparse.

    Example:
        >>> import torch_geometric.nn as pyg
        >>> accelerate(pyg.SGConv(16, 4, K=2))
        1 layers replaced, 0 left
          (the model)  SGConv(16, 4, K=2)  replaced
    """

    model: Module
    replaced: list[Layer] = field(default_factory=list)
    left: list[Layer] = field(default_factory=list)
    offered: list[Layer] = field(default_factory=list)

    def __repr__(self) -> str:
        rows = [(x.name or "(the model)", x.was, "replaced") for x in self.replaced]
        rows += [(x.name or "(the model)", x.was, f"left: {x.why}") for x in self.left]
        rows += [(x.name or "(the model)", x.was, str(x.why)) for x in self.offered]
        sizes = [max((len(row[i]) for row in rows), default=0) for i in (0, 1)]
        lines = [f"{len(self.replaced)} layers replaced, {len(self.left)} left"]
        for name, was, what in rows:
            lines.append(f"  {name:{sizes[0]}}  {was:{sizes[1]}}  {what}")
        return "\n".join(lines)


def accelerate(model: Module) -> Acceleration:
    r"""Let every message passing layer sum its messages by one product with a sparse matrix,

    .. math::
        \sum_{j \in \mathcal{N}(i)} w_{ij} \, \mathbf{x}_j = (\mathbf{W} \mathbf{x})_i,

    wherever its messages are proved to be a neighbor times scalars of the edge, summed or averaged:
    layers of PyG, such as :class:`~torch_geometric.nn.GCNConv`,
    :class:`~torch_geometric.nn.SAGEConv` or :class:`~torch_geometric.nn.GINConv`, and those of
    anybody else. The steps of :class:`~torch_geometric.nn.APPNP`,
    :class:`~torch_geometric.nn.SGConv`, :class:`~torch_geometric.nn.SSGConv` and
    :class:`~torch_geometric.nn.LabelPropagation` run in one kernel, and so do scores, softmax and
    sums of :class:`~torch_geometric.nn.GATConv` and :class:`~torch_geometric.nn.GATv2Conv` without
    edge features (:func:`~torch_geometric_diff.ops.edge_attention`).

    Layers stay the objects that they are, of a class made of theirs: parameters, hooks, modes, the
    ``state_dict`` and all other methods are theirs. Results are equal up to rounding. What is made
    of a graph, such as its normalization, is made once and again when torch counts a change of its
    Tensors (not if memory is changed behind torch's back, through ``.data`` or NumPy). Under hooks
    on messages, explanations, ``torch.compile``, ``torch.jit`` and ``torch.func`` layers do what
    PyG does. Graphs may have any form that a layer takes: an ``edge_index``, an
    :class:`~torch_geometric.EdgeIndex`, a ``torch.sparse`` matrix or a ``SparseTensor``.

    Args:
        model (torch.nn.Module): The model; it is changed in place.

    Returns:
        Acceleration: What was replaced, what was left and why.

    Raises:
        TypeError: If ``model`` is no module.
        ValueError: If a part of it that has graph layers is scripted or compiled: accelerate it
            before that.

    Example:
        >>> import torch_geometric.nn as pyg
        >>> model = torch.nn.ModuleList([pyg.GCNConv(8, 3), pyg.GATConv(3, 2), pyg.EdgeConv(None)])
        >>> accelerate(model)
        2 layers replaced, 1 left
          0  GCNConv(8, 3)           replaced
          1  GATConv(3, 2, heads=1)  replaced
          2  EdgeConv(nn=None)       left: aggregates by 'max', not by sums or means
    """
    if not isinstance(model, Module):
        raise TypeError(f"Expected 'model' to be a torch.nn.Module (got {type(model).__name__})")
    for name, module in model.named_modules():
        what = _frozen(module)
        if what is not None and any(map(_passes_messages, module.modules())):
            raise ValueError(
                "Expected the graph layers of 'model' to be neither scripted nor compiled (got a "
                f"{what} {type(module).__name__}{f' in {name!r}' if name else ''}); accelerate it "
                "before that"
            )
    report = Acceleration(model)
    for name, module in model.named_modules():
        if isinstance(module, MessagePassing) and not _is_ours(module):
            try:
                become(module)
            except Left as why:
                report.left.append(Layer(name, _line(module), str(why)))
            else:
                report.replaced.append(Layer(name, _line(module)))
    if report.replaced:
        report.offered.extend(_wide(model))
    return report


def _wide(model: Module) -> list[Layer]:
    """The first linear map of a model, where it is so wide that it takes most of a step."""
    for name, module in model.named_modules():
        if type(module) in (torch.nn.Linear, Linear):
            if is_lazy(module.weight) or module.weight.size(1) < WIDE:
                break
            why = "if its input is mostly zeros, nn.sparse_linear.Linear.from_dense takes it sparse"
            return [Layer(name, _line(module), why)]
    return []


def _is_ours(module: MessagePassing) -> bool:
    return type(module).__module__.startswith(nn.__name__) or hasattr(module, "_plain_class")


def _passes_messages(module: Module) -> bool:
    scripted = isinstance(module, torch.jit.ScriptModule) and hasattr(module, "propagate")
    return scripted or isinstance(module, MessagePassing)


def _frozen(module: Module) -> str | None:
    if isinstance(module, torch.jit.ScriptModule):
        return "scripted"
    compiled = getattr(module, "_compiled_call_impl", None) is not None
    return "compiled" if compiled or hasattr(module, "_orig_mod") else None


def _line(module: Module) -> str:
    return " ".join(repr(module).split())
