"""Full-graph diffusion at the sizes of ogbn-arxiv and ogbn-products, against PyG's propagation.

The graphs are stochastic block models of those sizes, nodes in random order. ``seconds`` are of one
forward and backward pass; ``gib`` is the memory that a pass takes above what was held before it.
"""

from __future__ import annotations

import ctypes
import dataclasses
import gc
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch_geometric.data import Data
from torch_geometric.nn import APPNP, SGConv

from benchmarks.make_ogb import SHAPES, block_model
from benchmarks.ogb_models import adjacency
from torch_geometric_diff.data.ogb import undirected
from torch_geometric_diff.graph import DiffusionOperator
from torch_geometric_diff.nn import DiffConv

if TYPE_CHECKING:
    from .harness import Harness

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
    """Ours and PyG's propagations. APPNP keeps its normalised graph; SGConv can only keep its
    result, so it normalises in every pass."""
    classes, forms = x.size(1), {"edge_index": data.edge_index, "SparseTensor": adjacency(data)}
    if isinstance(forms["SparseTensor"], Tensor):
        forms["torch CSR (torch-sparse is not installed)"] = forms.pop("SparseTensor")
    passes = {"ours": _pass(DiffConv(steps, STEP_SIZE), x, operator)}
    for form, adj in forms.items():
        passes[f"APPNP, {form}"] = _pass(APPNP(steps, 0.1, cached=True), x, adj)
        passes[f"SGConv, {form}"] = _pass(SGConv(classes, classes, steps), x, adj)
    return passes


def against_peers(harness: Harness, data: Data, operator: DiffusionOperator) -> list[Row]:
    """Seconds and memory at K = 10, and memory against K."""
    x = torch.randn(data.num_nodes, data.num_classes, requires_grad=True)
    case = f"{data.num_nodes} nodes, {data.num_edges} edges, {data.num_classes} columns"
    passes = _peers(data, x, STEPS, operator)
    rows = harness.compare(f"{case}, K = {STEPS}", passes, ours="ours", repeats=3)
    for row in rows:
        row["gib"] = peak_memory(passes[row["name"]])
    for steps in (1, 5, 20):
        for name, run in _peers(data, x, steps, operator).items():
            run()  # fills the caches of the layers
            rows.append({"case": f"{case}, K = {steps}", "name": name, "gib": peak_memory(run)})
    return rows


def _bandwidth() -> float:
    """Bytes a second of reading and writing memory, from copies far larger than the caches."""
    source = torch.ones(1 << 27)
    target = torch.empty_like(source)
    seconds = []
    for _ in range(4):
        start = time.perf_counter()
        target.copy_(source)
        seconds.append(time.perf_counter() - start)
    return 2 * source.nbytes / min(seconds)


def large_pass(data: Data, operator: DiffusionOperator, build: float, repeats: int) -> Row:
    """One forward and backward pass with the share of the bandwidth that it reaches.

    Counted are the bytes that any order of the nodes must move: the matrix once and the features
    once in and once out a step. ``gathered`` counts every neighbour's row as if it came from
    memory.
    """
    x = torch.randn(data.num_nodes, data.num_classes, requires_grad=True)
    run = _pass(DiffConv(STEPS, STEP_SIZE), x, operator)
    memory = peak_memory(run)
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    matrix = sum(part.nbytes for part in operator.csr())
    moved = 2 * STEPS * (matrix + 2 * x.nbytes)
    gathered = 2 * STEPS * (matrix + operator.nnz * x.size(1) * 4 + x.nbytes)
    bandwidth = _bandwidth()
    updates = 2 * STEPS * operator.nnz * x.size(1)
    return {
        "case": f"{data.num_nodes} nodes, {operator.nnz} entries, {x.size(1)} columns, K = {STEPS}",
        "name": "ours",
        "seconds": min(seconds),
        "gib": memory,
        "process_gib": _status("VmHWM") / 2**20,
        "build_seconds": build,
        "bandwidth_gb_s": bandwidth / 1e9,
        "share_of_bandwidth": moved / min(seconds) / bandwidth,
        "share_of_bandwidth_gathered": gathered / min(seconds) / bandwidth,
        "ns_per_edge_step_column": 1e9 * min(seconds) / updates,
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
        rows.append(large_pass(data, operator, build, repeats=1 if shape == "products" else 5))
    return [{"suite": "ogb", **row} for row in rows]
