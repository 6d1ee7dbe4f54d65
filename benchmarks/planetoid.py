"""python -m benchmarks.planetoid: ``benchmarks.nodes`` with the paper's protocol as defaults."""

from benchmarks import flags, nodes
from benchmarks.common import command_line

PAPER = {"dataset": "cora", "num_inits": 20, "name": "planetoid"}


def main(argv: list[str] | None = None) -> None:
    """Run the trials."""
    from benchmarks.nodes import command

    command.main(argv, PAPER)


if __name__ == "__main__":
    flags.nodes(nodes.__doc__, PAPER).parse_args()  # a typo waits for no import
    command_line(main)
