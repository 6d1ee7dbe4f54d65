"""Speed against peers, side by side in one run.

python -m benchmarks.speed --suite kernels --json runs/kernels.json
"""

import importlib
import json
from pathlib import Path
from typing import Any

from benchmarks.common import Parser, check_writable, command_line, environment, write_atomically

Row = dict[str, Any]
SUITES = (
    "kernels",
    "columns",
    "propagation",
    "accelerate",
    "train",
    "memory",
    "scale",
    "knn",
    "fewshot",
    "ogb",
    "build",
    "small",
    "sizes",
    "classifier",
    "nodes",
    "partition",
)
BESIDE = ("propagation", "columns", "small", "accelerate")


def parser() -> Parser:
    """The flags."""
    p = Parser(__doc__)
    p.add_argument("--suite", choices=SUITES, default="kernels")
    p.add_argument("--quick", action="store_true", help="few cases, under a minute")
    p.add_argument("--json", type=Path, help="write the rows and the environment to this file")
    p.add_argument("--plot", type=Path, help="draw the ratios into this PNG")
    p.add_argument(
        "--products", action="store_true", help="with --suite build: at ogbn-products' size, alone"
    )
    p.add_argument(
        "--beside",
        action="store_true",
        help="ours alone, beside a process that keeps one core busy: the ratio to the time on one "
        "idle thread, with the same bits",
    )
    p.add_argument("--threads", type=int, help="threads of torch (default: all)")
    return p


def table(rows: list[Row]) -> str:
    """The rows in markdown, one table a case."""
    lines: list[str] = []
    for case in dict.fromkeys(row["case"] for row in rows):
        chosen = [row for row in rows if row["case"] == case]
        plain = ("suite", "case", "name", "seconds", "ratio", "repeats")
        extra = list(dict.fromkeys(key for row in chosen for key in row if key not in plain))
        lines += [f"\n**{case}**\n", "| " + " | ".join(["what", "ms", "ratio", *extra]) + " |"]
        lines.append("| --- " * (3 + len(extra)) + "|")
        for row in chosen:
            cells = [f"{1e3 * row['seconds']:.4g}", f"{row['ratio']:.2f}x"]
            more = [row.get(key, "") for key in extra]
            cells += [f"{cell:.4g}" if isinstance(cell, float) else str(cell) for cell in more]
            lines.append(f"| {row['name']} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def plot(rows: list[Row], path: Path) -> None:
    """A line a case with a point a peer, on a logarithmic axis of ratios."""
    from matplotlib.figure import Figure

    cases = list(dict.fromkeys(row["case"] for row in rows))[::-1]
    figure = Figure(figsize=(10, 1.6 + 0.26 * len(cases)), layout="constrained")
    axes = figure.add_subplot()
    axes.axvline(1, color="black", linewidth=1)
    for name in dict.fromkeys(row["name"] for row in rows):
        chosen = [row for row in rows if row["name"] == name and row["name"] != "ours"]
        places = [cases.index(row["case"]) for row in chosen]
        if places:
            axes.plot([row["ratio"] for row in chosen], places, "o", label=name)
    axes.set_yticks(range(len(cases)), cases, fontsize=8)
    axes.set_xscale("log")
    axes.grid(axis="x", which="both", alpha=0.3)
    axes.set_xlabel("time as a multiple of ours")
    figure.legend(loc="outside upper center", ncols=3, fontsize=8, frameon=False)
    with write_atomically(path) as temporary:
        figure.savefig(temporary, dpi=120, format="png")


def main(argv: list[str] | None = None) -> None:
    """Run one suite."""
    args = parser().parse_args(argv)
    if args.threads is not None:
        if args.threads < 1:
            raise ValueError(f"Expected '--threads' to be at least 1 (got {args.threads})")
        import torch

        torch.set_num_threads(args.threads)
    for path in filter(None, (args.json, args.plot)):
        check_writable(path)  # fail now, not after the suite
    if args.products and args.suite != "build":
        raise ValueError(f"Expected '--suite build' beside '--products' (got '{args.suite}')")
    suite = importlib.import_module(f".{args.suite}", __package__)
    from benchmarks.speed.harness import BesideHarness, Harness

    if args.beside and args.suite not in BESIDE:
        raise ValueError(f"Expected one of the suites {BESIDE} beside '--beside'")
    machine, harness = environment(), Harness()
    print(machine)
    print(f"copy bandwidth {harness.bandwidth / 1e9:.1f} GB/s")
    if args.beside:
        with BesideHarness() as other:
            found = suite.run(other, args.quick)
    else:
        found = suite.products() if args.products else suite.run(harness, args.quick)
    rows = [{"suite": args.suite, **row} for row in found]
    print(table(rows))
    if args.json:
        with write_atomically(args.json) as temporary:
            record = {
                "environment": machine,
                "copy_bytes_per_second": harness.bandwidth,
                "rows": rows,
            }
            temporary.write_text(json.dumps(record, indent=1) + "\n")
    if args.plot:
        plot(rows, args.plot)


if __name__ == "__main__":
    command_line(main)
