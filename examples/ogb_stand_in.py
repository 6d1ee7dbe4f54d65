"""A large graph without a large machine

A set in OGB's layout (made here, of any size) is read, its features are diffused from file to
file in blocks of columns, and a plain linear model is trained on rows, with no graph in memory.
This is the way to ogbn-papers100M.
"""

import tempfile
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from torch.nn.functional import one_hot

from torch_geometric_diff import DiffusionOperator, diffuse_features
from torch_geometric_diff.data.ogb import load_ogb, undirected


def make(folder: str, nodes: int) -> None:
    """A block model: two thirds of the edges stay in the class, features are mostly noise."""
    rng, count = np.random.default_rng(0), 6 * nodes
    y, order = np.sort(rng.integers(8, size=nodes)), rng.permutation(nodes)
    source, target = rng.integers(nodes, size=(2, count))
    near = np.searchsorted(y, y[source]) + target % np.bincount(y).min()
    target = np.where(rng.random(count) < 2 / 3, near, target)
    tables = {
        **{"raw/num-node-list": [nodes], "raw/num-edge-list": [count]},
        "raw/edge": np.stack([source, target]).T,
        "raw/node-label": y,
        "raw/node-feat": rng.standard_normal((nodes, 32)) + np.eye(8, 32)[y],
        **{f"split/time/{n}": order[i::4] for i, n in enumerate(("train", "valid", "test"))},
    }
    for name, table in tables.items():
        Path(folder, name).parent.mkdir(parents=True, exist_ok=True)
        np.savetxt(f"{folder}/{name}.csv.gz", table, "%.4f" if "feat" in name else "%d", ",")


def main(nodes: int = 2000) -> Figure:
    """Make, read, diffuse, train."""
    steps, found = [0, 1, 2, 4, 8], []
    with tempfile.TemporaryDirectory() as folder:
        make(f"{folder}/set", nodes)
        data = load_ogb(f"{folder}/set")
        train, edges = data.train_index, undirected(data.edge_index, nodes)
        step = DiffusionOperator(edges, num_nodes=nodes, step_size=0.5)
        files = diffuse_features(data.x, step, steps, f"{folder}/x.npy", block_columns=16)
        for num_steps, x in zip(steps, files, strict=True):
            rows = torch.tensor(x)
            linear = torch.linalg.lstsq(rows[train], one_hot(data.y)[train].float()).solution
            right = ((rows @ linear).argmax(dim=1) == data.y)[data.test_index].float()
            found.append(100 * float(right.mean()))
            print(f"{num_steps} steps: test accuracy {found[-1]:.1f} %")
    figure = Figure(figsize=(7, 3.5), layout="constrained")
    figure.add_subplot(xlabel="steps of diffusion", ylabel="accuracy, %").plot(steps, found, "o-")
    return figure


if __name__ == "__main__":
    main().savefig("ogb_stand_in.png")
