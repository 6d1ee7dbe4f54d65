"""The operator of the one graph of a cached layer."""

import math
from typing import Any, Optional

import torch
from torch import Tensor
from torch_geometric import EdgeIndex

from ..._utils.functorch import is_differentiated
from ..._utils.memo import Identity
from ...ops import SparseOperator

Graph = tuple[Any, Optional[Tensor]]  # an adjacency in any form and its weights


class CachedOperator:
    """An operator with what it was built of.

    Another call's graph is the same if its Tensors are those of a call before, not changed since;
    else if all of its entries are equal; else, in another form or order, if it gives the operator.
    """

    def __init__(self, operator: SparseOperator, graph: Graph, settings: tuple) -> None:
        self.operator, self.settings = operator, settings
        # copies, so that a graph changed in place is noticed
        self._copies = [(form, part.detach().clone()) for form, part in _parts(*graph)]
        self._seen: list[Identity] = []
        self.remember(graph)

    def remember(self, graph: Graph) -> None:
        """Know a graph from now on, in a few forms at once."""
        self._seen = [*self._seen[-3:], Identity(_tensors(*graph))]

    def knows(self, graph: Graph) -> bool:
        """Whether a graph's Tensors are those of an earlier call, not changed since, and constant:
        without a look at a value.
        """
        tensors = _tensors(*graph)
        for identity in self._seen:
            if identity.is_of(tensors):
                return not any([tensor.requires_grad for tensor in tensors])
        return False

    def is_of(self, graph: Graph) -> bool:
        """Whether a graph has the entries of the one that it was built of, in the same form."""
        if not self._has_entries(graph):
            return False
        if not torch.compiler.is_compiling():
            self.remember(graph)
        return True

    def is_equal(self, operator: SparseOperator) -> bool:
        """Whether an operator has the same entries, to rounding: sums may be of another order."""
        own, other = self.operator.csr(), operator.csr()
        rtol = 16 * torch.finfo(own.value.dtype).eps
        steps = (getattr(each, "step_size", 1.0) for each in (self.operator, operator))
        if not math.isclose(*steps, rel_tol=rtol):
            return False  # of another scale of weights
        return (
            own.value.shape == other.value.shape
            and torch.equal(own.rowptr, other.rowptr)
            and torch.equal(own.col, other.col)
            and torch.allclose(own.value, other.value, rtol=rtol, atol=0)
        )

    def _has_entries(self, graph: Graph) -> bool:
        parts = _parts(*graph)
        if len(parts) != len(self._copies):
            return False
        for (form, a), (other, b) in zip(self._copies, parts, strict=True):
            if (form, a.device, a.dtype, a.shape) != (other, b.device, b.dtype, b.shape):
                return False
            if torch.compiler.is_compiling():  # the graph cannot branch on values, but it can stop
                torch._assert_async((a == b).all(), "another graph than the one in the cache")
            elif not torch.equal(a, b):
                return False
        return True


def is_learned(adjacency: Any, weight: Optional[Tensor]) -> bool:
    """Whether a gradient may pass to the weights of a graph."""
    return any(map(is_differentiated, _tensors(adjacency, weight)))


def _tensors(adjacency: Any, weight: Optional[Tensor]) -> list[Tensor]:
    """The Tensors that hold a graph, without any work."""
    own = [] if weight is None else [weight]
    if isinstance(adjacency, EdgeIndex):
        return [adjacency.as_tensor(), *own]
    if isinstance(adjacency, Tensor):
        return [adjacency, *own]
    storage = vars(getattr(adjacency, "storage", object))  # of a torch_sparse.SparseTensor
    names = ("_row", "_rowptr", "_col", "_value")
    return [*(storage[name] for name in names if storage.get(name) is not None), *own]


def _parts(adjacency: Any, weight: Optional[Tensor]) -> list[tuple[str, Tensor]]:
    """The dense Tensors that make up an adjacency and its weights, each with what it is."""
    parts: list[tuple[str, Tensor]]
    if not isinstance(adjacency, Tensor):
        parts = [("coo", part) for part in adjacency.coo() if part is not None]
    elif adjacency.layout == torch.sparse_coo:
        adjacency = adjacency.coalesce()
        parts = [("indices", adjacency.indices()), ("values", adjacency.values())]
    elif adjacency.layout == torch.sparse_csr:
        index = adjacency.crow_indices(), adjacency.col_indices()
        parts = [("crow", index[0]), ("col", index[1]), ("values", adjacency.values())]
    elif adjacency.layout == torch.sparse_csc:
        index = adjacency.ccol_indices(), adjacency.row_indices()
        parts = [("ccol", index[0]), ("row", index[1]), ("values", adjacency.values())]
    else:
        parts = [("edge_index", _tensors(adjacency, None)[0])]
    return parts if weight is None else [*parts, ("edge_weight", weight)]
