"""Small graphs, new at every call: the layers with nothing cached, against PyG's."""

from collections.abc import Callable
from typing import Any

import torch
import torch_geometric.nn as pyg
from torch.nn import Identity, Module

from benchmarks.speed.build import molecules
from benchmarks.speed.graphs import Case, synthetic
from benchmarks.speed.harness import Harness, Row
from benchmarks.speed.peers import forms
from benchmarks.speed.propagation import both
from torch_geometric_diff import nn

ALPHA, STEPS = 0.1, 2
REPEATS = 300


def gcn_step(channels: int) -> Module:
    """The propagation of a GCNConv, which is one normalization and one step."""
    layer = pyg.GCNConv(channels, channels, bias=False)
    layer.lin = Identity()
    return layer


def compare(harness: Harness, case: Case, backward: bool, repeats: int) -> list[Row]:
    """Two steps against APPNP's, and one against GCNConv's."""
    x = torch.rand(case.num_nodes, case.channels, requires_grad=backward)

    def call(layer: Module, graph: Any = case.edge_index) -> Callable[[], object]:
        return both(layer, x, graph) if backward else lambda: layer(x, graph)

    graphs = forms(case).items()
    two = {"ours": call(nn.APPNP(STEPS, ALPHA)), "ours, DiffConv": call(nn.DiffConv(STEPS))}
    two |= {f"PyG, {name}": call(pyg.APPNP(STEPS, ALPHA), graph) for name, graph in graphs}
    one = {"ours, DiffConv": call(nn.DiffConv(1))}
    one |= {f"PyG, {name}": call(gcn_step(case.channels), graph) for name, graph in graphs}
    size = f"{case.name} ({case.num_nodes} x {case.channels}), "
    size += "forward + backward" if backward else "forward"
    what = {f"APPNP, K = {STEPS}": ("ours", two), "GCNConv's step": ("ours, DiffConv", one)}
    rows: list[Row] = []
    for title, (ours, candidates) in what.items():
        rows += harness.compare(f"{title}: {size}", candidates, ours=ours, repeats=repeats)
    return rows


def run(harness: Harness, quick: bool) -> list[Row]:
    """The rows of the suite."""
    one = synthetic("one graph", 38, 80, 64)
    rows: list[Row] = []
    for case in (one, molecules(4 if quick else 128)):
        for backward in (False, True):
            rows += compare(harness, case, backward, 3 if quick else REPEATS)
    return rows
