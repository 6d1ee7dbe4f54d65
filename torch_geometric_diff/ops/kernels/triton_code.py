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


@triton.jit(do_not_specialize=["num_rows", "threshold"])
def drop(
    x, y, seeds, num_rows, channels, threshold, ROWS: tl.constexpr, COLUMNS: tl.constexpr
):  # fmt: skip
    """Write ``y = mask * x``."""
    blocks = tl.cdiv(num_rows, ROWS)
    row = (tl.program_id(0) % blocks).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    element, start, column = _place(tl.program_id(0) // blocks, num_rows, channels, COLUMNS)
    place = start + row[:, None] * channels + column[None, :]
    inside = (row < num_rows)[:, None] & (column < channels)[None, :]
    tile = tl.load(x + place, mask=inside, other=0.0)
    seed = tl.load(seeds + element)
    tl.store(y + place, _dropout(tile, row, column, seed, 0, threshold), mask=inside)


@triton.jit
def _product(
    x, y, rowptr, col, value, order, rank, num_rows, column, channels, seeds, number, threshold,
    ALONE: tl.constexpr, LONG: tl.constexpr, DROP: tl.constexpr,
    ROWS: tl.constexpr, CHUNK: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Some rows of ``y = P x``, CHUNK entries of each at a time; ``seeds`` is that of ``x``."""
    mine = rank < num_rows
    row = tl.load(order + rank, mask=mine, other=0)
    begin = tl.load(rowptr + row, mask=mine, other=0)
    degree = tl.load(rowptr + row + 1, mask=mine, other=0) - begin
    mine = mine & ((degree > LONG) == ALONE)
    if tl.max(mine.to(tl.int32), axis=0) > 0:
        degree = tl.where(mine, degree, 0)
        narrow = column < channels
        total = tl.zeros([ROWS, CHUNK, COLUMNS], value.dtype.element_ty)
        lane = tl.arange(0, CHUNK)[None, :]
        for start in range(0, tl.max(degree, axis=0), CHUNK):
            taken = start + lane < degree[:, None]
            entry = begin[:, None] + start + lane
            source = tl.load(col + entry, mask=taken, other=0).to(tl.int64) * channels
            weight = tl.load(value + entry, mask=taken, other=0.0)
            total += weight[:, :, None] * tl.load(
                x + source[:, :, None] + column[None, None, :],
                mask=taken[:, :, None] & narrow[None, None, :],
                other=0.0,
            )
        tile = tl.sum(total, axis=1)
        if DROP:
            tile = _dropout(tile, row, column, tl.load(seeds), number, threshold)
        place = row[:, None] * channels + column[None, :]
        tl.store(y + place, tile, mask=mine[:, None] & narrow[None, :])


@triton.jit(do_not_specialize=["num_rows", "num_long", "number", "threshold"])
def step(
    x, y, rowptr, col, value, order, seeds, num_rows, channels, num_long, number, threshold,
    LONG: tl.constexpr, DROP: tl.constexpr,
    ROWS: tl.constexpr, CHUNK: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Write ``y = P x``, or with DROP ``y = mask * (P x)`` and the masks of step ``number``, for
    every element of a batch.

    ``order`` lists the rows by falling length. The first ``num_long`` programs of a block of
    columns take one row each, if it has more than LONG entries; the others take ROWS rows each, of
    about the same length, but for the long ones. Blocks of columns follow one another, so that the
    numbers being gathered stay in the L2 cache.
    """
    programs = num_long + tl.cdiv(num_rows, ROWS)
    program = tl.program_id(0) % programs
    element, start, column = _place(tl.program_id(0) // programs, num_rows, channels, COLUMNS)
    x += start
    y += start
    if DROP:
        seeds += element
    if program < num_long:
        _product(
            x, y, rowptr, col, value, order, program + tl.arange(0, 1), num_rows, column, channels,
            seeds, number, threshold, True, LONG, DROP, 1, ROWS * CHUNK, COLUMNS,
        )  # fmt: skip
    else:
        rank = (program - num_long) * ROWS + tl.arange(0, ROWS)
        _product(
            x, y, rowptr, col, value, order, rank, num_rows, column, channels,
            seeds, number, threshold, False, LONG, DROP, ROWS, CHUNK, COLUMNS,
        )  # fmt: skip
