"""A table, and a picture, from result files alone.

python -m benchmarks.report runs/planetoid/*.jsonl --plot accuracy.png
"""

import argparse
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import command_line, mean_and_interval, read_rows, write_atomically

Row = dict[str, Any]
Group = tuple[str, str, str]  # dataset, source, split kind
FIELDS = ("dataset", "source", "split_kind", "model", "split", "init", "test_acc", "val_acc")


def parser() -> argparse.ArgumentParser:
    """The flags."""
    p = argparse.ArgumentParser(
        description=__doc__, usage=argparse.SUPPRESS, formatter_class=argparse.RawTextHelpFormatter
    )
    p.add_argument("files", nargs="+", type=Path, metavar="FILE", help="result files, JSON lines")
    p.add_argument(
        "--reference",
        default="diff-resnet",
        help="model that the others are compared with, split by split (default: diff-resnet)",
    )
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


def split_means(rows: list[Row]) -> dict[int, float]:
    """Test accuracy in percent of every split, averaged over its initializations."""
    values: dict[int, list[float]] = defaultdict(list)
    for row in rows:
        values[row["split"]].append(100 * row["test_acc"])
    return {split: float(np.mean(values[split])) for split in sorted(values)}


def paired_difference(reference: list[Row], other: list[Row]) -> tuple[float, float, int]:
    """Mean of reference minus other over the splits both have, half its 95 % interval, splits."""
    a, b = split_means(reference), split_means(other)
    differences = [a[split] - b[split] for split in a if split in b]
    return *mean_and_interval(differences), len(differences)


def table(groups: dict[Group, dict[str, list[Row]]], reference: str) -> str:
    """The markdown table of each kind of splits, best model of each graph first."""
    lines = []
    for kind in sorted({group[2] for group in groups}):
        lines += [*_table_of_kind(groups, kind, reference), ""]
        lines += [f"Splits: {kind}. ± is the standard deviation over all runs.", ""]
    return "\n".join([*lines[:-1], *_origin(groups)])


def _table_of_kind(
    groups: dict[Group, dict[str, list[Row]]], kind: str, reference: str
) -> list[str]:
    lines = [
        "| graph | source | model | test accuracy, % | val, % | runs | s/run "
        f"| {reference} minus model, % (95 % interval, splits) |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for (dataset, source, split_kind), models in groups.items():
        if split_kind != kind:
            continue
        by_accuracy = sorted(models, key=lambda m: -np.mean([r["test_acc"] for r in models[m]]))
        for model in by_accuracy:
            rows = models[model]
            test = 100 * np.array([row["test_acc"] for row in rows])
            val = 100 * np.mean([row["val_acc"] for row in rows])
            splits = len({row["split"] for row in rows})
            seconds = np.mean([row["seconds"] for row in rows])
            spread = f" ± {test.std():.2f}" if len(rows) > 1 else ""
            paired = "-"
            if model != reference and reference in models:
                mean, half, n = paired_difference(models[reference], rows)
                paired = f"{mean:+.2f} ± {half:.2f} ({n})" if n > 1 else f"{mean:+.2f} ({n})"
            lines.append(
                f"| {dataset} | {source} | {model} | {test.mean():.2f}{spread} "
                f"| {val:.2f} | {len(rows)} ({splits} splits) | {seconds:.2f} | {paired} |"
            )
    return lines


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
    print(table(groups, args.reference))
    if args.plot:
        plot(groups, args.plot)


if __name__ == "__main__":
    command_line(main)
