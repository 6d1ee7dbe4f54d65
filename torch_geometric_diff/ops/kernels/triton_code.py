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

BEGIN, ADVANCE, JOIN = (tl.constexpr(i) for i in range(3))
LOW, HIGH, SCALE, TABLE = (tl.constexpr(i) for i in range(4))  # in an array of numbers


@triton.jit
def _mix32(h):
    h = (h ^ (h >> 16)) * 0x7FEB352D
    h = (h ^ (h >> 15)) * 0x846CA68B
    return h ^ (h >> 16)


@triton.jit
def _dropout(tile, row, column, seed, number, threshold, numbers):
    """A tile [rows, columns] times its mask: ``ops._random.random_u16``, one hash a column."""
    seed, scale = tl.load(seed), tl.load(numbers + SCALE)
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
def _slot(states, slot, size):
    """Where a slot of so many elements begins."""
    return states + tl.cast(slot, tl.int64) * size


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
    total, source, col, value, first, count, column, pitch, live,
    SOME: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """Rows of ``P z``, four entries of each on their way at a time.

    With SOME the rows of ``z`` from ``live`` on are zero and not read.
    """
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
def _listed(
    rows, block, split_blocks, num_split, skip, num_whole, KIND: tl.constexpr, ROWS: tl.constexpr
):
    """Where the rows of a block, or pieces of rows, stand in their list; which they are; and
    whether they are there.
    """
    rank = block * ROWS + tl.arange(0, ROWS)
    mine = rank < num_split
    if block >= split_blocks:
        rank += skip - split_blocks * ROWS
        mine = rank < skip + num_whole
    row = rank
    if KIND != BEGIN:
        row = tl.load(rows + rank, mask=mine, other=-1)
        mine = row >= 0
    return rank, row, mine


@triton.jit
def _from_rows(
    z, source, partials, element, part, col, value, first, count, rank, mine, column, pitch, live,
    KIND: tl.constexpr, SOME: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """Rows of ``P z``, or the rest of them from the sums of their pieces."""
    begin = tl.load(first + rank, mask=mine, other=0)
    length = tl.load(count + rank, mask=mine, other=0)
    if KIND == ADVANCE:
        z = _row_sums(z, source, col, value, begin, length, column, pitch, live, SOME, WIDE)
    else:
        home = _slot(partials, element, part)
        for i in range(0, tl.max(length, axis=0)):
            there = (i < length)[:, None] & (column < pitch)[None, :]
            z += tl.load(home + _offsets(begin + i, column, pitch, WIDE), mask=there, other=0.0)
    return z


@triton.jit
def _from_inputs(
    z, front, states, table, source, mine, across, inside, offset, column, element, batch, in_rows,
    stride, inputs, width, put_slot, size, PUT: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """The first state, made of the inputs; with PUT they become slots."""
    there = (mine & (source < in_rows))[:, None] & across
    taken = _offsets(source, column, stride, WIDE)
    for i in range(inputs):
        c = tl.load(table + (3 + i) * width)
        if PUT or c != 0:
            given = front + (tl.cast(i, tl.int64) * batch + element) * in_rows * stride
            tile = tl.load(given + taken, mask=there, other=0.0)
            if PUT:
                tl.store(_slot(states, put_slot + i, size) + offset, tile, mask=inside)
            z += tl.where(c != 0, c * tile.to(z.dtype), 0.0)
    return z


@triton.jit
def _completed(
    z, at, states, put, table, numbers, seeds, element, name, column, width, step, number,
    threshold, older_slot, put_slot, inputs, size, offset, inside,
    PLAIN: tl.constexpr, DROP: tl.constexpr, CLAMP: tl.constexpr,
):  # fmt: skip
    """A state from its product: with coefficients, a mask after the product, and bounds."""
    if not PLAIN:
        a, d = tl.load(table + step), tl.load(table + width + step)
        z = tl.where(a != 0, a * z, 0.0)
        if d != 0:
            z += d * tl.load(at + offset, mask=inside, other=0.0).to(z.dtype)
    if DROP == 2:
        z = _dropout(z, name, column, seeds + element, number, threshold, numbers)
    if not PLAIN:
        b = tl.load(table + 2 * width + step)
        if (b != 0) & (step > 1):
            other = _slot(states, older_slot, size) + offset
            z += b * tl.load(other, mask=inside, other=0.0).to(z.dtype)
        for i in range(inputs):
            c = tl.load(table + (3 + i) * width + step)
            if c != 0:
                other = _slot(put, put_slot + i, size) + offset
                z += c * tl.load(other, mask=inside, other=0.0).to(z.dtype)
    if CLAMP:
        low, high = tl.load(numbers + LOW), tl.load(numbers + HIGH)
        z = tl.where(z < low, low, z)  # NaN stays
        z = tl.where(z > high, high, z)
    return z


@triton.jit
def _write_outputs(
    z, y, states, sums, ends, table, out, mine, across, inside, offset, column, element, batch,
    out_rows, stride, inputs, outputs, width, step, home, size, WIDE: tl.constexpr,
):  # fmt: skip
    """What outputs take of a state; an output is written with the last one that it takes of."""
    if y.dtype.element_ty == tl.int64:  # its address, anew at every replay of a graph
        y = tl.load(y).to(tl.pointer_type(states.dtype.element_ty))
    written = (mine & (out < out_rows))[:, None] & across
    for o in range(outputs):
        w = tl.load(table + (3 + inputs + o) * width + step)
        since, until = tl.load(ends + 2 * o), tl.load(ends + 2 * o + 1)
        if (w != 0) | (step == until):
            part = tl.where(w != 0, w * z, 0.0)
            if sums is not None:
                so_far = _slot(sums + home, o, size) + offset
                if step > since:
                    part += tl.load(so_far, mask=inside, other=0.0)
                if step < until:
                    tl.store(so_far, part, mask=inside)
            if step == until:
                result = y + (tl.cast(o, tl.int64) * batch + element) * out_rows * stride
                result += _offsets(out, column, stride, WIDE)
                tl.store(result, part.to(states.dtype.element_ty), mask=written)


@triton.jit
def _meet(z, states, meets, dots, first, last, programs, offset, inside, size):
    """The inner products of a state with slots that it meets, and where they go."""
    for i in range(first, last):
        slot = tl.load(meets + i)
        if slot >= 0:
            other = tl.load(_slot(states, slot, size) + offset, mask=inside, other=0.0)
            product = _times(z, other.to(z.dtype))
            tl.store(dots + i * programs, tl.sum(tl.sum(product, axis=1), axis=0))


@triton.jit
def _tell(address, y, seeds, seed_low, seed_high, SEED: tl.constexpr):
    """For the launches that follow: where a graph's outputs go, and the seed."""
    if address is not None:
        tl.store(address, y.to(tl.int64))
    if SEED:
        high = tl.cast(seed_high, tl.int64) << 32
        tl.store(seeds, high + (tl.cast(seed_low, tl.int64) + 2147483648))
        tl.debug_barrier()  # this program may read it


_NUMBERS = [
    "front_slot", "older_slot", "back_slot", "put_slot", "num_split", "skip", "num_whole",
    "num_partials", "live", "in_rows", "batch", "num_rows", "units", "channels", "stride",
    "before", "out_rows", "number", "step", "steps", "inputs", "outputs", "threshold", "num_dots",
    "first_program", "programs", "seed_low", "seed_high", "slot", "other_slot", "num_listed",
    "finished",
]  # fmt: skip


@triton.jit(do_not_specialize=_NUMBERS)
def advance(
    front, put, y, states, sums, partials, names, first, count, rows, col, value, numbers, seeds,
    ends, dots, meets, address, front_slot, older_slot, back_slot, put_slot, num_split, skip,
    num_whole, num_partials, live, in_rows, batch, num_rows, units, channels, stride, before,
    out_rows, number, step, steps, inputs, outputs, threshold, num_dots, first_program, programs,
    seed_low, seed_high,
    KIND: tl.constexpr, PLAIN: tl.constexpr, DROP: tl.constexpr, TAKE: tl.constexpr,
    STORE: tl.constexpr, CLAMP: tl.constexpr, NAMES: tl.constexpr, ALIGNED: tl.constexpr,
    PUT: tl.constexpr, SEED: tl.constexpr, SPLIT: tl.constexpr, DOTS: tl.constexpr,
    WIDE: tl.constexpr, VEC: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """A state of a recurrence, for every element of a batch.

    KIND: BEGIN makes the first of the inputs ``front``, and with PUT slots of them, which later
    steps add; ADVANCE makes the next one, or with SPLIT sums of pieces of long rows, of which JOIN
    makes the rest. PLAIN: the state is the product and nothing else. DROP 1 applies the mask
    ``number``, that of the next step, to the state, 2 that of this step to the product. TAKE:
    outputs take of it. STORE: the next step does. NAMES: rows have other names in the inputs (1),
    in the outputs (2) or both. ALIGNED: inputs and outputs are laid out as slots are. DOTS: the
    state meets slots. SEED: the seed is an argument.

    ``first``, ``count`` and ``rows`` list where rows begin, how long they are and which they are:
    pieces, then, from ``skip`` on, rows. Blocks of columns follow one another, so that what is
    gathered stays in the L2 cache.
    """
    pitch, table, width = units * VEC, numbers + TABLE, steps + 1
    split_blocks = tl.cdiv(num_split, ROWS)
    blocks = split_blocks + tl.cdiv(num_whole, ROWS)
    program = tl.program_id(0)
    element, column = _block(program // blocks, units, VEC, COLUMNS)
    block = program % blocks
    rank, row, mine = _listed(rows, block, split_blocks, num_split, skip, num_whole, KIND, ROWS)
    offset = _offsets(row, column, pitch, WIDE)
    inside = mine[:, None] & (column < pitch)[None, :]
    name = tl.load(names + row, mask=mine, other=0) if NAMES else row
    stride = pitch if ALIGNED else stride
    across = (column < (pitch if ALIGNED else channels))[None, :]
    home = tl.cast(element, tl.int64) * num_rows * pitch  # in a slot
    size = tl.cast(batch, tl.int64) * num_rows * pitch
    z = tl.zeros([ROWS, COLUMNS], numbers.dtype.element_ty)
    at = _slot(front + home, front_slot, size)
    part = tl.cast(num_partials, tl.int64) * pitch
    if KIND == BEGIN:
        _tell(address, y, seeds, seed_low, seed_high, SEED)
        z = _from_inputs(
            z, front, states + home, table, name if NAMES % 2 == 1 else row, mine, across, inside,
            offset, column, element, batch, in_rows, stride, inputs, width, put_slot, size, PUT,
            WIDE,
        )  # fmt: skip
    else:
        z = _from_rows(
            z, at, partials, element, part, col, value, first, count, rank, mine, column, pitch,
            live, KIND, NAMES == 2, WIDE,
        )  # fmt: skip
    if SPLIT and block < split_blocks:
        tl.store(_slot(partials, element, part) + offset, z, mask=inside)
    else:
        if DOTS:  # the first is that of the product
            meets += step * num_dots
            dots += first_program + program // blocks * (blocks - split_blocks)
            dots += block - split_blocks
            _meet(z, states + home, meets, dots, 0, 1, programs, offset, inside, size)
        if KIND != BEGIN:
            z = _completed(
                z, at, states + home, put + home, table, numbers, seeds, element, name,
                before + column, width, step, number, threshold, older_slot, put_slot, inputs, size,
                offset, inside, PLAIN, DROP, CLAMP,
            )  # fmt: skip
        if DOTS:
            _meet(z, states + home, meets, dots, 1, num_dots, programs, offset, inside, size)
        if TAKE:
            _write_outputs(
                z, y, states, sums, ends, table, name if NAMES >= 2 else row, mine, across, inside,
                offset, column, element, batch, out_rows, stride, inputs, outputs, width, step,
                home, size, WIDE,
            )  # fmt: skip
        if DROP == 1:
            z = _dropout(z, name, before + column, seeds + element, number, threshold, numbers)
        if STORE:
            z = z.to(states.dtype.element_ty)
            tl.store(_slot(states + home, back_slot, size) + offset, z, mask=inside)


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
    size = tl.cast(batch, tl.int64) * num_rows * pitch
    for i in range(0, tl.max(length, axis=0)):
        some = i < length
        source = tl.load(col + begin + i, mask=some, other=0)
        sums = tl.zeros([ROWS], numbers.dtype.element_ty)
        for block in range(0, batch * tl.cdiv(pitch, COLUMNS)):
            element, column = _block(block, units, VEC, COLUMNS)
            inside = some[:, None] & (column < pitch)[None, :]
            home = states + tl.cast(element, tl.int64) * num_rows * pitch
            at = _slot(home, slot, size)
            left = tl.load(at + _offsets(row, column, pitch, WIDE), mask=inside, other=0.0)
            at = _slot(home, other_slot, size)
            right = tl.load(at + _offsets(source, column, pitch, WIDE), mask=inside, other=0.0)
            sums += tl.sum(_times(left.to(sums.dtype), right.to(sums.dtype)), axis=1)
        to = dvalue + begin + i
        sums = tl.where(a != 0, a * sums, 0.0)
        tl.store(to, tl.load(to, mask=some, other=0.0) + sums, mask=some)
