"""A table from the result files of fewshot.train: ``python -m fewshot.report FILE ...``."""

import json
from collections import defaultdict
from collections.abc import Callable
from statistics import median
from typing import Any

from benchmarks.common import Parser, command_line, read_rows

from .rows import accuracies, each_task_once, mean_and_interval

Row = dict[str, Any]
Cells = dict[tuple[str, str], list[Row]]  # by method and kind of task


def parser() -> Parser:
    parser = Parser(__doc__)
    parser.add_argument("files", nargs="+", metavar="FILE", help="JSON lines of fewshot.train")
    parser.add_argument("--against", metavar="METHOD", help="compare it with each other, paired")
    return parser


def _key(settings: dict[str, Any]) -> str:
    return json.dumps([settings["method"], settings["own"]], sort_keys=True)


def _names(rows: list[Row]) -> dict[str, str]:
    """The name of each method and its own settings."""
    found: dict[str, dict[str, dict[str, Any]]] = defaultdict(dict)
    for row in rows:
        if not {"settings", "correct", "queries", "first"} <= row.keys():
            raise ValueError(f"a row of fields {sorted(row)} is no result of fewshot.train")
        found[row["settings"]["method"]][_key(row["settings"])] = row["settings"]["own"]
    names = {}
    for method, variants in found.items():
        told = _distinguishing(list(variants.values()))
        for key, own in variants.items():
            names[key] = ", ".join([method, *(f"{name} {own.get(name)}" for name in told)])
    return names


def _distinguishing(variants: list[dict[str, Any]]) -> list[str]:
    """The settings that differ, or, where one names a kind that fixes the others, that one."""
    if len(variants) == 1:
        return []
    known = dict.fromkeys(name for own in variants for name in own)
    values = {name: [own.get(name) for own in variants] for name in known}
    for name, found in values.items():
        if all(isinstance(v, str) for v in found) and len(set(found)) == len(variants):
            return [name]
    return [name for name, found in values.items() if any(v != found[0] for v in found)]


def _cells(rows: list[Row]) -> Cells:
    """The rows of each method and kind of task, by their first task."""
    names = _names(rows)
    cells: dict[tuple[str, str], dict[str, dict[int, Row]]] = defaultdict(lambda: defaultdict(dict))
    for row in rows:
        s = row["settings"]
        kind = f"{s['features']['dataset']} {s['features']['backbone']} {s['shot']}-shot"
        kind += ", raw" * s["raw"] + ", unbalanced" * s["unbalanced"]
        if s["query_per_class"] != 15:
            kind += f", {s['way'] * s['query_per_class']} queries"
        settings = json.dumps(s, sort_keys=True)
        cells[names[_key(s)], kind][settings][row["first"]] = row
    for (method, kind), by_settings in cells.items():
        if len(by_settings) > 1:
            raise ValueError(
                f"'{method}' has {len(by_settings)} different settings for {kind}; "
                "give the files of one of them"
            )
    return {
        key: each_task_once(list(found.values()))
        for key, by_settings in cells.items()
        for found in by_settings.values()
    }


def _markdown(heads: list[str], lines: list[list[str]]) -> str:
    rule = ["---"] * len(heads)
    return "\n".join(f"| {' | '.join(line)} |" for line in [heads, rule, *lines])


def seconds(rows: list[Row]) -> float | None:
    """Seconds per 1,000 tasks, the median over the rows that tell them."""
    told = [1000 * row["seconds"] / len(row["correct"]) for row in rows if "seconds" in row]
    return median(told) if told else None


def _cell(rows: list[Row], most: int) -> str:
    found = accuracies(rows)
    mean, half = mean_and_interval(found)
    took = seconds(rows)
    notes = [f"{took:.3g} s"] if took is not None else []
    notes += [f"{len(found)} tasks"] if len(found) < most else []
    return f"{mean:.2f} ± {half:.2f}" + (f" ({', '.join(notes)})" if notes else "")


def _difference(ours: list[Row], theirs: list[Row]) -> str:
    """Mean and interval of the differences on the same tasks."""
    a, b = accuracies(ours), accuracies(theirs)
    n = min(len(a), len(b))
    mean, half = mean_and_interval(a[:n] - b[:n])
    return f"{mean:+.2f} ± {half:.2f}"


def table(rows: list[Row], against: str | None = None) -> str:
    """Markdown tables, one for balanced and one for unbalanced queries: a line per method.

    A cell holds mean and 95 % interval of the accuracy in percent, the seconds per 1,000 tasks
    where the rows tell them, and the number of tasks where others have more.
    A method with several settings of its own has a line for each, named by what differs.

    Args:
        rows: Of ``fewshot.train``.
        against: A method's name or a part that no other has; further tables then tell, task by
            task, how far it is above each other.

    Raises:
        ValueError: If a row is none of ``fewshot.train``, a method occurs with two settings of the
            task or the features in one column, or ``against`` names none or several.
    """
    cells = _cells(rows)
    methods = list(dict.fromkeys(method for method, _ in cells))
    if against is not None:
        meant = [m for m in methods if m == against] or [m for m in methods if against in m]
        if len(meant) != 1:
            raise ValueError(f"'against' must name one of {methods} (got '{against}')")
        against = meant[0]
    most = max((sum(len(row["correct"]) for row in found) for found in cells.values()), default=0)
    tables = []
    for unbalanced in (False, True):
        kinds = [
            kind
            for kind in dict.fromkeys(kind for _, kind in cells)
            if ("unbalanced" in kind) == unbalanced
        ]
        here = [m for m in methods if any((m, kind) in cells for kind in kinds)]

        def line(cell: Callable[[list[Row], str], str], m: str, kinds: list[str]) -> list[str]:
            return [m, *(cell(cells[m, k], k) if (m, k) in cells else "-" for k in kinds)]

        if here:
            lines = [line(lambda found, _: _cell(found, most), m, kinds) for m in here]
            tables.append(_markdown(["method", *kinds], lines))
        if against in here:
            shared = [kind for kind in kinds if (against, kind) in cells]
            lines = [
                line(lambda found, k: _difference(cells[against, k], found), m, shared)
                for m in here
                if m != against
            ]
            tables.append(_markdown([f"{against} minus", *shared], lines))
    return "\n\n".join(tables)


def main(argv: list[str] | None = None) -> None:
    args = parser().parse_args(argv)
    print(table(read_rows(args.files), args.against))


if __name__ == "__main__":
    command_line(main)
