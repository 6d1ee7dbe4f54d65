"""The table of the docs: ``PYTHONPATH=tests python -m battery.table > docs/transforms.md``."""

import sys
import warnings
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from battery.cases import CASES
from battery.test_battery import COLUMNS, test_battery


def cell(case, column: str) -> str:
    """``yes`` for the right value, ``no`` for a refusal that the battery expects."""
    try:
        test_battery(case, column)
    except Exception as error:  # what the battery would report as a failure
        return f"**wrong** ({type(error).__name__})"
    return "no" if column in case.refuses else "yes"


def main() -> None:
    warnings.simplefilter("ignore")
    print("# Under every transform\n")
    print("Made by `PYTHONPATH=tests python -m battery.table`; the same cells are the tests of")
    print("`python -m pytest tests/battery`. *yes*: equal to dense float64 algebra; *no*: refused")
    print("with an error that says so. `torch.jit.script` is refused everywhere.\n")
    names = [case.name for case in CASES]
    print("| | " + " | ".join(names) + " |")
    print("| --- |" + " --- |" * len(names))
    for column in COLUMNS:
        print(f"| {column} | " + " | ".join(cell(case, column) for case in CASES) + " |")


if __name__ == "__main__":
    main()
