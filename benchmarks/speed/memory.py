"""Peak memory of forward and backward against the number of steps, each in a process of its own."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.speed.graphs import citation
from benchmarks.speed.harness import Harness
from benchmarks.speed.kernels import peer, steps
from torch_geometric_diff import DiffusionOperator, diffuse

DROPOUT = 0.25
OURS = "ours"
PEERS = ("torch.sparse.mm(csr, x, 'sum')", "gather-scatter MessagePassing")


def resident(key: str) -> int:
    """``VmRSS``, the resident bytes of this process, or ``VmHWM``, the most so far (Linux only)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(key):
            return 1024 * int(line.split()[1])
    raise ValueError(f"Expected '/proc/self/status' to hold {key!r}; this suite needs Linux")


def measure(name: str, num_steps: int) -> dict[str, float]:
    """Bytes and seconds of one forward and backward pass, beside the graph and the input."""
    case = citation("cora")
    operator = DiffusionOperator(case.edge_index, num_nodes=case.num_nodes, step_size=0.1)
    x = torch.rand(case.num_nodes, case.channels, requires_grad=True)

    def run() -> None:
        if name == OURS:
            out = diffuse(x, operator, num_steps, DROPOUT)
        else:
            out = peer(steps(operator)[name], x, num_steps, DROPOUT)
        out.backward(torch.ones_like(out))
        x.grad = None

    Path("/proc/self/clear_refs").write_text("5")  # VmHWM starts anew
    before = resident("VmRSS")
    start = time.perf_counter()
    run()
    return {"seconds": time.perf_counter() - start, "bytes": resident("VmHWM") - before}


def in_child(module: str, *arguments: str) -> dict[str, float]:
    """What a suite measures in a process of its own.

    There the C library maps larger arrays one by one and unmaps them when they are freed: the
    resident set is what is alive, not what is kept for later.
    """
    command = [sys.executable, "-W", "ignore", "-m", module, *arguments]
    done = subprocess.run(
        command,
        cwd=Path(__file__).parents[2],
        env={**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536"},
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return result


def run(harness: Harness, quick: bool) -> list[dict[str, Any]]:
    """The rows of the suite; here the ratio is that of the bytes."""
    if not Path("/proc/self/clear_refs").exists():
        raise ValueError("Expected Linux for '--suite memory': it reads '/proc/self' (got none)")
    rows = []
    for num_steps in (2, 20) if quick else (2, 10, 20, 100):
        # 100 steps of messages would take 7 GB
        names = (OURS, *PEERS) if num_steps <= 20 else (OURS, PEERS[0])
        taken = {name: in_child(__spec__.name, name, str(num_steps)) for name in names}
        for name, row in taken.items():
            rows.append(
                {
                    "case": f"cora, K = {num_steps}, dropout {DROPOUT:g}, memory of both passes",
                    "name": name,
                    "seconds": row["seconds"],
                    "ratio": row["bytes"] / taken[OURS]["bytes"],
                    "MB": row["bytes"] / 1e6,
                }
            )
    return rows


if __name__ == "__main__":
    print(json.dumps(measure(sys.argv[1], int(sys.argv[2]))))
