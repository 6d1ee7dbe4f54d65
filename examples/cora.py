"""Diff-ResNet on Cora, step by step

The published setting on one random split: the more steps of diffusion, the further labels reach.
Cora is read from the folder of data sets; where it is not, a graph of scikit-learn's digits is
taken.
"""

import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from torch_geometric.data import Data

from benchmarks.common.splits import per_class_split
from torch_geometric_diff import DiffResNet
from torch_geometric_diff.data import load_graph, sparse_features


def graph() -> Data:
    """Cora, or the digits."""
    try:
        return load_graph("cora", source="shchur")
    except FileNotFoundError:
        return load_graph("digits")


def train(data: Data, num_steps: int, epochs: int) -> float:
    """Test accuracy after training with so many steps."""
    torch.manual_seed(0)
    nodes, _, test = per_class_split(data.y, seed=0)
    x = sparse_features(data)
    model = DiffResNet(
        data.num_features, int(data.y.max()) + 1, num_steps, 0.25, dropout=0.25, cached=True
    )
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01, weight_decay=5e-4)
    for _ in range(epochs):
        model.train()
        loss = F.cross_entropy(model(x, data.edge_index)[nodes], data.y[nodes])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    predicted = model.eval()(x, data.edge_index).argmax(dim=1)
    return float((predicted == data.y)[test].float().mean())


def main(epochs: int = 40) -> Figure:
    """Train with more and more steps."""
    data = graph()
    steps = [0, 1, 2, 5, 10, 20]
    found = [100 * train(data, num_steps, epochs) for num_steps in steps]
    for num_steps, accuracy in zip(steps, found, strict=True):
        print(f"{data.name}, {num_steps:2d} steps: test accuracy {accuracy:.1f} %")
    figure = Figure(figsize=(7, 3.5), layout="constrained")
    axes = figure.add_subplot(xlabel="steps of diffusion", ylabel=f"accuracy on {data.name}, %")
    axes.plot(steps, found, "o-")
    return figure


if __name__ == "__main__":
    main().savefig("cora.png")
