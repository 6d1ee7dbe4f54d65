"""One line that speeds up existing models."""

from dataclasses import dataclass, field

import torch
from torch.nn import Module
from torch_geometric.nn.conv import MessagePassing

from .. import nn
from ._layers import Left, become


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
    if not isinstance(model, Module):
        raise TypeError(f"Expected 'model' to be a torch.nn.Module (got {type(model).__name__})")
    for name, module in model.named_modules():
        what = _frozen(module)
        if what is not None and any(map(_passes_messages, module.modules())):
            raise ValueError(
                "Expected 'model' to be neither scripted nor compiled where it has graph layers "
                f"(got a {what} {type(module).__name__}{f' in {name!r}' if name else ''}); "
                "accelerate it before that"
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
    return report


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
