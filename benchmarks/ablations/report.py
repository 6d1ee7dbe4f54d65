"""A table and a picture of each ablation, from its rows alone.

python -m benchmarks.ablations.report benchmarks/results/ablations/* --plot docs
"""

from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import Parser, command_line, mean_and_interval, write_atomically
from benchmarks.report import paired_difference, read_results, split_means

Row = dict[str, Any]
Value = float | str
FIELDS = ("dataset", "source", "study", "variant", "base", "split", "init", "test_acc", "ddr")


def parser() -> Parser:
    """The flags."""
    p = Parser(__doc__)
    p.add_argument("files", nargs="+", type=Path, metavar="FILE", help="result files, JSON lines")
    p.add_argument(
        "--plot", type=Path, metavar="FOLDER", help="write ablation_DATASET_STUDY.png there"
    )
    return p


class Study:
    """The rows of one study on one graph; a trial that occurs twice counts once."""

    def __init__(self, rows: list[Row]) -> None:
        self.variants: dict[Value, list[Row]] = {}
        unique = {(row["variant"], row["split"], row["init"]): row for row in rows}
        for row in unique.values():
            self.variants.setdefault(row["variant"], []).append(row)
        if not isinstance(rows[0]["variant"], str):
            self.variants = dict(sorted(self.variants.items()))

    @property
    def is_numeric(self) -> bool:
        """Whether the variants are points of an axis."""
        return not isinstance(next(iter(self.variants)), str)

    def base(self, variant: Value) -> Value | None:
        """What a variant is compared with: of several bases the one that its name begins with."""
        bases = [name for name, rows in self.variants.items() if rows[0]["base"]]
        if len(bases) > 1:
            bases = [name for name in bases if str(variant).split(" + ")[0] == name]
        return bases[0] if bases else None

    def difference(self, variant: Value) -> str:
        """Accuracy minus that of the base on the splits that both have, with its interval."""
        base = self.base(variant)
        if base is None or base == variant:
            return "-"
        mean, half, splits = paired_difference(self.variants[variant], self.variants[base])
        return f"{mean:+.2f} ± {half:.2f} ({splits})"

    def median(self, variant: Value, name: str) -> float:
        """Median of a measure over the runs that have it."""
        values = [row[name] for row in self.variants[variant] if row[name] is not None]
        return float(np.median(values)) if values else float("nan")

    def interval(self, variant: Value) -> tuple[float, float]:
        """Mean test accuracy over splits and half its 95 % interval."""
        return mean_and_interval([*split_means(self.variants[variant]).values()])


def group_studies(rows: list[Row]) -> dict[tuple[str, str], Study]:
    """Studies by graph and name.

    Raises:
        ValueError: If a row is no result of ``benchmarks.ablations``.
    """
    groups: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for row in rows:
        missing = [name for name in FIELDS if name not in row]
        if missing:
            raise ValueError(f"A row lacks {missing}; not a result of benchmarks.ablations")
        groups[row["dataset"], row["study"]].append(row)
    return {group: Study(found) for group, found in groups.items()}


def table(study: Study, name: str) -> str:
    """The markdown table of a study."""
    lines = [
        f"| {name} | test accuracy, % (95 % interval) | val, % | minus base, % (splits) "
        "| distance-diameter ratio | separability | s/run |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for variant, rows in study.variants.items():
        mean, half = study.interval(variant)
        val = 100 * np.mean([row["val_acc"] for row in rows])
        seconds = np.mean([row["seconds"] for row in rows])
        mark = " (base)" if rows[0]["base"] else ""
        accuracy = f"{mean:.2f} ± {half:.2f} | {val:.2f}"
        lines.append(
            f"| {variant}{mark} | {accuracy} | {study.difference(variant)} "
            f"| {study.median(variant, 'ddr'):.2g} | {study.median(variant, 'separability'):.3f} "
            f"| {seconds:.1f} |"
        )
    return "\n".join(lines)


def plot(study: Study, heading: str, label: str, path: Path) -> None:
    """Draw accuracy with its interval, distance-diameter ratio and separability of the variants."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    names: list[Any] = list(study.variants)
    figure, axes = plt.subplots(
        3, 1, sharex=True, figsize=(6, 6.5), height_ratios=[2, 1, 1], layout="constrained"
    )
    x = names if study.is_numeric else range(len(names))
    style = "o-" if study.is_numeric else "o"
    means, halves = np.array([study.interval(name) for name in names]).T
    axes[0].errorbar(x, means, np.nan_to_num(halves), fmt=style, capsize=3, markersize=4)
    for axis, measure in zip(axes[1:], ("ddr", "separability"), strict=True):
        axis.plot(x, [study.median(name, measure) for name in names], style, markersize=4)
    bases = [place for place, name in enumerate(names) if study.variants[name][0]["base"]]
    places = [x[place] for place in bases]
    axes[0].plot(places, means[bases], "o", color="black", label="base", zorder=3)
    axes[0].legend()
    axes[0].set_title(heading)
    axes[0].set_ylabel("test accuracy, %")
    axes[1].set_ylabel("distance-\ndiameter ratio")
    axes[1].set_yscale("log")
    axes[2].set_ylabel("separability")
    if study.is_numeric:
        axes[2].set_xlabel(label)
        if max(names) > 20 * max(min(names), 1):  # numbers of steps
            axes[2].set_xscale("symlog", linthresh=1)
            axes[2].set_xticks(names, names)
            axes[2].set_xlim(left=min(names) - 0.2)
    else:
        axes[2].set_xticks(list(x), names, rotation=30, ha="right")
    for axis in axes:
        axis.grid(alpha=0.3)
    with write_atomically(path) as temporary:
        figure.savefig(temporary, dpi=150)
    plt.close(figure)


def tables(rows: list[Row]) -> str:
    """The tables of all studies, each under its title."""
    parts = [
        f"{title(study, *group)}\n\n{table(study, group[1].replace('_', ' '))}\n"
        for group, study in group_studies(rows).items()
    ]
    note = (
        "± is half the 95 % interval over splits, of the paired difference where something is "
        "subtracted; ratio and separability are medians over runs."
    )
    return "\n".join([*parts, note])


def title(study: Study, dataset: str, name: str) -> str:
    """What was changed on which graph."""
    source = next(iter(study.variants.values()))[0]["source"]
    return f"{name.replace('_', ' ')} on {dataset} ({source})"


def draw(rows: list[Row], folder: Path) -> None:
    """One picture of each study."""
    for (dataset, name), study in group_studies(rows).items():
        path = folder / f"ablation_{dataset}_{name}.png"
        plot(study, title(study, dataset, name), name.replace("_", " "), path)


def main(argv: list[str] | None = None) -> None:
    """Print the tables and draw the pictures."""
    args = parser().parse_args(argv)
    rows = read_results(args.files)
    print(tables(rows))
    if args.plot:
        draw(rows, args.plot)


if __name__ == "__main__":
    command_line(main)
