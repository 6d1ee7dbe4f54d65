"""The tables of docs/scale.md: what was measured, and what the model says of larger graphs."""

from collections.abc import Mapping

from benchmarks.rows import Row, speed_rows


def table(lines: Mapping[str, list[str]], head: list[str]) -> str:
    """A table whose first column is what the others are."""
    rows = [f"| {' | '.join(('', *head))} |", "| --- " * (len(head) + 1) + "|"]
    return "\n".join(rows + [f"| {name} | {' | '.join(cells)} |" for name, cells in lines.items()])


def costs() -> list[Row]:
    """One pass at the two sizes of OGB."""
    return [row for row in speed_rows("ogb") if row["case"].endswith(", cost")]


def passes() -> str:
    """What a pass costs at the two sizes of OGB."""
    found = costs()
    lines = {
        "forward + backward": [f"{row['seconds']:.2g} s" for row in found],
        "per entry, step and column": [
            f"{row['ns per entry, step, column']:.2g} ns" for row in found
        ],
        "memory of the pass above graph and features": [f"{row['GiB']:.2g} GiB" for row in found],
        "memory of the process": [f"{row['GiB of the process']:.2g} GiB" for row in found],
        "share of the bandwidth, matrix and features once a step": [
            f"{100 * row['share of bandwidth']:.2g} %" for row in found
        ],
        "share of the bandwidth, every gathered row": [
            f"{100 * row['share, gathered']:.2g} %" for row in found
        ],
    }
    return table(lines, [row["case"].removesuffix(", cost") for row in found])


def peers() -> str:
    """Against PyG at the smaller size."""
    found = [row for row in speed_rows("ogb") if "edges" in row["case"]]
    steps = (1, 5, 10, 20)
    lines = {
        row["name"]: [
            f"{row['seconds']:.2g}",
            f"{row['ratio']:.2g}",
            " / ".join(f"{row[f'GiB at K = {k}']:.2f}" for k in steps),
        ]
        for row in sorted(found, key=lambda row: row["seconds"])
    }
    return table(lines, ["seconds", "ratio", f"memory of a pass, GiB, at K = {steps}"])


def _gigabytes(count: float) -> str:
    return f"{count / 1e9:.2g} GB" if count < 1e11 else f"{count / 1e9:.3g} GB"


def papers() -> str:
    """Graphs of 3.3e9 and 2e10 entries on one machine, from the model."""
    cost = costs()[-1]["ns per entry, step, column"] * 1e-9
    graphs = {"ogbn-papers100M": (3.3e9, 111059956), "10^10 edges": (2e10, 1e9)}
    lines: dict[str, list[str]] = {}
    for entries, nodes in graphs.values():
        for name, text in {
            "operator, symmetric / by rows (int64 indices)": f"{_gigabytes(20 * entries)} / "
            f"{_gigabytes(36 * entries)}",
            "building it, beside the edges": _gigabytes(24 * entries),
            "a block of 32 columns": _gigabytes(16 * nodes * 32),
            "a step of 128 columns on two such cores": f"{cost * entries * 128:.3g} s",
        }.items():
            lines.setdefault(name, []).append(text)
    return table(lines, list(graphs))


def parts() -> str:
    """The same in parts, from the model: 4 and 16 ranks, int32 indices."""
    graphs = {
        "ogbn-papers100M, 4 ranks": (3.3e9, 111059956, 4),
        "10^10 edges, 16 ranks": (2e10, 1e9, 16),
    }
    lines: dict[str, list[str]] = {}
    for entries, nodes, ranks in graphs.values():
        for name, count in {
            "rows of a rank, symmetric": 8 * entries / ranks,
            "while they are built": 16 * entries / ranks,
            "a block of 32 columns": 20 * nodes * 32 / ranks,
            "traffic of a step of 32 columns, all ranks, at most": 4 * 32 * nodes * (ranks - 1),
        }.items():
            lines.setdefault(name, []).append(_gigabytes(count))
    return table(lines, list(graphs))


def partition() -> str:
    """One graph on one process and in parts."""
    found = speed_rows("partition")
    shown = {
        "seconds": "seconds",
        "CPU seconds": "CPU seconds",
        "s to build": "s to build",
        "GiB": "GiB, largest process",
        "cut": "entries cut",
        "MB a step": "MB a step, sent",
        "MB a step, predicted": "predicted",
    }
    lines = [f"| {' | '.join(('', *shown.values()))} |", "| --- " * (len(shown) + 1) + "|"]
    for case in dict.fromkeys(row["case"] for row in found):
        lines.append(f"| **{case}** {'| ' * (len(shown) + 1)}")
        for row in (row for row in found if row["case"] == case):
            cells = [f"{row[key]:.3g}" if key in row else "-" for key in shown]
            lines.append(f"| {row['name']} | {' | '.join(cells)} |")
    return "\n".join(lines)
