"""Device code of the Triton kernel; imported only by ``cuda``, as it needs Triton itself.

Arithmetic of the masks is uint32 throughout: ``>>`` is then a logical shift, products wrap, and an
integer literal takes the type of the Tensor beside it.
"""

# mypy: disallow-untyped-defs=False, disallow-untyped-calls=False
import triton
import triton.language as tl


@triton.jit
def _mix32(h):
    h = (h ^ (h >> 16)) * 0x7FEB352D
    h = (h ^ (h >> 15)) * 0x846CA68B
    return h ^ (h >> 16)


@triton.jit
def _dropout(tile, row, column, seed, number, threshold):
    """A tile [rows, columns] times its mask: ``ops.random.random_u16``, one hash a column."""
    s = seed.to(tl.uint64) + tl.cast(number + 1, tl.uint64) * 0x9E3779B97F4A7C15
    s = (s ^ (s >> 30)) * 0xBF58476D1CE4E5B9
    s = (s ^ (s >> 27)) * 0x94D049BB133111EB
    s = s ^ (s >> 31)
    row = row.to(tl.uint32)
    column = column.to(tl.uint32)
    a = _mix32(row ^ s.to(tl.uint32))[:, None]
    b = _mix32(row + (s >> 32).to(tl.uint32))[:, None]
    word = (column >> 5) * 16 + (column & 15)
    h = a + (word * 0x9E3779B1)[None, :]
    h = (h ^ (h >> 16)) * 0x7FEB352D
    h = ((h ^ (h >> 15)) + b) * 0x846CA68B
    h = h ^ (h >> 16)
    bits = (h >> (((column >> 4) & 1) * 16)[None, :]) & 0xFFFF
    # divided in float64, as on the host: Triton rounds a float32 division loosely
    scale = (65536.0 / (65536 - threshold).to(tl.float64)).to(tile.dtype)
    return tl.where(bits >= threshold.to(tl.uint32), tile * scale, 0.0)


@triton.jit
def _place(block, num_rows, channels, COLUMNS: tl.constexpr):
    """The element of the batch, where it starts, and the columns of a block of columns."""
    blocks = tl.cdiv(channels, COLUMNS)
    element = block // blocks
    start = element.to(tl.int64) * num_rows * channels
    return element, start, block % blocks * COLUMNS + tl.arange(0, COLUMNS)


@triton.jit
def _put(z, x, table, step, steps, inputs, size, place, inside):
    """A state and what inputs add to it in a step; ``table`` starts at the first input's row."""
    for i in range(inputs):
        c = tl.load(table + i * (steps + 1) + step)
        if c != 0:
            z += c * tl.load(x + tl.cast(i, tl.int64) * size + place, mask=inside, other=0.0)
    return z


@triton.jit
def _take(z, y, table, step, steps, outputs, size, place, inside):
    """Give the outputs their share of a state; ``table`` starts at the first output's row."""
    for o in range(outputs):
        w = tl.load(table + o * (steps + 1) + step)
        if w != 0:
            to = y + tl.cast(o, tl.int64) * size + place
            tl.store(to, w * z + tl.load(to, mask=inside, other=0.0), mask=inside)


@triton.jit(do_not_specialize=["num_rows", "threshold", "steps", "inputs", "outputs"])
def begin(
    x, y, state, table, seeds, num_rows, channels, threshold, size, steps, inputs, outputs,
    DROP: tl.constexpr, SUMS: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Write the first state, with DROP times the first mask, and begin the outputs with it."""
    blocks = tl.cdiv(num_rows, ROWS)
    row = (tl.program_id(0) % blocks).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    element, start, column = _place(tl.program_id(0) // blocks, num_rows, channels, COLUMNS)
    place = start + row[:, None] * channels + column[None, :]
    inside = (row < num_rows)[:, None] & (column < channels)[None, :]
    z = tl.zeros([ROWS, COLUMNS], x.dtype.element_ty)
    table += 3 * (steps + 1)
    z = _put(z, x, table, 0, steps, inputs, size, place, inside)
    if SUMS:
        _take(z, y, table + inputs * (steps + 1), 0, steps, outputs, size, place, inside)
    if DROP:
        z = _dropout(z, row, column, tl.load(seeds + element), 0, threshold)
    tl.store(state + place, z, mask=inside)


@triton.jit
def _row_sums(
    x, rowptr, col, value, row, mine, column, channels, CHUNK: tl.constexpr, ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):  # fmt: skip
    """The rows of ``P x``, CHUNK entries of each at a time."""
    begin = tl.load(rowptr + row, mask=mine, other=0)
    degree = tl.load(rowptr + row + 1, mask=mine, other=0) - begin
    total = tl.zeros([ROWS, CHUNK, COLUMNS], value.dtype.element_ty)
    narrow = (column < channels)[None, None, :]
    lane = tl.arange(0, CHUNK)[None, :]
    for start in range(0, tl.max(degree, axis=0), CHUNK):
        taken = start + lane < degree[:, None]
        entry = begin[:, None] + start + lane
        source = tl.load(col + entry, mask=taken, other=0).to(tl.int64) * channels
        weight = tl.load(value + entry, mask=taken, other=0.0)
        total += weight[:, :, None] * tl.load(
            x + source[:, :, None] + column[None, None, :],
            mask=taken[:, :, None] & narrow,
            other=0.0,
        )
    return tl.sum(total, axis=1)


@triton.jit
def _advance(
    x, y, front, back, rowptr, col, value, order, table, seeds, rank, num_rows, column, channels,
    start, number, step, steps, inputs, outputs, threshold, size, low, high,
    ALONE: tl.constexpr, LONG: tl.constexpr, DROP: tl.constexpr, REVERSE: tl.constexpr,
    PLAIN: tl.constexpr, SUMS: tl.constexpr, CLAMP: tl.constexpr,
    ROWS: tl.constexpr, CHUNK: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Some rows of the next state, written over the one before the last."""
    mine = rank < num_rows
    row = tl.load(order + rank, mask=mine, other=0)
    degree = tl.load(rowptr + row + 1, mask=mine, other=0) - tl.load(
        rowptr + row, mask=mine, other=0
    )
    mine = mine & ((degree > LONG) == ALONE)
    if tl.max(mine.to(tl.int32), axis=0) > 0:
        place = row[:, None] * channels + column[None, :]
        inside = mine[:, None] & (column < channels)[None, :]
        z = _row_sums(
            front + start, rowptr, col, value, row, mine, column, channels, CHUNK, ROWS, COLUMNS
        )
        if not PLAIN:
            a = tl.load(table + step)
            z = tl.where(a != 0, a * z, 0.0)
            d = tl.load(table + steps + 1 + step)
            if d != 0:
                z += d * tl.load(front + start + place, mask=inside, other=0.0)
        if REVERSE and DROP:
            z = _dropout(z, row, column, tl.load(seeds), number, threshold)
        if not PLAIN:
            b = tl.load(table + 2 * (steps + 1) + step)
            if (b != 0) & (step > 1):
                z += b * tl.load(back + start + place, mask=inside, other=0.0)
            rows = table + 3 * (steps + 1)
            z = _put(z, x + start, rows, step, steps, inputs, size, place, inside)
        if CLAMP:
            z = tl.where(z < low, low, z)  # NaN stays
            z = tl.where(z > high, high, z)
        if SUMS:
            rows = table + (3 + inputs) * (steps + 1)
            _take(z, y + start, rows, step, steps, outputs, size, place, inside)
        if DROP and not REVERSE:
            z = _dropout(z, row, column, tl.load(seeds), number, threshold)
        tl.store(back + start + place, z, mask=inside)


@triton.jit(
    do_not_specialize=[
        "num_rows", "num_long", "number", "step", "threshold", "steps", "inputs", "outputs",
    ]
)  # fmt: skip
def advance(
    x, y, front, back, rowptr, col, value, order, table, seeds, num_rows, channels, num_long,
    number, step, steps, inputs, outputs, threshold, size, low, high,
    LONG: tl.constexpr, DROP: tl.constexpr, REVERSE: tl.constexpr,
    PLAIN: tl.constexpr, SUMS: tl.constexpr, CLAMP: tl.constexpr,
    ROWS: tl.constexpr, CHUNK: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """One step of a recurrence for every element of a batch, from ``front`` to ``back``.

    With DROP it applies the masks of step ``number``: of the next step to the state, or with
    REVERSE of this one to the product. PLAIN: the state is the product and nothing else.

    ``order`` lists the rows by falling length. The first ``num_long`` programs of a block of
    columns take one row each, if it has more than LONG entries; the others take ROWS rows each, of
    about the same length, but for the long ones. Blocks of columns follow one another, so that the
    numbers being gathered stay in the L2 cache.
    """
    programs = num_long + tl.cdiv(num_rows, ROWS)
    program = tl.program_id(0) % programs
    element, start, column = _place(tl.program_id(0) // programs, num_rows, channels, COLUMNS)
    if DROP:
        seeds += element
    if program < num_long:
        _advance(
            x, y, front, back, rowptr, col, value, order, table, seeds,
            program + tl.arange(0, 1), num_rows, column, channels, start, number, step, steps,
            inputs, outputs, threshold, size, low, high,
            True, LONG, DROP, REVERSE, PLAIN, SUMS, CLAMP, 1, ROWS * CHUNK, COLUMNS,
        )  # fmt: skip
    else:
        rank = (program - num_long) * ROWS + tl.arange(0, ROWS)
        _advance(
            x, y, front, back, rowptr, col, value, order, table, seeds,
            rank, num_rows, column, channels, start, number, step, steps,
            inputs, outputs, threshold, size, low, high,
            False, LONG, DROP, REVERSE, PLAIN, SUMS, CLAMP, ROWS, CHUNK, COLUMNS,
        )  # fmt: skip
