"""Ratios of two commits, ours to the others' in the same runs: a fall of a tenth ends with 1.

python -m benchmarks.speed.compare new/*.json --before old

Of several runs each case counts with its best ratio, the one that other work disturbed least.
"""

import json
import sys
from pathlib import Path

from benchmarks.common import Parser, command_line, tables

Ratios = dict[tuple[str, str], float]
FALL = 0.1


def parser() -> Parser:
    """The flags."""
    p = Parser(__doc__)
    p.add_argument("files", nargs="+", type=Path, metavar="FILE", help="of benchmarks.speed --json")
    p.add_argument("--before", type=Path, required=True, metavar="FOLDER", help="those to compare")
    return p


def ratios(files: list[Path]) -> Ratios:
    """The best ratio of every case and peer.

    Raises:
        ValueError: If a file is not of ``benchmarks.speed``; names it.
    """
    found: Ratios = {}
    for file in files:
        try:
            rows = json.loads(file.read_text(encoding="utf-8"))["rows"]
            pairs = {(row["case"], row["name"]): float(row["ratio"]) for row in rows}
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"'{file}' holds no rows of benchmarks.speed: {error}") from error
        for key, ratio in pairs.items():
            if not key[1].startswith("ours"):
                found[key] = max(ratio, found.get(key, ratio))
    return found


def fallen(before: Ratios, after: Ratios) -> list[list[str]]:
    """The cases whose ratio fell by a tenth or more, the worst first."""
    both = sorted((after[key] / before[key], key) for key in before.keys() & after.keys())
    return [
        [*key, f"{before[key]:.2f}", f"{after[key]:.2f}", f"{100 * (change - 1):+.0f} %"]
        for change, key in both
        if change <= 1 - FALL
    ]


def main(argv: list[str] | None = None) -> None:
    """Print what fell."""
    args = parser().parse_args(argv)
    old = sorted(args.before.glob("*.json")) if args.before.is_dir() else []
    after, before = ratios(args.files), ratios(old)
    worse = fallen(before, after)
    print(
        f"{len(before.keys() & after.keys())} cases in both, {len(worse)} fell by a tenth or more"
    )
    if worse:
        print(tables.table(["case", "beside", "ratio before", "now", "change"], worse))
        sys.exit(1)


if __name__ == "__main__":
    command_line(main)
