"""What all toys compute: networks trained with and without diffusion, and what is told of them."""

import argparse
import math

import torch
from numpy.random import RandomState
from torch import Tensor
from torch.func import functional_call, stack_module_state
from torch.nn import Linear
from torch.nn.functional import cross_entropy

from benchmarks.common import mean_and_interval
from torch_geometric_diff import DiffusionOperator, diffuse
from torch_geometric_diff.graph import gaussian_knn_graph
from torch_geometric_diff.metrics import distance_diameter_ratio
from torch_geometric_diff.nn import ResidualBlock

from . import data
from .command import Toy
from .data import Points
from .result import Fit, Moment, Result

SHOWN_STEPS = 24


def draw(toy: Toy, args: argparse.Namespace, seed: int) -> Points:
    """The points of ``seed``."""
    return getattr(data, toy.name)(args.points, args.noise, RandomState(seed))


def operator(x: Tensor, args: argparse.Namespace) -> DiffusionOperator:
    """One step on the graph of the points: I - step_size * (I - W), the rows of W summing to 1."""
    edge_index, weight = gaussian_knn_graph(x, args.n_top, args.sigma, normalization="row")
    return DiffusionOperator(
        edge_index, weight, num_nodes=len(x), step_size=args.step_size, normalization=None
    )


def train(
    x: Tensor,
    y: Tensor,
    args: argparse.Namespace,
    step: DiffusionOperator | None,
    shown: int | None = None,
) -> Fit:
    """Train one network a seed, all at once; without ``step`` there is no diffusion.

    The start that is shown in detail is by default the one of median accuracy.
    """
    blocks, classifiers = [], []
    for seed in range(args.seed, args.seed + args.seeds):
        torch.manual_seed(seed)
        blocks.append(ResidualBlock(2, num_layers=2))
        classifiers.append(Linear(2, 2))
    block_state, _ = stack_module_state(blocks)
    classifier_state, _ = stack_module_state(classifiers)
    block, classifier = blocks[0], classifiers[0]

    def features() -> Tensor:
        return torch.vmap(lambda state: functional_call(block, state, (x,)))(block_state)

    def logits(h: Tensor) -> Tensor:
        if step is not None:
            h = diffuse(h, step, args.steps)
        return torch.vmap(lambda state, h: functional_call(classifier, state, (h,)))(
            classifier_state, h
        )

    parameters = [*block_state.values(), *classifier_state.values()]
    sgd = torch.optim.SGD(parameters, lr=args.lr, momentum=args.momentum, weight_decay=5e-4)
    target = y.expand(args.seeds, -1)
    for _ in range(args.updates):
        sgd.zero_grad()
        out = logits(features())
        # the sum over starts of the mean over points: no start sees another
        loss = cross_entropy(out.flatten(0, 1), target.flatten(), reduction="sum") / len(x)
        loss.backward()
        sgd.step()
    with torch.no_grad():
        h = features()
        wrong = logits(h).argmax(dim=2) != target
    accuracy = 1 - wrong.float().mean(dim=1)
    i = int(accuracy.argsort(stable=True)[(args.seeds - 1) // 2]) if shown is None else shown
    weight, bias = (classifier_state[name][i].detach() for name in ("weight", "bias"))
    line = (weight[1] - weight[0], float(bias[1] - bias[0]))
    return Fit(accuracy, h[i], line, wrong[i], i)


def evolve(h: Tensor, y: Tensor, step: DiffusionOperator, steps: int) -> list[Moment]:
    """The features along diffusion, more often in the beginning, when most happens."""
    shares = [i / SHOWN_STEPS for i in range(1, SHOWN_STEPS + 1)]
    shown = {round(steps**share) for share in shares} | {round(steps * share) for share in shares}
    moments = [Moment(0, h, distance_diameter_ratio(h, y))]
    for count in sorted(shown - {0}):
        h = diffuse(h, step, count - moments[-1].step)
        moments.append(Moment(count, h, distance_diameter_ratio(h, y)))
    return moments


def log_ratio(x: Tensor, y: Tensor) -> float:
    """The decimal logarithm of the ratio, within what single precision can tell."""
    return math.log10(min(max(distance_diameter_ratio(x, y), 1e-7), 1e7))


def compute(toy: Toy, args: argparse.Namespace) -> Result:
    """Train and diffuse."""
    x, y = draw(toy, args, args.seed)
    step = None if args.no_diffusion else operator(x, args)
    plain: Fit | None = None
    diffused: Fit | None = None
    if toy.updates:
        diffused = None if step is None else train(x, y, args, step)
        plain = train(x, y, args, None, None if diffused is None else diffused.shown)
        start = x if diffused is None else diffused.features
        scores = {"without": plain.accuracy.tolist()}
        if diffused is not None:
            scores["with"] = diffused.accuracy.tolist()
    else:
        start = x
        scores = {"without": [], "with": []}
        for seed in range(args.seed, args.seed + args.seeds):
            points, labels = draw(toy, args, seed)
            scores["without"].append(log_ratio(points, labels))
            if step is not None:
                points = diffuse(points, operator(points, args), args.steps)
                scores["with"].append(log_ratio(points, labels))
    moments = [] if step is None else evolve(start, y, step, args.steps)
    return Result(toy, x, y, plain, diffused, moments, scores)


def report(result: Result, args: argparse.Namespace) -> None:
    """Print what was found."""
    toy, y = result.toy, result.y
    updates = f", {args.updates} updates" if toy.updates else ""
    print(f"{toy.name}: {len(y)} points, seed {args.seed}, {args.steps} steps{updates}")
    for name, fit in (("without", result.plain), ("with", result.diffused)):
        if fit is not None:
            features = fit.features if name == "without" else result.moments[-1].features
            ratio = distance_diameter_ratio(features, y)
            print(
                f"  {name:>7} diffusion: accuracy {fit.accuracy[fit.shown]:.3f}, "
                f"distance-diameter ratio {ratio:.4g} (start {args.seed + fit.shown})"
            )
    if not toy.updates:
        print(
            f"  distance-diameter ratio of the points: {distance_diameter_ratio(result.x, y):.4g}"
        )
    if result.moments:
        print("  distance-diameter ratio after each number of steps:")
        pairs = [f"{moment.step}: {moment.ratio:.4g}" for moment in result.moments]
        for i in range(0, len(pairs), 8):
            print("    " + "  ".join(pairs[i : i + 8]))
    kind = "accuracy" if toy.updates else "log10 of the ratio"
    scores = {name: values for name, values in result.scores.items() if values}
    print(f"  over {args.seeds} {'starts' if toy.updates else 'draws'} (mean and 95 % interval):")
    for name, values in scores.items():
        mean, half = mean_and_interval(values)
        print(f"    {kind} {name} diffusion {mean:.3f} +- {half:.3f}")
    if len(scores) == 2:
        gains = [b - a for a, b in zip(scores["without"], scores["with"], strict=True)]
        mean, half = mean_and_interval(gains)
        print(f"    gain by diffusion {mean:+.3f} +- {half:.3f}")
