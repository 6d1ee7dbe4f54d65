"""python -m benchmarks.planetoid: ``benchmarks.nodes`` with the paper's protocol as defaults."""

from benchmarks.common import command_line
from benchmarks.nodes import command

PAPER = {"dataset": "cora", "num_inits": 20, "name": "planetoid"}


def main(argv: list[str] | None = None) -> None:
    """Run the trials."""
    command.main(argv, PAPER)


if __name__ == "__main__":
    command_line(main)
