"""Two half moons: ``python -m toys.two_moon``."""

from benchmarks.common import command_line

from .command import Toy, run

TOY = Toy("two_moon", noise=0.05, n_top=25, steps=60, lr=1.0, seed=40)


def main(argv: list[str] | None = None) -> None:
    """Train with and without diffusion and draw both."""
    run(TOY, argv)


if __name__ == "__main__":
    command_line(main)
