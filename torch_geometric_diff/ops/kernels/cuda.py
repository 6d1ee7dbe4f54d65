"""The Triton kernels: no atomics, and so the same result always, and dropout inside.

A call follows a :class:`~torch_geometric_diff.ops.kernels.plan.Plan`: a launch for the first state
and one for every step, or two where a matrix has long rows (the hubs of a power-law graph), whose
pieces are summed first. A second call finds all that it needs on the device: it sorts, copies and
reads nothing. The mask of the *next* step is applied when a row is written, so once per node and
not once per edge. All elements of a batch are worked on in the same launch.
"""

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..._utils.functorch import in_memory
from .._random import dropout_scale
from ..recurrence import INPUTS, A, D, transposed
from .plan import (
    MANY,
    WARP,
    Backward,
    How,
    Launch,
    Layout,
    Plan,
    Rows,
    any_shape,
    columns_at_once,
    rows_of,
    shape_of,
)

# no overflow checks under TRITON_DEBUG: the hash means to wrap
OPTIONS = {"enable_fp_fusion": True, "sanitize_overflow": False}
# warps of a program and threads across a tile, 16 bytes each, that are tried at the first call
TILES = ((4, 8), (4, 16), (2, 8), (8, 8), (4, 32))
L2 = 40 << 20  # bytes of cache where no device tells
GRAPHS: bool | None = None  # whether calls are replayed as CUDA graphs; None: where L2 fits states
Bounds = tuple[float, float]
CSR = tuple[Tensor, Tensor, Tensor]


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


def _kept(rows: Rows, make: Callable[..., Any], *key: Any) -> Any:
    """What is made once of a matrix and hashable arguments."""
    plan = rows.plans.get((make, key))
    if plan is None:
        for old in list(rows.plans)[: -MANY + 1]:
            del rows.plans[old]
        plan = rows.plans[make, key] = make(*key)
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


def _scratch(plan: Plan, numbers: Tensor) -> dict[str, Tensor | None]:
    """Sums of outputs and of pieces."""
    layout = plan.layout
    sums = plan.shape.outputs * layout.slot if plan.sums else 0
    pieces = layout.batch * plan.rows.num_pieces * layout.pitch
    dots = plan.num_dots * max(plan.finished)
    return {
        "sums": numbers.new_empty(sums) if sums else None,
        "partials": numbers.new_empty(pieces) if pieces else None,
        "dots": numbers.new_empty(dots) if dots else None,
    }


def _seed(seeds: Tensor, device: torch.device, alone: bool) -> dict[str, Any]:
    """Seeds of the masks: one that is alone goes with the first launch, which needs no copy."""
    if not alone:
        seeds = seeds.to(device, non_blocking=True)
        return {"seeds": seeds, "seed_low": 0, "seed_high": 0}
    seed = int(seeds)
    low, high = (seed & (2**32 - 1)) - 2**31, seed >> 32
    place = torch.empty(1, dtype=torch.long, device=device)
    return {"seeds": place, "seed_low": low, "seed_high": high}


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
    inputs, batch, _, channels = x.shape
    out_rows = rowptr.numel() - 1 if within is None or reverse else int(within[0])
    outputs = len(table) - INPUTS - inputs
    y = x.new_empty(outputs, batch, out_rows, channels)
    if x.numel() == 0:
        return y.zero_()
    rows = rows_of(rowptr, col, within, not _is_capturing(x))
    numbers = Numbers(table, x, inputs, threshold, bounds)
    shape, layout = numbers.shape, _layout(x, rows, out_rows, channels)
    names = 0 if perm is None else 3 if within is None else 2 if reverse else 1
    drop = threshold > 0 and shape.steps > 0
    whole = layout.pitch == channels and x.data_ptr() % 16 == 0
    direct = whole and shape.copies and not (shape.second or drop or names or shape.takes[0])
    how = How(drop, reverse, bounds is not None, drop and batch == 1, names, whole, direct)
    if names == 2:
        y.zero_()  # there are rows that nothing reaches
    live: dict[str, Any] = {
        "x": x, "y": y, "value": value, "names": perm, "numbers": numbers.values,
        "address": None, "threshold": threshold, **_seed(seeds, x.device, how.seed),
    }  # fmt: skip
    with torch.cuda.device_of(x):
        _run(_kept(rows, Plan, rows, shape, layout, how), live)
    return y


def _is_capturing(x: Tensor) -> bool:
    return x.is_cuda and torch.cuda.is_current_stream_capturing()


def _run(plan: Plan, live: dict[str, Any]) -> None:
    """The launches of a plan, with memory of their own."""
    live |= _scratch(plan, live["numbers"])
    if "states" not in live:
        live["states"] = live["x"].new_empty(plan.num_slots * plan.layout.slot)
    live["front"] = live["put"] = live["x"] if plan.how.direct else live["states"]
    for k, step in enumerate(plan.launches):
        _launch(step, live)
        if k == 1:
            live["front"] = live["states"]


def gradients(
    x: Tensor,
    g: Tensor,
    csr: CSR,
    csr_t: CSR,
    table: Tensor,
    threshold: int,
    seeds: Tensor,
    need: tuple[bool, bool, str] = (True, True, "adbcw"),
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    r"""The gradients of :func:`propagate`, forward and without bounds, given that by its output.

    The interface is that of :func:`torch_geometric_diff.ops.kernels.cpu.gradients`. Memory does not
    grow with :math:`K`, see :class:`~torch_geometric_diff.ops.kernels.plan.Backward`.
    """
    x, g, table, value, value_t = map(in_memory, (x, g, table, csr[2], csr_t[2]))
    inputs, batch, num_rows, channels = x.shape
    dx = torch.empty_like(x) if need[0] else None
    dvalue = torch.zeros_like(value) if need[1] else None
    if x.numel() == 0:
        return dx, dvalue, torch.zeros_like(table) if need[2] else None
    exact = not _is_capturing(x)
    rows = rows_of(*csr[:2], None, exact), rows_of(*csr_t[:2], None, exact)
    tables = table, transposed(table, inputs)
    numbers = [Numbers(tables[0], x, inputs, threshold), Numbers(tables[1], x, len(g), threshold)]
    shapes = numbers[0].shape, numbers[1].shape
    drop = threshold > 0 and table.size(1) > 1
    live: dict[str, Any] = {
        "names": None, "address": None, "dvalue": dvalue, "threshold": threshold,
        **_seed(seeds, x.device, drop and batch == 1),
    }  # fmt: skip
    whole = _layout(x, rows[0], num_rows, channels)
    width = columns_at_once(whole, inputs + len(g) + table.size(1) + 1, need)
    sums: dict[int, Tensor] = {}
    for before in range(0, channels, width):
        layout = _layout(x, rows[0], num_rows, min(width, channels - before), before)
        plan = _kept(rows[0], Backward, rows, shapes, layout, drop, drop and batch == 1, need)
        live["states"] = x.new_empty(plan.num_slots * layout.slot)
        both = (
            {"x": x[..., before:], "y": None, "value": value, "numbers": numbers[0].values},
            {
                "x": g[..., before:], "y": None if dx is None else dx[..., before:],
                "value": value_t, "numbers": numbers[not plan.powers].values,
            },
        )  # fmt: skip
        for side, part in plan.parts:
            if part.num_dots and side not in sums:
                first = both[side]["numbers"]
                sums[side] = first.new_zeros(table.size(1), part.num_dots)
            with torch.cuda.device_of(x):
                _run(part, live | both[side] | {"to": sums.get(side)})
    return dx, dvalue, _of_sums(sums, plan.powers, table, inputs) if need[2] else None


def _of_sums(sums: dict[int, Tensor], powers: bool, table: Tensor, inputs: int) -> Tensor:
    """The gradient of a table from the inner products of forward states and of gradients."""
    out = torch.zeros_like(table)
    if powers:
        out[-1] = sums[1][:, 1]
        return out
    if 0 in sums:
        out[INPUTS + inputs :] = sums[0][:, 1:].t()
    by_state = sums[1].flip(0).t()
    out[A, 1:] = by_state[0, :-1]
    out[D : INPUTS + inputs] = by_state[1:]
    return out
