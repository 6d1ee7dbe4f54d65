"""Two spirals: ``python -m toys.two_spiral``."""

from benchmarks.common import command_line

from .command import Toy, run

TOY = Toy("two_spiral", noise=0.1, n_top=25, steps=900, lr=0.8, seed=42)


def main(argv: list[str] | None = None) -> None:
    """Train with and without diffusion and draw both."""
    run(TOY, argv)


if __name__ == "__main__":
    command_line(main)
