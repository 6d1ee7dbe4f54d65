"""One picture of all suites: how many times faster than the best peer, by columns and by nodes.

python -m benchmarks.speed.picture                      # of the rows in the repository
python -m benchmarks.speed.picture runs/*.json --out runs/speed.png
"""

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.common import Parser, check_writable, command_line, write_atomically
from benchmarks.rows import RESULTS

ROOT = Path(__file__).parents[2]
# Names of ours, of parts of ours and of ours in another form: no peers.
OWN = re.compile(
    r"ours\b|operator, |knn_graph$|(?:Diffusion|Node)Classifier$|graph alone$|threads: |\d+ col"
    r"|\d+ ranks|one process"
)
KINDS = {  # of work: its suites and its marker
    "diffusion and propagation layers": (
        (
            "kernels",
            "columns",
            "propagation",
            "small",
            "ogb",
            "scale",
            "partition",
            "accelerate",
            "sizes",
            "gpu",
        ),
        "o",
    ),
    "training": (("train", "fewshot", "nodes"), "^"),
    "making a graph's matrix": (("build",), "s"),
    "neighbors, classifier": (("knn", "classifier"), "D"),
}
FASTER, SLOWER = "#2166ac", "#e6550d"


class Case(NamedTuple):
    """A comparison: where it lies and how many times faster than the best peer we are."""

    suite: str
    name: str
    nodes: int | None
    columns: int | None
    faster: float
    peer: str


def size(case: str) -> tuple[int | None, int | None]:
    """Nodes and columns as the name of a case gives them."""
    if found := re.search(r"(\d+) x (\d+)", case):
        return int(found[1]), int(found[2])
    if found := re.search(r"(\d+)-way (\d+)-shot, (\d+) features", case):
        return int(found[1]) * (int(found[2]) + 15), int(found[3])  # 15 queries a class
    nodes, columns = re.search(r"(\d+) nodes", case), re.search(r"(\d+) columns", case)
    return nodes and int(nodes[1]), columns and int(columns[1])


def cases(files: Iterable[Path]) -> list[Case]:
    """Every case that has a peer; of one that several files hold, the latest.

    Raises:
        ValueError: If a file holds no rows of a suite; names it.
    """
    records = []
    for path in files:
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
            records.append((record["environment"].get("date", ""), path.name, record["rows"]))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"'{path}' holds no rows of 'benchmarks.speed --json'") from error
    latest: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for _, _, rows in sorted(records, key=lambda record: record[:2]):
        timed = [row for row in rows if "memory" not in row["case"]]
        latest |= {
            key: [row for row in timed if (row["suite"], row["case"]) == key]
            for key in dict.fromkeys((row["suite"], row["case"]) for row in timed)
        }
    found = []
    for (suite, case), rows in latest.items():
        peers = [row for row in rows if not OWN.match(row["name"])]
        if peers:
            best = min(peers, key=lambda row: row["ratio"])
            found.append(Case(suite, case, *size(case), best["ratio"], best["name"]))
    return found


def draw(found: list[Case], path: Path) -> None:
    """Two panels, one below the other so that a phone shows them."""
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    figure = Figure(figsize=(5, 7.2), layout="constrained")
    panels = figure.subplots(2, sharey=True)
    wins = sum(case.faster > 1 for case in found)
    figure.suptitle(
        f"Faster than the fastest other way in {wins} of {len(found)} cases", fontsize=12
    )
    labels = ("columns (features, classes)", "nodes (or points)")
    for axes, label, field in zip(panels, labels, ("columns", "nodes"), strict=True):
        axes.axhline(1, color="black", linewidth=1)
        axes.set(xscale="log", yscale="log", xlabel=label, ylabel="times faster")
        for suites, marker in KINDS.values():
            for case in found:
                at = getattr(case, field)
                if case.suite in suites and at is not None:
                    color = FASTER if case.faster > 1 else SLOWER
                    style = {"color": color, "alpha": 0.6, "markersize": 7, "markeredgewidth": 0}
                    axes.plot(at, case.faster, marker, zorder=2 + (case.faster <= 1), **style)
        axes.grid(which="major", alpha=0.3)
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}x"))
        axes.yaxis.set_minor_formatter(NullFormatter())
    handles = [
        Line2D([], [], linestyle="", marker="o", color=FASTER, label="we are faster"),
        Line2D([], [], linestyle="", marker="o", color=SLOWER, label="we are not"),
    ]
    for kind, (suites, marker) in KINDS.items():
        if any(case.suite in suites for case in found):
            mark = Line2D([], [], linestyle="", marker=marker, color="#666666", label=kind)
            handles.append(mark)
    figure.legend(handles=handles, loc="outside lower center", ncols=2, fontsize=9, frameon=False)
    with write_atomically(path) as temporary:
        figure.savefig(temporary, dpi=160, format="png")


def parser() -> Parser:
    """The flags."""
    p = Parser(__doc__)
    p.add_argument("files", nargs="*", type=Path, help="(default: benchmarks/results/speed/*.json)")
    p.add_argument("--out", type=Path, default=ROOT / "docs" / "speed.png")
    return p


def of_the_repository() -> list[Case]:
    """Every case whose rows lie in the repository, but for those of a GPU."""
    files = (RESULTS / "speed").glob("*.json")
    return cases(path for path in files if not path.name.startswith("gpu"))


def main(argv: list[str] | None = None) -> None:
    """Draw, and name the places where a peer is as fast or faster, and those that have no place."""
    args = parser().parse_args(argv)
    check_writable(args.out)
    found = cases(args.files) if args.files else of_the_repository()
    if not found:
        raise ValueError("There is no case with a peer in these files")
    draw(found, args.out)
    for case in sorted(found, key=lambda case: case.faster):
        if case.faster <= 1:
            print(f"{case.faster:.2f}x  {case.suite}: {case.name} ({case.peer})")
    for case in found:
        if case.nodes is None:
            print(f"not drawn, for its name tells no size: {case.suite}: {case.name}")
    print(f"{len(found)} cases are in {args.out}")


if __name__ == "__main__":
    command_line(main)
