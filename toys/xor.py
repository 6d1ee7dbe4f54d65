"""Four discs, opposite ones of one class, without a network: ``python -m toys.xor``."""

from benchmarks.common import command_line

from .command import Toy, run

TOY = Toy("xor", points=400, noise=0.0, n_top=20, steps=200, updates=0, seed=42)


def main(argv: list[str] | None = None) -> None:
    """Diffuse the points themselves and draw them."""
    run(TOY, argv)


if __name__ == "__main__":
    command_line(main)
