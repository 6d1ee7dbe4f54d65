"""The table of the docs: ``PYTHONPATH=tests python -m battery.table > docs/transforms.md``."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from battery.cases import CASES
from battery.test_battery import COLUMNS

HEAD = """# Under every transform

Made by `PYTHONPATH=tests python -m battery.table`. Every cell is a test of
`python -m pytest tests/battery`. *yes*: equal to dense float64 algebra; *no*: refused with an error
that says so. `torch.jit.script` is refused by every layer.
"""


def table() -> str:
    """A row for each function, a column for each transform."""
    lines = [HEAD, "| | " + " | ".join(COLUMNS) + " |", "| --- |" + " --- |" * len(COLUMNS)]
    for case in CASES:
        cells = ("no" if column in case.refuses else "yes" for column in COLUMNS)
        lines.append(f"| {case.name} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(table(), end="")
