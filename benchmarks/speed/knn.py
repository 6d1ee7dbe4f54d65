"""Building a kNN graph on the CPU: ours, torch_cluster, scikit-learn and scipy's cKDTree.

Every peer makes all neighbors of all points from scratch, trees included. In high dimension, where
trees take minutes, they are asked for some points alone: their time for all follows from that.
"""

from __future__ import annotations

import importlib.util
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import psutil
import torch
from torch import Tensor

from torch_geometric_diff.graph import knn_graph
from torch_geometric_diff.graph.neighbors import BLOCK_BYTES

if TYPE_CHECKING:
    from benchmarks.speed.harness import Harness

OURS = "knn_graph"
CASES = ((20_000, 32, 8), (20_000, 512, 20), (1_000_000, 3, 10))
ASKED = 400  # points of which slow peers are asked
QUICK = ((20_000, 32, 8), (2_000, 512, 20), (50_000, 3, 10))


def peers(x: Tensor, k: int) -> dict[str, Callable[[], object]]:
    """The peers that are installed."""
    found: dict[str, Callable[[], object]] = {}
    points, threads = x.numpy(), torch.get_num_threads()
    if importlib.util.find_spec("torch_cluster") is not None:
        from torch_cluster import knn_graph as torch_cluster_graph

        found["torch_cluster"] = lambda: torch_cluster_graph(x, k, num_workers=threads)
    if importlib.util.find_spec("sklearn") is not None:
        from sklearn.neighbors import NearestNeighbors

        found["scikit-learn"] = lambda: (
            NearestNeighbors(n_neighbors=k, n_jobs=threads).fit(points).kneighbors()
        )
    from scipy.spatial import cKDTree

    found["cKDTree"] = lambda: cKDTree(points).query(points, k + 1, workers=threads)
    return found


def slow_peers(x: Tensor, k: int, asked: int) -> dict[str, float]:
    """Seconds of the peers whose trees see nearly all points in high dimension: a tree over all
    points, asked for the neighbors of the first few, as if for all.
    """
    from scipy.spatial import cKDTree

    points, threads, share = x.numpy(), torch.get_num_threads(), len(x) / asked
    start = time.perf_counter()
    tree = cKDTree(points)
    built = time.perf_counter() - start
    taken = seconds(lambda: tree.query(points[:asked], k + 1, workers=threads))
    found = {"cKDTree": built + share * taken}
    if importlib.util.find_spec("torch_cluster") is not None:
        from torch_cluster import knn

        built = seconds(lambda: knn(x, x[:1], k + 1, num_workers=threads))
        taken = seconds(lambda: knn(x, x[:asked], k + 1, num_workers=threads))
        found["torch_cluster"] = built + share * (taken - built)
    return found


def seconds(call: Callable[[], object]) -> float:
    """The time of one call."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def peak_bytes(call: Callable[[], object]) -> int:
    """By how much a call raises the memory of the process at most, sampled each millisecond."""
    process, done, peak = psutil.Process(), threading.Event(), 0
    before = process.memory_info().rss

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.001):
            peak = max(peak, process.memory_info().rss - before)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        call()
    finally:
        done.set()
        watcher.join()
    return peak


def batched(harness: Harness, sizes: list[int], dim: int, k: int) -> list[dict[str, Any]]:
    """Sets of points: against a padded distance matrix and against a tree for each set."""
    from scipy.spatial import cKDTree

    x = torch.randn(sum(sizes), dim, generator=torch.Generator().manual_seed(0))
    batch = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
    arrays = [part.numpy() for part in x.split(sizes)]
    candidates: dict[str, Callable[[], object]] = {
        OURS: lambda: knn_graph(x, k, batch),
        "cKDTree a set": lambda: [cKDTree(points).query(points, k + 1) for points in arrays],
    }
    if len(sizes) * max(sizes) ** 2 < 1e8:
        # the points are padded once, outside; the columns are taken as they are
        padded = torch.nn.utils.rnn.pad_sequence(
            x.split(sizes), batch_first=True, padding_value=1e9
        )
        candidates["padded cdist + topk"] = lambda: (
            torch.cdist(padded, padded).topk(k + 1, largest=False).indices
        )
    if importlib.util.find_spec("torch_cluster") is not None:
        from torch_cluster import knn_graph as torch_cluster_graph

        candidates["torch_cluster"] = lambda: torch_cluster_graph(x, k, batch)
    span = f"{min(sizes)} to {max(sizes)}" if min(sizes) < max(sizes) else f"{sizes[0]}"
    case = f"{len(sizes)} sets of {span} points ({sum(sizes)} x {dim}), k = {k}"
    return harness.compare(case, candidates, ours=OURS, repeats=7)


def mixed_sizes(largest: int, points: int) -> list[int]:
    """Sizes from 1 to ``largest``, as many of 1 to 10 as of 10 to 100 and so on."""
    generator, sizes = torch.Generator().manual_seed(1), [largest]
    while sum(sizes) < points:
        sizes.append(int(largest ** float(torch.rand((), generator=generator))))
    return sizes


SETS = (
    [30] * 128,
    [1000] * 20,
    [10_000] * 2,
    mixed_sizes(10_000, 60_000),
    mixed_sizes(300, 20_000),
)
QUICK_SETS = ([30] * 128, mixed_sizes(1000, 5000))


def run(harness: Harness, quick: bool) -> list[dict[str, Any]]:
    """The rows of the suite; ours also says what memory it took beside its input."""
    rows: list[dict[str, Any]] = []
    for sizes in QUICK_SETS if quick else SETS:
        rows += batched(harness, sizes, 3, 8)
    for num_points, dim, k in QUICK if quick else CASES:
        x = torch.randn(num_points, dim, generator=torch.Generator().manual_seed(0))
        case = f"{num_points} x {dim}, k = {k}"

        def ours(x: Tensor = x, k: int = k) -> Tensor:
            return knn_graph(x, k)

        memory = peak_bytes(ours)
        candidates = peers(x, k)
        slow = slow_peers(x, k, ASKED) if dim > 16 else {}
        for name in slow:
            del candidates[name]
        repeats = 3 if x.numel() < 1e6 else 2
        found = harness.compare(case, {OURS: ours, **candidates}, ours=OURS, repeats=repeats)
        reference = next(row["seconds"] for row in found if row["name"] == OURS)
        for name, taken in slow.items():
            ratio = taken / reference
            row = {"case": case, "name": name, "seconds": taken, "ratio": ratio, "repeats": 1}
            found.append({**row, "asked": ASKED})
        for row in found:
            if row["name"] == OURS:
                output = num_points * k * 2 * 8
                row |= {"peak_bytes": memory, "block_bytes": BLOCK_BYTES, "output_bytes": output}
        rows += found
    return rows
