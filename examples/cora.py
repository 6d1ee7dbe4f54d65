"""Diff-ResNet, step by step

The published setting on one random split, 20 labels a class: the more steps of diffusion, the
further labels reach. Cora is read from the folder of data sets (`DATA_ROOT`, else `data`) or
downloaded; offline and without them, a made-up graph of papers is taken: the output says which.
"""

import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from torch_geometric.data import Data
from torch_geometric.utils import stochastic_blockmodel_graph as block_model

from torch_geometric_diff import DiffResNet
from torch_geometric_diff.data import load_graph, sparse_features


def graph() -> Data:
    """Cora, or papers of seven fields that cite their own field more often and share its words."""
    try:
        return load_graph("cora")
    except FileNotFoundError:
        torch.manual_seed(0)
        y = torch.arange(7).repeat_interleave(300)
        edges = block_model([300] * 7, 0.001 + 0.011 * torch.eye(7), directed=False)
        words = (torch.rand(7, 1000) < 0.1) * 0.02 + 0.015
        return Data(x=torch.bernoulli(words[y]), edge_index=edges, y=y, name="made-up papers")


def train(data: Data, num_steps: int, epochs: int) -> float:
    """Test accuracy after training with so many steps."""
    torch.manual_seed(0)
    order = torch.randperm(data.num_nodes)
    nodes = torch.cat([order[data.y[order] == c][:20] for c in data.y.unique()])
    test = torch.ones(data.num_nodes, dtype=torch.bool).index_fill_(0, nodes, False)
    model = DiffResNet(data.num_features, int(data.y.max()) + 1, num_steps, 0.25, 0.25, cached=True)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01, weight_decay=5e-4)
    x = sparse_features(data)
    for _ in range(epochs):
        optimizer.zero_grad()
        F.cross_entropy(model.train()(x, data.edge_index)[nodes], data.y[nodes]).backward()
        optimizer.step()
    predicted = model.eval()(x, data.edge_index).argmax(dim=1)
    return float((predicted == data.y)[test].float().mean())


def main(epochs: int = 40) -> Figure:
    """Train with more and more steps."""
    data, steps = graph(), [0, 1, 2, 5, 10, 20]
    found = [100 * train(data, num_steps, epochs) for num_steps in steps]
    for count, accuracy in zip(steps, found, strict=True):
        print(f"{data.name}, {count:2d} steps: test accuracy {accuracy:.1f} %")
    figure = Figure(figsize=(7, 3.5), layout="constrained")
    labels = {"xlabel": "steps of diffusion", "ylabel": f"accuracy on {data.name}, %"}
    figure.add_subplot(**labels).plot(steps, found, "o-")
    return figure


if __name__ == "__main__":
    main().savefig("cora.png")
