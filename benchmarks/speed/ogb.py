"""Full-graph diffusion at the sizes of ogbn-arxiv and ogbn-products, against PyG's propagation.

The graphs are stochastic block models of those sizes, nodes in random order. ``seconds`` are of one
forward and backward pass; ``GiB`` is the memory that a pass takes above what was held before it.
"""

import ctypes
import dataclasses
import gc
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch_geometric.data import Data
from torch_geometric.nn import APPNP, SGConv

from benchmarks.ogb.make import SHAPES, block_model
from benchmarks.ogb.models import adjacency
from benchmarks.speed.harness import Harness
from torch_geometric_diff.data.ogb import undirected
from torch_geometric_diff.nn import DiffConv
from torch_geometric_diff.ops import DiffusionOperator

Row = dict[str, Any]
Pass = Callable[[], object]
STEPS = 10
STEP_SIZE = 0.02  # stable on both graphs, whose hubs allow no large one


def _graph(shape: str) -> Data:
    drawn = dataclasses.replace(SHAPES[shape], features=1)
    edge_index = torch.from_numpy(block_model(drawn, seed=0)[0]["edge_index"])
    edge_index = undirected(edge_index, drawn.nodes)
    return Data(edge_index=edge_index, num_nodes=drawn.nodes, num_classes=drawn.classes)


def _pass(model: torch.nn.Module, x: Tensor, adj: Any) -> Pass:
    """One forward and backward pass that ends in the gradient of the features."""
    upstream = torch.ones(x.size(0), x.size(1))

    def run() -> None:
        x.grad = None
        model(x, adj).backward(upstream)

    return run


def peak_memory(run: Pass) -> float:
    """GiB that ``run`` takes above what the process holds (Linux, glibc)."""
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)  # what earlier passes freed would hide this one's
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")
    before = _status("VmRSS")
    run()
    return (_status("VmHWM") - before) / 2**20


def _status(name: str) -> int:
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith(name))


def _peers(data: Data, x: Tensor, steps: int, operator: DiffusionOperator) -> dict[str, Pass]:
    """Ours and PyG's propagations. APPNP keeps its normalized graph; SGConv can only keep its
    result, so it normalizes in every pass."""
    classes, forms = x.size(1), {"edge_index": data.edge_index, "SparseTensor": adjacency(data)}
    if isinstance(forms["SparseTensor"], Tensor):
        forms["torch CSR (torch-sparse is not installed)"] = forms.pop("SparseTensor")
    passes = {"ours": _pass(DiffConv(steps, STEP_SIZE), x, operator)}
    for form, adj in forms.items():
        passes[f"APPNP, {form}"] = _pass(APPNP(steps, 0.1, cached=True), x, adj)
        passes[f"SGConv, {form}"] = _pass(SGConv(classes, classes, steps), x, adj)
    return passes


def against_peers(harness: Harness, data: Data, operator: DiffusionOperator) -> list[Row]:
    """Seconds at K = 10 and memory against K."""
    x = torch.randn(data.num_nodes, data.num_classes, requires_grad=True)
    size = f"{data.num_nodes} nodes, {data.num_edges} edges, {data.num_classes} columns"
    passes = _peers(data, x, STEPS, operator)
    rows = harness.compare(f"{size}, K = {STEPS}", passes, ours="ours", repeats=3)
    for steps in (1, 5, 10, 20):
        for row, run in zip(rows, _peers(data, x, steps, operator).values(), strict=True):
            run()  # fills the caches of the layers
            row[f"GiB at K = {steps}"] = peak_memory(run)
    return rows


def large_pass(harness: Harness, data: Data, operator: DiffusionOperator, build: float) -> Row:
    """One forward and backward pass with the share of the bandwidth that it reaches.

    Counted are the bytes that any order of the nodes must move: the matrix once and the features
    once in and once out a step. ``gathered`` counts every neighbor's row as if it came from
    memory.
    """
    x = torch.randn(data.num_nodes, data.num_classes, requires_grad=True)
    case = f"{data.num_nodes} nodes, {operator.nnz} entries, {x.size(1)} columns, K = {STEPS}, cost"
    run = _pass(DiffConv(STEPS, STEP_SIZE), x, operator)
    (row,) = harness.compare(case, {"ours": run}, ours="ours", repeats=2)
    memory, seconds = peak_memory(run), row["seconds"]
    matrix = sum(part.nbytes for part in operator.csr())
    moved = 2 * STEPS * (matrix + 2 * x.nbytes)
    gathered = 2 * STEPS * (matrix + operator.nnz * x.size(1) * 4 + x.nbytes)
    copied = harness.bandwidth
    return row | {
        "GiB": memory,
        "GiB of the process": _status("VmHWM") / 2**20,
        "s to build": build,
        "share of bandwidth": moved / seconds / copied,
        "share, gathered": gathered / seconds / copied,
        "ns per entry, step, column": 1e9 * seconds / (2 * STEPS * operator.nnz * x.size(1)),
    }


def run(harness: Harness, quick: bool) -> list[Row]:
    """The rows of the suite; ``quick`` takes small graphs."""
    rows: list[Row] = []
    for shape in ("small",) if quick else ("arxiv", "products"):
        data = _graph(shape)
        start = time.perf_counter()
        operator = DiffusionOperator(data.edge_index, num_nodes=data.num_nodes, step_size=STEP_SIZE)
        build = time.perf_counter() - start
        if shape != "products":  # PyG's passes take minutes and 25 GiB there
            rows += against_peers(harness, data, operator)
        data.edge_index = None
        rows.append(large_pass(harness, data, operator, build))
    return rows
