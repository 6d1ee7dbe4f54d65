"""The graphs that the suites are timed on."""

from typing import NamedTuple

import torch
from torch import Tensor

from torch_geometric_diff.data import load_graph


class Case(NamedTuple):
    """A graph, the width of its features, and where it comes from."""

    name: str
    edge_index: Tensor
    num_nodes: int
    channels: int


# nodes, undirected edges, columns
SHAPES = {"cora": (2485, 5069, 1433), "citeseer": (2110, 3668, 3703), "pubmed": (19717, 44324, 500)}


def citation(name: str) -> Case:
    """A citation graph, or a random one of its shape where the data is not there."""
    source = "planetoid" if name == "pubmed" else "shchur"
    try:
        data = load_graph(name, source=source)
    except FileNotFoundError:
        num_nodes, num_edges, channels = SHAPES[name]
        return synthetic(f"random graph of the shape of {name}", num_nodes, num_edges, channels)
    return Case(name, data.edge_index, data.num_nodes, data.num_features)


def synthetic(
    name: str, num_nodes: int, num_edges: int, channels: int, shuffled: bool = True
) -> Case:
    """An undirected graph of skewed degrees whose edges are mostly short in the given order."""
    generator = torch.Generator().manual_seed(0)
    source = (torch.rand(num_edges, generator=generator) ** 1.5 * num_nodes).long()
    # most edges stay within a neighborhood of a two-hundredth of the nodes, some go anywhere
    reach = torch.empty(num_edges).exponential_(200.0, generator=generator) * num_nodes
    far = torch.rand(num_edges, generator=generator) < 0.2
    reach[far] = torch.rand(int(far.sum()), generator=generator) * num_nodes
    target = (source + reach.long() + 1) % num_nodes
    edge_index = torch.stack([source, target])
    if shuffled:
        edge_index = torch.randperm(num_nodes, generator=generator)[edge_index]
    return Case(name, torch.cat([edge_index, edge_index.flip(0)], 1), num_nodes, channels)


def arxiv(shuffled: bool) -> Case:
    """The shape of ogbn-arxiv with 128 columns."""
    order = "random order" if shuffled else "given order"
    return synthetic(f"arxiv shape, {order}", 169_343, 1_166_243, 128, shuffled)
