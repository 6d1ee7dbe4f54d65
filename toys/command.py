"""The command line that all toys share. Nothing heavy is imported before the flags are right."""

import argparse
import math
from dataclasses import dataclass
from pathlib import Path

from benchmarks.common import Parser, check_writable, refuse_unused


@dataclass(frozen=True)
class Toy:
    """Points, named as their function in ``toys.data``, and the constants of the paper for them.

    0 updates mean no network.
    """

    name: str
    noise: float
    n_top: int
    steps: int
    seed: int
    lr: float = 1.0
    points: int = 1000
    updates: int = 20
    sigma: float = 0.5
    step_size: float = 1.0


def parser(toy: Toy) -> Parser:
    """The flags, whose defaults are the constants of the paper."""
    flags = Parser(
        f"What diffusion does to {toy.name}: prints accuracy and distance-diameter ratio without "
        "and\nwith diffusion, and writes a PNG, a GIF and an HTML page."
    )
    flags.add_argument("--points", type=int, default=toy.points, help="points of both classes")
    flags.add_argument("--noise", type=float, default=toy.noise, help="deviation of the points")
    flags.add_argument("--n_top", type=int, default=toy.n_top, help="weights kept a point")
    flags.add_argument("--sigma", type=float, default=toy.sigma, help="width of the Gaussian")
    flags.add_argument("--steps", type=int, default=toy.steps, help="steps of diffusion")
    flags.add_argument("--step_size", type=float, default=toy.step_size, help="size of a step")
    if toy.updates:
        flags.add_argument("--updates", type=int, default=toy.updates, help="updates by SGD")
        flags.add_argument("--lr", type=float, default=toy.lr, help="learning rate")
        flags.add_argument(
            "--momentum",
            type=float,
            default=0.0,
            help="momentum; the paper's code says 0.9 but makes a new optimizer for every update, "
            "so that none builds up, and these figures are those without",
        )
    flags.add_argument("--seed", type=int, default=toy.seed, help="seed of points and network")
    flags.add_argument("--seeds", type=int, default=20, help="starts to compare, from --seed on")
    flags.add_argument("--no_diffusion", action="store_true", help="leave diffusion out")
    flags.add_argument(
        "--out", type=Path, default=Path("runs/toys") / toy.name, help="prefix of the files"
    )
    return flags


def check(args: argparse.Namespace) -> None:
    """Refuse numbers out of range, by the name of their flag."""
    least = {"points": 4, "n_top": 1, "steps": 1, "updates": 1, "seeds": 1, "seed": 0}
    for name, bound in least.items():
        if getattr(args, name, bound) < bound:
            raise ValueError(f"Expected '--{name}' of at least {bound} (got {getattr(args, name)})")
    if args.n_top > args.points:
        raise ValueError(
            f"Expected '--n_top' of at most '--points', {args.points} (got {args.n_top})"
        )
    if not 0 <= args.noise < math.inf:
        raise ValueError(f"Expected '--noise' to be finite and not negative (got {args.noise})")
    if not 0 < getattr(args, "lr", 1.0) < math.inf:
        raise ValueError(f"Expected '--lr' to be positive and finite (got {args.lr})")
    if not 0 <= getattr(args, "momentum", 0.0) < 1:
        raise ValueError(f"Expected '--momentum' to lie in [0, 1) (got {args.momentum})")


def run(toy: Toy, argv: list[str] | None) -> None:
    """The command line of a toy."""
    args = parser(toy).parse_args(argv)
    check(args)
    if args.no_diffusion:
        unused = ["n_top", "sigma", "steps", "step_size"]
        refuse_unused(parser(toy), args, unused, "'--no_diffusion'")
    from .picture import write_gif, write_html, write_png  # asks for the extra packages
    from .run import compute, report

    check_writable(args.out.with_name(args.out.name + ".png"))  # fail now, not after the training
    result = compute(toy, args)
    report(result, args)
    files = [write_png(result, args.out)]
    if result.moments:
        files += [write_gif(result, args.out), write_html(result, args.out)]
    print("  wrote " + ", ".join(str(path) for path in files))
