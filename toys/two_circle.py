"""A circle inside a circle: ``python -m toys.two_circle``."""

from benchmarks.common import command_line

from .command import Toy, run

TOY = Toy("two_circle", noise=0.05, n_top=50, steps=200, lr=1.0, seed=42)


def main(argv: list[str] | None = None) -> None:
    """Train with and without diffusion and draw both."""
    run(TOY, argv)


if __name__ == "__main__":
    command_line(main)
