"""Seeds from a layer's own generator: the same ones where a checkpointed forward pass is run again.

``torch.utils.checkpoint`` restores torch's generators and knows of no other. It runs every region
within hooks on saved Tensors, which tell the first run from the second and the regions apart.
"""

import inspect
from collections import defaultdict
from typing import Any, Optional
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from ..._utils.functorch import cacheable
from ...ops._random import draw_seeds

# what the generators were like before each draw: seeds themselves may belong to a vmap that is over
Draws = dict[torch.Generator, list[Tensor]]

_drawn: "WeakKeyDictionary[Any, Draws]" = WeakKeyDictionary()  # by region, in its first run
_left: "WeakKeyDictionary[Any, Draws]" = WeakKeyDictionary()  # by run that follows


def draw_layer_seeds(count: int, generator: Optional[torch.Generator]) -> Tensor:
    """Seeds of ``count`` sequences of masks.

    Raises:
        RuntimeError: In a second run whose first one is not known.
    """
    if generator is None or torch.compiler.is_compiling():
        return draw_seeds(count, generator)
    region, rerun = _checkpoint()
    if rerun is not None:
        left = _left.setdefault(rerun, {})
        if generator not in left:
            left[generator] = list(_drawn.get(region, {}).get(generator, []))
        if left[generator]:
            return draw_seeds(count, _generator_in(left[generator].pop(0), generator))
    if torch._C._current_graph_task_id() != -1:
        raise RuntimeError(
            "A forward pass was run again within the backward pass, as by torch.utils.checkpoint, "
            "and the layer's own 'generator' would draw another mask; use 'use_reentrant=False', "
            "or no 'generator': torch's is restored"
        )
    if region is not None:
        _drawn.setdefault(region, defaultdict(list))[generator].append(_state_of(generator))
    return draw_seeds(count, generator)


def _state_of(generator: torch.Generator) -> Tensor:
    with cacheable():
        return generator.get_state()


def _generator_in(state: Tensor, generator: torch.Generator) -> torch.Generator:
    """A generator like another, in a state that that one once had."""
    with cacheable():
        return torch.Generator(generator.device).set_state(state)


def _checkpoint() -> tuple[Optional[Any], Optional[Any]]:
    """The region of torch.utils.checkpoint that runs, and what stands for a run after the first."""
    top = getattr(torch._C._autograd, "_top_saved_tensors_default_hooks", None)
    hooks = None if top is None else top(True)
    if hooks is None:
        return None, None
    pack = inspect.unwrap(hooks[0])
    if getattr(pack, "__module__", None) != torch.utils.checkpoint.__name__:
        return None, None
    names = inspect.getclosurevars(pack).nonlocals
    if "target_frame_ref" in names:
        return names["target_frame_ref"](), pack
    return names.get("frame"), None
