"""Graphs in every form, and the dense float64 reference that all kernels are held against."""

import warnings

import pytest
import torch
from torch import Tensor
from torch_geometric import EdgeIndex

FORMS = ["edge_index", "EdgeIndex", "coo", "csr", "csc", "SparseTensor"]


def dense_step(
    weight: Tensor,
    step_size: float | Tensor,
    normalization: str | None = "sym",
    add_self_loops: bool = True,
) -> Tensor:
    """I - step_size * (diag(W 1) - W) from a dense weight matrix, written as in the paper."""
    num_nodes = weight.size(0)
    if add_self_loops and normalization is not None:
        weight = weight + torch.diag((weight.diagonal() == 0).to(weight.dtype))
    degree = weight.sum(1)
    inverse = torch.where(degree > 0, 1 / degree.clamp(min=1e-30), 0)
    if normalization == "sym":
        weight = inverse.sqrt()[:, None] * weight * inverse.sqrt()
    elif normalization == "row":
        weight = inverse[:, None] * weight
    laplacian = torch.diag(weight.sum(1)) - weight
    return torch.eye(num_nodes, dtype=weight.dtype) - step_size * laplacian


def random_graph(
    num_nodes: int, num_edges: int, seed: int = 0, undirected: bool = False
) -> tuple[Tensor, Tensor]:
    """Distinct edges with float64 weights; loops, isolated nodes and a hub among them."""
    generator = torch.Generator().manual_seed(seed)
    linked = max(num_nodes - 3, 1)  # the last nodes stay isolated
    edges = torch.randint(linked, (2, num_edges), generator=generator)
    hub = torch.stack([torch.arange(linked), torch.zeros(linked, dtype=torch.long)])
    edges = torch.cat([edges, hub], 1)
    if undirected:
        edges = torch.cat([edges, edges.flip(0)], 1)
    edges = edges.unique(dim=1)
    edges = edges[:, torch.randperm(edges.size(1), generator=generator)]
    weight = torch.rand(num_nodes, num_nodes, generator=generator, dtype=torch.float64)
    if undirected:
        weight = weight + weight.t()
    return edges, weight[edges[0], edges[1]]


def dense_weight(edge_index: Tensor, weight: Tensor, num_nodes: int) -> Tensor:
    """The dense weight matrix, rows the targets."""
    dense = weight.new_zeros(num_nodes, num_nodes)
    return dense.index_put((edge_index[1], edge_index[0]), weight, accumulate=True)


def as_form(form: str, edge_index: Tensor, weight: Tensor, num_nodes: int) -> tuple:
    """The arguments (edge_index, edge_weight) of a layer for a graph in one of FORMS."""
    size = (num_nodes, num_nodes)
    if form == "edge_index":
        return edge_index, weight
    if form == "EdgeIndex":
        return EdgeIndex(edge_index, sparse_size=size), weight
    if form == "SparseTensor":
        torch_sparse = pytest.importorskip("torch_sparse", reason="torch-sparse is not installed")
        source, target = edge_index
        return torch_sparse.SparseTensor(
            row=target, col=source, value=weight, sparse_sizes=size
        ), None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        matrix = torch.sparse_coo_tensor(edge_index.flip(0), weight, size).coalesce()
        if form == "csr":
            return matrix.to_sparse_csr(), None
        if form == "csc":
            return matrix.to_sparse_csc(), None
    return matrix, None
