"""K steps of diffusion, forward alone and with backward, against what people use today."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch_geometric.nn.conv import MessagePassing

from benchmarks.speed.graphs import Case, arxiv, citation
from benchmarks.speed.harness import Harness
from torch_geometric_diff import DiffusionOperator, diffuse
from torch_geometric_diff.graph.adjacency import Edges, sparse_matrix

Step = Callable[[Tensor], Tensor]


class GatherScatter(MessagePassing):
    """One step as PyG's APPNP does it on an ``edge_index``."""

    def forward(self, x: Tensor, edge_index: Tensor, edge_weight: Tensor) -> Tensor:
        """Propagate."""
        return self.propagate(edge_index, x=x, edge_weight=edge_weight)

    def message(self, x_j: Tensor, edge_weight: Tensor) -> Tensor:
        """Weigh."""
        return edge_weight.view(-1, 1) * x_j


def steps(operator: DiffusionOperator) -> dict[str, Step]:
    """One step of every peer, on the same matrix."""
    row, col = operator.rows().long(), operator.col.long()
    value, size = operator.value, operator.num_nodes
    csr = sparse_matrix(Edges(row, col, value, size))
    edge_index, propagate = torch.stack([col, row]), GatherScatter()
    # the original form: x - step_size * (diag(d) - W) x, the Laplacian as COO
    laplacian = torch.sparse_coo_tensor(
        torch.stack([row, col]),
        ((row == col).float() - value),
        (size, size),
        check_invariants=False,
    ).coalesce()
    peers: dict[str, Step] = {
        "torch.sparse.mm(csr, x, 'sum')": lambda x: torch.sparse.mm(csr, x, "sum"),
        "csr @ x": lambda x: csr @ x,
        "original form (COO)": lambda x: x - laplacian @ x,
        "gather-scatter MessagePassing": lambda x: propagate(x, edge_index, value),
    }
    try:
        from torch_sparse import SparseTensor
    except ImportError:
        return peers
    adj = SparseTensor(row=row, col=col, value=value, sparse_sizes=(size, size))
    peers["torch_sparse spmm"] = lambda x: adj @ x
    return peers


def peer(step: Step, x: Tensor, num_steps: int, dropout: float) -> Tensor:
    """All steps as people write them."""
    for _ in range(num_steps):
        x = step(F.dropout(x, dropout) if dropout else x)
    return x


def compare(
    harness: Harness, case: Case, num_steps: int, dropout: float, backward: bool, names: list[str]
) -> list[dict[str, Any]]:
    """All candidates on one graph."""
    settings: dict[str, Any] = {"num_nodes": case.num_nodes, "step_size": 0.1}
    operator = DiffusionOperator(case.edge_index, **settings)
    ordered = DiffusionOperator(case.edge_index, **settings, reorder=True)
    x = torch.rand(case.num_nodes, case.channels).requires_grad_(backward)
    grad = torch.rand(case.num_nodes, case.channels)

    def finish(out: Tensor) -> None:
        if backward:
            out.backward(grad)
            x.grad = None

    def ours(operator: DiffusionOperator) -> Callable[[], None]:
        return lambda: finish(diffuse(x, operator, num_steps, dropout))

    def run_peer(step: Step) -> Callable[[], None]:
        return lambda: finish(peer(step, x, num_steps, dropout))

    peers = {name: run_peer(step) for name, step in steps(operator).items() if name in names}
    if ordered.is_reordered:
        peers["ours with reorder=True"] = ours(ordered)
    what = "forward + backward" if backward else "forward"
    title = f"{case.name} ({case.num_nodes} x {case.channels}), K = {num_steps}, "
    repeats = 3 if num_steps * operator.nnz * case.channels > 3e8 else 5
    rows = harness.compare(
        f"{title}dropout {dropout:g}, {what}",
        {"ours": ours(operator), **peers},
        ours="ours",
        repeats=repeats,
    )
    # What one step must move if it reads and writes the features in memory, and its arithmetic.
    passes = num_steps * (2 if backward else 1)
    moved = passes * (2 * x.nbytes + operator.nnz * 8)
    flops = passes * 2 * operator.nnz * case.channels
    for row in rows:
        row["GB/s"] = moved / row["seconds"] / 1e9
        row["share of copy"] = moved / row["seconds"] / harness.bandwidth
        row["GFLOP/s"] = flops / row["seconds"] / 1e9
    return rows


def run(harness: Harness, quick: bool) -> list[dict[str, Any]]:
    """The rows of the suite."""
    best = "torch.sparse.mm(csr, x, 'sum')"
    every = [best, "csr @ x", "original form (COO)", "torch_sparse spmm"]
    slow = "gather-scatter MessagePassing"
    rows: list[dict[str, Any]] = []
    cora = citation("cora")
    for dropout in (0.0, 0.25):
        rows += compare(harness, cora, 20, dropout, True, [*every, slow])
        rows += compare(harness, cora, 20, dropout, False, every)
    for shuffled in (False, True):
        for dropout in (0.0, 0.25):
            names = [best] if quick else [best, "torch_sparse spmm"]
            rows += compare(harness, arxiv(shuffled), 10, dropout, not quick, names)
    if quick:
        return rows
    for name in ("citeseer", "pubmed"):
        for dropout in (0.0, 0.25):
            rows += compare(harness, citation(name), 20, dropout, True, [best])
    for num_steps in (2, 10, 100):
        for dropout in (0.0, 0.25):
            rows += compare(harness, cora, num_steps, dropout, True, [best])
    return rows
