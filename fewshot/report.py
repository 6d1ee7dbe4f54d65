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


def _key(settings: dict[str, Any]) -> str:
    return json.dumps([settings["method"], settings["own"]], sort_keys=True)


def _names(rows: list[dict[str, Any]]) -> dict[str, str]:
    """The name of each method and its own settings."""
    found: dict[str, dict[str, dict[str, Any]]] = defaultdict(dict)
    for row in rows:
        if not {"settings", "correct", "queries", "first"} <= row.keys():
            raise ValueError(f"a row of fields {sorted(row)} is no result of fewshot.train")
        found[row["settings"]["method"]][_key(row["settings"])] = row["settings"]["own"]
    names = {}
    for method, variants in found.items():
        for key, own in variants.items():
            differing = [
                f"{name} {value}"
                for name, value in own.items()
                if any(other.get(name) != value for other in variants.values())
            ]
            names[key] = ", ".join([method, *differing])
    return names


def table(rows: list[dict[str, Any]]) -> str:
    """A Markdown table: a line per method, a column per kind of task.

    A method with several settings of its own has a line for each, named by what differs.

    Raises:
        ValueError: If a row is none of ``fewshot.train``, or a method occurs with two settings of
            the task or the features in one column.
    """
    names = _names(rows)
    cells: dict[tuple[str, str], dict[str, list[dict[str, Any]]]] = defaultdict(dict)
    for row in rows:
        s = row["settings"]
        kind = f"{s['features']['dataset']} {s['features']['backbone']} {s['shot']}-shot"
        kind += ", raw" * s["raw"] + ", unbalanced" * s["unbalanced"]
        settings = json.dumps(s, sort_keys=True)
        cells[names[_key(s)], kind].setdefault(settings, []).append(row)
    for (method, kind), by_settings in cells.items():
        if len(by_settings) > 1:
            raise ValueError(
                f"'{method}' has {len(by_settings)} different settings for {kind}; "
                "give the files of one of them"
            )
    kinds = list(dict.fromkeys(kind for _, kind in cells))
    lines = [f"| method | {' | '.join(kinds)} |", "| --- |" + " --- |" * len(kinds)]
    for name in dict.fromkeys(method for method, _ in cells):
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
