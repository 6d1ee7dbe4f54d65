"""A table, and a picture, from result files alone.

python -m benchmarks.report runs/planetoid/*.jsonl --plot accuracy.png
"""

from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import (
    Parser,
    command_line,
    mean_and_interval,
    read_rows,
    tables,
    write_atomically,
)
from benchmarks.common.tables import add_format_flag, note

Row = dict[str, Any]
Group = tuple[str, str, str]  # dataset, source, split kind
FIELDS = ("dataset", "source", "split_kind", "model", "split", "init", "test_acc", "val_acc")


def parser() -> Parser:
    """The flags."""
    p = Parser(__doc__)
    p.add_argument("files", nargs="+", type=Path, metavar="FILE", help="result files, JSON lines")
    p.add_argument(
        "--reference",
        default="diff-resnet",
        help="model that the others are compared with, split by split",
    )
    add_format_flag(p, "of the table", "markdown")
    p.add_argument("--plot", type=Path, metavar="PICTURE", help="accuracy per split of each model")
    return p


def read_results(files: list[Path]) -> list[Row]:
    """The rows of result files.

    Raises:
        ValueError: If there are none.
    """
    rows = read_rows(files)
    if not rows:
        raise ValueError(f"There are no results in {', '.join(map(str, files))}")
    return rows


def group_rows(rows: list[Row]) -> dict[Group, dict[str, list[Row]]]:
    """Rows by graph and split kind, then by model; a trial that occurs twice counts once.

    Raises:
        ValueError: If a row is no result of ``benchmarks.planetoid``, or two settings of one model
            are mixed.
    """
    groups: dict[Group, dict[str, dict[tuple[int, int], Row]]] = defaultdict(dict)
    settings: dict[tuple[Group, str], Row] = {}
    for row in rows:
        missing = [name for name in FIELDS if name not in row]
        if missing:
            raise ValueError(f"A row lacks {missing}; not a result of benchmarks.planetoid")
        group = (row["dataset"], row["source"], row["split_kind"])
        known = settings.setdefault((group, row["model"]), row["settings"])
        if known != row["settings"]:
            raise ValueError(
                f"The files mix two settings of '{row['model']}' on {row['dataset']}: {known} and "
                f"{row['settings']}; report them apart"
            )
        groups[group].setdefault(row["model"], {})[row["split"], row["init"]] = row
    return {
        group: {model: list(trials.values()) for model, trials in models.items()}
        for group, models in groups.items()
    }


def split_means(rows: list[Row], metric: str = "acc") -> dict[int, float]:
    """Test accuracy (or metric) in percent of each split, averaged over its initializations."""
    values: dict[int, list[float]] = defaultdict(list)
    for row in rows:
        values[row["split"]].append(100 * row[f"test_{metric}"])
    return {split: float(np.mean(values[split])) for split in sorted(values)}


def paired_difference(
    reference: list[Row], other: list[Row], metric: str = "acc"
) -> tuple[float, float, int]:
    """Mean of reference minus other over the splits both have, half its 95 % interval, splits."""
    a, b = split_means(reference, metric), split_means(other, metric)
    differences = [a[split] - b[split] for split in a if split in b]
    return *mean_and_interval(differences), len(differences)


def comparison(rows: list[Row], reference: str, form: str | None, metric: str = "acc") -> str:
    """The table of one experiment's models, each against the first on the same splits."""
    return table(group_rows(rows), reference, form or "markdown", metric)


def table(
    groups: dict[Group, dict[str, list[Row]]],
    reference: str,
    form: str = "markdown",
    metric: str = "acc",
) -> str:
    """The table of each kind of splits, best model of each graph first."""
    lines = []
    for kind in sorted({group[2] for group in groups}):
        lines += [_table_of_kind(groups, kind, reference, form, metric), ""]
        lines += [note(f"Splits: {kind}. ± is the standard deviation over all runs.", form), ""]
    return "\n".join([*lines[:-1], *(note(line, form) for line in _origin(groups))]).rstrip("\n")


def _table_of_kind(
    groups: dict[Group, dict[str, list[Row]]], kind: str, reference: str, form: str, metric: str
) -> str:
    measure = "accuracy" if metric == "acc" else metric.replace("_", " ")
    head = ["graph", "source", "model", f"test {measure}, %", "val, %", "runs", "s/run"]
    head.append(f"{reference} minus model, % (95 % interval, splits)")
    lines = []
    for (dataset, source, split_kind), models in groups.items():
        if split_kind != kind:
            continue
        scores = {m: 100 * np.array([r[f"test_{metric}"] for r in models[m]]) for m in models}
        for model in sorted(models, key=lambda m: -float(scores[m].mean())):
            rows, test = models[model], scores[model]
            val = 100 * np.mean([row[f"val_{metric}"] for row in rows])
            splits = len({row["split"] for row in rows})
            seconds = np.mean([row["seconds"] for row in rows])
            spread = f" ± {test.std():.2f}" if len(rows) > 1 else ""
            paired = "-"
            if model != reference and reference in models:
                mean, half, n = paired_difference(models[reference], rows, metric)
                paired = f"{mean:+.2f} ± {half:.2f} ({n})" if n > 1 else f"{mean:+.2f} ({n})"
            cells = [dataset, source, model, f"{test.mean():.2f}{spread}", f"{val:.2f}"]
            lines.append([*cells, f"{len(rows)} ({splits} splits)", f"{seconds:.2f}", paired])
    return tables.table(head, lines, form)


def _origin(groups: dict[Group, dict[str, list[Row]]]) -> list[str]:
    versions = sorted(
        {
            ", ".join(f"{name} {row['versions'][name]}" for name in ("torch", "torch_geometric"))
            for models in groups.values()
            for rows in models.values()
            for row in rows
            if "versions" in row
        }
    )
    lines = [f"Versions: {'; '.join(versions)}."] if versions else []
    dates = sorted(
        row["versions"]["date"]
        for models in groups.values()
        for rows in models.values()
        for row in rows
        if "date" in row.get("versions", ())
    )
    lines += [f"Dates: {dates[0]} to {dates[-1]}."] if dates else []
    return lines


def plot(groups: dict[Group, dict[str, list[Row]]], path: Path) -> None:
    """Draw the accuracy of every split, one panel per graph, one column of points per model."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(
        1, len(groups), figsize=(1.5 + 4 * len(groups), 4.5), squeeze=False, layout="constrained"
    )
    for axis, ((dataset, source, _), models) in zip(axes[0], groups.items(), strict=True):
        means = {model: list(split_means(rows).values()) for model, rows in models.items()}
        order = sorted(means, key=lambda model: np.mean(means[model]))
        for position, model in enumerate(order):
            # A fixed fan instead of random jitter, so that the same rows give the same picture.
            offsets = np.linspace(-0.25, 0.25, len(means[model]))
            axis.plot(position + offsets, means[model], ".", markersize=4, alpha=0.6)
            axis.hlines(np.mean(means[model]), position - 0.35, position + 0.35, color="black")
        axis.set_xticks(range(len(order)), order, rotation=45, ha="right")
        axis.set_title(f"{dataset} ({source})")
        axis.grid(axis="y", alpha=0.3)
    axes[0][0].set_ylabel("test accuracy per split, %")
    with write_atomically(path) as temporary:
        figure.savefig(temporary, dpi=150)
    plt.close(figure)


def main(argv: list[str] | None = None) -> None:
    """Print the table and draw the picture."""
    args = parser().parse_args(argv)
    groups = group_rows(read_results(args.files))
    print(table(groups, args.reference, args.format))
    if args.plot:
        plot(groups, args.plot)


if __name__ == "__main__":
    command_line(main)
