"""The table of the docs: ``PYTHONPATH=tests python -m battery.table > docs/transforms.md``."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from battery import test_estimators
from battery.cases import CASES
from battery.estimators import ESTIMATORS, Estimator
from battery.test_battery import COLUMNS, NO_MODULE, outcome

HEAD = """# Under every transform

Made by `PYTHONPATH=tests python -m battery.table`, which runs every cell; each is a test of
`python -m pytest tests/battery` too. *yes*: equal to dense float64 algebra; *no*: refused with the
package's own sentence; *constant*: equal, and no gradient passes. Numbers in brackets: does not
apply, see below. *compile* may break graphs, *compile, one graph* may not. `torch.jit.script` is
refused by every layer, and `torch.jit.trace` by every function of a graph.
"""


def table() -> str:
    """A row for each function, a column for each transform."""
    lines = [HEAD, "| | " + " | ".join(COLUMNS) + " |", "| --- |" + " --- |" * len(COLUMNS)]
    reasons = [*dict.fromkeys(why for case in CASES for why in case.beside.values()), NO_MODULE]
    for case in CASES:
        cells = [outcome(case, column) for column in COLUMNS]
        cells = [f"({1 + reasons.index(c)})" if c in reasons else c for c in cells]
        lines.append(f"| {case.name} | " + " | ".join(cells) + " |")
        print(case.name, file=sys.stderr)
    notes = ["", *(f"({i}) {why}  " for i, why in enumerate(reasons, 1))]
    return "\n".join([*lines, *notes, *estimators()]) + "\n"


ABOUT = """
## Estimators

*yes*: equal to dense float64 algebra in the first row, and to the answers for double precision in
the others. *no*: refused likewise. Numbers in brackets: does not apply, see below. Copies and other
defaults give the same bits, numbers of threads the same to rounding: torch cuts the sums of dense
products by threads.
"""


def estimators() -> list[str]:
    """A row for what is done, a column for each estimator, and what speaks against a cell."""
    reasons = [*dict.fromkeys(why for case in ESTIMATORS for why in case.beside.values())]

    def cell(case: Estimator, column: str) -> str:
        if column in case.beside:
            return f"({1 + reasons.index(case.beside[column])})"
        return "no" if column in case.refuses else "yes"

    lines = [ABOUT, "| | " + " | ".join(case.name for case in ESTIMATORS) + " |"]
    lines.append("| --- |" + " --- |" * len(ESTIMATORS))
    for column in test_estimators.COLUMNS:
        cells = [cell(case, column) for case in ESTIMATORS]
        lines.append(f"| {column} | " + " | ".join(cells) + " |")
    return [*lines, "", *(f"({i}) {why}  " for i, why in enumerate(reasons, 1))]


if __name__ == "__main__":
    print(table(), end="")
