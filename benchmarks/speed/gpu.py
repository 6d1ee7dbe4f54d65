"""Everything that needs a card in one command: the GPU tests, then speed against what is used.

python -m benchmarks.speed.gpu

writes benchmarks/results/speed/gpu-CARD.json. Without a card, --compile compiles the kernels (see
machine_code.py) and --paper counts what calls cost (gpu_costs.py); all else says so in one line and
exits with 2. Peers: products of torch.sparse (cuSPARSE) with the matrix and its transpose made
once, PyG's layers, torch_cluster, DGL if it is there.
"""

import argparse
import importlib.util
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import flags

if __name__ == "__main__":  # a typo waits for no import
    flags.gpu(__doc__).parse_args()

import torch
import torch.nn.functional as F
import torch_geometric.nn as pyg
from torch import Tensor

from benchmarks.common import command_line, environment, write_atomically
from benchmarks.rows import RESULTS
from benchmarks.speed import gpu_costs, machine_code
from benchmarks.speed.__main__ import table
from benchmarks.speed.graphs import Case, arxiv, citation, synthetic
from benchmarks.speed.harness import Harness, Row
from benchmarks.speed.kernels import GatherScatter
from torch_geometric_diff import DiffusionOperator, SparseOperator, diffuse, knn_graph, nn

ROOT = Path(__file__).parents[2]
CUSPARSE = "torch.sparse (cuSPARSE)"
ALPHA = 0.1

Step = Callable[[Tensor], Tensor]


class Product(torch.autograd.Function):
    """A product of torch.sparse whose backward multiplies with a transpose that is at hand."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, matrix: Tensor, transpose: Tensor) -> Tensor:
        """The product."""
        ctx.transpose = transpose
        return matrix @ x

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        """The product with the transpose."""
        return ctx.transpose @ grads[0], None, None


def cusparse(operator: SparseOperator) -> Step:
    """One step by torch.sparse."""
    size = (operator.num_nodes, operator.num_nodes)
    matrix, transpose = (
        torch.sparse_csr_tensor(*operator.csr(transpose=which), size, check_invariants=False)
        for which in (False, True)
    )
    return lambda x: Product.apply(x, matrix, transpose)


def of_dgl(operator: SparseOperator) -> Step | None:
    """One step by DGL, if it is there and was built for the device."""
    if importlib.util.find_spec("dgl") is None:
        return None
    import dgl.sparse

    size = (operator.num_nodes, operator.num_nodes)
    try:
        matrix = dgl.sparse.from_csr(*operator.csr(), size)
        matrix @ torch.ones(size[0], 1, device=operator.device)
    except Exception as error:  # what it raises depends on its build
        print(f"DGL is left out: {error}", file=sys.stderr)
        return None
    return lambda x: matrix @ x


def on_paper(case: Case, nnz: int, num_steps: int) -> str:
    """The bounds of a step, by the L2 cache and by memory, on the cards of docs/gpu.md."""
    sizes = (case.num_nodes, nnz, 256, case.channels, num_steps)
    found = gpu_costs.cost(*sizes, torch.float32)
    times = ((name, *found.seconds(card)) for name, card in gpu_costs.CARDS.items())
    each = (f"{name} {1e6 * l2:.1f} / {1e6 * memory:.1f} us" for name, l2, memory in times)
    return f"on paper, {case.name}, a step forward: {', '.join(each)}"


def both(forward: Callable[[Tensor], Tensor], x: Tensor) -> Callable[[], None]:
    """Forward and backward."""
    grad = torch.rand_like(forward(x).detach())

    def run() -> None:
        forward(x).backward(grad)
        x.grad = None

    return run


def features(case: Case, device: str) -> Tensor:
    """Features of a case."""
    return torch.rand(case.num_nodes, case.channels, device=device, requires_grad=True)


def kernels(harness: Harness, case: Case, num_steps: int, device: str) -> list[Row]:
    """K steps of diffusion with and without dropout, and building their matrix."""
    edge_index = case.edge_index.to(device)
    settings: dict[str, Any] = {"num_nodes": case.num_nodes, "step_size": 0.1}
    operator = DiffusionOperator(edge_index, **settings)
    x, product, scatter = features(case, device), cusparse(operator), GatherScatter()
    coo = torch.stack([operator.col, operator.rows()]).long()

    def loop(step: Step, dropout: float) -> Step:
        def run(z: Tensor) -> Tensor:
            for _ in range(num_steps):
                z = step(F.dropout(z, dropout) if dropout else z)
            return z

        return run

    if device == "cuda":
        print(on_paper(case, operator.nnz, num_steps))
    dgl_product = of_dgl(operator)
    rows: list[Row] = []
    for dropout in (0.0, 0.25):
        peers: dict[str, Step] = {CUSPARSE: product}
        if dgl_product is not None:
            peers["DGL"] = dgl_product
        if case.channels * operator.nnz < 2e8:  # messages of all edges fit
            peers["gather-scatter MessagePassing"] = lambda z: scatter(z, coo, operator.value)
        ours: Any = lambda z, p=dropout: diffuse(z, operator, num_steps, p)  # noqa: E731
        candidates = {"ours": both(ours, x)}
        candidates |= {name: both(loop(step, dropout), x) for name, step in peers.items()}
        title = f"{case.name} ({case.num_nodes} x {case.channels}), K = {num_steps}"
        rows += harness.compare(
            f"{title}, dropout {dropout:g}, forward + backward", candidates, ours="ours", repeats=20
        )
    build = {
        "ours": lambda: DiffusionOperator(edge_index, **settings),
        "PyG gcn_norm": lambda: pyg.conv.gcn_conv.gcn_norm(edge_index, num_nodes=case.num_nodes),
    }
    return rows + harness.compare(f"operator of {case.name}", build, ours="ours", repeats=10)


def propagation(harness: Harness, case: Case, device: str) -> list[Row]:
    """APPNP and SGC, ten steps, their matrix built once."""
    edge_index, x = case.edge_index.to(device), features(case, device)
    product = cusparse(SparseOperator.gcn_norm(edge_index, num_nodes=case.num_nodes))

    def teleport(z: Tensor) -> Tensor:
        out = z
        for _ in range(10):
            out = (1 - ALPHA) * product(out) + ALPHA * z
        return out

    def layer(module: torch.nn.Module) -> Callable[[], None]:
        module = module.to(device)
        return both(lambda z: module(z, edge_index), x)

    title = f"{case.name} ({case.num_nodes} x {case.channels}), K = 10, forward + backward"
    rows = harness.compare(
        f"APPNP, cached: {title}",
        {
            "ours": layer(nn.APPNP(10, ALPHA, cached=True)),
            CUSPARSE: both(teleport, x),
            "PyG": layer(pyg.APPNP(10, ALPHA, cached=True)),
        },
        ours="ours",
        repeats=20,
    )
    sizes = (case.channels, 16, 10)
    return rows + harness.compare(
        f"SGConv to 16 channels: {title}",
        {"ours": layer(nn.SGConv(*sizes)), "PyG": layer(pyg.SGConv(*sizes))},
        ours="ours",
        repeats=10,
    )


def neighbours(harness: Harness, size: int, width: int, k: int, device: str) -> list[Row]:
    """kNN graphs."""
    x = torch.rand(size, width, device=device)
    candidates: dict[str, Callable[[], object]] = {
        "ours": lambda: knn_graph(x, k),
        "torch.cdist and topk": lambda: torch.cdist(x, x).topk(k + 1, largest=False),
    }
    if size > 30_000:
        del candidates["torch.cdist and topk"]  # all distances at once do not fit
    if importlib.util.find_spec("torch_cluster") is not None:
        import torch_cluster

        try:
            torch_cluster.knn_graph(x[:10], 2)
            candidates["torch_cluster"] = lambda: torch_cluster.knn_graph(x, k)
        except RuntimeError:
            pass  # built for the CPU alone
    return harness.compare(f"kNN graph of {size} x {width}, k = {k}", candidates, ours="ours")


def suites(device: str, quick: bool = False) -> list[Row]:
    """All rows."""
    harness = Harness()
    if quick:
        small = synthetic("small", 300, 900, 8)
        rows = kernels(harness, small, 3, device) + propagation(harness, small, device)
        return rows + neighbours(harness, 300, 8, 4, device)
    rows = []
    for case, num_steps in ((citation("cora"), 20), (citation("pubmed"), 20), (arxiv(True), 10)):
        rows += kernels(harness, case, num_steps, device) + propagation(harness, case, device)
    for size, width, k in ((20_000, 32, 8), (20_000, 512, 20), (200_000, 3, 10)):
        rows += neighbours(harness, size, width, k, device)
    return rows


def bandwidth(device: str, size: int = 1 << 28) -> float:
    """Bytes a second of a large copy, read and write counted."""
    source = torch.ones(size, device=device)
    target = torch.empty_like(source)
    rows = Harness().compare("copy", {"copy": lambda: target.copy_(source)}, ours="copy")
    return 2 * source.nbytes / rows[0]["seconds"]


def run_tests() -> int:
    """Every test file that names the device; the number that pytest ends with."""
    named = (path for path in (ROOT / "tests").rglob("test_*.py") if "cuda" in path.read_text())
    command = [sys.executable, "-m", "pytest", "-q", *map(str, sorted(named))]
    return subprocess.run(command, cwd=ROOT, check=False).returncode


def compile_kernels(args: argparse.Namespace) -> None:
    """The table of kernels; ends with 1 if one has what it must not have."""
    if importlib.util.find_spec("triton") is None:
        print("no Triton: pip install triton", file=sys.stderr)
        raise SystemExit(2)
    archs = [machine_code.CARDS[args.card]] if args.card else [*machine_code.CARDS.values()]
    rows = machine_code.table(archs, args.quick)
    print(machine_code.as_text(rows))
    if args.json:
        with write_atomically(args.json) as temporary:
            temporary.write_text(json.dumps(rows, indent=1) + "\n")
    failed = [(row, what) for row in rows for what in machine_code.faults(row)]
    for row, what in failed:
        print("error:", *(row[name] for name in machine_code.Case._fields), what, file=sys.stderr)
    if failed:
        raise SystemExit(1)


def main(argv: list[str] | None = None) -> None:
    """Test, time and write."""
    p = flags.gpu(__doc__)
    args = p.parse_args(argv)
    if args.paper:
        print(gpu_costs.as_markdown(gpu_costs.table()))
        return
    if args.compile:
        compile_kernels(args)
        return
    if args.card or args.json:
        p.error("--card and --json go with --compile")
    if not torch.cuda.is_available():
        print(f"no GPU: torch {torch.__version__} finds no CUDA device", file=sys.stderr)
        raise SystemExit(2)
    card = torch.cuda.get_device_name()
    slug = re.sub(r"[^a-z0-9]+", "-", card.lower()).strip("-")
    out = args.out or RESULTS / "speed" / f"gpu-{slug}.json"
    failed = 0 if args.quick else run_tests()
    rows = [{"suite": "gpu", **row} for row in suites("cuda", args.quick)]
    record = {
        "environment": environment() | {"card": card, "cuda": torch.version.cuda},
        "copy_bytes_per_second": bandwidth("cuda"),
        "rows": rows,
    }
    print(table(rows))
    with write_atomically(out) as temporary:
        temporary.write_text(json.dumps(record, indent=1) + "\n")
    print(f"wrote {out}")
    if failed:
        print(f"error: GPU tests failed (pytest ended with {failed})", file=sys.stderr)
        raise SystemExit(1)


if __name__ == "__main__":
    command_line(main)
