"""A table from the result files of fewshot.train: ``python -m fewshot.report FILE ...``."""

import argparse
import json
from collections import defaultdict
from typing import Any

from torch_geometric_diff.experiment import command_line, read_rows

from .train import accuracies, mean_and_interval


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m fewshot.report", description=__doc__)
    parser.add_argument("files", nargs="+", metavar="FILE", help="JSON lines of fewshot.train")
    return parser


def table(rows: list[dict[str, Any]]) -> str:
    """A Markdown table: a line per method, a column per kind of task.

    Raises:
        ValueError: If a row is none of ``fewshot.train``, or a method occurs with two settings in
            one column.
    """
    cells: dict[tuple[str, str], dict[str, list[dict[str, Any]]]] = defaultdict(dict)
    for row in rows:
        if not {"settings", "correct", "queries", "first"} <= row.keys():
            raise ValueError(f"a row of fields {sorted(row)} is no result of fewshot.train")
        s = row["settings"]
        kind = f"{s['features']['dataset']} {s['features']['backbone']} {s['shot']}-shot"
        kind += ", raw" * s["raw"] + ", unbalanced" * s["unbalanced"]
        settings = json.dumps(s, sort_keys=True)
        cells[s["method"], kind].setdefault(settings, []).append(row)
    for (method, kind), by_settings in cells.items():
        if len(by_settings) > 1:
            raise ValueError(
                f"'{method}' has {len(by_settings)} different settings for {kind}; "
                "give the files of one of them"
            )
    names = list(dict.fromkeys(method for method, _ in cells))
    kinds = list(dict.fromkeys(kind for _, kind in cells))
    lines = [f"| method | {' | '.join(kinds)} |", "| --- |" + " --- |" * len(kinds)]
    for name in names:
        line = [name]
        for kind in kinds:
            by_settings = cells.get((name, kind), {})
            once = {row["first"]: row for found in by_settings.values() for row in found}
            if once:
                mean, half = mean_and_interval(accuracies(list(once.values())))
                line.append(f"{mean:.2f} ± {half:.2f}")
            else:
                line.append("-")
        lines.append(f"| {' | '.join(line)} |")
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> None:
    print(table(read_rows(parser().parse_args(argv).files)))


if __name__ == "__main__":
    command_line(main)
