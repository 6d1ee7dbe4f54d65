"""Heat on a map of roads

Crossings in the plane, joined by roads as a triangulation draws them, each road the slower the
longer it is. Heat starts at one crossing; `heat` gives the exact state after any time, without
steps.
"""

import numpy as np
import torch
from matplotlib.figure import Figure
from scipy.spatial import Delaunay

from torch_geometric_diff import DiffusionOperator, heat


def roads(size: int) -> tuple[np.ndarray, torch.Tensor, torch.Tensor]:
    """Crossings, roads in both directions and how well they conduct."""
    random = np.random.default_rng(0)
    place = random.uniform(size=(size, 2))
    corners = Delaunay(place).simplices
    pairs = np.concatenate([corners[:, [0, 1]], corners[:, [1, 2]], corners[:, [2, 0]]])
    pairs = np.unique(np.sort(pairs, axis=1), axis=0)
    length = np.linalg.norm(place[pairs[:, 0]] - place[pairs[:, 1]], axis=1)
    kept = length < 3 * np.median(length)  # no roads along the border
    pairs, weight = pairs[kept], np.median(length) / length[kept]
    edge_index = torch.from_numpy(np.concatenate([pairs, pairs[:, ::-1]]).T.copy()).long()
    return place, edge_index, torch.from_numpy(np.tile(weight, 2)).float()


def main(size: int = 3000) -> Figure:
    """Start the heat, look at three times."""
    place, edge_index, weight = roads(size)
    operator = DiffusionOperator(
        edge_index, weight, num_nodes=size, normalization=None, step_size=0.01
    )
    x = torch.zeros(size, 1)
    x[int(np.linalg.norm(place - 0.5, axis=1).argmin())] = 1

    figure = Figure(figsize=(10, 3.4), layout="constrained")
    for number, t in enumerate((1.0, 10.0, 100.0), start=1):
        out = heat(x, operator, t).squeeze(1)
        reached = int((out > 0.1 * out.max()).sum())
        print(f"t = {t:5.0f}: {reached} crossings above a tenth of the most, sum {out.sum():.4f}")
        axes = figure.add_subplot(1, 3, number, title=f"t = {t:g}", aspect="equal")
        axes.scatter(*place.T, c=(out / out.max()).clamp(min=1e-3).log(), s=4, cmap="inferno")
        axes.set_axis_off()
    return figure


if __name__ == "__main__":
    main().savefig("heat_on_a_map.png")
