"""One graph on one process and in parts on 1, 2 and 4 ranks of one thread: time, memory, traffic.

``GiB`` is the peak of the largest process, build and imports included; ``MB a step`` what went over
the loopback device in a step, ``predicted`` what the model of docs/scale.md says.
"""

import dataclasses
import multiprocessing
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from benchmarks.ogb.make import SHAPES, block_model
from torch_geometric_diff.data.ogb import undirected
from torch_geometric_diff.ops import DiffusionOperator, PartitionedOperator, diffuse

from .harness import Harness

Row = dict[str, Any]
STEPS, STEP_SIZE = 2, 0.02


def _status(name: str) -> float:
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith(name)) / 2**20


def _sent() -> int:
    """Bytes that the loopback device has sent."""
    with open("/proc/net/dev") as file:
        lines = [line.split() for line in file if line.strip().startswith("lo:")]
    return int(lines[0][9]) if lines else 0


def _measure(rank: int, size: int, folder: str, num_nodes: int, columns: int) -> None:
    """One process of ``size`` ranks; of 0, the operator of one process on all threads."""
    edges = np.load(f"{folder}/edges.npy", mmap_mode="r")
    count, start = edges.shape[1], time.perf_counter()
    torch.set_num_threads(1 if size else os.cpu_count() or 1)
    if size > 1:
        settings: Any = {"rank": rank, "world_size": size}
        dist.init_process_group("gloo", init_method=f"file://{folder}/store{size}", **settings)
    if size == 0:
        index = undirected(torch.from_numpy(np.array(edges)), num_nodes)
        operator: Any = DiffusionOperator(index, num_nodes=num_nodes, step_size=STEP_SIZE)
        del index
        rows, moved = num_nodes, {"cut": 0.0, "bytes": 0.0}
    else:
        own = edges[:, count * rank // size : count * (rank + 1) // size]
        operator = PartitionedOperator.from_edges(
            own, num_nodes=num_nodes, step_size=STEP_SIZE, undirected=True
        )
        rows, moved = operator.num_rows, operator.traffic(columns)
    built, memory = time.perf_counter() - start, _status("VmHWM")
    x = torch.randn(rows, columns, requires_grad=True)
    sent, start, used = _sent(), time.perf_counter(), time.process_time()
    diffuse(x, operator, STEPS).backward(torch.ones_like(x))
    if size > 1:
        dist.barrier()
    seconds, used, sent = time.perf_counter() - start, time.process_time() - used, _sent() - sent
    found = [
        seconds,
        used,
        built,
        memory,
        _status("VmHWM"),
        sent,
        operator.nnz,
        moved["cut"],
        moved["bytes"],
    ]
    np.save(f"{folder}/{size}-{rank}.npy", found)


def _predicted(edges: np.ndarray, num_nodes: int, size: int, width: int) -> float:
    """Bytes a step: a rank with a share 1 / size of the nodes reads a node of degree d of another
    with probability 1 - (1 - 1 / size)^d.
    """
    degree = np.bincount(edges.ravel(), minlength=num_nodes)
    read = 1 - (1 - 1 / size) ** degree
    return float((size - 1) * read.sum() * width)


def _on(size: int, folder: str, num_nodes: int, columns: int) -> Row:
    context = multiprocessing.get_context("spawn")
    ranks = [
        context.Process(target=_measure, args=(rank, size, folder, num_nodes, columns))
        for rank in range(max(size, 1))
    ]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join()
    if any(process.exitcode for process in ranks):
        raise OSError(f"a rank of {size} ended with {[each.exitcode for each in ranks]}")
    found = np.array([np.load(f"{folder}/{size}-{rank}.npy") for rank in range(max(size, 1))])
    seconds, used, built, building, memory, sent, nnz, cut, moved = found.T
    return {
        "name": f"{size} ranks of one thread" if size else "one process, all threads",
        "seconds": float(seconds.max()),
        "CPU seconds": float(used.sum()),
        "s to build": float(built.max()),
        "GiB, build": float(building.max()),
        "GiB": float(memory.max()),
        "entries": int(nnz.sum()),
        "cut": float(cut[0]),
        "MB a step": float(sent.max()) / (2 * STEPS) / 1e6,
        "MB a step, halos": float(moved[0]) / 1e6,
    }


def run(harness: Harness, quick: bool) -> list[Row]:
    """The rows of the suite; ``PARTITION_EDGES`` may name a file of products' edges."""
    rows = []
    for name in ("small",) if quick else ("arxiv", "products"):
        shape = dataclasses.replace(SHAPES[name], features=1)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "edges.npy"
            given = os.environ.get("PARTITION_EDGES", "")
            if given and not quick:
                path.symlink_to(Path(given) / f"{name}.npy")
            else:
                np.save(path, block_model(shape, seed=0)[0]["edge_index"])
            edges = np.load(path, mmap_mode="r")
            found = [_on(size, folder, shape.nodes, shape.classes) for size in (0, 1, 2, 4)]
            for row, size in zip(found, (0, 1, 2, 4), strict=True):
                row["case"] = f"{name}: {shape.nodes} nodes, {shape.classes} columns, K = {STEPS}"
                row["ratio"] = row["seconds"] / found[0]["seconds"]
                row["CPU ratio"] = row["CPU seconds"] / found[0]["CPU seconds"]
                row["memory ratio"] = row["GiB"] / found[0]["GiB"]
                if size:
                    width = shape.classes * 4
                    row["MB a step, predicted"] = _predicted(edges, shape.nodes, size, width) / 1e6
            rows += found
    return rows
