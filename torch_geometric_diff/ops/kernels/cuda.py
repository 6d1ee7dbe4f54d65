"""The Triton kernels: no atomics, and so the same result always, and dropout inside.

A call follows a :class:`~torch_geometric_diff.ops.kernels.plan.Plan`: a launch for the first state
and one for every step, or two where a matrix has long rows (the hubs of a power-law graph), whose
pieces are summed first. A second call finds all that it needs on the device: it sorts, copies and
reads nothing. The mask of the *next* step is applied when a row is written, so once per node and
not once per edge. All elements of a batch are worked on in the same launch.
"""

import functools
import threading
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
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
    Shape,
    columns_at_once,
    rows_of,
    shape_of,
)

# no overflow checks under TRITON_DEBUG: the hash means to wrap
OPTIONS: dict[str, Any] = {"enable_fp_fusion": True, "sanitize_overflow": False}
if torch.version.hip is None:  # half of an SM's threads, and four gathers on their way at once
    OPTIONS["maxnreg"] = 64
# warps of a program and threads across a tile, 16 bytes each, that are tried at the first call
TILES = ((4, 8), (4, 16), (2, 8), (8, 8), (4, 32))
L2 = 40 << 20  # bytes of cache where no device tells
GRAPHS: bool | None = None  # whether calls are replayed as CUDA graphs; None: where L2 fits states
_tiles: dict[tuple[int, ...], tuple[int, int]] = {}  # the fastest, for calls of about a size
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


def _numbers(
    table: Tensor, x: Tensor, inputs: int, threshold: int, bounds: Bounds = (0.0, 0.0)
) -> tuple[Shape, Tensor]:
    """What a table leaves out, and the bounds, the scale of dropout and the table on the device.

    A table on the CPU is read; one on the GPU is not, and may leave out anything.
    """
    kind = torch.float64 if x.dtype == torch.float64 else torch.float32
    if table.device.type == "cpu":
        data = table.numpy().tobytes()
        numbers = _on_device(data, threshold, bounds, x.device, kind)
        return shape_of(data, table.size(1), inputs), numbers
    any_table = np.full(table.shape, 2.0).tobytes()
    first = _on_device(b"", threshold, bounds, x.device, kind)
    numbers = torch.cat([first, table.flatten().to(kind)])
    return shape_of(any_table, table.size(1), inputs), numbers


@functools.lru_cache(MANY)
def _on_device(
    table: bytes, threshold: int, bounds: Bounds, device: torch.device, kind: torch.dtype
) -> Tensor:
    numbers = np.array([*bounds, dropout_scale(threshold), *np.frombuffer(table)])
    return torch.from_numpy(numbers).to(device, kind)


def _layout(x: Tensor, rows: Rows, out_rows: int, width: int, before: int = 0) -> Layout:
    """The sizes of a call on some columns, and its tile: what was fastest in a call of about this
    size, or else one as wide as the columns where the cache holds them all.
    """
    batch, in_rows, channels = x.shape[1:]
    sizes = (batch, rows.num_rows, in_rows, out_rows, width, channels, before, x.element_size())
    layout = Layout(*sizes, lanes=1, warps=TILES[0][0])
    lanes = WARP if 2 * layout.slot * layout.size <= _cache_of(x.device) else TILES[0][1]
    warps, lanes = _tiles.get(_about(layout, rows), (layout.warps, lanes))
    return layout._replace(lanes=min(lanes, 1 << (layout.units - 1).bit_length()), warps=warps)


@functools.cache
def _cache_of(device: torch.device) -> int:
    """Bytes of the L2 cache."""
    if device.type != "cuda":
        return L2
    return getattr(torch.cuda.get_device_properties(device), "L2_cache_size", 0) or L2


def _about(layout: Layout, rows: Rows) -> tuple[int, ...]:
    sizes = layout.batch * layout.num_rows, rows.nnz
    return layout.units, layout.size, *(size.bit_length() for size in sizes)


def _made_once(rows: Rows, make: Callable[..., Any], *key: Any) -> Any:
    """What is made once of a matrix and hashable arguments."""
    plan = rows.plans.get((make, key))
    return _remember(rows, (make, key), make(*key)) if plan is None else plan


def _remember(rows: Rows, key: Any, plan: Any) -> Any:
    for old in list(rows.plans)[: -MANY + 1]:
        del rows.plans[old]
    rows.plans[key] = plan
    return plan


def options(fixed: dict[str, Any]) -> dict[str, Any]:
    """How a kernel is compiled. Half types, 8 numbers a thread, may take more registers in their
    first state, made once a call, and where wide tiles are both masked and clamped.
    """
    more = {}
    if "maxnreg" in OPTIONS and fixed["VEC"] == 8:
        if fixed.get("KIND") == 0:
            more = {"maxnreg": 96}
        elif fixed.get("WIDE") and fixed.get("CLAMP") and fixed.get("DROP"):
            more = {"maxnreg": 80}
    return {"num_warps": fixed["num_warps"], **OPTIONS, **more}


def _launch(launches: list[Launch], live: dict[str, Any]) -> None:
    """Launch kernels one after the other; ``live`` are the Tensors of this call."""
    from . import triton_code as code  # late: Triton is slow to import and need not be there

    for name, grid, fixed, ready in launches:
        kernel = getattr(code, name)
        if not ready:  # for every launch to come
            known = {name: fixed[name] for name in kernel.arg_names if name in fixed}
            ready.update(known, **options(fixed))
        missing = {name: live[name] for name in kernel.arg_names if name not in ready}
        kernel[(grid,)](**missing, **ready)


def _run(plan: Plan, live: dict[str, Any]) -> None:
    """The launches of a plan, with memory of their own but for what ``live`` holds."""
    live = _with_memory(plan, live)
    live["front"], live["put"] = live["x"], live["x" if plan.how.direct else "states"]
    for k, step in enumerate(plan.launches):
        if k == 1 + plan.how.direct:
            live["front"] = live["states"]
        _launch(step, live)


def _with_memory(plan: Plan, live: dict[str, Any]) -> dict[str, Any]:
    numbers, x = live["numbers"], live["x"]
    sizes = plan.scratch.items()
    memory = {name: numbers.new_empty(size) if size else None for name, size in sizes}
    if "states" not in live:
        memory["states"] = x.new_empty(plan.num_slots * plan.layout.slot)
    return live | memory


class Replay:
    """A plan whose launches after the first one are a CUDA graph, with memory of its own.

    The first launch reads the inputs and tells the others where the outputs go; coefficients that
    are not those of the call before are copied.
    """

    def __init__(self, plan: Plan, live: dict[str, Any]) -> None:
        address = torch.empty(1, dtype=torch.long, device=live["x"].device)
        live = _with_memory(plan, live | {"address": address})
        self.plan, self.lock, self.numbers = plan, threading.Lock(), live["numbers"]
        live["numbers"] = self.numbers.clone()
        self.graph: Callable[[], None] | None = None
        rest = {"front": live["states"], "put": live["states"], "y": address, "x": None}
        self.rest = live | rest
        of_a_call = "front", "x", "y", "seed_low", "seed_high"
        self.first = {name: value for name, value in self.rest.items() if name not in of_a_call}

    def __call__(self, live: dict[str, Any]) -> None:
        """The outputs of inputs, with seeds of their own."""
        with self.lock:
            if live["seeds"] is not None and not self.plan.how.seed:
                self.first["seeds"].copy_(live["seeds"])
            if live["numbers"] is not self.numbers:  # held, so no other is at its address
                self.first["numbers"].copy_(live["numbers"])
                self.numbers = live["numbers"]
            _launch(self.plan.launches[0], live | self.first | {"front": live["x"]})
            if self.graph is not None:
                self.graph()
                return
            self._launch_rest()  # which compiles what a capture must not
            self.graph = _capture(self._launch_rest)

    def _launch_rest(self) -> None:
        for step in self.plan.launches[1:]:
            _launch(step, self.rest)


def _capture(run: Callable[[], None]) -> Callable[[], None]:
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run()
    return graph.replay


def _seed(seeds: Tensor, drop: bool, device: torch.device) -> dict[str, Any]:
    """Seeds of the masks: one that is alone goes with the first launch, which needs no copy."""
    low = high = 0
    on_device = None
    if drop and len(seeds) == 1:
        seed = int(seeds)
        low, high = (seed & (2**32 - 1)) - 2**31, seed >> 32
        on_device = torch.empty(1, dtype=torch.long, device=device)
    elif drop:
        on_device = seeds.to(device, non_blocking=True)
    return {"seeds": on_device, "seed_low": low, "seed_high": high}


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
    shape, numbers = _numbers(table, x, inputs, threshold, bounds or (0.0, 0.0))
    layout = _layout(x, rows, out_rows, channels)
    names = 0 if perm is None else 3 if within is None else 2 if reverse else 1
    drop = threshold > 0 and shape.steps > 0
    whole = layout.units * layout.vec == channels and x.data_ptr() % 16 == 0
    direct = whole and shape.copies and not (shape.second or drop or names or shape.takes[0])
    how = How(drop, reverse, bounds is not None, drop and batch == 1, names, whole, direct)
    if names == 2:
        y.zero_()  # there are rows that nothing reaches
    live: dict[str, Any] = {
        "x": x, "y": y, "value": value, "names": perm, "numbers": numbers,
        "address": None, "threshold": threshold, **_seed(seeds, drop, x.device),
    }  # fmt: skip
    with torch.cuda.device_of(x):
        if x.is_cuda and not _is_capturing(x) and _about(layout, rows) not in _tiles:
            layout = _fastest_tile(rows, shape, layout, how, live)
        key = shape, layout, how._replace(direct=False)
        if not _replayed(rows, key, live):
            _run(_made_once(rows, Plan, rows, shape, layout, how), live)
    return y


def _replayed(rows: Rows, key: tuple[Shape, Layout, How], live: dict[str, Any]) -> bool:
    """Whether a CUDA graph has made the outputs, which it does from a second call on.

    A graph belongs to the Tensors of a matrix and to a stream.
    """
    x, value = live["x"], live["value"]
    if not (x.is_cuda if GRAPHS is None else GRAPHS) or key[0].steps == 0 or _is_capturing(x):
        return False
    plan = _made_once(rows, Plan, rows, *key)
    if not GRAPHS and plan.num_slots * key[1].slot * key[1].size > _cache_of(x.device):
        return False
    stream = torch.cuda.current_stream(x.device).cuda_stream if x.is_cuda else 0
    same = *key, stream, id(value), id(live["names"])
    seen = rows.plans.get(same)
    if not isinstance(seen, Replay):
        if seen is None or seen() is not value:
            _remember(rows, same, weakref.ref(value))
            return False
        seen = _remember(rows, same, Replay(plan, live))
    seen(live)
    return True


def _is_capturing(x: Tensor) -> bool:
    return x.is_cuda and torch.cuda.is_current_stream_capturing()


def _fastest_tile(
    rows: Rows, shape: Shape, layout: Layout, how: How, live: dict[str, Any]
) -> Layout:
    """Time a call with every tile, once for calls of about this size; all give the same bits."""
    from triton.testing import do_bench

    widest, times = 1 << (layout.units - 1).bit_length(), {}
    for warps, lanes in TILES:
        if lanes <= max(widest, TILES[0][1]):
            tried = layout._replace(warps=warps, lanes=min(lanes, widest))
            plan = Plan(rows, shape, tried, how)
            times[do_bench(lambda plan=plan: _run(plan, live), 2, 10)] = tried
    best = times[min(times)]
    _tiles[_about(layout, rows)] = best.warps, best.lanes
    return best


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
    both = [_numbers(tables[0], x, inputs, threshold), _numbers(tables[1], x, len(g), threshold)]
    shapes, numbers = zip(*both, strict=True)
    drop = threshold > 0 and table.size(1) > 1
    live: dict[str, Any] = {
        "names": None, "address": None, "dvalue": dvalue, "threshold": threshold,
        **_seed(seeds, drop, x.device),
    }  # fmt: skip
    whole = _layout(x, rows[0], num_rows, channels)
    width = columns_at_once(whole, inputs + len(g) + table.size(1) + 1, need)
    sums: dict[int, Tensor] = {}
    for before in range(0, channels, width):
        layout = _layout(x, rows[0], num_rows, min(width, channels - before), before)
        plan = _made_once(rows[0], Backward, rows, shapes, layout, drop, drop and batch == 1, need)
        live["states"] = x.new_empty(plan.num_slots * layout.slot)
        sides = (
            {"x": x[..., before:], "y": None, "value": value, "numbers": numbers[0]},
            {
                "x": g[..., before:], "y": None if dx is None else dx[..., before:],
                "value": value_t, "numbers": numbers[not plan.powers],
            },
        )  # fmt: skip
        for side, part in plan.parts:
            if part.num_dots and side not in sums:
                first = sides[side]["numbers"]
                sums[side] = first.new_zeros(table.size(1), part.num_dots)
            with torch.cuda.device_of(x):
                _run(part, live | sides[side] | {"to": sums.get(side)})
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
