"""A large graph without a large machine

A set in OGB's layout (made here, of any size) is read, its features are diffused from file to
file in blocks of columns, and a plain linear model is trained on rows, with no graph in memory.
This is the way to ogbn-papers100M.
"""

import tempfile
from pathlib import Path

import torch
import torch.nn.functional as F
from matplotlib.figure import Figure

from benchmarks.ogb.make import main as make_ogb
from torch_geometric_diff import DiffusionOperator, diffuse_features
from torch_geometric_diff.data.ogb import load_ogb, undirected


def linear(x: torch.Tensor, y: torch.Tensor, train: torch.Tensor, test: torch.Tensor) -> float:
    """Test accuracy of a linear model."""
    torch.manual_seed(0)
    model = torch.nn.Linear(x.size(1), int(y.max()) + 1)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    for _ in range(60):
        loss = F.cross_entropy(model(x[train]), y[train])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return float((model(x[test]).argmax(dim=1) == y[test]).float().mean())


def main(shape: str = "small") -> Figure:
    """Make, read, diffuse, train."""
    steps = [0, 1, 2, 4, 8]
    with tempfile.TemporaryDirectory() as folder:
        make_ogb(["--shape", shape, "--out", f"{folder}/set"])
        data = load_ogb(Path(folder, "set"))
        edge_index = undirected(data.edge_index, data.num_nodes)
        settings = {"num_nodes": data.num_nodes, "step_size": 0.5, "normalization": "row"}
        operator = DiffusionOperator(edge_index, **settings)
        files = diffuse_features(data.x, operator, steps, f"{folder}/x.npy", block_columns=16)
        found = []
        for num_steps, x in zip(steps, files, strict=True):
            rows = torch.from_numpy(x.copy())
            found.append(100 * linear(rows, data.y, data.train_index, data.test_index))
            print(f"{num_steps} steps: test accuracy {found[-1]:.1f} %")
    figure = Figure(figsize=(7, 3.5), layout="constrained")
    axes = figure.add_subplot(xlabel="steps of diffusion", ylabel="accuracy on the newest nodes, %")
    axes.plot(steps, found, "o-")
    return figure


if __name__ == "__main__":
    main().savefig("ogb_stand_in.png")
