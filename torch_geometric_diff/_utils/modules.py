"""What a part of a model computes: its class's function alone, or what somebody made of it."""

from typing import Any

from torch.nn import Module
from torch.nn.modules import module as torch_module

_CALL_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
_CALLS = ("forward", "_call_impl", "_slow_forward")


def is_untouched(module: Any, *types: type[Module]) -> bool:
    """Whether a call of a module is the ``forward`` of one of these classes and nothing else.

    It is not if the module is of a subclass (a parametrized module is), has or lies under hooks
    that calls run, has a ``forward`` of its own, or if its class was patched. Whoever takes the
    weights of a module instead of calling it asks this first.
    """
    if type(module) not in types or torch_module._has_any_global_hook():
        return False
    own = module.__dict__
    if any(map(own.__getitem__, _CALL_HOOKS)) or any(name in own for name in _CALLS):
        return False
    home = type(module)
    return getattr(home.forward, "__module__", None) == home.__module__
