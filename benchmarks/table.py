"""The paper's table: every model on every graph, resumable at any moment.

python -m benchmarks.table                                    # goes on from benchmarks/results
torchrun --nproc-per-node 2 -m benchmarks.table               # trials shared by two
python -m benchmarks.report benchmarks/results/nodes/*        # the table
"""

import argparse
from pathlib import Path

from benchmarks import planetoid
from benchmarks.common import command_line
from benchmarks.nodes.graphs import SOURCES, SPLIT_KINDS
from benchmarks.nodes.models import METHODS
from benchmarks.rows import RESULTS


def parser() -> argparse.ArgumentParser:
    """The flags."""
    p = argparse.ArgumentParser(
        description=__doc__, usage=argparse.SUPPRESS, formatter_class=argparse.RawTextHelpFormatter
    )
    p.add_argument("--num_splits", type=int, default=100)
    p.add_argument("--num_inits", type=int, default=1, help="the paper takes 20")
    p.add_argument("--datasets", nargs="+", choices=list(SOURCES), default=list(SOURCES))
    p.add_argument("--split", choices=list(SPLIT_KINDS), default="per_class")
    p.add_argument("--models", nargs="+", choices=list(METHODS), default=list(METHODS))
    p.add_argument("--results", type=Path, default=RESULTS / "nodes", help="folder of result files")
    return p


def main(argv: list[str] | None = None) -> None:
    """Run every pair of a model and a graph, the most telling models first."""
    args = parser().parse_args(argv)
    for model in args.models:
        for dataset in args.datasets:
            flags = {
                "dataset": dataset,
                "source": SOURCES[dataset],
                "model": model,
                "split": args.split,
                "num_splits": args.num_splits,
                "num_inits": args.num_inits,
                "out": args.results / f"{dataset}.jsonl",
            }
            pairs = [text for name, value in flags.items() for text in (f"--{name}", str(value))]
            planetoid.main([*pairs, "--resume"])


if __name__ == "__main__":
    command_line(main)
