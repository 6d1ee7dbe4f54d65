"""Published models of PyG's layers before and after one line: seconds of training and accuracy.

APPNP as in `"Predict then Propagate" <https://arxiv.org/abs/1810.05997>`_, SGC, SSGC, and a
perceptron with correct-and-smooth, written from their papers, on Planetoid's public split.

python -m benchmarks.speed --suite accelerate
"""

import copy
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
import torch_geometric.nn as pyg
from torch import Tensor
from torch.nn import Linear, Module
from torch_geometric.data import Data

from benchmarks.speed.graphs import synthetic
from benchmarks.speed.harness import Harness, Row
from torch_geometric_diff import accelerate
from torch_geometric_diff.data import load_graph

Trained = tuple[float, float]  # seconds an epoch, test accuracy


class APPNPNet(Module):
    """A perceptron whose predictions are propagated."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.lin1, self.lin2 = Linear(channels, 64), Linear(64, classes)
        self.prop = pyg.APPNP(K=10, alpha=0.1, cached=True)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        """The logits."""
        x = F.dropout(x, 0.5, self.training)
        x = F.dropout(self.lin1(x).relu(), 0.5, self.training)
        return self.prop(self.lin2(x), edge_index)


class SGC(Module):
    """A linear map of features that are propagated in every step, as of graphs that change."""

    def __init__(self, channels: int, classes: int, conv: Callable[..., Module]) -> None:
        super().__init__()
        self.conv = conv(channels, classes)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        """The logits."""
        return self.conv(x, edge_index)


class Perceptron(Module):
    """A perceptron, corrected and smoothed once it is trained."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.lin1, self.lin2 = Linear(channels, 64), Linear(64, classes)
        self.post = pyg.CorrectAndSmooth(50, 0.9, 50, 0.8, autoscale=False)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        """The logits of the perceptron alone."""
        x = F.dropout(x, 0.5, self.training)
        return self.lin2(F.dropout(self.lin1(x).relu(), 0.5, self.training))


MODELS: dict[str, Callable[[int, int], Module]] = {
    "APPNP": APPNPNet,
    "SGC": lambda f, c: SGC(f, c, lambda f, c: pyg.SGConv(f, c, K=2)),
    "SSGC": lambda f, c: SGC(f, c, lambda f, c: pyg.SSGConv(f, c, alpha=0.05, K=16)),
    "MLP + C&S": Perceptron,
}


EPOCHS = {"cora": 100, "pubmed": 20}  # a step of PyG's SSGC takes seconds on Pubmed


def graph(name: str) -> Data:
    """Planetoid's graph, or a random one of its shape where the data is not there."""
    try:
        return load_graph(name, source="planetoid")
    except FileNotFoundError:
        sizes = {"cora": (2485, 5069, 1433, 7), "pubmed": (19717, 44324, 500, 3)}[name]
        case = synthetic(f"random graph of the shape of {name}", *sizes[:3])
        generator = torch.Generator().manual_seed(0)
        y = torch.randint(sizes[3], (case.num_nodes,), generator=generator)
        x = (torch.rand(case.num_nodes, case.channels, generator=generator) < 0.02).float()
        return Data(x=x, y=y, edge_index=case.edge_index)


def masks(data: Data) -> tuple[Tensor, Tensor]:
    """The nodes to train on, 20 a class, and to test on."""
    train = torch.cat([(data.y == c).nonzero().view(-1)[:20] for c in range(int(data.y.max()) + 1)])
    rest = torch.ones(data.num_nodes, dtype=torch.bool)
    rest[train] = False
    return train, rest.nonzero().view(-1)[-1000:]


def train(model: Module, data: Data, epochs: int) -> Trained:
    """Train, and look at the test nodes once."""
    torch.manual_seed(0)  # of the dropout: the same before and after
    train, test = masks(data)
    adam = torch.optim.Adam(model.parameters(), lr=0.01, weight_decay=5e-4)
    taken = []
    for _ in range(epochs):
        start = time.perf_counter()
        model.train()
        adam.zero_grad()
        F.cross_entropy(model(data.x, data.edge_index)[train], data.y[train]).backward()
        adam.step()
        taken.append(time.perf_counter() - start)
    model.eval()
    start = time.perf_counter()
    with torch.no_grad():
        out = model(data.x, data.edge_index)
        if isinstance(model, Perceptron):
            out = model.post(out.softmax(-1), data.y[train], train, data.edge_index)
    seconds = statistics.median(taken)
    if isinstance(model, Perceptron):  # what is propagated is propagated once
        seconds = time.perf_counter() - start
    return seconds, float((out[test].argmax(-1) == data.y[test]).float().mean())


def run(harness: Harness, quick: bool) -> list[dict[str, Any]]:
    """The rows of the suite."""
    rows: list[Row] = []
    for name in ("cora",) if quick else ("cora", "pubmed"):
        data = graph(name)
        sizes = (data.x.size(1), int(data.y.max()) + 1)
        for title, make in MODELS.items():
            torch.manual_seed(0)
            before = make(*sizes)
            after = copy.deepcopy(before)
            report = accelerate(after)
            assert report.replaced and not report.left
            epochs = 10 if quick else EPOCHS[name]
            results = {"ours": train(after, data, epochs), "PyG": train(before, data, epochs)}
            what = "C&S of a trained perceptron" if title == "MLP + C&S" else "a training step"
            for key, (seconds, accuracy) in results.items():
                size = f"{data.num_nodes} x {data.num_features}"
                rows.append(
                    {
                        "case": f"{title} on {name} ({size}), seconds of {what}",
                        "name": "ours" if key == "ours" else "PyG's layers",
                        "seconds": seconds,
                        "ratio": seconds / results["ours"][0],
                        "accuracy": accuracy,
                    }
                )
    return rows
