"""The paper's table: every model on every graph, resumable at any moment.

python -m benchmarks.table                                    # goes on from benchmarks/results
torchrun --nproc-per-node 2 -m benchmarks.table               # trials shared by two
python -m benchmarks.report benchmarks/results/nodes/*        # the table
"""

from benchmarks import flags, planetoid
from benchmarks.common import command_line


def main(argv: list[str] | None = None) -> None:
    """Run every pair of a model and a graph, the most telling models first."""
    args = flags.table(__doc__).parse_args(argv)
    for model in args.models:
        for dataset in args.datasets:
            chosen = {
                "dataset": dataset,
                "source": flags.SOURCES[dataset],
                "model": model,
                "split": args.split,
                "num_splits": args.num_splits,
                "num_inits": args.num_inits,
                "out": args.results / f"{dataset}.jsonl",
            }
            pairs = [text for name, value in chosen.items() for text in (f"--{name}", str(value))]
            planetoid.main([*pairs, "--resume"])


if __name__ == "__main__":
    command_line(main)
