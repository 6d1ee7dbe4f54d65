"""Building the operator of a graph: ours, scipy's and PyG's forms of the same matrix.

Each peer makes what a propagation needs from an `edge_index`: scipy the bare CSR, without degrees
or a transpose; PyG the normalized edges, and those as a `SparseTensor` with its transpose.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse
import torch
from torch import Tensor
from torch_geometric.nn.conv.gcn_conv import gcn_norm
from torch_geometric.typing import WITH_TORCH_SPARSE

from benchmarks.speed.graphs import Case, arxiv, citation, synthetic
from benchmarks.speed.knn import peak_bytes, seconds
from torch_geometric_diff import DiffusionOperator

if TYPE_CHECKING:
    from benchmarks.speed.harness import Harness

OURS = "operator, sym, with transpose"
PRODUCTS = (2_449_029, 61_859_140)  # nodes and undirected edges of ogbn-products
STEP_SIZE = 0.05  # stable on all of these


def molecules(count: int) -> Case:
    """A batch of random trees of 12 to 27 nodes with two rings each, the shape of molecules."""
    generator = torch.Generator().manual_seed(0)
    edges, first = [], 0
    for size in torch.randint(12, 28, (count,), generator=generator).tolist():
        child = torch.arange(1, size)
        parent = (child - 1 - torch.randint(2, (size - 1,), generator=generator)).clamp(min=0)
        rings = torch.stack([torch.arange(2), torch.tensor([5, size - 1])])
        one = torch.cat([torch.stack([parent, child]), rings], 1) + first
        edges += [one, one.flip(0)]
        first += size
    return Case(f"{count} molecules", torch.cat(edges, 1), first, 64)


def candidates(case: Case) -> dict[str, Callable[[], object]]:
    """The builds that are compared."""
    edge_index, num_nodes = case.edge_index, case.num_nodes
    ones = np.ones(edge_index.size(1), np.float32)
    source, target = edge_index.numpy()

    def ours(normalization: str) -> Tensor:
        keywords: dict[str, Any] = {"num_nodes": num_nodes, "step_size": STEP_SIZE}
        operator = DiffusionOperator(edge_index, normalization=normalization, **keywords)
        return operator.csr(transpose=True).value

    found: dict[str, Callable[[], object]] = {
        OURS: lambda: ours("sym"),
        "operator, row, with transpose": lambda: ours("row"),
        "scipy coo -> csr": lambda: scipy.sparse.coo_matrix(
            (ones, (target, source)), (num_nodes, num_nodes)
        ).tocsr(),
        "PyG gcn_norm": lambda: gcn_norm(edge_index, None, num_nodes),
    }
    if WITH_TORCH_SPARSE:
        from torch_sparse import SparseTensor

        def sparse_tensor() -> object:
            index, weight = gcn_norm(edge_index, None, num_nodes)
            size = (num_nodes, num_nodes)
            adj_t = SparseTensor(row=index[1], col=index[0], value=weight, sparse_sizes=size)
            return adj_t.storage.csr2csc()

        found["PyG gcn_norm, SparseTensor, csr2csc"] = sparse_tensor
    return found


def products() -> list[dict[str, Any]]:
    """The build at the shape of ogbn-products, once, and the memory it takes beside its input."""
    case = synthetic("ogbn-products' shape", *PRODUCTS, 100)
    rows: list[dict[str, Any]] = []
    for name, normalization in (("sym", "sym"), ("row", "row")):

        def build(normalization: str = normalization) -> None:
            operator = DiffusionOperator(
                case.edge_index,
                num_nodes=case.num_nodes,
                step_size=STEP_SIZE,
                normalization=normalization,
            )
            operator.csr(transpose=True)

        peak = peak_bytes(build)
        taken = seconds(build)
        rows.append(
            {
                "case": f"{case.name} ({case.num_nodes} nodes), {case.edge_index.size(1)} entries",
                "name": f"operator, {name}, with transpose",
                "seconds": taken,
                "ratio": taken / (rows[0]["seconds"] if rows else taken),
                "repeats": 1,
                "peak_bytes": peak,
                "input_bytes": case.edge_index.nbytes,
            }
        )
    return rows


def run(harness: Harness, quick: bool) -> list[dict[str, Any]]:
    """The rows of the suite."""
    small = synthetic("one graph", 38, 80, 64)
    cases = [small, molecules(128), citation("pubmed")]
    if not quick:
        cases.append(arxiv(shuffled=True))
    rows = []
    for case in cases:
        name = f"{case.name} ({case.num_nodes} nodes), {case.edge_index.size(1)} entries"
        repeats = 200 if case.num_nodes < 10_000 else 7
        rows += harness.compare(name, candidates(case), ours=OURS, repeats=repeats)
    return rows
