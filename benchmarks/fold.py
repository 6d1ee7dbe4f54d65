"""Fold appended rows into one compressed file a study and graph.

python -m benchmarks.fold benchmarks/results/nodes benchmarks/results/ogb

In each folder the rows of NAME.jsonl and of the ranks' NAME.rankR.jsonl go into NAME.jsonl.gz; the
plain files are removed when they are safe in it. A killed fold loses nothing and repeats nothing;
a file that a run is writing is refused.
"""

import json
import re
from contextlib import ExitStack
from pathlib import Path

from benchmarks.common import Parser, command_line, read_rows, write_rows
from benchmarks.rows import parts
from torch_geometric_diff._utils.files import open_locked


def fold(out: Path) -> int:
    """Fold the rows of ``out`` and its ranks and return how many the compressed file has."""
    plain = [path for path in parts(out) if path.suffix != ".gz"]
    with ExitStack() as locks:
        for path in plain:  # no run may add a row meanwhile
            locks.enter_context(open_locked(path))
        rows = {json.dumps(row, sort_keys=True): row for row in read_rows(parts(out))}
        write_rows(out.with_name(f"{out.name}.gz"), rows.values())
        for path in plain:
            path.unlink()
    return len(rows)


def parser() -> Parser:
    """The flags."""
    p = Parser(__doc__)
    p.add_argument("folders", nargs="+", type=Path, metavar="FOLDER")
    return p


def main(argv: list[str] | None = None) -> None:
    """Fold what lies in each folder."""
    args = parser().parse_args(argv)
    for folder in args.folders:
        if not folder.is_dir():
            raise ValueError(f"'{folder}' is no folder")
    for folder in args.folders:
        names = {re.sub(r"\.rank\d+\.jsonl$", ".jsonl", p.name) for p in folder.glob("*.jsonl")}
        for name in sorted(names):
            print(f"{folder / name}.gz: {fold(folder / name)} rows")


if __name__ == "__main__":
    command_line(main)
