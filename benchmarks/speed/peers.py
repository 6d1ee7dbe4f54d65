"""The peers of the propagation suite: PyG's forms of a graph, torch's products, DGL's kernel."""

import os
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from benchmarks.speed.graphs import Case
from torch_geometric_diff.graph.adjacency import Edges, sparse_matrix
from torch_geometric_diff.ops import SparseOperator

Step = Callable[[Tensor], Tensor]


def forms(case: Case) -> dict[str, Any]:
    """The graph in every form that PyG's layers take, the fast ones last."""
    source, target = case.edge_index
    size = (case.num_nodes, case.num_nodes)
    found: dict[str, Any] = {"edge_index": case.edge_index}
    found["torch.sparse CSR"] = sparse_matrix(
        Edges(target, source, torch.ones(target.numel()), case.num_nodes)
    )
    try:
        from torch_sparse import SparseTensor
    except ImportError:
        print("PyG with SparseTensor is left out: 'torch_sparse' is not installed")
        return found
    found["SparseTensor"] = SparseTensor(row=target, col=source, sparse_sizes=size)
    return found


def products(operator: SparseOperator) -> dict[str, Step]:
    """One product with the matrix of an operator: both of torch's, and DGL's if it is there."""
    row, col, value = operator.rows().long(), operator.col.long(), operator.value
    csr = sparse_matrix(Edges(row, col, value, operator.num_nodes))
    found: dict[str, Step] = {
        "torch.sparse.mm(csr, x, 'sum')": lambda x: torch.sparse.mm(csr, x, "sum"),
        "csr @ x": lambda x: csr @ x,
    }
    os.environ.setdefault("DGLBACKEND", "pytorch")
    try:
        import dgl
        import dgl.ops
    except (ImportError, OSError) as error:  # its binaries fit few versions of torch and Python
        print(f"DGL is left out: {str(error).splitlines()[0]}")
        return found
    graph = dgl.graph((col, row), num_nodes=operator.num_nodes)
    weight = value.unsqueeze(1)
    found["DGL u_mul_e_sum"] = lambda x: dgl.ops.u_mul_e_sum(graph, x, weight)
    return found
