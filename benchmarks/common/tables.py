"""Tables for a terminal, a paper and a spreadsheet."""

import argparse
import csv
import io
import re
from collections.abc import Sequence

FORMATS = ("markdown", "latex", "csv")
_LATEX = {"±": r"$\pm$", "−": "$-$", "×": r"$\times$", "~": r"\textasciitilde{}"}


def add_format_flag(p: argparse.ArgumentParser, text: str, usual: str | None = None) -> None:
    """The option ``--format``."""
    p.add_argument("--format", choices=FORMATS, default=usual, help=text)


def table(head: Sequence[str], rows: Sequence[Sequence[str]], form: str = "markdown") -> str:
    r"""A table of strings.

    Args:
        head (sequence of str): What the columns are.
        rows (sequence of sequences of str): The cells.
        form (str, optional): ``'markdown'``, ``'latex'`` (of the package ``booktabs``) or
            ``'csv'``. (default: ``'markdown'``)

    Example:
        >>> print(table(["model", "%"], [["gcn", "81.5 ± 0.2"]]))
        | model | % |
        | --- | --- |
        | gcn | 81.5 ± 0.2 |
        >>> print(table(["model", "%"], [["gcn", "81.5 ± 0.2"]], "csv"))
        model,%
        gcn,81.5 ± 0.2
    """
    if form == "csv":
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([head, *rows])
        return text.getvalue().rstrip("\n")
    if form == "latex":
        top, *lines = (" & ".join(map(_latex, cells)) + r" \\" for cells in [head, *rows])
        begin, end = rf"\begin{{tabular}}{{{'l' * len(head)}}}", r"\end{tabular}"
        return "\n".join([begin, r"\toprule", top, r"\midrule", *lines, r"\bottomrule", end])
    lines = [f"| {' | '.join(cells)} |" for cells in [head, ["---"] * len(head), *rows]]
    return "\n".join(lines)


def note(text: str, form: str = "markdown") -> str:
    """A line beside a table, as a comment where the form has them; CSV has none."""
    return {"markdown": text, "latex": f"% {text}", "csv": ""}[form]


def _latex(cell: str) -> str:
    bold = re.fullmatch(r"\*\*(.*)\*\*", cell)
    if bold:
        return rf"\textbf{{{_latex(bold[1])}}}"
    cell = re.sub(r"([&%$#_{}])", r"\\\1", cell.replace("`", ""))
    return "".join(_LATEX.get(sign, sign) for sign in cell)
