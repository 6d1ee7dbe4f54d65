"""The tables and pictures of results in the pages, written again from the rows in the repository.

python -m benchmarks.readme
"""

import argparse
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import classifier, report
from benchmarks.ablations import report as ablation_report
from benchmarks.common import command_line, read_rows, write_atomically
from benchmarks.nodes.graphs import SOURCES, SPLIT_KINDS
from benchmarks.rows import RESULTS
from benchmarks.speed import picture
from fewshot import report as fewshot_report

ROOT = Path(__file__).parents[1]


def rows(study: str) -> list[report.Row]:
    """The rows of a study on all its graphs."""
    return report.read_results(sorted((RESULTS / study).glob("*.jsonl*")))


def groups(kind: str) -> dict[report.Group, dict[str, list[report.Row]]]:
    """The rows of all graphs with this kind of splits, by graph and model."""
    found = report.group_rows(rows("nodes"))
    order = [*SOURCES, *sorted({dataset for dataset, _, _ in found} - {*SOURCES})]
    chosen = [group for group in found if group[2] == SPLIT_KINDS[kind]]
    return {group: found[group] for group in sorted(chosen, key=lambda g: order.index(g[0]))}


def citation() -> str:
    """Every model on the citation graphs."""
    return report.table(groups("per_class"), "diff-resnet")


def development() -> str:
    """Some models on Cora with the splits of GDC and GRAND."""
    return report.table(groups("development"), "diff-resnet-tuned")


def ablations() -> str:
    """Every ablation."""
    return ablation_report.tables(rows("ablations"))


def ogb() -> str:
    """Every model on the graphs in OGB's layout."""
    return report.table(report.group_rows(rows("ogb")), "diffused-mlp")


def classifiers() -> str:
    """The classifier and scikit-learn's."""
    found = read_rows([RESULTS / "classifier.jsonl"])
    names = dict.fromkeys(row["dataset"] for row in found)
    return "\n\n".join(f"{name}:\n\n{classifier.table(found, name)}" for name in names)


def fewshot() -> str:
    """Every few-shot method."""
    found = read_rows(sorted((ROOT / "fewshot" / "results" / "tasks").glob("*.jsonl.gz")))
    return "\n\n".join(
        fewshot_report.table([r for r in found if r["settings"]["unbalanced"] == u], told)
        for u, told in ((False, "prior balanced"), (True, "prior dirichlet"))
    )


def speed() -> str:
    """What the ways of today take as a multiple of our time, on the graphs of the front page."""
    found = json.loads((RESULTS / "speed" / "kernels.json").read_text(encoding="utf-8"))["rows"]
    both = [row for row in found if row["case"].endswith(", forward + backward")]
    ratio = {(row["case"].removesuffix(", forward + backward"), row["name"]): row for row in both}
    lines = [f"| {' | '.join(('', *SPEED.values()))} |", "| --- " * (len(SPEED) + 1) + "|"]
    for name in dict.fromkeys(row["name"] for row in both if not row["name"].startswith("ours ")):
        cells = [_speed(ratio.get((case, name))) for case in SPEED]
        lines.append(f"| {'**ours**' if name == 'ours' else name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _speed(row: dict[str, Any] | None) -> str:
    if row is None:
        return "-"
    return f"{1e3 * row['seconds']:.3g} ms" if row["name"] == "ours" else f"{row['ratio']:.3g}x"


def suites() -> str:
    """Every case of the other suites: our time, and what the others take as a multiple of it."""
    tables = []
    for suite in SUITES:
        record = json.loads((RESULTS / "speed" / f"{suite}.json").read_text(encoding="utf-8"))
        cases: dict[str, list[dict[str, Any]]] = {}
        for row in record["rows"]:
            cases.setdefault(row["case"], []).append(row)
        lines = ["| case | ours, ms | the others, as a multiple of it |", "| --- | --- | --- |"]
        for case, found in cases.items():
            if "every width" in case:
                continue
            ours, *others = found
            cells = "; ".join(f"{row['name']} {_others(row)}" for row in others)
            lines.append(f"| {case} | {_ours(ours)} | {cells} |")
        tables.append(f"`--suite {suite}`:\n\n" + "\n".join(lines))
    return "\n\n".join(tables)


def _ours(row: dict[str, Any]) -> str:
    return f"{row['MB']:.3g} MB" if "MB" in row else _milliseconds(row)


def _milliseconds(row: dict[str, Any]) -> str:
    """Three digits, as people write them."""
    return np.format_float_positional(1e3 * row["seconds"], 3, fractional=False, trim="-")


def _others(row: dict[str, Any]) -> str:
    return f"{row['MB']:.3g} MB" if "MB" in row else f"{row['ratio']:.3g}x"


def partition() -> str:
    """One graph on one process and in parts."""
    path = RESULTS / "speed" / "partition.json"
    found = json.loads(path.read_text(encoding="utf-8"))["rows"]
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


def accelerated() -> str:
    """Models before and after one line, a row a model, a column a graph."""
    path = RESULTS / "speed" / "accelerate.json"
    cells: dict[str, dict[str, dict[str, Any]]] = {}
    for row in json.loads(path.read_text(encoding="utf-8"))["rows"]:
        known = re.match(r"(.+?) on (\w+) \(", row["case"])
        if "accuracy" in row and known:
            pair = cells.setdefault(known[1], {}).setdefault(known[2], {})
            pair["after" if row["name"] == "ours" else "before"] = row
    graphs = list(dict.fromkeys(graph for found in cells.values() for graph in found))
    columns = " | ".join(f"{graph}, ms | accuracy" for graph in graphs)
    lines = [f"| before, after | {columns} |", "| --- " * (1 + 2 * len(graphs)) + "|"]
    for model, found in cells.items():
        line = [model]
        for graph in graphs:
            both = found[graph]["before"], found[graph]["after"]
            line.append(", ".join(_milliseconds(row) for row in both))
            line.append(", ".join(f"{100 * row['accuracy']:.1f}" for row in both))
        lines.append(f"| {' | '.join(line)} |")
    return "\n".join(lines)


def accuracy() -> str:
    """Some models on the citation graphs; cells of fewer than 100 splits say of how many."""
    found = groups("per_class")
    lines = [
        f"| | {' | '.join(dataset for dataset, _, _ in found)} |",
        "| --- " * (len(found) + 1) + "|",
    ]
    shown = [name for name in ACCURACY if all(name in models for models in found.values())]
    for name in shown:
        cells = []
        for models in found.values():
            values = 100 * np.array([row["test_acc"] for row in models[name]])
            fewer = f" ({len(values)})" if len(values) < 100 else ""
            cells.append(f"{values.mean():.1f} ± {values.std():.1f}{fewer}")
        lines.append(f"| {ACCURACY[name]} | {' | '.join(cells)} |")
    return "\n".join(lines)


def paired() -> str:
    """What ours gains over every other model, split by split, a column a graph."""
    found = groups("per_class")
    ours = {group: models["node-classifier"] for group, models in found.items()}
    lines = [
        f"| `NodeClassifier` minus | {' | '.join(dataset for dataset, _, _ in found)} |",
        "| --- " * (len(found) + 1) + "|",
    ]
    names = dict.fromkeys(name for models in found.values() for name in models)
    for name in (name for name in names if name != "node-classifier"):
        cells = []
        for group, models in found.items():
            if name not in models:
                cells.append("-")
                continue
            mean, half, _ = report.paired_difference(ours[group], models[name])
            cells.append(f"{mean:+.2f} ± {half:.2f}")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def few() -> str:
    """A row a graph and model, a column a number of labels a class; of how many splits."""
    found: dict[tuple[str, str], dict[int, list[float]]] = {}
    for row in rows("nodes"):
        labels = re.match(r"random, (\d+) train and 30 val per class", row["split_kind"])
        if labels and int(labels[1]) < 20:
            cells = found.setdefault((row["dataset"], row["model"]), {})
            cells.setdefault(int(labels[1]), []).append(100 * row["test_acc"])
    counts = sorted({count for cells in found.values() for count in cells})
    lines = [
        f"| graph | model | {' | '.join(f'{count} a class' for count in counts)} |",
        "| --- " * (len(counts) + 2) + "|",
    ]
    for (graph, model), cells in sorted(
        found.items(), key=lambda pair: (pair[0][0], -len(pair[1]))
    ):
        values = [cells.get(count, []) for count in counts]
        told = [f"{np.mean(v):.1f} ± {np.std(v):.1f} ({len(v)})" if v else "-" for v in values]
        lines.append(f"| {graph} | {model} | {' | '.join(told)} |")
    return "\n".join(lines)


def unseen() -> str:
    """Every model with its default settings on graphs that no search has seen."""
    return by_graph(rows("unseen"))


def tuning() -> str:
    """Ours and some others on the graphs that its defaults were made on."""
    return by_graph(rows("tuning"))


def by_graph(every: list[report.Row]) -> str:
    """A row a graph, ours first; cells of fewer splits than ours say of how many."""
    graphs: dict[str, dict[str, dict[int, float]]] = {}
    for row in every:
        models = graphs.setdefault(Path(row["dataset"]).stem, {})
        models.setdefault(row["model"], {})[row["split"]] = 100 * row["test_acc"]
    others = sorted({name for models in graphs.values() for name in models} - {"node-classifier"})
    names = ["node-classifier", *others]
    lines = [f"| graph | splits | {' | '.join(names)} |", "| --- " * (len(names) + 2) + "|"]
    for graph, models in sorted(graphs.items()):
        ours = models.get("node-classifier", {})
        cells = [graph, str(len(ours))]
        for name in names:
            own = [value for split, value in models.get(name, {}).items() if split in ours]
            fewer = f" ({len(own)})" if len(own) < len(ours) else ""
            cells.append(f"{np.mean(own):.2f} ± {np.std(own):.2f}{fewer}" if own else "-")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


SPEED = {
    "cora (2485 x 1433), K = 20, dropout 0": "Cora, K = 20",
    "cora (2485 x 1433), K = 20, dropout 0.25": "the same, dropout 0.25",
    "arxiv shape, given order (169343 x 128), K = 10, dropout 0": "ogbn-arxiv's shape, K = 10",
}
SUITES = ("propagation", "accelerate", "columns", "small", "build", "classifier", "train")
ACCURACY = {  # and what the front page calls them
    "node-classifier": "**`NodeClassifier`**",
    "diff-linear": "**`DiffConv` and a linear map**",
    "diff-resnet": "**Diff-ResNet, as published**",
    "appnp": "APPNP",
    "gat": "GAT",
    "gcn": "GCN",
    "sage": "GraphSAGE",
    "mlp": "MLP",
}
PARTS: dict[str, Callable[[], str]] = {  # of docs/benchmarks.md
    "speed": speed,
    "suites": suites,
    "citation": citation,
    "development": development,
    "ablations": ablations,
    "ogb": ogb,
    "classifier": classifiers,
    "fewshot": fewshot,
}
ACCURACY_PARTS: dict[str, Callable[[], str]] = {
    "paired": paired,
    "few": few,
    "unseen": unseen,
    "tuning": tuning,
}
SCALE_PARTS: dict[str, Callable[[], str]] = {"partition": partition}  # of docs/scale.md
FRONT: dict[str, Callable[[], str]] = {  # of README.md
    "speed": speed,
    "accelerated": accelerated,
    "accuracy": accuracy,
}


def fill(text: str, name: str, content: str) -> str:
    """Put ``content`` between ``<!-- name -->`` and ``<!-- /name -->``.

    Raises:
        ValueError: If the text does not hold each of them once.
    """
    pattern = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
    text, found = pattern.subn(lambda match: f"{match[1]}\n{content}\n\n{match[2]}", text)
    if found != 1:
        raise ValueError(
            f"Expected '<!-- {name} --> ... <!-- /{name} -->' once in the text (got {found} times)"
        )
    return text


def parser() -> argparse.ArgumentParser:
    """The flags."""
    p = argparse.ArgumentParser(
        description=__doc__, usage=argparse.SUPPRESS, formatter_class=argparse.RawTextHelpFormatter
    )
    p.add_argument("--readme", type=Path, default=ROOT / "README.md", help="the front page")
    p.add_argument("--tables", type=Path, default=ROOT / "docs" / "benchmarks.md", help="the rest")
    p.add_argument("--accuracy", type=Path, default=ROOT / "docs" / "accuracy.md", help="of ours")
    p.add_argument("--scale", type=Path, default=ROOT / "docs" / "scale.md", help="large graphs")
    p.add_argument("--plot", type=Path, default=ROOT / "docs", help="folder of the pictures")
    return p


def main(argv: list[str] | None = None) -> None:
    """Write the pages and the pictures."""
    args = parser().parse_args(argv)
    pages = {}
    contents = (
        (args.readme, FRONT),
        (args.tables, PARTS),
        (args.accuracy, ACCURACY_PARTS),
        (args.scale, SCALE_PARTS),
    )
    for page, parts in contents:
        text = page.read_text(encoding="utf-8")
        for name, content in parts.items():
            text = fill(text, name, content())
        pages[page] = text
    report.plot(groups("per_class"), args.plot / "citation.png")
    ablation_report.draw(rows("ablations"), args.plot)
    picture.draw(picture.of_the_repository(), args.plot / "speed.png")
    for page, text in pages.items():
        with write_atomically(page) as temporary:
            temporary.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    command_line(main)
