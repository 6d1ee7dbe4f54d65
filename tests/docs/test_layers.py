"""The table of what layers take agrees with the code: every cell is tried."""

from docs.extensions.layers import COLUMNS, LAYERS, table


def test_no_layer_is_wrong_in_silence() -> None:
    lines = table().splitlines()
    assert len(lines) == len(LAYERS) + 2
    for line in lines[2:]:
        name, *cells = (cell.strip() for cell in line.split("|")[1:-1])
        assert len(cells) == len(COLUMNS) + 2
        assert set(cells) <= {"yes", "no", "-", "not installed"}
        assert cells[list(COLUMNS).index("batch")] == "yes", name
