"""The Triton kernels: no atomics, and so the same result always, and dropout inside.

A call follows a :class:`~torch_geometric_diff.ops.kernels.plan.Plan`: a launch for the first state
and one for every step, or two where a matrix has long rows (the hubs of a power-law graph), whose
pieces are summed first. A second call finds all that it needs on the device: it sorts, copies and
reads nothing. The mask of the *next* step is applied when a row is written, so once per node and
not once per edge. All elements of a batch are worked on in the same launch.
"""

import functools
import threading
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..._utils.functorch import in_memory
from .._random import dropout_scale
from ..recurrence import INPUTS
from .plan import MANY, WARP, How, Layout, Launch, Plan, Rows, any_shape, rows_of, shape_of

# no overflow checks under TRITON_DEBUG: the hash means to wrap
OPTIONS = {"enable_fp_fusion": True, "sanitize_overflow": False}
# warps of a program and threads across a tile, 16 bytes each, that are tried at the first call
TILES = ((4, 8), (4, 16), (2, 8), (8, 8), (4, 32))
L2 = 40 << 20  # bytes of cache where no device tells
GRAPHS: bool | None = None  # whether calls are replayed as CUDA graphs; None: where L2 fits states
Bounds = tuple[float, float]


@functools.cache
def available() -> str | None:
    """Why this kernel cannot run, or None: it needs Triton and a GPU.

    Without a GPU Triton's interpreter serves, slowly, if ``TRITON_INTERPRET=1`` was in the
    environment before anything imported Triton.
    """
    try:
        from . import triton_code as code
    except ImportError as error:
        return f"triton cannot be imported ({error})"
    if torch.cuda.is_available() or not isinstance(code.advance, code.triton.JITFunction):
        return None
    return "torch finds no GPU (and Triton was imported without TRITON_INTERPRET=1)"


class Numbers:
    """A table as plans and kernels take it: what it leaves out, and its numbers on the device.

    A table on the CPU is read, one on the GPU is not: it may leave out anything.
    """

    def __init__(
        self, table: Tensor, x: Tensor, inputs: int, threshold: int, bounds: Bounds | None = None
    ) -> None:
        kind = torch.float64 if x.dtype == torch.float64 else torch.float32
        limits = bounds or (0.0, 0.0)
        if table.device.type == "cpu":
            data = table.numpy().tobytes()
            self.shape = shape_of(data, table.size(1), inputs)
            self.values = _on_device(data, threshold, limits, x.device, kind)
        else:
            self.shape = any_shape(table.size(1), inputs, len(table) - INPUTS - inputs)
            first = _on_device(b"", threshold, limits, x.device, kind)
            self.values = torch.cat([first, table.flatten().to(kind)])


@functools.lru_cache(MANY)
def _on_device(
    table: bytes, threshold: int, bounds: Bounds, device: torch.device, kind: torch.dtype
) -> Tensor:
    numbers = torch.frombuffer(bytearray(table or bytes(8)), dtype=torch.float64)
    first = torch.tensor([*bounds, dropout_scale(threshold)], dtype=torch.float64, device="cpu")
    return torch.cat([first, numbers if table else numbers[:0]]).to(device, kind)


def _layout(x: Tensor, rows: Rows, out_rows: int, width: int, before: int = 0) -> Layout:
    """The sizes of a call on some columns, and its tile: what a first call found, else one that
    reads all columns where the cache holds them.
    """
    batch, in_rows, channels = x.shape[1:]
    sizes = (batch, rows.num_rows, in_rows, out_rows, width, channels, before, x.element_size())
    layout = Layout(*sizes, lanes=1, warps=TILES[0][0])
    wide = WARP if 2 * batch * rows.num_rows * layout.pitch * layout.size <= L2 else TILES[0][1]
    warps, lanes = rows.plans.get(("tile", *sizes), (layout.warps, wide))
    return layout._replace(lanes=min(lanes, 1 << (layout.units - 1).bit_length()), warps=warps)


def _plan(rows: Rows, *key: Any) -> Plan:
    """The plan of a shape, a layout and the rest, made once."""
    plan = rows.plans.get(key)
    if plan is None:
        for old in list(rows.plans)[: -MANY + 1]:
            del rows.plans[old]
        plan = rows.plans[key] = Plan(rows, *key)
    return plan


def _launch(launches: list[Launch], live: dict[str, Any]) -> None:
    """Launch kernels one after the other; ``live`` are the Tensors of this call."""
    from . import triton_code as code  # late: Triton is slow to import and need not be there

    for name, grid, fixed, ready in launches:
        kernel = getattr(code, name)
        if not ready:  # kept with the launch
            known = {each: fixed[each] for each in kernel.arg_names if each in fixed}
            ready.update(known, num_warps=fixed["num_warps"], **OPTIONS)
        missing = {each: live[each] for each in kernel.arg_names if each not in ready}
        kernel[(grid,)](**missing, **ready)


def _scratch(plan: Plan, x: Tensor, numbers: Tensor) -> dict[str, Tensor | None]:
    """The memory of a call."""
    layout, shape = plan.layout, plan.shape
    slot = layout.batch * layout.num_rows * layout.pitch
    pieces = layout.batch * plan.rows.num_pieces * layout.pitch
    return {
        "states": x.new_empty(plan.how.base + plan.num_slots, slot),
        "sums": numbers.new_empty(shape.outputs, slot) if plan.sums else None,
        "partials": numbers.new_empty(pieces) if pieces else None,
        "numbers": numbers,
        "dots": None,
    }


def _seed(live: dict[str, Any], seeds: Tensor, how: How) -> None:
    """Seeds of the masks: a single one goes with the first launch, which needs no copy."""
    if how.seed:
        seed = int(seeds)
        live["seeds"] = torch.empty(1, dtype=torch.long, device=live["x"].device)
        live["seed_low"], live["seed_high"] = (seed & (2**32 - 1)) - 2**31, seed >> 32
    elif how.drop:
        live["seeds"] = seeds.to(live["x"].device, non_blocking=True)


def propagate(
    x: Tensor,
    rowptr: Tensor,
    col: Tensor,
    value: Tensor,
    table: Tensor,
    threshold: int,
    seeds: Tensor,
    reverse: bool,
    bounds: Bounds | None = None,
    perm: Tensor | None = None,
    within: Tensor | None = None,
) -> Tensor:
    r"""Run a recurrence with a CSR matrix, dropout included, on a GPU.

    The interface is that of :func:`torch_geometric_diff.ops.kernels.cpu.propagate`, and so are the
    masks; ``within`` lies on the CPU. Half types are stored as such and summed in float32. Beside
    its inputs and outputs a call needs two or three states, whatever the number of steps.
    """
    x, value, table = in_memory(x), in_memory(value), in_memory(table)
    inputs, batch, in_rows, channels = x.shape
    num_rows = rowptr.numel() - 1
    out_rows = num_rows if within is None or reverse else int(within[0])
    outputs = len(table) - INPUTS - inputs
    y = x.new_empty(outputs, batch, out_rows, channels)
    if x.numel() == 0:
        return y.zero_()
    capturing = x.is_cuda and torch.cuda.is_current_stream_capturing()
    rows = rows_of(rowptr, col, within, not capturing)
    numbers = Numbers(table, x, inputs, threshold, bounds)
    shape, layout = numbers.shape, _layout(x, rows, out_rows, channels)
    names = 0 if perm is None else 3 if within is None else 2 if reverse else 1
    drop = threshold > 0 and shape.steps > 0
    whole = layout.pitch == channels and x.data_ptr() % 16 == 0
    how = How(drop, reverse, bounds is not None, drop and batch == 1, names, whole)
    if names == 2:
        y.zero_()  # rows that nothing reaches
    live: dict[str, Any] = {
        "x": x, "y": y, "value": value, "names": perm, "seeds": None, "address": None,
        "threshold": threshold, "seed_low": 0, "seed_high": 0,
    }  # fmt: skip
    _seed(live, seeds, how)
    direct = whole and shape.copies and not shape.second and not (drop or names or shape.takes[0])
    plan = _plan(rows, shape, layout, how._replace(direct=direct and shape.steps > 0))
    live |= _scratch(plan, x, numbers.values)
    live["front"] = live["put"] = x if direct else live["states"]
    with torch.cuda.device_of(x):
        if direct:
            _launch(plan.launches[1], live)
            live["front"] = live["states"]
        for step in plan.launches[2:] if direct else plan.launches:
            _launch(step, live)
    return y
