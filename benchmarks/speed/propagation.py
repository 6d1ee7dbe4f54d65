"""The propagation layers, forward and backward, against PyG's, torch's products and DGL's.

python -m benchmarks.speed --suite propagation --json runs/propagation.json
"""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch_geometric.nn as pyg
from torch import Tensor
from torch.nn import Module

from benchmarks.speed.graphs import Case, arxiv, citation
from benchmarks.speed.harness import Harness, Row
from benchmarks.speed.memory import in_child, resident
from benchmarks.speed.peers import Step, forms, products
from torch_geometric_diff import nn
from torch_geometric_diff.ops import SparseOperator

ALPHA, STEPS = 0.1, 10
SPARSE = "PyG, SparseTensor"


def both(
    layer: Module, x: Tensor, *graph: Any, width: int | None = None
) -> Callable[[], list[Tensor]]:
    """Forward and backward of a layer of ``width`` columns: the output and all gradients."""
    if width is None:
        width = getattr(layer, "out_channels", x.size(1))
        if isinstance(layer, pyg.MixHopConv):
            width *= len(layer.powers)
    generator = torch.Generator().manual_seed(0)
    grad = torch.rand(x.size(0), width, generator=generator)
    leaves = [t for t in (x, *layer.parameters(), *graph) if isinstance(t, Tensor)]
    leaves = [t for t in leaves if t.requires_grad]

    def run() -> list[Tensor]:
        out = layer(x, *graph)
        out.backward(grad)
        grads = [leaf.grad for leaf in leaves if leaf.grad is not None]
        for leaf in leaves:
            leaf.grad = None
        return [out.detach(), *grads]

    return run


def with_product(step: Step, x: Tensor) -> Callable[[], list[Tensor]]:
    """APPNP with a product of somebody else's."""
    grad = torch.rand(x.shape)

    def run() -> list[Tensor]:
        z = x
        for _ in range(STEPS):
            z = (1 - ALPHA) * step(z) + ALPHA * x
        z.backward(grad)
        grads = [] if x.grad is None else [x.grad]
        x.grad = None
        return [z.detach(), *grads]

    return run


def appnp(harness: Harness, case: Case, quick: bool) -> list[Row]:
    """APPNP with its matrix built once, and built in every call."""
    x = torch.rand(case.num_nodes, case.channels, requires_grad=True)
    title = f"{case.name} ({case.num_nodes} x {case.channels}), K = {STEPS}, forward + backward"
    graphs, rows = forms(case), []
    for cached in (True,) if quick else (True, False):
        ours = both(nn.APPNP(STEPS, ALPHA, cached=cached), x, case.edge_index)
        candidates: dict[str, Callable[[], object]] = {"ours": ours}
        for name, graph in graphs.items():
            candidates[f"PyG, {name}"] = both(pyg.APPNP(STEPS, ALPHA, cached=cached), x, graph)
        if cached:
            operator = SparseOperator.gcn_norm(case.edge_index, num_nodes=case.num_nodes)
            for name, step in products(operator).items():
                candidates[name] = with_product(step, x)
        what = "APPNP, cached" if cached else "APPNP, normalized in every call"
        rows += harness.compare(f"{what}: {title}", candidates, ours="ours", repeats=3)
    return rows


def ssg_conv(harness: Harness, case: Case) -> list[Row]:
    """SSGConv to as many columns, which gives us no narrower side, and to three classes."""
    x = torch.rand(case.num_nodes, case.channels, requires_grad=True)
    rows = []
    for out_channels in (case.channels, 3):
        sizes = (case.channels, out_channels, ALPHA, STEPS)
        candidates: dict[str, Callable[[], object]]
        candidates = {"ours": both(nn.SSGConv(*sizes), x, case.edge_index)}
        for name, graph in forms(case).items():
            candidates[f"PyG, {name}"] = both(pyg.SSGConv(*sizes), x, graph)
        title = f"SSGConv({case.channels}, {out_channels}), normalized in every call: {case.name}"
        title += f" ({case.num_nodes} nodes), K = {STEPS}, forward + backward"
        rows += harness.compare(title, candidates, ours="ours", repeats=3)
    return rows


def labels(harness: Harness, case: Case) -> list[Row]:
    """Label propagation and correct-and-smooth of three classes."""
    generator = torch.Generator().manual_seed(0)
    soft = torch.rand(case.num_nodes, 3, generator=generator).softmax(-1)
    mask = torch.rand(case.num_nodes, generator=generator) < 0.1
    truth = torch.randint(3, (int(mask.sum()),), generator=generator)
    graphs = {name: graph for name, graph in forms(case).items() if name != "edge_index"}
    y = torch.randint(3, (case.num_nodes,), generator=generator)
    candidates: dict[str, Any] = {}
    layers: Any
    settings: dict[str, Any] = {"ours": "ours", "repeats": 15}
    for name, graph in [("ours", case.edge_index), *graphs.items()]:
        layers = nn if name == "ours" else pyg
        model = layers.LabelPropagation(50, 0.9)
        key = name if name == "ours" else f"PyG, {name}"
        candidates[key] = lambda model=model, graph=graph: model(y, graph, mask)
    title = f"LabelPropagation of 50 steps: {case.name}"
    rows = harness.compare(title, candidates, **settings)
    for autoscale in (True, False):
        for name, graph in [("ours", case.edge_index), *graphs.items()]:
            layers = nn if name == "ours" else pyg
            model = layers.CorrectAndSmooth(50, 0.9, 50, 0.8, autoscale)
            key = name if name == "ours" else f"PyG, {name}"
            candidates[key] = lambda model=model, graph=graph: model(soft, truth, mask, graph)
        title = f"CorrectAndSmooth of 50 + 50 steps{'' if autoscale else ', fixed'}: {case.name}"
        rows += harness.compare(title, candidates, **settings)
    return rows


def learned(harness: Harness, case: Case) -> list[Row]:
    """What is learned beside features: entries of the matrix, coefficients, the step size."""
    x = torch.rand(case.num_nodes, case.channels, requires_grad=True)
    title = f"{case.name} ({case.num_nodes} x {case.channels}), K = {STEPS}, forward + backward"
    weight = torch.rand(case.edge_index.size(1), requires_grad=True)
    graph = (case.edge_index, weight)
    candidates: dict[str, Callable[[], object]] = {
        "ours": both(nn.APPNP(STEPS, ALPHA), x, *graph),
        "ours, constant weights": both(nn.APPNP(STEPS, ALPHA), x, graph[0], weight.detach()),
        "PyG, edge_index": both(pyg.APPNP(STEPS, ALPHA), x, *graph),
    }
    rows = harness.compare(f"learned edge weights: {title}", candidates, ours="ours", repeats=3)
    fixed = nn.GPRConv(STEPS, cached=True)
    fixed.gamma.requires_grad_(False)
    candidates = {
        "ours": both(nn.GPRConv(STEPS, cached=True), x, case.edge_index),
        "ours, fixed weights": both(fixed, x, case.edge_index),
    }
    rows += harness.compare(f"GPRConv, learned weights: {title}", candidates, ours="ours")
    candidates = {
        "ours": both(nn.DiffConv(STEPS, 0.1, cached=True, learn_step_size=True), x, graph[0]),
        "ours, fixed step size": both(nn.DiffConv(STEPS, 0.1, cached=True), x, graph[0]),
    }
    return rows + harness.compare(f"DiffConv, learned step: {title}", candidates, ours="ours")


MEMORY = {
    "APPNP": (("ours", "PyG, SparseTensor", "PyG, edge_index"), ("pubmed", 64), (10, 100)),
    "learned edge weights": (("ours", "PyG, edge_index"), ("cora", 1433), (10,)),
}


def measure(what: str, name: str, num_steps: int) -> dict[str, float]:
    """Bytes and seconds of one forward and backward pass, beside the graph and the input."""
    import time

    _, (graph, channels), _ = MEMORY[what]
    case = citation(graph)._replace(channels=channels)
    layers: Any = nn if name == "ours" else pyg
    x = torch.rand(case.num_nodes, case.channels, requires_grad=True)
    adj = forms(case)["SparseTensor" if name == SPARSE else "edge_index"]
    rest = (torch.rand(case.edge_index.size(1), requires_grad=True),) if "weights" in what else ()
    both(layers.APPNP(1, ALPHA), x, adj, *rest)()  # what the first call loads
    run = both(layers.APPNP(num_steps, ALPHA), x, adj, *rest)
    Path("/proc/self/clear_refs").write_text("5")  # VmHWM starts anew
    before, start = resident("VmRSS"), time.perf_counter()
    run()
    return {"seconds": time.perf_counter() - start, "bytes": resident("VmHWM") - before}


def memory() -> list[Row]:
    """Peak memory, each in a process of its own; here the ratio is that of the bytes."""
    rows: list[Row] = []
    if not Path("/proc/self/clear_refs").exists():
        print("memory is left out: it reads '/proc/self', which only Linux has")
        return rows
    for what, (names, graph, counts) in MEMORY.items():
        for num_steps in counts:
            taken = {}
            for name in names:
                if num_steps > 10 and name == "PyG, edge_index":
                    continue  # minutes
                taken[name] = in_child(__spec__.name, what, name, str(num_steps))
            for name, row in taken.items():
                case = f"{what}, memory of both passes: {graph[0]} x {graph[1]}, K = {num_steps}"
                rows.append(
                    {
                        "case": case,
                        "name": name,
                        "seconds": row["seconds"],
                        "ratio": row["bytes"] / max(taken["ours"]["bytes"], 1),
                        "MB": row["bytes"] / 1e6,
                    }
                )
    return rows


def run(harness: Harness, quick: bool) -> list[Row]:
    """The rows of the suite."""
    pubmed, cora = citation("pubmed"), citation("cora")
    narrow = pubmed._replace(channels=64)
    rows = appnp(harness, narrow, quick)
    if not quick:
        rows += appnp(harness, arxiv(True)._replace(channels=40, name="arxiv shape"), True)
    rows += ssg_conv(harness, narrow)
    rows += labels(harness, pubmed)
    for case in (
        (cora._replace(channels=64),)
        if quick
        else (
            narrow,
            cora._replace(channels=64),
            cora,
        )
    ):
        rows += learned(harness, case)
    return rows if quick or harness.is_beside else rows + memory()


if __name__ == "__main__":
    print(json.dumps(measure(sys.argv[1], sys.argv[2], int(sys.argv[3]))))
