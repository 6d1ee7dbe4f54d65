"""How columns are cut into tiles: the plan alone, nothing is timed."""

import pytest

from torch_geometric_diff.ops.kernels import cpu

if cpu.available() is not None:
    pytest.skip(f"the C++ kernel: {cpu.available()}", allow_module_level=True)

IN_CACHE, PAST_CACHE = 1000, 2


def widths(columns: int, widest: int, fit: int = IN_CACHE) -> list[int]:
    return cpu.tile_widths(columns, widest, fit)


def cost(columns: int, widest: int, fit: int) -> int:
    """What the plan takes a tile to cost."""
    return sum(16 + 4 * w if w <= fit else 60 + 3 * w for w in widths(columns, widest, fit))


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        (1, [1]),
        (2, [2]),
        (3, [4]),
        (7, [8]),
        (9, [8, 1]),
        (16, [16]),
        (33, [32, 1]),
        (40, [32, 8]),
        (64, [64]),
        (130, [64, 64, 2]),
        (0, []),
    ],
)
def test_widths(columns: int, expected: list[int]) -> None:
    assert widths(columns, 64) == expected


def test_past_the_cache_two_columns_that_fit_beat_four_that_do_not() -> None:
    assert widths(3, 64, PAST_CACHE) == [2, 1]
    assert widths(7, 64, PAST_CACHE) == [8]


@pytest.mark.parametrize("widest", [16, 32, 64])
@pytest.mark.parametrize("fit", [IN_CACHE, 20, PAST_CACHE, 0])
def test_tiles_cover_the_columns_and_no_more(widest: int, fit: int) -> None:
    for columns in range(1, 300):
        cut = widths(columns, widest, fit)
        assert cut == sorted(cut, reverse=True)  # so that each starts at a multiple of its width
        assert all(w <= widest and w & (w - 1) == 0 for w in cut)
        assert sum(cut[:-1]) < columns <= sum(cut)


@pytest.mark.parametrize("widest", [16, 32, 64])
@pytest.mark.parametrize("fit", [IN_CACHE, 20, PAST_CACHE, 0])
def test_every_width_costs_about_what_its_neighbors_do(widest: int, fit: int) -> None:
    costs = [cost(columns, widest, fit) for columns in range(132)]
    for columns in range(2, 131):
        line = (costs[columns - 1] + costs[columns + 1]) / 2
        assert costs[columns] <= 1.3 * line, columns
    assert costs[40] <= 3.3 * costs[16]
