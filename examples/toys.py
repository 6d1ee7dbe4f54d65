"""Two moons, straightened by diffusion

Points of two classes that no line separates are joined to their 25 nearest neighbors. After a
hundred steps of diffusion a line is enough, and in the end each class is a point: the paper's ratio
of distance to diameter grows without bound. Nothing is trained here.
"""

import matplotlib
import numpy as np
import torch
from matplotlib.figure import Figure

from torch_geometric_diff import SparseOperator, diffuse, gaussian_knn_graph
from torch_geometric_diff.metrics import distance_diameter_ratio, separability


def two_moons(size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Two half circles, each ending inside the other."""
    random = np.random.default_rng(0)
    angle = np.linspace(0, np.pi, size // 2)
    upper = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    x = np.concatenate([upper, [1, 0.5] - upper]) + 0.05 * random.standard_normal((size, 2))
    return torch.tensor(x, dtype=torch.float32), torch.arange(size) // (size // 2)


def main(size: int = 1000) -> Figure:
    """Diffuse, measure and draw."""
    x, y = two_moons(size)
    edge_index, weight = gaussian_knn_graph(x, 25, 0.5, normalization="row")
    step = SparseOperator(edge_index, weight)

    figure = Figure(figsize=(10, 3.2), layout="constrained")
    for place, num_steps in enumerate((0, 100, 3000), start=1):
        out = diffuse(x, step, num_steps)
        ratio, share = distance_diameter_ratio(out, y), separability(out, y)
        print(
            f"{num_steps:4d} steps: distance-diameter ratio {ratio:.3f}, separability {share:.2f}"
        )
        axes = figure.add_subplot(1, 3, place, title=f"{num_steps} steps", aspect="equal")
        axes.set(xlim=(-1.3, 2.3), ylim=(-0.8, 1.3))
        axes.scatter(*out.T, c=y, s=4, cmap=matplotlib.colormaps["coolwarm"])
    return figure


if __name__ == "__main__":
    main().savefig("toys.png")
