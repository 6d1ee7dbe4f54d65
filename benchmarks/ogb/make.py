"""The command of ``python -m benchmarks.make_ogb``."""

import contextlib
import io
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import flags
from benchmarks.common import make_folder

_CHUNK = 1 << 22  # edges drawn at a time


@dataclass(frozen=True)
class Shape:
    """The size of a set; ``directed`` edges point from the newer node to the older."""

    name: str
    nodes: int
    edges: int
    features: int
    classes: int
    train: int
    valid: int
    split: str
    directed: bool


SHAPES = {
    "small": Shape("ogbn-small", 2000, 12000, 32, 8, 1000, 400, "time", True),
    "medium": Shape("ogbn-medium", 20000, 137740, 128, 40, 10740, 3520, "time", True),
    "arxiv": Shape("ogbn-arxiv", 169343, 1166243, 128, 40, 90941, 29799, "time", True),
    "products": Shape(
        "ogbn-products", 2449029, 61859140, 100, 47, 196615, 39323, "sales_ranking", False
    ),
}


KINDS = {
    "plain": {"homophily": 0.5, "separation": 2.4, "noise": 0.0},
    "noisy": {"homophily": 0.4, "separation": 5.0, "noise": 0.2},
}


def block_model(
    shape: Shape, seed: int, homophily: float = 0.5, separation: float = 2.4, noise: float = 0.0
) -> tuple[dict[str, Any], np.ndarray, dict[str, np.ndarray]]:
    """Draw the graph (as ``DatasetSaver`` takes it), the labels and the split.

    ``separation`` is the distance of two class means, in standard deviations of the noise of the
    features. A share ``noise`` of the labels is drawn anew when edges and features are there, so
    that neither tells them.
    """
    rng = np.random.default_rng(seed)
    share = 1 / np.arange(3, shape.classes + 3)
    label = rng.choice(shape.classes, shape.nodes, p=share / share.sum())
    label[: shape.classes] = np.arange(shape.classes)  # no class is empty
    label = rng.permutation(label)
    age = rng.permutation(shape.nodes)  # rank in time, 0 is the oldest
    edge_index = _edges(rng, label, shape.edges, homophily)
    if shape.directed:
        older_first = age[edge_index[0]] < age[edge_index[1]]
        edge_index[:, older_first] = edge_index[::-1, older_first]

    feature = rng.standard_normal((shape.nodes, shape.features), dtype=np.float32)
    scale = np.float32(separation / (2 * shape.features) ** 0.5)
    mean, drift = rng.standard_normal((2, shape.classes, shape.features), dtype=np.float32) * scale
    for c in range(shape.classes):
        rows = np.flatnonzero(label == c)
        feature[rows] += mean[c] + drift[c] * (age[rows, None] / np.float32(2 * shape.nodes))

    order = np.argsort(age)
    parts = np.split(order, [shape.train, shape.train + shape.valid])
    split = {part: np.sort(parts.pop(0)) for part in ("train", "valid", "test")}
    year = np.full((shape.nodes, 1), 2019)
    year[split["valid"]] = 2018
    year[split["train"], 0] = 2017 - (30 * (1 - age[split["train"]] / shape.train)).astype(int)
    if noise:
        label = np.where(rng.random(shape.nodes) < noise, rng.permutation(label), label)
    graph = {
        "edge_index": edge_index,
        "num_nodes": shape.nodes,
        "node_feat": feature,
        "node_year": year,
    }
    return graph, label[:, None], split


def _edges(rng: np.random.Generator, label: np.ndarray, count: int, homophily: float) -> np.ndarray:
    """Draw ``count`` different pairs of different nodes, an end chosen by its popularity."""
    nodes = len(label)
    by_class = np.argsort(label, kind="stable")
    popularity = np.minimum(rng.pareto(1.5, nodes) + 0.5, nodes**0.5)
    total = np.concatenate([[0], np.cumsum(popularity)])
    start, end = (
        total[np.searchsorted(label[by_class], np.arange(label.max() + 1), side)]
        for side in ("left", "right")
    )

    def draw(low: np.ndarray | float, high: np.ndarray | float, size: int) -> np.ndarray:
        place = np.searchsorted(total, rng.uniform(low, high, size), side="right") - 1
        return by_class[np.minimum(place, nodes - 1)]

    pairs = np.empty(0, dtype=np.int64)
    while len(pairs) < count:
        drawn, missing = [pairs], int((count - len(pairs)) * 1.1) + 100
        for first in range(0, missing, _CHUNK):
            size = min(_CHUNK, missing - first)
            source = draw(0, total[-1], size)
            inside, own = rng.random(size) < homophily, label[source]
            low = np.where(inside, start[own], 0)
            high = np.where(inside, end[own], total[-1])
            target = draw(low, high, size)
            one, other = np.minimum(source, target), np.maximum(source, target)
            drawn.append((one * nodes + other)[one < other])
        pairs = np.unique(np.concatenate(drawn))
    rng.shuffle(pairs)
    pairs = pairs[:count]
    return np.stack([pairs // nodes, pairs % nodes])


def write_ogb(shape: Shape, out: Path, seed: int, kind: str = "plain") -> None:
    """Draw a set and let ``ogb.io.DatasetSaver`` write it into the new folder ``out``."""
    from ogb.io import DatasetSaver

    if out.exists():
        raise ValueError(f"'{out}' already exists; choose another '--out'")
    with (
        make_folder(out.parent),  # or an error before the set is drawn
        tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as folder,
    ):
        graph, labels, split = block_model(shape, seed, **KINDS[kind])
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            saver = DatasetSaver(shape.name, is_hetero=False, version=1, root=f"{folder}/set")
            saver.save_graph_list([graph])
            saver.save_target_labels(labels)
            saver.save_split(split, shape.split)
            saver.save_task_info("multiclass classification", "acc", shape.classes)
            mapping = Path(folder) / "mapping"
            mapping.mkdir()
            made = f"{shape.name}-shaped stochastic block model, {kind}, seed {seed}"
            (mapping / "README.md").write_text(f"# {made}. Not OGB's data.\n")
            saver.copy_mapping_dir(str(mapping))
            meta = saver.get_meta_dict() | {"dir_path": str(out)}
        torch.save(meta, Path(saver.dataset_dir) / "meta_dict.pt")
        os.rename(saver.dataset_dir, out)


def main(argv: list[str] | None = None) -> None:
    """Write the set that the command line asks for."""
    args = flags.make_ogb(None).parse_args(argv)
    write_ogb(SHAPES[args.shape], args.out, args.seed, args.kind)
    print(f"wrote {args.out}")
