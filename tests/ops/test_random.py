"""Statistical tests of the dropout generator, on more than 10^8 bits.

The bits are drawn with numpy, which is held equal to the masks of the kernels first.
"""

import numpy as np
import pytest
import torch
from scipy import stats

from torch_geometric_diff.ops._random import random_u16

M32 = np.uint32
Array = np.ndarray


def mix32(h: Array) -> Array:
    h = h ^ (h >> M32(16))
    h *= M32(0x7FEB352D)
    h ^= h >> M32(15)
    h *= M32(0x846CA68B)
    h ^= h >> M32(16)
    return h


def words(seed: int, step: int, rows: Array, num_words: int) -> Array:
    """The 32-bit words of a step, (rows, words), as the contract of the kernels says."""
    s = (seed + (step + 1) * 0x9E3779B97F4A7C15) % 2**64
    s = ((s ^ (s >> 30)) * 0xBF58476D1CE4E5B9) % 2**64
    s = ((s ^ (s >> 27)) * 0x94D049BB133111EB) % 2**64
    s ^= s >> 31
    key0, key1 = M32(s % 2**32), M32(s >> 32)
    h = mix32(rows ^ key0)[:, None] + np.arange(num_words, dtype=M32) * M32(0x9E3779B1)
    h ^= h >> M32(16)
    h *= M32(0x7FEB352D)
    h ^= h >> M32(15)
    h += mix32(rows + key1)[:, None]
    h *= M32(0x846CA68B)
    h ^= h >> M32(16)
    return h


def u16(seed: int, step: int, num_rows: int, num_columns: int) -> Array:
    """16 bits an entry, laid out as in the kernels: a word serves columns 16 apart."""
    h = words(seed, step, np.arange(num_rows, dtype=M32), num_columns // 2)
    h = h.reshape(num_rows, -1, 1, 16) >> np.array([0, 16], dtype=M32).reshape(2, 1)
    return (h & M32(0xFFFF)).reshape(num_rows, num_columns)


ROWS, COLUMNS = 1 << 14, 1 << 9  # 2^23 entries of 16 bits: 1.3 * 10^8 bits
P_MIN = 1e-4  # of each of about 60 tests; seeds are fixed, so nothing flickers


def p_of_correlation(a: Array, b: Array) -> float:
    """Of two samples of independent uniform numbers."""
    a, b = (x.astype(np.float64).ravel() - 32767.5 for x in (a, b))
    z = (a * b).sum() / np.sqrt((a * a).sum() * (b * b).sum()) * np.sqrt(a.size)
    return float(2 * stats.norm.sf(abs(z)))


def p_of_kept(a: Array, b: Array, threshold: int) -> float:
    """Of two masks kept together as often as independent ones."""
    share = 1 - threshold / 65536
    both = int(((a >= threshold) & (b >= threshold)).sum())
    return float(stats.binomtest(both, a.size, share**2).pvalue)


@pytest.mark.parametrize("seed, step", [(0, 0), (2**63 - 1, 7)])
def test_numpy_equals_the_kernels(seed: int, step: int) -> None:
    ours = random_u16(seed, step, 70, 96)
    assert torch.equal(ours, torch.tensor(u16(seed, step, 70, 96).astype(np.int64)))


@pytest.mark.parametrize("seed", [0, 1, 12345])
def test_uniform(seed: int) -> None:
    bits = u16(seed, 0, ROWS, COLUMNS)
    counts = np.bincount(bits.ravel(), minlength=65536)
    assert P_MIN < stats.chisquare(counts).pvalue < 1 - P_MIN
    for bit in range(16):
        ones = int(((bits >> M32(bit)) & M32(1)).sum())
        assert stats.binomtest(ones, bits.size).pvalue > P_MIN
    # no row, no column and no step has a mean of its own
    for axis in (0, 1):
        z = (bits.mean(axis) - 32767.5) / (65536 / np.sqrt(12 * bits.shape[axis]))
        assert P_MIN < stats.chi2.sf((z**2).sum(), z.size) < 1 - P_MIN


@pytest.mark.parametrize("lag", [1, 2, 3, 8, 15, 16, 17, 31, 32, 33, 64, 256])
def test_lags(lag: int) -> None:
    bits = u16(3, 2, ROWS, COLUMNS)
    for a, b in ((bits[:, lag:], bits[:, :-lag]), (bits[lag:], bits[:-lag])):
        assert p_of_correlation(a, b) > P_MIN
        assert p_of_kept(a, b, 16384) > P_MIN
    assert p_of_kept(bits[lag:, lag:], bits[:-lag, :-lag], 16384) > P_MIN  # across both axes
    assert p_of_kept(bits[lag:, :-lag], bits[:-lag, lag:], 16384) > P_MIN


@pytest.mark.parametrize("other", [(4, 2), (2, 2), (3, 3), (3, 1), (4, 1), (3 + 2**32, 2)])
def test_neighboring_seeds_and_steps(other: tuple[int, int]) -> None:
    a, b = u16(3, 2, ROWS, COLUMNS), u16(*other, ROWS, COLUMNS)
    assert p_of_correlation(a, b) > P_MIN
    assert p_of_kept(a, b, 16384) > P_MIN
    assert p_of_kept(a[1:], b[:-1], 16384) > P_MIN
    assert p_of_kept(a[:, 1:], b[:, :-1], 16384) > P_MIN


def test_pairs_of_neighbors() -> None:
    """The joint distribution of the high bits of neighbors along columns, rows and steps."""
    bits = u16(11, 0, ROWS, COLUMNS) >> M32(8)
    after = u16(11, 1, ROWS, COLUMNS) >> M32(8)
    for a, b in ((bits[:, 1:], bits[:, :-1]), (bits[1:], bits[:-1]), (bits, after)):
        counts = np.bincount((a.astype(np.int64) * 256 + b).ravel(), minlength=65536)
        assert P_MIN < stats.chisquare(counts).pvalue < 1 - P_MIN


def test_no_two_rows_share_their_masks() -> None:
    few = words(5, 0, np.arange(1 << 21, dtype=M32), 2)
    pairs = few[:, 0].astype(np.uint64) << np.uint64(32) | few[:, 1]
    assert np.unique(pairs).size == pairs.size
