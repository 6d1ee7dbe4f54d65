"""Few columns: labels, logits and single signals, and what every width costs."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from benchmarks.speed.harness import Harness
from benchmarks.speed.kernels import Step, peer, steps
from torch_geometric_diff import DiffusionOperator, diffuse

STEPS = 20
COLUMNS = (1, 3, 7, 16, 40, 64)
PEERS = ("torch.sparse.mm(csr, x, 'sum')", "csr @ x")


def operator(num_nodes: int, degree: float) -> DiffusionOperator:
    """An undirected random graph of this mean degree: no order of its nodes helps."""
    generator = torch.Generator().manual_seed(0)
    edges = torch.randint(num_nodes, (2, int(num_nodes * degree / 2)), generator=generator)
    edge_index = torch.cat([edges, edges.flip(0)], 1)
    return DiffusionOperator(edge_index, num_nodes=num_nodes, step_size=0.01)


def _ours(operator: DiffusionOperator, x: Tensor) -> Callable[[], object]:
    return lambda: diffuse(x, operator, STEPS)


def _peer(step: Step, x: Tensor) -> Callable[[], object]:
    return lambda: peer(step, x, STEPS, 0.0)


def against_peers(
    harness: Harness, operator: DiffusionOperator, name: str, columns: int
) -> list[dict[str, Any]]:
    """Both products of torch at one width."""
    x = torch.rand(operator.num_nodes, columns)
    products = steps(operator)
    candidates = {"ours": _ours(operator, x), **{p: _peer(products[p], x) for p in PEERS}}
    return harness.compare(f"{name}, {columns} columns, K = {STEPS}", candidates, ours="ours")


def every_width(
    harness: Harness, operator: DiffusionOperator, name: str, widths: range
) -> list[dict[str, Any]]:
    """Ours at every width, with its share of the line between its neighbors."""
    candidates = {
        f"{n} columns": _ours(operator, torch.rand(operator.num_nodes, n)) for n in widths
    }
    rows = harness.compare(f"{name}, every width, K = {STEPS}", candidates, ours="16 columns")
    for before, row, after in zip(rows, rows[1:], rows[2:], strict=False):
        row["of the line"] = 2 * row["seconds"] / (before["seconds"] + after["seconds"])
    return rows


def run(harness: Harness, quick: bool) -> list[dict[str, Any]]:
    """The rows of the suite."""
    rows: list[dict[str, Any]] = []
    for num_nodes in (19_717,) if quick else (19_717, 169_343):
        for degree in (4.5,) if quick else (4.5, 14.0):
            matrix = operator(num_nodes, degree)
            name = f"random graph, {num_nodes} nodes of mean degree {degree:g}"
            for columns in (1, 3) if quick else COLUMNS:
                rows += against_peers(harness, matrix, name, columns)
            if num_nodes < 100_000:
                rows += every_width(
                    harness, matrix, name, range(15, 18) if quick else range(1, 131)
                )
    return rows
