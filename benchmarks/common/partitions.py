"""Which rank is to own which node, so that few edges lie between them."""

import contextlib
from collections.abc import Callable

import numpy as np
import scipy.sparse
import torch
from scipy.sparse.csgraph import reverse_cuthill_mckee
from torch import Tensor

METHODS = ("auto", "metis", "cuthill-mckee", "ranges")


def partition_nodes(
    edge_index: Tensor, num_nodes: int, num_parts: int, method: str = "auto"
) -> Tensor:
    """The rank that is to own each node, of about as many nodes each, few edges between them:
    the ``parts`` of a ``PartitionedOperator``. It takes the whole graph in memory, once.

    Args:
        edge_index (Tensor): The edges :math:`(2, E)`, read as undirected.
        num_nodes (int): The number of nodes.
        num_parts (int): The number of ranks.
        method (str, optional): :obj:`"metis"` (pymetis or pyg-lib); :obj:`"cuthill-mckee"`, which
            cuts SciPy's order into ranges; :obj:`"ranges"` of the nodes as they are; or
            :obj:`"auto"`: METIS where it is installed, else of the other two that which cuts fewer
            edges. (default: :obj:`"auto"`)

    Raises:
        ValueError: On an unknown method.
        ImportError: If ``"metis"`` is asked for and neither package is there.

    Shapes:
        - **output:** :math:`(N,)`

    Example:
        >>> partition_nodes(torch.tensor([[0, 1], [2, 3]]), 4, 2, "cuthill-mckee").bincount()
        tensor([2, 2])
    """
    if method not in METHODS:
        raise ValueError(f"Expected 'method' to be one of {METHODS} (got {method!r})")
    ranges = torch.arange(num_nodes, device="cpu") * num_parts // max(num_nodes, 1)
    if method == "ranges" or num_parts == 1 or num_nodes == 0:
        return ranges
    row, col = edge_index.numpy()
    half = scipy.sparse.coo_matrix((np.ones(len(row), bool), (row, col)), (num_nodes, num_nodes))
    adjacency = (half + half.T).tocsr()
    metis = None if method == "cuthill-mckee" else _metis()
    if metis is not None:
        return metis(adjacency, num_parts)
    if method == "metis":
        raise ImportError("Expected 'pymetis' or 'pyg-lib' to be installed for method 'metis'")
    ordered = torch.empty_like(ranges)
    order = reverse_cuthill_mckee(adjacency, symmetric_mode=True)
    ordered[torch.from_numpy(order.astype(np.int64))] = ranges
    cuts = [int((each[edge_index[0]] != each[edge_index[1]]).sum()) for each in (ranges, ordered)]
    return ranges if method == "auto" and cuts[0] <= cuts[1] else ordered


def _metis() -> Callable[[scipy.sparse.csr_matrix, int], Tensor] | None:
    """METIS, from whichever package brings it."""
    with contextlib.suppress(ImportError):
        import pymetis

        def by_pymetis(adjacency: scipy.sparse.csr_matrix, num_parts: int) -> Tensor:
            arrays = {"xadj": adjacency.indptr, "adjncy": adjacency.indices}
            return torch.tensor(pymetis.part_graph(num_parts, **arrays)[1])

        return by_pymetis
    with contextlib.suppress(ImportError, AttributeError):
        import pyg_lib

        metis = pyg_lib.partition.metis
        return lambda adjacency, num_parts: metis(
            *(torch.from_numpy(each).long() for each in (adjacency.indptr, adjacency.indices)),
            num_parts,
        )
    return None
