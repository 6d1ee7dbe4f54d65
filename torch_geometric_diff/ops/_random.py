r"""Counter-based random bits for dropout: the same on every kernel, device and thread count.

The mask at (seed, step, row, column) is a pure function of these four numbers, so nothing is stored
for the backward pass. A pair of 32-bit keys per step (splitmix64 of the seed) makes a pair of keys
per row, which a multiply-xor hash with two rounds of `lowbias32
<https://nullprogram.com/blog/2018/07/31/>`_ mixes with the column. One hash serves two columns with
16 bits each, so a drop probability is rounded to a multiple of 1/65536.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from .._utils.checks import check_integer
from .._utils.functorch import cacheable

_MASK32 = 2**32 - 1


def dropout_threshold(dropout: float) -> int:
    """A drop probability in units of 1/65536, at most 65535."""
    return min(round(dropout * 65536), 65535)


def dropout_scale(threshold: int) -> float:
    """What kept entries are multiplied with, so that the mean stays."""
    return 65536 / (65536 - threshold)


def draw_seeds(count: int, generator: torch.Generator | None = None) -> Tensor:
    """Seeds of ``count`` independent sequences of masks, from torch's CPU generator by default.

    Under ``torch.func.vmap`` its argument ``randomness`` decides, as for any random function of
    torch, whether all elements get the same seeds.
    """
    return torch.randint(2**63 - 1, (count,), generator=generator, device="cpu")


def make_seeds(seed: int | Sequence[int] | Tensor | None, count: int) -> Tensor:
    """A seed for each element of a batch, as a Tensor, which torch.compile need not read."""
    if seed is None:
        return draw_seeds(count)
    if isinstance(seed, Tensor):  # a layer drew them
        return seed
    if isinstance(seed, Sequence):
        numbers = [check_integer("seed", number, 0) for number in seed]
        if len(numbers) != count:
            raise ValueError(
                f"Expected 'seed' to be one number or {count}, one for each element of the batch "
                f"(got {len(numbers)})"
            )
    else:
        first = check_integer("seed", seed, 0)
        numbers = [first, *((first + i) & (2**63 - 1) for i in range(1, count))]
    if max(numbers, default=0) >= 2**63:
        raise ValueError(f"Expected 'seed' to lie in [0, 2^63) (got {max(numbers)})")
    with cacheable():
        return torch.tensor(numbers, dtype=torch.long, device="cpu")


def step_keys(seed: Tensor, step: int) -> tuple[Tensor, Tensor]:
    """The two 32-bit keys of a step for every seed: splitmix64 of the seed at this step."""
    s = seed + _signed((step + 1) * 0x9E3779B97F4A7C15)
    s = (s ^ _shifted(s, 30)) * _signed(0xBF58476D1CE4E5B9)
    s = (s ^ _shifted(s, 27)) * _signed(0x94D049BB133111EB)
    s = s ^ _shifted(s, 31)
    return s & _MASK32, _shifted(s, 32)


def _signed(number: int) -> int:
    """The int64 of the same 64 bits; int64 wraps modulo 2^64."""
    return (number + 2**63) % 2**64 - 2**63


def _shifted(s: Tensor, bits: int) -> Tensor:
    """A shift of the bits to the right that brings in zeros."""
    return (s >> bits) & (2 ** (64 - bits) - 1)


def _times(h: Tensor, factor: int) -> Tensor:
    # int64 holds the low 32 bits of a product exactly: it wraps modulo 2^64
    return (h * factor) & _MASK32


def _mix32(h: Tensor) -> Tensor:
    h = _times(h ^ (h >> 16), 0x7FEB352D)
    h = _times(h ^ (h >> 15), 0x846CA68B)
    return h ^ (h >> 16)


def random_u16(
    seed: Tensor | int,
    step: int,
    rows: int | Tensor,
    num_cols: int,
    device: torch.device | None = None,
) -> Tensor:
    """The 16 random bits behind every mask entry, as int64 in [0, 65536), shape (rows, columns),
    or (seeds, rows, columns): of so many first rows, or of those with some indices.
    """
    seed = torch.as_tensor(seed, dtype=torch.long, device=device)
    k0, k1 = (key[..., None, None] for key in step_keys(seed, step))
    row = (rows if isinstance(rows, Tensor) else torch.arange(rows, device=device)).unsqueeze(1)
    column = torch.arange(num_cols, device=device)
    a, b = _mix32((row ^ k0) & _MASK32), _mix32((row + k1) & _MASK32)
    word = (column >> 5) * 16 + (column & 15)
    h = (a + _times(word, 0x9E3779B1)) & _MASK32
    h = _times(h ^ (h >> 16), 0x7FEB352D)
    h = h ^ (h >> 15)
    h = _times((h + b) & _MASK32, 0x846CA68B)
    h = h ^ (h >> 16)
    return (h >> (16 * ((column >> 4) & 1))) & 0xFFFF


def keep_mask(
    seed: Tensor | int,
    step: int,
    rows: int | Tensor,
    num_cols: int,
    threshold: int,
    device: torch.device | None = None,
) -> Tensor:
    """Which entries dropout keeps at a step, a bool Tensor of the shape of :func:`random_u16`."""
    return random_u16(seed, step, rows, num_cols, device) >= threshold
