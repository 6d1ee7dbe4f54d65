"""What the GPU launches in a call, made once for a matrix, a recurrence and a width.

A plan is data and needs no device: it tells its launches and its memory.
"""

import functools
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from ..recurrence import INPUTS, A, B, D

WARP = 32
LONG = 256  # entries above which a row is cut into pieces of so many: eight a thread of a warp
MOST_STATES = 256 << 20  # bytes of states of gradients, but for the narrowest columns
MANY = 64  # plans that a matrix remembers


class Listing(NamedTuple):
    """Rows, or pieces of long rows, in the order in which programs take them: by rising level (the
    steps to what is wanted), then by falling length.
    """

    first: Tensor  # where each begins
    length: Tensor  # its entries
    rows: Tensor  # what is made: a row, or of a piece its number; negative for nothing
    owners: Tensor  # whose entries they are
    ends: list[int]  # how many there are up to each level


class Rows:
    """The rows of a matrix as programs take them, and the plans that were made for it.

    Without ``exact`` the host reads nothing, as within the capture of a graph: lists are as long as
    they can be at most.
    """

    def __init__(self, rowptr: Tensor, col: Tensor, within: Tensor | None, exact: bool) -> None:
        self.num_rows, self.nnz = rowptr.numel() - 1, col.numel()
        self.col = col.int() if self.num_rows < 2**31 else col
        self.long_rows = LONG
        self.plans: dict[Any, Any] = {}
        degree = rowptr.diff()
        is_long = degree > LONG
        pieces = torch.where(is_long, (degree + LONG - 1) // LONG, 0)
        after = pieces.cumsum(0)
        most = int(after[-1]) if exact else 2 * (self.nnz // (LONG + 1))
        row = torch.arange(self.num_rows, device=rowptr.device)
        self.within = [] if within is None else within.tolist()
        level = None
        if within is not None:
            level = torch.searchsorted(within.to(row.device), row, right=True)
        piece = torch.arange(most, device=rowptr.device)
        owner = torch.searchsorted(after, piece, right=True).clamp_(max=self.num_rows - 1)
        begin = LONG * (piece - (after - pieces)[owner])
        length = (degree[owner] - begin).clamp_(max=LONG)
        there = piece < after[-1]
        self.pieces = self._list(there, rowptr[owner] + begin, length, piece, owner, level, exact)
        self.whole = self._list(~is_long, rowptr[:-1], degree, row, row, level, exact)
        self.long = self._list(is_long, after - pieces, pieces, row, row, level, exact)
        self.lists = self.pieces, self.whole, self.long
        both = zip(self.pieces[:4], self.whole[:4], strict=True)
        self.first, self.count, self.rows, self.owners = map(torch.cat, both)
        self.num_pieces = len(self.pieces.rows)

    def _list(
        self, there: Tensor, first: Tensor, count: Tensor, rows: Tensor, owners: Tensor,
        level: Tensor | None, exact: bool,
    ) -> Listing:  # fmt: skip
        count, rows = torch.where(there, count, 0), torch.where(there, rows, -1)
        order = torch.argsort(count, descending=True, stable=True)
        if exact:
            order = order[there[order]]
        if level is not None:
            level = level[owners[order]]
            order = order[torch.argsort(level, stable=True)]
        ends = [len(order)]
        if level is not None:
            ends = level.bincount(minlength=len(self.within) + 1).cumsum(0).tolist()
        first = first[order] if self.nnz >= 2**31 else first[order].int()
        return Listing(first, count[order].int(), rows[order].int(), owners[order].int(), ends)


_rows: Any = WeakTensorKeyDictionary()


def rows_of(rowptr: Tensor, col: Tensor, within: Tensor | None, exact: bool) -> Rows:
    """The rows of a matrix, found at the first call and kept as long as its row pointers."""
    rows = _rows.get(rowptr)
    if rows is None or rows.long_rows != LONG:
        rows = Rows(rowptr, col, within, exact)
        if exact:
            _rows[rowptr] = rows
    return rows


class Shape(NamedTuple):
    """What the coefficients leave out."""

    steps: int  # up to the last state that an output takes of
    inputs: int
    outputs: int
    copies: bool  # whether the first state is the one input
    second: bool  # whether a state depends on the one before the last
    puts: bool  # whether later states add inputs
    plain: tuple[bool, ...]  # the states that are a product and nothing else
    takes: tuple[bool, ...]  # the states that outputs take of
    ends: tuple[int, ...]  # the first and last state that each output takes of
    width: int  # of the table


@functools.lru_cache(256)
def shape_of(table: bytes, width: int, inputs: int) -> Shape:
    """The shape of a table of constants."""
    t = np.frombuffer(table).reshape(-1, width)
    c, w = t[INPUTS : INPUTS + inputs], t[INPUTS + inputs :]
    put, second = np.asarray(c.any(0)), np.asarray(t[B] != 0)
    second[:2] = False
    plain = np.asarray((t[A] == 1) & (t[D] == 0) & ~second & ~put)
    ends = [(row.nonzero()[0][[0, -1]] if row.any() else (width - 1,) * 2) for row in w]
    last = max(int(end) for _, end in ends)
    takes = np.asarray(w.any(0))
    takes[[int(end) for _, end in ends]] = True
    return Shape(
        last, inputs, len(w), inputs == 1 and c[0, 0] == 1, bool(second.any()),
        bool(put[1 : last + 1].any()),
        tuple(plain.tolist()), tuple(takes.tolist()), tuple(int(n) for pair in ends for n in pair),
        width,
    )  # fmt: skip


class Layout(NamedTuple):
    """Sizes of a call: of its Tensors, its tiles and its slots."""

    batch: int
    num_rows: int
    in_rows: int
    out_rows: int
    channels: int
    stride: int  # of the rows of inputs and outputs
    before: int  # columns before these
    size: int  # bytes of an element
    lanes: int  # threads across a tile
    warps: int

    @property
    def vec(self) -> int:
        """Elements of 16 bytes."""
        return 16 // self.size

    @property
    def units(self) -> int:
        """Of 16 bytes in a row of a slot; wide rows fill sectors of 32."""
        units = -(-self.channels // self.vec)
        return units + units % 2 if units > 8 else units

    @property
    def slot(self) -> int:
        """Elements of a slot."""
        return self.batch * self.num_rows * self.units * self.vec

    def programs(self, count: int) -> int:
        """Tiles of so many rows."""
        rows, columns = WARP * self.warps // self.lanes, -(-self.units // self.lanes)
        return self.batch * columns * -(-count // rows)


class How(NamedTuple):
    """How a recurrence is run, beside its shape and sizes."""

    drop: bool = False
    reverse: bool = False
    clamp: bool = False
    seed: bool = False  # whether one seed comes as an argument
    names: int = 0  # whether rows have other names in the inputs (1), the outputs (2) or both
    aligned: bool = False  # whether inputs and outputs are laid out as slots are
    direct: bool = False  # whether the input itself is the first state
    takes: bool = True  # whether outputs are wanted
    keep: bool = False  # whether every state gets a slot
    base: int = 0  # the first slot
    packed: int = -1  # the first of the slots that hold the inputs already


class Launch(NamedTuple):
    """A kernel, its programs and its arguments; Tensors of a call are told by their names alone."""

    kernel: str
    grid: int
    fixed: dict[str, Any]
    ready: dict[str, Any]  # of these those that the kernel takes, once somebody has launched it


class Plan:
    """The launches of a recurrence, step by step.

    Args:
        rows: The rows of the matrix.
        shape: What the coefficients leave out.
        layout: Sizes of the Tensors and tiles.
        how: How it is run.
        meets: The slots that each state meets, :math:`(K + 1, D)`, the product first; negative for
            none.
    """

    def __init__(
        self,
        rows: Rows,
        shape: Shape,
        layout: Layout,
        how: How,
        meets: tuple[tuple[int, ...], ...] | None = None,
    ) -> None:
        self.rows, self.shape, self.layout, self.how = rows, shape, layout, how
        self.packs = shape.puts and how.packed < 0 and not how.direct
        self.put = how.base if how.packed < 0 else how.packed
        masked = how.drop and not how.reverse
        self.alias = self.packs and shape.copies and not masked and not how.keep
        self.own = how.base + (shape.inputs if self.packs else 0)
        stored = shape.steps - (how.direct or self.alias)
        self.num_slots = self.own - how.base + (stored if how.keep else min(stored, 2))
        pairs = zip(shape.ends[::2], shape.ends[1::2], strict=True)
        self.sums = how.takes and any(begin < end for begin, end in pairs)
        device = rows.first.device
        self.ends = torch.tensor(shape.ends, dtype=torch.int32, device="cpu").to(device)
        self.num_dots = 0 if meets is None else len(meets[0])
        self.meets = None
        if meets is not None:
            self.meets = torch.tensor(meets, dtype=torch.int32, device="cpu").to(device)
        pieces = layout.batch * rows.num_pieces * layout.units * layout.vec
        counts = [self._counts(k) for k in range(shape.steps + 1)]
        self.finished = [sum(map(layout.programs, each[1:])) for each in counts]
        self.scratch = {  # elements that are summed
            "sums": shape.outputs * layout.slot * self.sums,
            "partials": pieces,
            "dots": self.num_dots * max(self.finished),
        }
        self.launches = [[] if how.direct else [self._begin()]]
        self.launches += [self._step(k, *counts[k]) for k in range(1, shape.steps + 1)]
        if meets is not None:
            for k, step in enumerate(self.launches):
                total = self._common(k) | {"finished": self.finished[k], "SIZE": 1024}
                step.append(Launch("total", self.num_dots, total, {}))

    def bytes(self) -> int:
        """Memory that a call needs beside its inputs and outputs."""
        states = self.num_slots * self.layout.slot * self.layout.size
        return states + max(self.layout.size, 4) * sum(self.scratch.values())

    def slot(self, k: int) -> int:
        """Where a state is."""
        if self.how.keep:
            return self.own + k
        if self.alias or self.how.direct:
            return self.put if k == 0 else self.own + (k - 1) % 2
        return self.own + k % 2

    def _counts(self, k: int) -> tuple[int, int, int]:
        """Pieces, whole rows and long rows of a step."""
        if k == 0:
            return 0, self.rows.num_rows, 0
        level = min(k if self.how.reverse else self.shape.steps - k, len(self.rows.within))
        pieces, whole, long = (each.ends[level] for each in self.rows.lists)
        return pieces, whole, long

    def _common(self, k: int) -> dict[str, Any]:
        layout, shape, how = self.layout, self.shape, self.how
        drop = 2 * (k > 0) if how.reverse else int(k < shape.steps)
        largest = max(layout.num_rows, layout.in_rows, layout.out_rows, self.rows.num_pieces)
        return {
            "batch": layout.batch, "num_rows": layout.num_rows, "units": layout.units,
            "channels": layout.channels, "stride": layout.stride, "before": layout.before,
            "out_rows": layout.out_rows, "number": shape.width - 1 - k if how.reverse else k,
            "step": k, "steps": shape.width - 1, "inputs": shape.inputs, "outputs": shape.outputs,
            "num_dots": self.num_dots, "programs": max(self.finished), "put_slot": self.put,
            "back_slot": self.slot(k), "ends": self.ends, "meets": self.meets,
            "DROP": drop if how.drop else 0, "TAKE": how.takes and shape.takes[k],
            "STORE": k < shape.steps, "NAMES": how.names, "ALIGNED": how.aligned,
            "DOTS": self.meets is not None, "VEC": layout.vec,
            "ROWS": WARP * layout.warps // layout.lanes,
            "WIDE": largest * max(layout.units * layout.vec, layout.stride) >= 2**31,
            "COLUMNS": layout.lanes * layout.vec, "num_warps": layout.warps,
            "in_rows": layout.in_rows, "front_slot": self.slot(max(k - 1, 0)),
            "older_slot": self.slot(max(k - 2, 0)), "num_partials": self.rows.num_pieces,
            "PLAIN": shape.plain[k], "CLAMP": how.clamp, "num_split": 0, "skip": 0, "live": 0,
            "first_program": 0, "PUT": False, "SEED": False, "SPLIT": False,
        }  # fmt: skip

    def _begin(self) -> Launch:
        first = dict.fromkeys(("rows", "first", "count", "col", "partials", "value"))
        fixed = self._common(0) | first | {
            "KIND": 0, "num_whole": self.layout.num_rows, "PUT": self.packs, "CLAMP": False,
            "SEED": self.how.seed, "STORE": self.shape.steps > 0 and not self.alias,
        }  # fmt: skip
        return Launch("advance", self.finished[0], fixed, {})

    def _step(self, k: int, pieces: int, whole: int, long: int) -> list[Launch]:
        rows, layout, how = self.rows, self.layout, self.how
        live = rows.num_rows
        if how.names == 2 and k <= len(rows.within):
            live = rows.within[k - 1]
        listed = {"first": rows.first, "count": rows.count, "rows": rows.rows, "col": rows.col}
        fixed = self._common(k) | listed | {
            "KIND": 1, "num_split": pieces, "skip": rows.num_pieces, "num_whole": whole,
            "live": live, "SPLIT": rows.num_pieces > 0, "address": None,
        }  # fmt: skip
        launches = [Launch("advance", layout.programs(pieces) + layout.programs(whole), fixed, {})]
        if long:
            begin, count, made = rows.long[:3]
            last = fixed | {
                "KIND": 2, "first": begin, "count": count, "rows": made, "num_split": 0, "skip": 0,
                "num_whole": long, "first_program": layout.programs(whole),
                "SPLIT": False, "col": None, "value": None,
            }  # fmt: skip
            launches.append(Launch("advance", layout.programs(long), last, {}))
        return launches


class Backward:
    """The launches of gradients for some columns; other columns follow with the same memory.

    Where coefficients ``a``, ``b`` and ``d`` or entries are learned, forward states get a slot
    each, for as many columns as :data:`MOST_STATES` has room for; ``c`` and ``w`` need none of
    them. If only the weights of powers are learned, the states of the transpose meet the inputs
    instead, and a single run gives all.

    Args:
        rows: The rows of the matrix, and of its transpose.
        shape: What the coefficients leave out, and those of the transpose.
        layout: Sizes of the Tensors and tiles, for these columns.
        drop: Whether there is dropout.
        seed: Whether one seed comes as an argument.
        need: Whether the gradient by the inputs is wanted, whether that by the entries, and by
            which coefficients.
    """

    def __init__(
        self,
        rows: tuple[Rows, Rows],
        shape: tuple[Shape, Shape],
        layout: Layout,
        drop: bool,
        seed: bool,
        need: tuple[bool, bool, str],
    ) -> None:
        ahead, back = (each._replace(steps=each.width - 1) for each in shape)
        steps, inputs, outputs = ahead.steps, ahead.inputs, ahead.outputs
        alone = inputs == outputs == 1 and not (drop or ahead.puts)
        self.powers = need[1:] == (False, "w") and alone
        keep, self.forward = keeps(need), None
        self.parts = [(0, _packing(rows[0], ahead, layout, 0))]  # plans, of the transpose or not
        if self.powers:
            inner = ((-1, 0),) * ahead.width
            self.back = Plan(rows[1], ahead, layout, How(takes=need[0], base=1), inner)
        else:
            base = inputs + outputs
            self.parts.append((1, _packing(rows[0], back, layout, inputs)))
            if keep or "w" in need[2]:
                weights = tuple(range(inputs, base)) if "w" in need[2] else (-1,) * outputs
                how = How(drop, seed=seed, takes=False, keep=keep, base=base, packed=0)
                self.forward = Plan(rows[0], ahead, layout, how, ((-1, *weights),) * ahead.width)
                self.parts.append((0, self.forward))
                base += self.forward.num_slots
            seed = seed and self.forward is None
            how = How(drop, True, seed=seed, takes=need[0], base=base, packed=inputs)
            met = tuple(self._met(k, inputs, need[2]) for k in range(steps, -1, -1))
            self.back = Plan(rows[1], back, layout, how, met)
        self.parts.append((1, self.back))
        self.num_slots = self.back.how.base + self.back.num_slots
        if need[1]:
            for k in range(1, steps + 1):
                self.back.launches[steps - k].append(self._entries(k))

    def _met(self, k: int, inputs: int, letters: str) -> tuple[int, ...]:
        """The slots that the gradient of a state meets: see csrc/gradients.cpp."""
        plan, met = self.forward, []
        for letter, state in ("a", k), ("d", k - 1), ("b", k - 2):
            there = letter in letters and plan is not None and 0 <= state < plan.shape.steps
            met.append(plan.slot(state) if there else -1)  # type: ignore[union-attr]
        return *met, *(range(inputs) if "c" in letters else [-1] * inputs)

    def _entries(self, k: int) -> Launch:
        """What a step adds to the gradient of the entries."""
        rows = self.forward.rows  # type: ignore[union-attr]
        steps = self.back.shape.steps
        fixed: dict[str, Any] = self.back._common(steps - k) | {
            "first": rows.first, "count": rows.count, "rows": rows.owners, "col": rows.col,
            "num_listed": len(rows.first), "slot": self.back.slot(steps - k),
            "other_slot": self.forward.slot(k - 1), "step": steps - k + 1,  # type: ignore[union-attr]
        }  # fmt: skip
        return Launch("entries", -(-fixed["num_listed"] // fixed["ROWS"]), fixed, {})

    def bytes(self) -> int:
        """Memory that a call needs beside its inputs and outputs."""
        layout = self.back.layout
        rest = max(
            plan.bytes() - plan.num_slots * layout.slot * layout.size for _, plan in self.parts
        )
        return self.num_slots * layout.slot * layout.size + rest


def keeps(need: tuple[bool, bool, str]) -> bool:
    """Whether gradients need every forward state."""
    return need[1] or bool(set(need[2]) & set("adb"))


def columns_at_once(layout: Layout, slots: int, need: tuple[bool, bool, str]) -> int:
    """For how many columns gradients have room for so many slots."""
    most = MOST_STATES // (slots * layout.batch * layout.num_rows * 16)
    if not keeps(need) or most >= layout.units:
        return layout.channels
    return layout.vec << max(most.bit_length() - 1, 0)


def _packing(rows: Rows, shape: Shape, layout: Layout, slot: int) -> Plan:
    """Inputs into slots, and no more."""
    shape = shape._replace(steps=0, puts=True)
    return Plan(rows, shape, layout, How(takes=False, base=slot))
