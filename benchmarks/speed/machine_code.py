"""The GPU kernels compiled to machine code, which takes no GPU: registers, spills, loads.

python -m benchmarks.speed.gpu --compile [--card H100] [--quick] [--json FILE]

Launches come from plans, so what is compiled is what a call launches: Triton's own compiler and its
ptxas, with the alignment that Tensors have. A row is a kernel with its flags, a width, a card's
architecture, a type of the features and of the row pointers; ``gather_bytes`` is that of one load
of gathered features, 0 where a kernel gathers none.
"""

import os
import re
import subprocess
import tempfile
import warnings
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from torch_geometric_diff.ops import Recurrence
from torch_geometric_diff.ops.kernels import cuda
from torch_geometric_diff.ops.kernels.plan import (
    Backward,
    How,
    Launch,
    Layout,
    Plan,
    Rows,
    shape_of,
)
from torch_geometric_diff.ops.recurrence import transposed

CARDS = {"A100": 80, "H100": 90, "B200": 100}
WIDTHS = (1, 3, 7, 16, 40, 47, 128, 1433)
TYPES = {
    "float32": torch.float32,
    "float64": torch.float64,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
}
NAMES = {
    torch.float32: "fp32",
    torch.float64: "fp64",
    torch.float16: "fp16",
    torch.bfloat16: "bf16",
}
INDICES = ("int32", "int64")
GATHERS = {"advance": 4, "join": 1, "entries": 2}  # loads of features in the loop of a kernel


class Case(NamedTuple):
    """A kernel as a launch asks for it."""

    kernel: str
    flags: str
    width: int
    arch: int
    dtype: str
    index: str  # type: ignore[assignment]


def _rows(long: bool, index: str) -> Rows:
    """A small matrix, with a long row or without."""
    size = 300
    degree = torch.ones(size, dtype=torch.int32)
    degree[0] = size if long else 1
    rowptr = torch.nn.functional.pad(degree.cumsum(0), (1, 0)).int()
    rows = Rows(rowptr, torch.zeros(int(rowptr[-1]), dtype=torch.int32), None, True)
    if index == "int64":  # as in a matrix of 2^31 entries and more
        rows.first = rows.first.long()
    return rows


def _layout(width: int, dtype: torch.dtype, wide: bool = False) -> Layout:
    x = torch.empty(1, 1, 1, width, dtype=dtype, device="meta")
    size = 1 << 31 if wide else 300
    return cuda._layout(x, _rows(False, "int32"), 300, width)._replace(
        num_rows=size, in_rows=300, out_rows=300
    )


RECURRENCES = {
    "power": Recurrence.power(3),
    "ppr": Recurrence.ppr(3, 0.1),
    "weights": Recurrence(3, w=[0.1, 0.2, 0.3, 0.4]),
    "chebyshev": Recurrence(3, a=2.0, b=-1.0, d=0.5, w=[0.1, 0.2, 0.3, 0.4]),
}


def _plans(width: int, dtype: torch.dtype, index: str) -> Iterator[Plan]:
    """Plans of every kind."""
    long, short = _rows(True, index), _rows(False, index)
    layout = _layout(width, dtype)
    whole = layout.units * layout.vec == width
    for name, recurrence in RECURRENCES.items():
        table = recurrence.table()
        ways = (
            [(table, False)] if name == "power" else [(table, False), (transposed(table, 1), True)]
        )
        for values, reverse in ways:
            inputs = 1 if not reverse else len(table) - 4
            shape = shape_of(values.contiguous().numpy().tobytes(), values.size(1), inputs)
            for drop in (False, True) if name != "chebyshev" else (False,):
                for clamp in (False, True):
                    how = How(drop, reverse, clamp, seed=drop, aligned=whole)
                    yield Plan(long, shape, layout, how)
                    yield Plan(short, shape, _layout(width, dtype, wide=True), how)
    table = RECURRENCES["power"].table()
    power = shape_of(table.numpy().tobytes(), 4, 1)
    for names in (1, 2, 3):
        for drop in (False, True):
            how = How(drop, names == 2, seed=drop, aligned=whole, names=names)
            yield Plan(long, power, layout, how)
    yield Plan(short, power, layout, How(aligned=whole, direct=whole))
    shapes = [
        shape_of(t.contiguous().numpy().tobytes(), 4, 1)
        for table in (RECURRENCES["chebyshev"].table(), RECURRENCES["weights"].table())
        for t in (table, transposed(table, 1))
    ]
    for drop, need in (
        (False, (True, True, "adbcw")),
        (True, (True, True, "adcw")),
        (False, (True, False, "w")),
    ):
        pair = (shapes[0], shapes[1]) if need[1] else (shapes[2], shapes[3])
        for _, part in Backward((long, long), pair, layout, drop, drop, need).parts:
            yield part


def _kernel(launch: Launch) -> str:
    return (
        ("begin", "advance", "join")[launch.fixed["KIND"]]
        if launch.kernel == "advance"
        else launch.kernel
    )


_TILE = {"VEC", "ROWS", "COLUMNS", "SIZE", "KIND"}


def launches(width: int, dtype: str, index: str) -> dict[tuple[str, str], tuple[Launch, Plan]]:
    """A launch of every kernel and flags, for a width and types."""
    from torch_geometric_diff.ops.kernels import triton_code as code

    found: dict[tuple[str, str], tuple[Launch, Plan]] = {}
    for plan in _plans(width, TYPES[dtype], index):
        for launch in (one for step in plan.launches for one in step):
            kernel = getattr(code, launch.kernel)
            flags = {kernel.arg_names[i] for i in kernel.constexprs} - _TILE
            given = [f"{each}={launch.fixed[each]}" for each in sorted(flags) if launch.fixed[each]]
            if launch.kernel == "advance" and plan.sums and launch.fixed["TAKE"]:
                given.append("SUMS")
            found.setdefault(
                (_kernel(launch), " ".join(given).replace("=True", "")), (launch, plan)
            )
    return found


def _types(
    launch: Launch, plan: Plan, dtype: str, index: str
) -> tuple[Any, dict[str, str], dict[str, Any]]:
    """The kernel, the types of its arguments and its constants."""
    from torch_geometric_diff.ops.kernels import triton_code as code

    kernel, state = getattr(code, launch.kernel), NAMES[TYPES[dtype]]
    sums = "fp64" if dtype == "float64" else "fp32"
    pointers = dict.fromkeys(("front", "put", "y", "states"), state)
    pointers |= dict.fromkeys(
        ("sums", "partials", "numbers", "value", "dots", "to", "dvalue"), sums
    )
    pointers |= {
        "seeds": "i64",
        "address": "i64",
        "first": "i32",
        "names": "i64" if index == "int64" else "i32",
    }
    if (launch.kernel == "advance" and launch.fixed["KIND"] == 1) or launch.kernel == "entries":
        pointers["first"] = "i64" if index == "int64" else "i32"
    absent = {name for name in ("sums", "partials", "dots") if not plan.scratch[name]}
    absent |= {"names"} if not plan.how.names else set()
    absent |= {"seeds"} if not plan.how.drop else set()
    constants: dict[str, Any] = {}
    types = {}
    for i, name in enumerate(kernel.arg_names):
        given = launch.fixed.get(name, "live")
        if i in kernel.constexprs or given is None or name in absent:
            constants[name] = given if i in kernel.constexprs else None
            types[name] = "constexpr"
        elif name in pointers or isinstance(given, Tensor):
            types[name] = f"*{pointers.get(name, 'i32')}"
        else:
            types[name] = "i32"
    return kernel, types, constants


def compiled(launch: Launch, plan: Plan, case: Case) -> dict[str, Any]:
    """A row of the table."""
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource, compile

    kernel, types, constants = _types(launch, plan, case.dtype, case.index)
    place = {name: (i,) for i, name in enumerate(kernel.arg_names)}
    aligned = {place[n]: [["tt.divisibility", 16]] for n, kind in types.items() if kind[0] == "*"}
    source = ASTSource(kernel, types, {place[n]: v for n, v in constants.items()}, aligned)
    options = cuda.options(launch.fixed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        code = compile(source, target=GPUTarget("cuda", case.arch, 32), options=options)
    ptx = code.asm["ptx"]
    registers, stack, shared, local = _resources(code.asm["cubin"])
    vectors = len(re.findall(r"ld\.global[\w.]*\.(?:v4\.[bf]32|v2\.[bf]64)", ptx))
    gathers = GATHERS.get(case.kernel, 0)
    warps = (
        min(64, 65536 // (-(-registers // 8) * 8 * 32))
        // options["num_warps"]
        * options["num_warps"]
    )
    return {
        **case._asdict(),
        "arch": f"sm_{case.arch}",
        "registers": registers,
        "limit": options["maxnreg"],  # 64 but for a few forms, see cuda.options
        "spills": stack + local,
        "gather_bytes": 0 if not gathers else 16 if vectors >= gathers else _widest(ptx),
        "shared": shared,
        "vector_loads": vectors,
        "occupancy": warps / 64,
        "atomics": len(re.findall(r"\b(?:atom|red)\.", ptx)),
        "float64": ".f64" in ptx,
    }


def _widest(ptx: str) -> int:
    """Bytes of the widest load, where there are too few of 16."""
    loads = re.findall(r"ld\.global[\w.]*?(?:\.v(\d))?\.[bfus](\d+)", ptx)
    sizes = [int(count or 1) * int(bits) // 8 for count, bits in loads]
    return max((size for size in sizes if size < 16), default=0)


def _resources(cubin: bytes) -> tuple[int, ...]:
    """Registers, and bytes of stack, shared and local memory."""
    from triton.backends import nvidia

    tool = Path(nvidia.__file__).parent / "bin" / "cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        command = [str(tool), "-res-usage", file.name]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    used = re.search(r"REG:(\d+) STACK:(\d+) SHARED:(\d+) LOCAL:(\d+)", said)
    assert used is not None, said
    return tuple(map(int, used.groups()))


def faults(row: dict[str, Any]) -> list[str]:
    """What a row has that it must not have."""
    found = []
    if row["spills"]:
        found.append(f"{row['spills']} bytes spilled")
    if row["registers"] > row["limit"]:
        found.append(f"{row['registers']} registers, above {row['limit']}")
    if row["gather_bytes"] not in (0, 16):
        found.append(f"loads of {row['gather_bytes']} bytes")
    if row["atomics"]:
        found.append("atomics")
    if row["float64"] and row["dtype"] != "float64":
        found.append("float64 in a form of another type")
    return found


def representative(found: dict[tuple[str, str], Any]) -> dict[tuple[str, str], Any]:
    """Of each kernel the launches with the fewest and the most flags."""
    some: dict[tuple[str, str], Any] = {}
    for name in sorted({kernel for kernel, _ in found}):
        mine = [flags for kernel, flags in found if kernel == name]
        mine.sort(key=lambda flags: (len(flags.split()), flags))
        some |= {(name, flags): found[name, flags] for flags in (mine[0], mine[-1])}
    return some


class Group(NamedTuple):
    """Rows that are compiled together: widths whose tiles, and so code, are the same."""

    widths: tuple[int, ...]
    dtype: str
    index: str  # type: ignore[assignment]
    arch: int
    every: bool  # whether every combination of flags, or representative ones


def groups(archs: list[int], quick: bool) -> list[Group]:
    """Every width, type and architecture, and every combination of flags for one of each.

    With ``quick`` not each with each, and representative flags alone.
    """
    found: list[Group] = []
    for dtype in TYPES:
        tiles: dict[Any, list[int]] = {}
        for width in WIDTHS:
            layout = _layout(width, TYPES[dtype])
            tiles.setdefault((layout.lanes, layout.units * layout.vec == width), []).append(width)
        for widths in tiles.values():
            for index in INDICES:
                found += [Group(tuple(widths), dtype, index, arch, False) for arch in archs]
    if quick:  # every third, of which no two neighbors share a type of index or an architecture
        return found[:: len(archs) * 2 + 1]
    return found + [Group((40,), "float32", "int32", arch, True) for arch in archs]


def _rows_of(group: Group) -> list[dict[str, Any]]:
    first, dtype, index = group.widths[0], group.dtype, group.index
    found = launches(first, dtype, index)
    rows = []
    for (kernel, flags), (launch, plan) in (
        found if group.every else representative(found)
    ).items():
        row = compiled(launch, plan, Case(kernel, flags, first, group.arch, dtype, index))
        rows += [{**row, "width": width} for width in group.widths]
    return rows


def table(archs: list[int], quick: bool, workers: int | None = None) -> list[dict[str, Any]]:
    """All rows."""
    with ProcessPoolExecutor(workers or os.cpu_count(), get_context("spawn")) as pool:
        return [row for rows in pool.map(_rows_of, groups(archs, quick)) for row in rows]


def as_text(rows: list[dict[str, Any]]) -> str:
    """A line for every row."""
    head: tuple[str, ...] = (
        "kernel",
        "flags",
        "width",
        "arch",
        "dtype",
        "index",
        "registers",
        "spills",
        "shared",
    )
    head = (*head, "gather_bytes", "vector_loads", "occupancy")
    return "\n".join(
        "\t".join(str(row[name]) for name in head)
        for row in [dict(zip(head, head, strict=True)), *rows]
    )
