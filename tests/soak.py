"""Random graphs, recurrences, shapes, types and threads against dense float64, for a given time or
number of cases; a third of them are layers, to which all kinds of things are done.

``python tests/soak.py --seconds 3600`` is the nightly run, ``--cases 100000`` counts instead; a
failure prints the seed of its case, which ``--seed`` repeats alone.
"""

import argparse
import gc
import os
import random
import sys
import time
import warnings
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # threads that spin take each other's time
from collections import Counter

import torch

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1]))

import soak_layers
from dense import FORMS, as_form, dense_step, dense_weight

from torch_geometric_diff.ops import (
    DiffusionOperator,
    Recurrence,
    SparseOperator,
    heat,
    propagate,
)
from torch_geometric_diff.ops._random import dropout_scale, keep_mask

COMPILED = 0.01  # of the layers: each takes a second or more

TYPES = [
    (torch.float64, 1e-9),
    (torch.float32, 1e-4),
    (torch.float32, 1e-4),
    (torch.float16, 1e-2),
    (torch.bfloat16, 1e-1),
]


def dense(x, p, recurrence, threshold, seed, bounds, held):
    """The recurrence of ``ops/recurrence.py``, word for word."""
    a, d, b, c, *w = recurrence.table()
    if held is not None and bounds is not None:
        x = x.index_copy(-2, held, x[..., held, :].clamp(*bounds))
    before, z, states = None, x, [x]
    for k in range(1, len(a)):
        u = z
        if threshold:
            each = range(len(x)) if x.dim() == 3 else [0]
            masks = [keep_mask(seed + i, k - 1, *x.shape[-2:], threshold) for i in each]
            u = z * torch.stack(masks).reshape(x.shape) * dropout_scale(threshold)
        new = a[k] * (p @ u) + d[k] * u + c[k] * x
        if k > 1:
            new = new + b[k] * before
        if held is not None:
            new = new.index_copy(-2, held, x[..., held, :])
        before, z = z, new if bounds is None else new.clamp(*bounds)
        states.append(z)
    outs = [sum(f * z for f, z in zip(row, states, strict=True)) for row in w]
    return outs[0] if recurrence.steps is None else torch.stack(outs)


def coefficients(draw, count, learned):
    each = [draw.choice([0.0, 1.0, draw.uniform(-1, 1), draw.uniform(-1, 1)]) for _ in range(count)]
    values = torch.tensor(each, dtype=torch.float64)
    if learned:
        return values.requires_grad_()
    return values.tolist()


def some_recurrence(draw, dropout, learned):
    steps = draw.choice([0, 1, 2, 3, 5, 9])
    maybe = lambda: draw.random() < 0.4  # noqa: E731
    settings = {}
    for name in "abcd":
        if maybe() and not (name == "b" and dropout):
            settings[name] = coefficients(draw, steps, learned and maybe())
    kind = draw.choice(["last", "w", "steps"])
    if kind == "w":
        settings["w"] = coefficients(draw, steps + 1, learned and maybe())
    elif kind == "steps":
        settings["steps"] = [draw.randint(0, steps) for _ in range(draw.randint(1, 4))]
    return Recurrence(steps, **settings)


def check(found, expected, tolerance, what):
    scale = max(1.0, float(expected.detach().abs().max())) if expected.numel() else 1.0
    error = float((found.detach().double() - expected.detach()).abs().max()) if found.numel() else 0
    assert found.shape == expected.shape, (what, found.shape, expected.shape)
    assert error <= tolerance * scale, f"{what}: error {error:.3g} beside {scale:.3g}"


def one_case(seed: int) -> str:
    """A case that its seed decides alone; returns its kind."""
    draw = random.Random(seed)
    torch.manual_seed(seed)
    torch.set_num_threads(draw.choice([1, 2, 3, 4]))
    if draw.random() < 1 / 3:
        return soak_layers.one_case(draw, draw.random() < COMPILED)
    of_kernels(draw, seed)
    return "kernels"


def of_kernels(draw: random.Random, seed: int) -> None:
    """A recurrence, or heat, by the kernels."""
    nodes = draw.choice([1, 2, 5, 17, 40, 130])
    edge_index = torch.randint(nodes, (2, draw.choice([0, 1, nodes, 4 * nodes])))
    edge_index = edge_index.unique(dim=1).contiguous()
    if draw.random() < 0.5:
        edge_index = torch.cat([edge_index, edge_index.flip(0)], 1).unique(dim=1).contiguous()
    weight = torch.rand(edge_index.size(1), dtype=torch.float64)
    dtype, tolerance = draw.choice(TYPES)
    width = draw.choice([0, 1, 2, 3, 7, 8, 16, 17, 33, 64, 130])
    shape = draw.choice([(nodes, width), (nodes, width), (1, nodes, width), (3, nodes, width)])
    x = torch.randn(shape, dtype=torch.float64)
    weight = weight.to(dtype).double()  # what both sides see
    x = x.to(dtype).double()

    if draw.random() < 0.1:
        step = DiffusionOperator(edge_index, weight, num_nodes=nodes, step_size=0.1)
        matrix = dense_step(dense_weight(edge_index, weight, nodes), 0.1)
        laplacian = (torch.eye(nodes, dtype=torch.float64) - matrix) / 0.1
        t = draw.choice([0.0, 0.3, 4.0])
        expected = torch.linalg.matrix_exp(-t * laplacian) @ x
        check(heat(x.to(dtype), step.to(dtype), t), expected, 1e-5 + tolerance, "heat")
        return

    learned = draw.random() < 0.4
    dropout = draw.choice([0.0, 0.0, 0.3])
    threshold = round(dropout * 65536)
    recurrence = some_recurrence(draw, dropout > 0, learned)
    bounds = draw.choice([None, None, None, (-0.5, 0.8)])
    held = None
    if draw.random() < 0.2:
        held = torch.randperm(nodes)[: draw.randint(0, nodes)]
    ours = [x.to(dtype).requires_grad_(), weight.to(dtype).requires_grad_(learned)]
    theirs = [x.clone().requires_grad_(), weight.clone().requires_grad_(learned)]
    options: dict[str, object] = {"reorder": draw.random() < 0.2}
    if draw.random() < 0.5:
        form = draw.choice(FORMS) if not learned else "edge_index"
        adj, edge_weight = as_form(form, edge_index, ours[1], nodes)
        options["dtype"] = dtype
        operator = SparseOperator(adj, edge_weight, num_nodes=nodes, **options)
        matrix = dense_weight(edge_index, theirs[1], nodes)
    else:
        kind = draw.choice(["sym", "row", None])
        operator = DiffusionOperator(
            edge_index, ours[1], num_nodes=nodes, step_size=0.05, normalization=kind, **options
        )
        matrix = dense_step(dense_weight(edge_index, theirs[1], nodes), 0.05, kind)
    arguments = {"dropout": dropout, "seed": seed % 2**31, "bounds": bounds, "fixed": held}
    out = propagate(ours[0], operator, recurrence, **arguments)
    expected = dense(theirs[0], matrix, recurrence, threshold, seed % 2**31, bounds, held)
    if expected.numel() and expected.detach().abs().max() > torch.finfo(dtype).max:
        return  # float16 ends there
    check(out, expected, tolerance, f"value {recurrence.__dict__}")
    if bounds is not None and dtype != torch.float64:
        return  # the derivative of a clamp depends on the last bit
    upstream = torch.randn_like(expected)
    tables = [c for c in (getattr(recurrence, n) for n in "abcdw") if isinstance(c, torch.Tensor)]
    wanted = [*ours[: 1 + learned], *tables]
    also = [*theirs[: 1 + learned], *tables]
    found = torch.autograd.grad(out, wanted, upstream.to(dtype), allow_unused=True)
    right = torch.autograd.grad(expected, also, upstream, allow_unused=True)
    for source, mine, one, other in zip(also, wanted, found, right, strict=True):
        nothing = torch.zeros_like(source)
        one, other = nothing if one is None else one, nothing if other is None else other
        if other.numel() and other.abs().max() > torch.finfo(mine.dtype).max:
            continue
        check(one, other, 20 * tolerance, f"gradient {recurrence.__dict__}")


def resident() -> float:
    """The process's memory in MiB."""
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE") / 2**20


def arguments() -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, help="how long to run (default: 120)")
    parser.add_argument("--cases", type=int, help="how many cases to run")
    parser.add_argument("--seed", type=int, help="repeat one case")
    parser.add_argument("--first", type=int, help="the run's first seed, in millions")
    found = parser.parse_args()
    if found.seconds is None and found.cases is None:
        found.seconds = 120.0
    return found


def main() -> int:
    given = arguments()
    warnings.simplefilter("ignore")
    if given.seed is not None:
        print(one_case(given.seed))
        return 0
    first = int(time.time()) if given.first is None else given.first
    print(f"seeds from {first * 10**6}", flush=True)
    soak_layers.one_case(random.Random(0), True)  # the compiler's own memory
    begin, told, early, kinds = time.monotonic(), 0.0, 0.0, Counter[str]()
    seconds, cases = given.seconds or float("inf"), given.cases or float("inf")
    while True:
        spent, count = time.monotonic() - begin, kinds.total()
        if spent >= seconds or count >= cases:
            break
        try:
            kinds[one_case(first * 10**6 + count)] += 1
        except Exception as error:
            print(f"seed {first * 10**6 + count}: {type(error).__name__}: {error}")
            return 1
        if not early and (spent > seconds / 4 or count > cases / 4):
            early = resident()
        if spent > told + 60:
            told = spent
            print(f"{spent:.0f} s: {count} cases, {resident():.0f} MiB", flush=True)
    grown = resident() - (early or resident())
    each = ", ".join(f"{name} {number}" for name, number in kinds.most_common())
    print(f"{count} cases, nothing wrong ({each})")
    print(f"{resident():.0f} MiB, {grown:+.0f} since a quarter")
    return int(grown > 50 + kinds["compiled"])  # the compiler keeps some of every graph


if __name__ == "__main__":
    sys.exit(main())
