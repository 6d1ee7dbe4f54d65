"""Sizes of graphs in every form: square, and as many nodes as there are features."""

import pytest
import torch
from torch_geometric import EdgeIndex

from torch_geometric_diff import DiffusionOperator
from torch_geometric_diff.graph.adjacency import read_edges
from torch_geometric_diff.nn import DiffConv

EDGES = torch.tensor([[0, 1, 2], [1, 2, 0]])


def forms(rows: int, columns: int) -> dict[str, object]:
    matrix = torch.sparse_coo_tensor(EDGES, torch.ones(3), (rows, columns))
    found: dict[str, object] = {
        "EdgeIndex": EdgeIndex(EDGES, sparse_size=(rows, columns)),
        "coo": matrix,
        "csr": matrix.to_sparse_csr(),
        "csc": matrix.to_sparse_csc(),
    }
    try:
        from torch_sparse import SparseTensor
    except ImportError:
        return found
    tensor = SparseTensor(row=EDGES[0], col=EDGES[1], sparse_sizes=(rows, columns))
    return found | {"SparseTensor": tensor}


@pytest.mark.filterwarnings("ignore:Sparse")
@pytest.mark.parametrize("form", forms(3, 3))
def test_sizes(form) -> None:
    for rows, columns in ((3, 5), (5, 3)):
        with pytest.raises(ValueError, match=f"square 'edge_index' .got {rows} x {columns}"):
            DiffusionOperator(forms(rows, columns)[form])
        with pytest.raises(ValueError, match="square 'edge_index'"):
            DiffConv(2)(torch.ones(5, 2), forms(rows, columns)[form])
    with pytest.raises(ValueError, match="of 5 x 5, one row a node .got 3 x 3"):
        DiffusionOperator(forms(3, 3)[form], num_nodes=5)
    assert read_edges(forms(4, 4)[form]).num_nodes == 4


def test_an_edge_index_of_which_one_size_is_known() -> None:
    half = EdgeIndex(EDGES, sparse_size=(None, 6))
    assert read_edges(half).num_nodes == 6
    with pytest.raises(ValueError, match="got None x 6"):
        read_edges(half, num_nodes=7)
    assert read_edges(EdgeIndex(EDGES)).num_nodes == 3
    assert read_edges(EdgeIndex(EDGES), num_nodes=9).num_nodes == 9
