"""The README's tables and pictures of results, written again from the rows in the repository.

python -m benchmarks.readme
"""

import argparse
import re
from collections.abc import Callable
from pathlib import Path

from benchmarks import classifier, report
from benchmarks.ablations import report as ablation_report
from benchmarks.nodes.graphs import SOURCES, SPLIT_KINDS
from benchmarks.rows import RESULTS
from fewshot import report as fewshot_report
from torch_geometric_diff.experiment import command_line, read_rows, write_atomically

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
    return report.table(report.group_rows(rows("ogb")), "diff-resnet")


def classifiers() -> str:
    """The classifier and scikit-learn's."""
    found = read_rows([RESULTS / "classifier.jsonl"])
    names = dict.fromkeys(row["dataset"] for row in found)
    return "\n\n".join(f"{name}:\n\n{classifier.table(found, name)}" for name in names)


def fewshot() -> str:
    """Every few-shot method."""
    return fewshot_report.table(
        read_rows(sorted((ROOT / "fewshot" / "results" / "tasks").glob("*.jsonl")))
    )


PARTS: dict[str, Callable[[], str]] = {
    "citation": citation,
    "development": development,
    "ablations": ablations,
    "ogb": ogb,
    "classifier": classifiers,
    "fewshot": fewshot,
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
    p.add_argument("--readme", type=Path, default=ROOT / "README.md")
    p.add_argument("--plot", type=Path, default=ROOT / "docs", help="folder of the pictures")
    return p


def main(argv: list[str] | None = None) -> None:
    """Write the README and the picture."""
    args = parser().parse_args(argv)
    text = args.readme.read_text(encoding="utf-8")
    for name, content in PARTS.items():
        text = fill(text, name, content())
    report.plot(groups("per_class"), args.plot / "citation.png")
    ablation_report.draw(rows("ablations"), args.plot)
    with write_atomically(args.readme) as temporary:
        temporary.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    command_line(main)
