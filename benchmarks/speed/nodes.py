"""A fit of NodeClassifier by its defaults against 200 epochs of PyG's GCN on the same graph.

Twenty labels a class. GCN has two layers, 64 hidden units and dropout between them, is trained
with its normalized edges cached and does not look at validation nodes.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch_geometric.data import Data
from torch_geometric.nn.models import GCN

from benchmarks.common.splits import per_class_split
from benchmarks.make_graphs import SHAPES, worded
from torch_geometric_diff import NodeClassifier
from torch_geometric_diff.data import load_graph
from torch_geometric_diff.data.features import standard_form
from torch_geometric_diff.data.files import check_graph, shchur_arrays

if TYPE_CHECKING:
    from benchmarks.speed.harness import Harness

OURS = "NodeClassifier"
EPOCHS = 200


def photo() -> Data:
    """A graph of the shape of Amazon's photo co-purchases."""
    arrays = shchur_arrays(SHAPES["photo-shape"]())
    return standard_form(check_graph(arrays, "photo's shape"), words="rows")


def cora() -> Data:
    """Cora, or a graph of its shape where the data is not there."""
    try:
        return load_graph("cora", "shchur")
    except FileNotFoundError:
        arrays = shchur_arrays(worded(2_485, 5_069, 1_433, 0.0127, 7))
        return standard_form(check_graph(arrays, "Cora's shape"))


def train_gcn(data: Data, train: Tensor) -> None:
    """All epochs of GCN."""
    torch.manual_seed(0)
    model = GCN(data.num_features, 64, 2, int(data.y.max()) + 1, dropout=0.5, cached=True)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01, weight_decay=5e-4)
    for _ in range(EPOCHS):
        optimizer.zero_grad()
        out = model(data.x, data.edge_index)
        F.cross_entropy(out[train], data.y[train]).backward()
        optimizer.step()


def run(harness: Harness, quick: bool) -> list[dict[str, Any]]:
    """The rows of the suite."""
    rows = []
    graphs = (("Cora", cora, 3), ("photo's shape", photo, 1))  # a minute a round
    for name, load, repeats in graphs[: 1 if quick else 2]:
        data = load()
        train, _, _ = per_class_split(data.y, 0)
        fits: dict[str, Callable[[], object]] = {
            OURS: partial(NodeClassifier().fit, data.x, data.edge_index, data.y, train),
            f"GCN, {EPOCHS} epochs": partial(train_gcn, data, train),
        }
        shape = f"{data.num_nodes} nodes, {data.num_edges // 2} edges, {data.num_features} columns"
        rows += harness.compare(
            f"{name}: {shape}", fits, ours=OURS, repeats=1 if quick else repeats
        )
    return rows
