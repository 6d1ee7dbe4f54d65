"""The standard form of a graph and of its features."""

import warnings

import numpy as np
import torch
from scipy import sparse
from torch import Tensor
from torch_geometric.data import Data

COMPONENTS = ("largest", "all")
WORDS = ("binary", "rows", "raw")
MASKS = ("train_mask", "val_mask", "test_mask")


def sparse_features(data: Data) -> Tensor:
    """The features ``data.x`` as a :obj:`torch.sparse_csr` matrix with 32-bit indices.

    A bag of words has 1 to 10 % nonzeros, so a first linear layer that reads it in this form is
    many times cheaper.

    Args:
        data (torch_geometric.data.Data): A graph with features ``x``, dense or sparse.

    Raises:
        ValueError: If the graph has no feature matrix.

    Example:
        >>> from torch_geometric.data import Data
        >>> x = sparse_features(Data(x=torch.eye(3)))
        >>> x.layout, x.col_indices().dtype
        (torch.sparse_csr, torch.int32)
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


def standard_form(
    data: Data,
    component: str = "largest",
    words: str = "binary",
    undirected: bool = True,
) -> Data:
    r"""The simple unweighted graph of one component, with features in the form that is asked for.

    Nodes keep their order, which the drawing of splits depends on; loops and repeated edges go.
    Classes are numbered from 0 in the order of their labels; a label below 0 stands for none.
    Labels of two dimensions, several a node, stay as they are.

    Args:
        data (torch_geometric.data.Data): A graph with ``x``, ``edge_index``, ``y`` and perhaps
            ``train_mask``, ``val_mask`` and ``test_mask``.
        component (str, optional): ``'largest'``, the largest (weakly) connected one, or ``'all'``.
            (default: ``'largest'``)
        words (str, optional): ``'binary'``, one for every nonzero feature, in rows that sum to
            one; ``'rows'``, values divided by the sum of the absolute values of their row; or
            ``'raw'``, as they are. (default: ``'binary'``)
        undirected (bool, optional): Edges lead both ways. (default: :obj:`True`)

    Raises:
        ValueError: If an option is unknown.

    Example:
        >>> from torch_geometric.data import Data
        >>> edge_index = torch.tensor([[0, 0, 1], [0, 1, 2]])  # with a loop, one way, node 3 apart
        >>> data = Data(x=torch.eye(4), edge_index=edge_index, y=torch.tensor([5, 5, 7, 7]))
        >>> standard_form(data)
        Data(x=[3, 4], edge_index=[2, 4], y=[3])
        >>> standard_form(data).y
        tensor([0, 0, 1])
    """
    if component not in COMPONENTS or words not in WORDS:
        raise ValueError(
            f"Expected 'component' in {COMPONENTS} and 'words' in {WORDS} "
            f"(got {component!r} and {words!r})"
        )
    size = (data.num_nodes, data.num_nodes)
    source, target = data.edge_index.numpy()
    keep = source != target
    ones = np.ones(int(keep.sum()), dtype=np.float32)
    adjacency = sparse.csr_matrix((ones, (source[keep], target[keep])), size)
    if undirected:
        adjacency = adjacency + adjacency.T
    nodes = np.arange(data.num_nodes)
    if component == "largest":
        _, number = sparse.csgraph.connected_components(adjacency, directed=False)
        nodes = np.flatnonzero(number == np.bincount(number).argmax())
        adjacency = adjacency[nodes][:, nodes]
    adjacency.sort_indices()
    edges = adjacency.tocoo()
    index = torch.from_numpy(nodes)

    x = data.x[index].float()  # a copy, changed in place: features may be most of the memory
    if words == "binary":
        x.ne_(0)
    if words != "raw":
        parts = [part.abs().sum(dim=1, dtype=torch.float64) for part in x.split(1024)]
        total = torch.cat(parts).float()
        x.mul_((1 / torch.where(total == 0, 1.0, total))[:, None])
    kept = {name: data[name][index] for name in MASKS if name in data}
    if "class_names" in data:
        left = data.y[index].unique()
        kept["class_names"] = [data.class_names[c] for c in left[left >= 0].tolist()]
    return Data(
        x=x,
        edge_index=torch.from_numpy(np.stack([edges.row, edges.col]).astype(np.int64)),
        y=number_classes(data.y[index]) if data.y.dim() == 1 else data.y[index],
        **kept,
    )


def number_classes(y: Tensor) -> Tensor:
    """Classes numbered from 0 in the order of their labels; -1 for a label below 0."""
    known = y >= 0
    numbered = torch.full_like(y, -1, dtype=torch.long)
    numbered[known] = y[known].unique(return_inverse=True)[1]
    return numbered
