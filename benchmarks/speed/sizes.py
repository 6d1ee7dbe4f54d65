"""Whether `accelerate` makes any layer slower: every kind of layer, from 30 nodes to 12 M edges.

python -m benchmarks.speed --suite sizes
"""

import copy
from collections.abc import Callable

import torch
import torch_geometric.nn as pyg
from torch import Tensor
from torch.nn import Linear, Module

from benchmarks.speed.graphs import Case, arxiv, citation, synthetic
from benchmarks.speed.harness import Harness, Row
from benchmarks.speed.propagation import both
from torch_geometric_diff import accelerate

CHANNELS = 16
# layers that keep what they made of a graph stand twice; others may take another graph every call
LAYERS: dict[str, Callable[[int], Module]] = {
    "GCNConv": lambda c: pyg.GCNConv(c, c),
    "GCNConv, cached": lambda c: pyg.GCNConv(c, c, cached=True),
    "SGConv": lambda c: pyg.SGConv(c, c, K=2),
    "SGConv, cached": lambda c: pyg.SGConv(c, c, K=2, cached=True),
    "SSGConv": lambda c: pyg.SSGConv(c, c, alpha=0.1, K=2),
    "SSGConv, cached": lambda c: pyg.SSGConv(c, c, alpha=0.1, K=2, cached=True),
    "APPNP": lambda c: pyg.APPNP(2, 0.1),
    "APPNP, cached": lambda c: pyg.APPNP(2, 0.1, cached=True),
    "LGConv": lambda c: pyg.LGConv(),
    "SimpleConv": lambda c: pyg.SimpleConv("mean"),
    "GraphConv": lambda c: pyg.GraphConv(c, c),
    "SAGEConv": lambda c: pyg.SAGEConv(c, c),
    "GINConv": lambda c: pyg.GINConv(Linear(c, c)),
    "TAGConv": lambda c: pyg.TAGConv(c, c, K=2),
    "ChebConv": lambda c: pyg.ChebConv(c, c, K=3),
    "ARMAConv": lambda c: pyg.ARMAConv(c, c),
    "ClusterGCNConv": lambda c: pyg.ClusterGCNConv(c, c),
    "MixHopConv": lambda c: pyg.MixHopConv(c, c),
    "GATConv": lambda c: pyg.GATConv(c, c // 4, heads=4),
    "GATv2Conv": lambda c: pyg.GATv2Conv(c, c // 4, heads=4),
}


def compare(harness: Harness, case: Case, name: str, repeats: int) -> list[Row]:
    """A layer as it is and accelerated, in evaluation and in training."""
    layer = LAYERS[name](case.channels)
    after = accelerate(copy.deepcopy(layer)).model
    x, rows = torch.rand(case.num_nodes, case.channels), []
    learned = torch.rand(case.num_nodes, case.channels, requires_grad=True)
    with torch.no_grad():
        width = layer(x, case.edge_index).size(1)

    def evaluated(each: Module) -> Callable[[], Tensor]:
        def run() -> Tensor:
            with torch.no_grad():
                return each(x, case.edge_index)

        return run

    for what, call in (
        ("forward", evaluated),
        ("forward + backward", lambda each: both(each, learned, case.edge_index, width=width)),
    ):
        candidates = {"ours": call(after), "PyG, edge_index": call(layer)}
        title = f"{name}: {case.name} ({case.num_nodes} x {case.channels}), {what}"
        new = harness.compare(title, candidates, ours="ours", repeats=repeats)
        for row in new:
            if row["name"] != "ours":
                row["aim"] = 1
        rows += new
    return rows


def cases(quick: bool) -> list[tuple[Case, int]]:
    """Graphs and the number of rounds."""
    small = [(synthetic("one graph", 30, 60, CHANNELS), 300)]
    if quick:
        return small
    middle = [(citation(name)._replace(channels=CHANNELS), 30) for name in ("cora", "pubmed")]
    large = synthetic("products shape, a twentieth of its nodes", 120_000, 6_000_000, CHANNELS)
    return [*small, *middle, (arxiv(shuffled=True)._replace(channels=CHANNELS), 3), (large, 2)]


def run(harness: Harness, quick: bool) -> list[Row]:
    """The rows of the suite."""
    rows: list[Row] = []
    for case, repeats in cases(quick):
        for name in LAYERS:
            rows += compare(harness, case, name, 2 if quick else repeats)
    return rows
