"""The tables and pictures of results in the pages, written again from the rows in the repository.

python -m benchmarks.readme
"""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import report, scale
from benchmarks.ablations import report as ablation_report
from benchmarks.common import (
    Parser,
    command_line,
    mean_and_interval,
    read_rows,
    write_atomically,
)
from benchmarks.flags import SOURCES, SPLIT_KINDS
from benchmarks.rows import RESULTS, speed_rows
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
    from benchmarks import classifier

    found = read_rows([RESULTS / "classifier.jsonl"])
    names = dict.fromkeys(row["dataset"] for row in found)
    return "\n\n".join(f"{name}:\n\n{classifier.table(found, name)}" for name in names)


def packages() -> str:
    """Other packages' classifiers of points, and what ours gains that knows as much, by draws."""
    from benchmarks import classifier
    from benchmarks.classifier_peers import SHARES

    found = read_rows([RESULTS / "classifier-peers.jsonl"])
    rows = {(r["dataset"], r["labels"], r["model"]): 100 * np.array(r["accuracy"]) for r in found}
    cases = list(dict.fromkeys((row["dataset"], row["labels"]) for row in found))
    names = dict.fromkeys(
        r["model"] for r in found if "diffusion" in r["model"] or "(" in r["model"]
    )
    lines = [
        f"| | {' | '.join(f'{name}, {count} a class' for name, count in cases)} |",
        "| --- " * (len(cases) + 1) + "|",
    ]
    for name in names:
        ours = classifier.OURS + (SHARES if name.endswith(SHARES) else "")
        cells = []
        for dataset, count in cases:
            values = rows[dataset, count, name]
            text = f"{values.mean():.1f}"
            if not name.startswith(classifier.OURS):
                gain, half = mean_and_interval(rows[dataset, count, ours] - values)
                text += f" ({gain:+.1f} ± {half:.1f})"
            cells.append(text)
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def regression() -> str:
    """DiffusionRegressor and scikit-learn's."""
    from benchmarks import classifier_regression

    found = read_rows([RESULTS / "classifier-regression.jsonl"])
    names = dict.fromkeys(row["dataset"] for row in found)
    return "\n\n".join(f"{name}:\n\n{classifier_regression.table(found, name)}" for name in names)


def fewshot() -> str:
    """Every few-shot method."""
    found = read_rows(sorted((ROOT / "fewshot" / "results" / "tasks").glob("*.jsonl.gz")))
    return "\n\n".join(
        fewshot_report.table([r for r in found if r["settings"]["unbalanced"] == u], told)
        for u, told in ((False, "prior balanced"), (True, "prior dirichlet"))
    )


def speed() -> str:
    """What the ways of today take as a multiple of our time, on the graphs of the front page."""
    both = [row for row in speed_rows("kernels") if row["case"].endswith(", forward + backward")]
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
    """Every case of the other suites."""
    return "\n\n".join(f"`--suite {name}`:\n\n{suite(name)}" for name in SUITES)


def suite(name: str) -> str:
    """Every case of a suite: our time, and what the others take as a multiple of it."""
    cases: dict[str, list[dict[str, Any]]] = {}
    for row in speed_rows(name):
        cases.setdefault(row["case"], []).append(row)
    lines = ["| case | ours, ms | the others, as a multiple of it |", "| --- | --- | --- |"]
    for case, found in cases.items():
        if "every width" in case:
            continue
        ours, *others = found
        cells = "; ".join(f"{row['name']} {_others(row)}" for row in others)
        lines.append(f"| {case} | {_ours(ours)} | {cells} |")
    return "\n".join(lines)


def _ours(row: dict[str, Any]) -> str:
    return f"{row['MB']:.3g} MB" if "MB" in row else _milliseconds(row)


def _milliseconds(row: dict[str, Any]) -> str:
    """Three digits, as people write them."""
    return np.format_float_positional(1e3 * row["seconds"], 3, fractional=False, trim="-")


def _others(row: dict[str, Any]) -> str:
    return f"{row['MB']:.3g} MB" if "MB" in row else f"{row['ratio']:.3g}x"


def accelerated() -> str:
    """Models before and after one line, a row a model, a column a graph."""
    cells: dict[str, dict[str, dict[str, Any]]] = {}
    for row in speed_rows("accelerate"):
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
SUITES = ("propagation", "accelerate", "columns", "small", "build", "classifier", "nodes", "train")
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


def gpu() -> str:
    """What calls on a GPU cost on paper."""
    from benchmarks.speed import gpu_costs

    return gpu_costs.as_markdown(gpu_costs.table())


TABLES: dict[str, Callable[[], str]] = {
    "accelerated": accelerated,
    "ablations": ablations,
    "accuracy": accuracy,
    "citation": citation,
    "classifier": classifiers,
    "development": development,
    "few": few,
    "fewshot": fewshot,
    "gpu": gpu,
    "knn": lambda: suite("knn"),
    "memory": lambda: suite("memory"),
    "ogb": ogb,
    "packages": packages,
    "paired": paired,
    "papers": scale.papers,
    "parts": scale.parts,
    "partition": scale.partition,
    "passes": scale.passes,
    "peers": scale.peers,
    "regression": regression,
    "speed": speed,
    "suites": suites,
    "tuning": tuning,
    "unseen": unseen,
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


def cell(where: str) -> str:
    """One figure: the suite, what its case and its name hold, and the key, parted by ``|``.

    Raises:
        ValueError: If these are not those of exactly one row.
    """
    name, case, model, key = (part.strip() for part in where.split("|"))
    found = [
        row
        for row in speed_rows(name)
        if case in row["case"] and model in row["name"] and row.get(key) is not None
    ]
    if len(found) != 1:
        raise ValueError(f"Expected one row of '{where}' (got {len(found)})")
    value = found[0][key]
    if key == "seconds":
        return f"{1e3 * value:.3g} ms" if value < 0.1 else f"{value:.3g} s"
    unit = {"ratio": "x", "share": " %"}.get(key.split(" ")[0].split(",")[0], "")
    unit = unit or next((f" {u}" for u in ("GiB", "MB", "ns") if key.startswith(u)), "")
    return f"{100 * value if unit == ' %' else value:.3g}{unit}"


def filled(text: str) -> str:
    """A page with every table and every figure written from the rows.

    Raises:
        ValueError: On a mark that stands for no table or no row.
    """
    for name in re.findall(r"^<!-- ([a-z]+) -->$", text, re.MULTILINE):
        if name not in TABLES:
            raise ValueError(f"Expected a mark to be one of {sorted(TABLES)} (got {name!r})")
        text = fill(text, name, TABLES[name]())
    return re.sub(
        r"(<!-- row (.*?) -->).*?(<!-- /row -->)",
        lambda match: f"{match[1]}{cell(match[2])}{match[3]}",
        text,
        flags=re.DOTALL,
    )


def pages(root: Path) -> list[Path]:
    """The pages that may hold tables and figures."""
    written = ("*.md", "tutorials/*.md", "moving/*.md")
    return [root / "README.md", *(p for g in written for p in sorted((root / "docs").glob(g)))]


def parser() -> Parser:
    """The flags."""
    p = Parser(__doc__)
    p.add_argument("--root", type=Path, default=ROOT, help="the folder of README.md and docs/")
    p.add_argument("--no_plots", action="store_true", help="leave the pictures alone")
    return p


def main(argv: list[str] | None = None) -> None:
    """Write the pages and the pictures."""
    args = parser().parse_args(argv)
    texts = {page: filled(page.read_text(encoding="utf-8")) for page in pages(args.root)}
    if not args.no_plots:
        report.plot(groups("per_class"), args.root / "docs" / "citation.png")
        ablation_report.draw(rows("ablations"), args.root / "docs")
        picture.draw(picture.of_the_repository(), args.root / "docs" / "speed.png")
    for page, text in texts.items():
        if text != page.read_text(encoding="utf-8"):
            with write_atomically(page) as temporary:
                temporary.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    command_line(main)
