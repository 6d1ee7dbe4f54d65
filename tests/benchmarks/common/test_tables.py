"""Tables in every form."""

import csv
import io

import pytest

from benchmarks.common.tables import note, table

HEAD = ["model", "test, %"]
ROWS = [["gcn, deep", "81.50 ± 0.20"], ["a_b & c", "**80.00**"], ['"x"', "-"]]


def test_csv_is_read_back() -> None:
    assert [*csv.reader(io.StringIO(table(HEAD, ROWS, "csv")))] == [HEAD, *ROWS]
    assert note("Splits: all.", "csv") == ""


def test_latex_escapes_what_it_must() -> None:
    lines = table(HEAD, ROWS, "latex").splitlines()
    assert lines[0] == r"\begin{tabular}{ll}" and lines[-1] == r"\end{tabular}"
    assert r"model & test, \% \\" in lines and r"gcn, deep & 81.50 $\pm$ 0.20 \\" in lines
    assert r"a\_b \& c & \textbf{80.00} \\" in lines
    assert note("100 %", "latex").startswith("% ")


@pytest.mark.parametrize("form", ["markdown", "latex", "csv"])
def test_every_row_is_a_line(form: str) -> None:
    assert sum("80.00" in line for line in table(HEAD, ROWS, form).splitlines()) == 1
