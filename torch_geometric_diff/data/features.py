"""The paper's standard form of a graph and of its bag-of-words features."""

import warnings

import numpy as np
import torch
from scipy import sparse
from torch import Tensor
from torch_geometric.data import Data


def sparse_features(data: Data) -> Tensor:
    """The features ``data.x`` as a :obj:`torch.sparse_csr` matrix with 32-bit indices.

    A bag of words has 1 to 10 % nonzeros, so a first linear layer that reads it in this form is
    many times cheaper.

    Args:
        data (torch_geometric.data.Data): A graph with features ``x``, dense or sparse.

    Raises:
        ValueError: If the graph has no feature matrix.
    """
    x = data.x
    if x is None or x.dim() != 2:
        raise ValueError(f"Expected 'data.x' to be a matrix (got {x if x is None else x.dim()})")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*[Ss]parse.*")  # beta-state notices of PyTorch
        csr = x.to_sparse_csr()
        return torch.sparse_csr_tensor(
            csr.crow_indices().int(),
            csr.col_indices().int(),
            csr.values(),
            csr.shape,
            device=x.device,
            check_invariants=False,
        )


def standardise(
    adjacency: sparse.spmatrix, features: sparse.spmatrix, labels: np.ndarray, binary: bool = True
) -> Data:
    """Keep the largest component of the simple undirected graph; binarise and normalise features.

    Nodes keep their order, which the drawing of splits depends on.
    """
    adjacency = sparse.csr_matrix(adjacency)
    adjacency = ((adjacency + adjacency.T) != 0).astype(np.float32).tolil()
    adjacency.setdiag(0)
    adjacency = adjacency.tocsr()
    adjacency.eliminate_zeros()
    _, component = sparse.csgraph.connected_components(adjacency, directed=False)
    nodes = np.flatnonzero(component == np.bincount(component).argmax())
    adjacency = adjacency[nodes][:, nodes].tocoo()

    x = sparse.csr_matrix(features, dtype=np.float32)[nodes]
    x.eliminate_zeros()
    if binary:
        x.data[:] = 1.0
    total = np.asarray(x.sum(axis=1), dtype=np.float32).ravel()
    x = sparse.diags(1 / np.where(total == 0, 1, total)) @ x

    edge_index = np.stack([adjacency.row, adjacency.col]).astype(np.int64)
    return Data(
        x=torch.from_numpy(x.toarray()).float(),
        edge_index=torch.from_numpy(edge_index),
        y=torch.from_numpy(labels[nodes].astype(np.int64)),
    )
