"""Device code of the GPU kernels; imported only by ``cuda``, as it needs Triton itself.

States lie in *slots* [batch, rows, pitch] of one Tensor. Rows are padded to ``pitch = units * VEC``
elements, a multiple of 16 bytes, so that a gather is made of 16-byte loads whatever the width. The
entries of a row are added one after the other: sums do not depend on the shape of a tile.

Arithmetic of the masks is uint32 throughout: ``>>`` is then a logical shift, products wrap, and an
integer literal takes the type of the Tensor beside it.
"""

# mypy: disallow-untyped-defs=False, disallow-untyped-calls=False
import triton
import triton.language as tl

LOW, HIGH, SCALE, TABLE = (tl.constexpr(i) for i in range(4))  # in an array of numbers


@triton.jit
def _mix32(h):
    h = (h ^ (h >> 16)) * 0x7FEB352D
    h = (h ^ (h >> 15)) * 0x846CA68B
    return h ^ (h >> 16)


@triton.jit
def _dropout(tile, row, column, seed, number, threshold, scale):
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
    return tl.where(bits >= threshold.to(tl.uint32), tile * scale, 0.0)


@triton.jit
def _times(z, factor):
    """A product that is 0 where a factor is, be the other infinite."""
    return tl.where((factor == 0) | (z == 0), 0.0, z * factor)


@triton.jit
def _block(block, units, VEC: tl.constexpr, COLUMNS: tl.constexpr):
    """The element of the batch and the columns of a block of columns."""
    blocks = tl.cdiv(units * VEC, COLUMNS)
    return block // blocks, block % blocks * COLUMNS + tl.arange(0, COLUMNS)


@triton.jit
def _slot(states, slot, batch, element, num_rows, units, VEC: tl.constexpr):
    """Where an element of the batch begins in a slot."""
    return states + (tl.cast(slot, tl.int64) * batch + element) * num_rows * (units * VEC)


@triton.jit
def _offsets(row, column, pitch, WIDE: tl.constexpr):
    """Where the columns of rows lie, in 32 bits unless WIDE."""
    if WIDE:
        row = row.to(tl.int64)
    return (row * pitch)[:, None] + column[None, :]


@triton.jit
def _add(total, source, c, w, column, inside, pitch, WIDE: tl.constexpr):
    """Add an entry of every row; a row without one has a negative column."""
    part = tl.load(
        source + _offsets(c, column, pitch, WIDE), mask=(c >= 0)[:, None] & inside, other=0.0
    )
    return tl.fma(tl.broadcast_to(w[:, None], total.shape), part.to(total.dtype), total)


@triton.jit
def _row_sums(
    total, source, col, value, first, count, column, units, live,
    SOME: tl.constexpr, WIDE: tl.constexpr, VEC: tl.constexpr,
):  # fmt: skip
    """Rows of ``P z``, four entries of each on their way at a time.

    With SOME the rows of ``z`` from ``live`` on are zero and not read.
    """
    pitch = units * VEC
    inside = (column < pitch)[None, :]
    for at in range(0, tl.max(count, axis=0), 4):
        entry, left = first + at, count - at
        c0 = tl.load(col + entry, mask=left > 0, other=-1)
        c1 = tl.load(col + entry + 1, mask=left > 1, other=-1)
        c2 = tl.load(col + entry + 2, mask=left > 2, other=-1)
        c3 = tl.load(col + entry + 3, mask=left > 3, other=-1)
        w0 = tl.load(value + entry, mask=left > 0, other=0.0)
        w1 = tl.load(value + entry + 1, mask=left > 1, other=0.0)
        w2 = tl.load(value + entry + 2, mask=left > 2, other=0.0)
        w3 = tl.load(value + entry + 3, mask=left > 3, other=0.0)
        if SOME:
            c0, c1 = tl.where(c0 < live, c0, -1), tl.where(c1 < live, c1, -1)
            c2, c3 = tl.where(c2 < live, c2, -1), tl.where(c3 < live, c3, -1)
        total = _add(total, source, c0, w0, column, inside, pitch, WIDE)
        total = _add(total, source, c1, w1, column, inside, pitch, WIDE)
        total = _add(total, source, c2, w2, column, inside, pitch, WIDE)
        total = _add(total, source, c3, w3, column, inside, pitch, WIDE)
    return total


@triton.jit
def _meet(z, other, inside, to):
    """The inner product of a tile with a slot, and where it goes."""
    product = _times(z, tl.load(other, mask=inside, other=0.0).to(z.dtype))
    tl.store(to, tl.sum(tl.sum(product, axis=1), axis=0))


@triton.jit
def _finish(
    z, states, front, front_slot, older_slot, back_slot, put, put_slot, y, sums, names, numbers,
    seeds, ends, dots, meets, row, mine, column, element, program, batch, num_rows, units,
    channels, stride, before, out_rows, number, step, steps, inputs, outputs, threshold,
    num_dots, programs,
    FIRST: tl.constexpr, PLAIN: tl.constexpr, DROP: tl.constexpr, TAKE: tl.constexpr,
    STORE: tl.constexpr, CLAMP: tl.constexpr, NAMES: tl.constexpr, ALIGNED: tl.constexpr,
    DOTS: tl.constexpr, WIDE: tl.constexpr, VEC: tl.constexpr,
):  # fmt: skip
    """From rows of the product to rows of the state, and what becomes of it."""
    pitch = units * VEC
    place = _offsets(row, column, pitch, WIDE)
    inside = mine[:, None] & (column < pitch)[None, :]
    table, width = numbers + TABLE, steps + 1
    name = row
    if NAMES:
        name = tl.load(names + row, mask=mine, other=0)
    if DOTS:
        dots += program
        meets += step * num_dots
    if DOTS and not FIRST:  # the first dot is that of the product
        slot = tl.load(meets)
        if slot >= 0:
            other = _slot(states, slot, batch, element, num_rows, units, VEC) + place
            _meet(z, other, inside, dots)
    if not PLAIN and not FIRST:
        a = tl.load(table + step)
        d = tl.load(table + width + step)
        z = tl.where(a != 0, a * z, 0.0)
        if d != 0:
            at = _slot(front, front_slot, batch, element, num_rows, units, VEC) + place
            z += d * tl.load(at, mask=inside, other=0.0).to(z.dtype)
    if DROP == 2:
        scale = tl.load(numbers + SCALE)
        z = _dropout(z, name, before + column, tl.load(seeds + element), number, threshold, scale)
    if not PLAIN and not FIRST:
        b = tl.load(table + 2 * width + step)
        if (b != 0) & (step > 1):
            at = _slot(states, older_slot, batch, element, num_rows, units, VEC) + place
            z += b * tl.load(at, mask=inside, other=0.0).to(z.dtype)
        for i in range(inputs):
            c = tl.load(table + (3 + i) * width + step)
            if c != 0:
                at = _slot(put, put_slot + i, batch, element, num_rows, units, VEC) + place
                z += c * tl.load(at, mask=inside, other=0.0).to(z.dtype)
    if CLAMP and not FIRST:
        low, high = tl.load(numbers + LOW), tl.load(numbers + HIGH)
        z = tl.where(z < low, low, z)  # NaN stays
        z = tl.where(z > high, high, z)
    if DOTS:
        for i in range(1, num_dots):
            slot = tl.load(meets + i)
            if slot >= 0:
                other = _slot(states, slot, batch, element, num_rows, units, VEC) + place
                _meet(z, other, inside, dots + i * programs)
    if TAKE:
        if y.dtype.element_ty == tl.int64:  # its address, anew at every replay of a graph
            y = tl.load(y).to(tl.pointer_type(states.dtype.element_ty))
        out = row
        if NAMES >= 2:
            out = name
        if ALIGNED:
            out_place, written = _offsets(out, column, pitch, WIDE), inside
        else:
            out_place = _offsets(out, column, stride, WIDE)
            written = inside & (column < channels)[None, :]
        written = written & (out < out_rows)[:, None]
        for o in range(outputs):
            w = tl.load(table + (3 + inputs + o) * width + step)
            begin, end = tl.load(ends + 2 * o), tl.load(ends + 2 * o + 1)
            if (w != 0) | (step == end):
                part = tl.where(w != 0, w * z, 0.0)
                if sums is not None:
                    at = _slot(sums, o, batch, element, num_rows, units, VEC) + place
                    if step > begin:
                        part += tl.load(at, mask=inside, other=0.0)
                    if step < end:
                        tl.store(at, part, mask=inside)
                if step == end:
                    to = y + (tl.cast(o, tl.int64) * batch + element) * out_rows * stride
                    tl.store(to + out_place, part.to(states.dtype.element_ty), mask=written)
    if DROP == 1:
        scale = tl.load(numbers + SCALE)
        z = _dropout(z, name, before + column, tl.load(seeds + element), number, threshold, scale)
    if STORE:
        at = _slot(states, back_slot, batch, element, num_rows, units, VEC) + place
        tl.store(at, z.to(states.dtype.element_ty), mask=inside)


_NUMBERS = [
    "front_slot", "older_slot", "back_slot", "put_slot", "num_split", "skip", "num_whole",
    "num_long", "num_partials", "live", "in_rows", "batch", "num_rows", "units", "channels",
    "stride", "before", "out_rows", "number", "step", "steps", "inputs", "outputs", "threshold",
    "num_dots", "first_program", "programs", "seed_low", "seed_high", "slot", "other_slot",
    "num_listed", "new", "finished",
]  # fmt: skip


@triton.jit(do_not_specialize=_NUMBERS)
def begin(
    x, y, states, sums, names, numbers, seeds, ends, dots, meets, address, back_slot, put_slot,
    in_rows, batch, num_rows, units, channels, stride, before, out_rows, number, step, steps,
    inputs, outputs, threshold, num_dots, programs, seed_low, seed_high,
    PUT: tl.constexpr, SEED: tl.constexpr, DROP: tl.constexpr, TAKE: tl.constexpr,
    STORE: tl.constexpr, NAMES: tl.constexpr, ALIGNED: tl.constexpr, DOTS: tl.constexpr,
    WIDE: tl.constexpr, VEC: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """The first state, and with PUT slots of the inputs, which later steps add."""
    pitch = units * VEC
    blocks = tl.cdiv(num_rows, ROWS)
    program = tl.program_id(0)
    row = program % blocks * ROWS + tl.arange(0, ROWS)
    element, column = _block(program // blocks, units, VEC, COLUMNS)
    mine = row < num_rows
    if address is not None:  # what the other launches of a graph read
        tl.store(address, y.to(tl.int64))
    if SEED:
        seed = (tl.cast(seed_high, tl.int64) << 32) + (tl.cast(seed_low, tl.int64) + 2147483648)
        tl.store(seeds, seed)
    source = row
    if NAMES % 2 == 1:
        source = tl.load(names + row, mask=mine, other=0)
    there = (mine & (source < in_rows))[:, None]
    if ALIGNED:
        from_place, there = _offsets(source, column, pitch, WIDE), there & (column < pitch)[None, :]
    else:
        from_place = _offsets(source, column, stride, WIDE)
        there = there & (column < channels)[None, :]
    place = _offsets(row, column, pitch, WIDE)
    inside = mine[:, None] & (column < pitch)[None, :]
    z = tl.zeros([ROWS, COLUMNS], numbers.dtype.element_ty)
    for i in range(inputs):
        c = tl.load(numbers + TABLE + (3 + i) * (steps + 1))
        if PUT or c != 0:
            at = x + (tl.cast(i, tl.int64) * batch + element) * in_rows * stride
            tile = tl.load(at + from_place, mask=there, other=0.0)
            if PUT:
                at = _slot(states, put_slot + i, batch, element, num_rows, units, VEC)
                tl.store(at + place, tile, mask=inside)
            z += tl.where(c != 0, c * tile.to(z.dtype), 0.0)
    if SEED and DROP == 1:
        tl.debug_barrier()  # this program reads what it wrote
    _finish(
        z, states, states, 0, 0, back_slot, states, 0, y, sums, names, numbers, seeds, ends, dots,
        meets, row, mine, column, element, program, batch, num_rows, units, channels, stride,
        before, out_rows, number, step, steps, inputs, outputs, threshold, num_dots, programs,
        True, False, DROP, TAKE, STORE, False, NAMES, ALIGNED, DOTS, WIDE, VEC,
    )  # fmt: skip


@triton.jit(do_not_specialize=_NUMBERS)
def advance(
    front, put, y, states, sums, partials, names, first, count, rows, col, value, numbers, seeds,
    ends, dots, meets, front_slot, older_slot, back_slot, put_slot, num_split, skip, num_whole,
    num_partials, live, batch, num_rows, units, channels, stride, before, out_rows, number, step,
    steps, inputs, outputs, threshold, num_dots, programs,
    SPLIT: tl.constexpr, PLAIN: tl.constexpr, DROP: tl.constexpr, TAKE: tl.constexpr,
    STORE: tl.constexpr, CLAMP: tl.constexpr, NAMES: tl.constexpr, ALIGNED: tl.constexpr,
    DOTS: tl.constexpr, WIDE: tl.constexpr, VEC: tl.constexpr, ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):  # fmt: skip
    """One step of a recurrence for every element of a batch.

    DROP 1 applies the mask ``number``, that of the next step, to the state, 2 that of this step to
    the product. PLAIN: the state is the product and nothing else. TAKE: outputs take of it, and
    with STORE the next step does. NAMES: rows are those of the inputs (1), of the outputs (2) under
    other names. DOTS: the state meets slots.

    ``first``, ``count`` and ``rows`` list where rows begin, how long they are and which they are:
    pieces of long rows, then, from ``skip`` on, whole rows, both by falling length. The first
    programs of a block of columns write sums of pieces, which ``join`` adds. Blocks of columns
    follow one another, so that what is gathered stays in the L2 cache.
    """
    split_blocks = tl.cdiv(num_split, ROWS)
    blocks = split_blocks + tl.cdiv(num_whole, ROWS)
    program = tl.program_id(0)
    element, column = _block(program // blocks, units, VEC, COLUMNS)
    block = program % blocks
    rank = block * ROWS + tl.arange(0, ROWS)
    mine = rank < num_split
    if block >= split_blocks:
        rank += skip - split_blocks * ROWS
        mine = rank < skip + num_whole
    row = tl.load(rows + rank, mask=mine, other=-1)
    mine = row >= 0
    at = _slot(front, front_slot, batch, element, num_rows, units, VEC)
    z = _row_sums(
        tl.zeros([ROWS, COLUMNS], numbers.dtype.element_ty), at, col, value,
        tl.load(first + rank, mask=mine, other=0), tl.load(count + rank, mask=mine, other=0),
        column, units, live, NAMES == 2, WIDE, VEC,
    )  # fmt: skip
    if SPLIT and block < split_blocks:
        to = _slot(partials, 0, batch, element, num_partials, units, VEC)
        inside = mine[:, None] & (column < units * VEC)[None, :]
        tl.store(to + _offsets(row, column, units * VEC, WIDE), z, mask=inside)
    else:
        program = program // blocks * (blocks - split_blocks) + block - split_blocks
        _finish(
            z, states, front, front_slot, older_slot, back_slot, put, put_slot, y, sums, names,
            numbers, seeds, ends, dots, meets, row, mine, column, element, program, batch, num_rows,
            units, channels, stride, before, out_rows, number, step, steps, inputs, outputs,
            threshold, num_dots, programs,
            False, PLAIN, DROP, TAKE, STORE, CLAMP, NAMES, ALIGNED, DOTS, WIDE, VEC,
        )  # fmt: skip


@triton.jit(do_not_specialize=_NUMBERS)
def join(
    front, put, y, states, sums, partials, names, first, count, rows, numbers, seeds, ends, dots,
    meets, front_slot, older_slot, back_slot, put_slot, num_long, num_partials, batch, num_rows,
    units, channels, stride, before, out_rows, number, step, steps, inputs, outputs, threshold,
    num_dots, first_program, programs,
    PLAIN: tl.constexpr, DROP: tl.constexpr, TAKE: tl.constexpr, STORE: tl.constexpr,
    CLAMP: tl.constexpr, NAMES: tl.constexpr, ALIGNED: tl.constexpr, DOTS: tl.constexpr,
    WIDE: tl.constexpr, VEC: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """The rest of a step: long rows, whose pieces are added in their order."""
    pitch = units * VEC
    blocks = tl.cdiv(num_long, ROWS)
    program = tl.program_id(0)
    element, column = _block(program // blocks, units, VEC, COLUMNS)
    rank = program % blocks * ROWS + tl.arange(0, ROWS)
    row = tl.load(rows + rank, mask=rank < num_long, other=-1)
    mine = row >= 0
    piece = tl.load(first + rank, mask=mine, other=0)
    pieces = tl.load(count + rank, mask=mine, other=0)
    at = _slot(partials, 0, batch, element, num_partials, units, VEC)
    z = tl.zeros([ROWS, COLUMNS], numbers.dtype.element_ty)
    for i in range(0, tl.max(pieces, axis=0)):
        inside = (i < pieces)[:, None] & (column < pitch)[None, :]
        z += tl.load(at + _offsets(piece + i, column, pitch, WIDE), mask=inside, other=0.0)
    _finish(
        z, states, front, front_slot, older_slot, back_slot, put, put_slot, y, sums, names,
        numbers, seeds, ends, dots, meets, row, mine, column, element, first_program + program, batch,
        num_rows, units, channels, stride, before, out_rows, number, step, steps, inputs, outputs,
        threshold, num_dots, programs,
        False, PLAIN, DROP, TAKE, STORE, CLAMP, NAMES, ALIGNED, DOTS, WIDE, VEC,
    )  # fmt: skip


@triton.jit(do_not_specialize=_NUMBERS)
def total(to, dots, meets, step, num_dots, finished, programs, SIZE: tl.constexpr):
    """Add up what the programs of a step made of each inner product, in a fixed order."""
    i = tl.program_id(0)
    lane = tl.arange(0, SIZE)
    sums = tl.zeros([SIZE], dots.dtype.element_ty)
    if tl.load(meets + step * num_dots + i) >= 0:
        for at in range(0, finished, SIZE):
            sums += tl.load(dots + i * programs + at + lane, mask=at + lane < finished, other=0.0)
    to += step * num_dots + i
    tl.store(to, tl.load(to) + tl.sum(sums, axis=0))


@triton.jit(do_not_specialize=_NUMBERS)
def entries(
    dvalue, states, first, count, rows, col, numbers, slot, other_slot, num_listed, batch,
    num_rows, units, step,
    WIDE: tl.constexpr, VEC: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Add to every entry (i, j) the inner product of row i of a slot and row j of another, times
    the coefficient ``a`` of a step.
    """
    pitch = units * VEC
    rank = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    row = tl.load(rows + rank, mask=rank < num_listed, other=-1)
    begin = tl.load(first + rank, mask=row >= 0, other=0)
    length = tl.load(count + rank, mask=row >= 0, other=0)
    a = tl.load(numbers + TABLE + step)
    for i in range(0, tl.max(length, axis=0)):
        some = i < length
        source = tl.load(col + begin + i, mask=some, other=0)
        sums = tl.zeros([ROWS], numbers.dtype.element_ty)
        for block in range(0, batch * tl.cdiv(pitch, COLUMNS)):
            element, column = _block(block, units, VEC, COLUMNS)
            inside = some[:, None] & (column < pitch)[None, :]
            at = _slot(states, slot, batch, element, num_rows, units, VEC)
            one = tl.load(at + _offsets(row, column, pitch, WIDE), mask=inside, other=0.0)
            at = _slot(states, other_slot, batch, element, num_rows, units, VEC)
            two = tl.load(at + _offsets(source, column, pitch, WIDE), mask=inside, other=0.0)
            sums += tl.sum(_times(one.to(sums.dtype), two.to(sums.dtype)), axis=1)
        to = dvalue + begin + i
        sums = tl.where(a != 0, a * sums, 0.0)
        tl.store(to, tl.load(to, mask=some, other=0.0) + sums, mask=some)
