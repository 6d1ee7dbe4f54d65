"""What the commands do with ``--partition``: no rank has all edges or all rows."""

import argparse
import copy
import json
import os
import shutil
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor
from torch.distributed.nn.functional import all_reduce
from torch.nn import BatchNorm1d, Module
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Adam
from torch_geometric.nn import MLP
from tqdm import tqdm

from benchmarks.common import EarlyStopping, environment, make_folder, write_atomically
from benchmarks.common.edges import EdgeFile
from benchmarks.common.partitions import partition_nodes
from benchmarks.common.ranks import joined_ranks
from benchmarks.ogb.models import PropagatedMLP, WideDiffResNet
from benchmarks.rows import Results, summary
from torch_geometric_diff.data.ogb import load_ogb, unpack_features
from torch_geometric_diff.ops import PartitionedOperator, diffuse

Row = dict[str, Any]


def wait() -> None:
    """Until all ranks are here."""
    if dist.is_initialized():
        dist.barrier()


def told(value: Any) -> Any:
    """An object of the first rank, on all."""
    values = [value]
    if dist.is_initialized():
        dist.broadcast_object_list(values)
    return values[0]


def map_features(args: argparse.Namespace, folder: Path, rank: int) -> np.ndarray:
    """The features, mapped to a file: the one given, or a copy of the set's own in ``folder``."""
    path = args.features
    if path is None:
        path = folder / "features.npy"
        if rank == 0 and not path.exists():
            try:
                unpack_features(args.dataset, path, args.root)
            except FileNotFoundError:  # csv, of a small set
                data = load_ogb(args.dataset, args.root, edges=False)
                if data.x is None:
                    raise ValueError(
                        f"'{args.dataset}' has no node features; pass '--features'"
                    ) from None
                with write_atomically(path) as temporary:
                    with open(temporary, "wb") as file:
                        np.save(file, data.x.numpy())
        wait()
    return np.load(path, mmap_mode="r", allow_pickle=False)


def parts_of(args: argparse.Namespace, num_nodes: int, folder: Path, size: int) -> Any:
    """The rank of every node, found once by the first rank, mapped by all; None for ranges."""
    if args.order == "ranges" or size == 1:
        return None
    path = folder / f"parts-{args.order}-{size}.npy"
    if not path.exists():
        if int(os.environ.get("RANK", 0)) == 0:
            blocks = [*EdgeFile(args.dataset, args.root).share(0, 1)]
            edge_index = torch.from_numpy(np.concatenate(blocks, axis=1))
            found = partition_nodes(edge_index, num_nodes, size, args.order)
            with write_atomically(path) as temporary, open(temporary, "wb") as file:
                np.save(file, found.numpy().astype(np.int32))
        wait()
    return np.load(path, mmap_mode="r")


def open_parts(
    args: argparse.Namespace, num_nodes: int, folder: Path, columns: int, **settings: Any
) -> PartitionedOperator:
    """The rows of this rank of a set's undirected graph; says what a step moves."""
    rank, size = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    parts = parts_of(args, num_nodes, folder, size)
    blocks = EdgeFile(args.dataset, args.root).share(rank, size)
    settings |= {"num_nodes": num_nodes, "parts": parts, "undirected": True}
    operator = PartitionedOperator.from_edges(blocks, **settings)
    moved = operator.traffic(columns)
    if rank == 0:
        print(
            f"{size} ranks of {num_nodes} nodes: {100 * moved['cut']:.1f} % of the entries are cut;"
            f" a step of {columns} columns sends {moved['bytes'] / 1e6:,.1f} MB, the busiest rank "
            f"{moved['largest'] / 1e6:,.1f} MB",
            flush=True,
        )
    return operator


class MappedResult:
    """A result file that is filled block by block of columns, in a folder beside it.

    It appears under its name when it is whole. The first rank writes down which blocks are there;
    the same plan goes on with the others, on any number of ranks.
    """

    def __init__(self, out: Path, plan: Row, resume: bool, rank: int) -> None:
        self.out, self.folder, self.rank = out, out.with_name(f"{out.name}.parts"), rank
        self.file, self.log = self.folder / "result.npy", self.folder / "done.json"
        if rank == 0:
            self._begin(plan, resume)
        wait()
        self.done: list[int] = json.loads(self.log.read_text())["blocks"]
        self.array = np.load(self.file, mmap_mode="r+")

    def _begin(self, plan: Row, resume: bool) -> None:
        if self.out.exists():
            raise ValueError(f"'{self.out}' already exists; remove it or choose another '--out'")
        if self.log.exists() and resume:
            found = json.loads(self.log.read_text())["plan"]
            for name, value in plan.items():
                if found.get(name) != value:
                    raise ValueError(
                        f"'{self.folder}' holds blocks of another run: {name} is "
                        f"{found.get(name)} there and {value} here; pass '--no_resume'"
                    )
            return
        self.log.unlink(missing_ok=True)
        with open(self.file, "wb") as file:
            header = {"descr": plan["dtype"], "fortran_order": False, "shape": tuple(plan["shape"])}
            np.lib.format.write_array_header_2_0(file, header)
            size = int(np.prod(plan["shape"])) * np.dtype(plan["dtype"]).itemsize
            os.posix_fallocate(file.fileno(), file.tell(), max(size, 1))  # a full disk says so here
        self._write(plan, [])

    def _write(self, plan: Row, blocks: list[int]) -> None:
        with write_atomically(self.log) as temporary:
            temporary.write_text(json.dumps({"plan": plan, "blocks": blocks}))

    def finish_block(self, block: int) -> None:
        """Write down that all ranks have written a block."""
        self.array.flush()
        wait()
        self.done.append(block)
        if self.rank == 0:
            self._write(json.loads(self.log.read_text())["plan"], self.done)

    def finish(self) -> None:
        """Give the file its name."""
        wait()
        if self.rank == 0:
            with open(self.file, "rb") as file:
                os.fsync(file.fileno())
            os.replace(self.file, self.out)
            shutil.rmtree(self.folder)
        wait()


def diffuse_in_parts(args: argparse.Namespace) -> None:
    """The features after some steps, of every rank's rows, in one file."""
    with joined_ranks() as (rank, _size), make_folder(args.out.parent):
        folder = args.out.with_name(f"{args.out.name}.parts")
        with make_folder(folder):
            _diffuse_in_parts(args, folder, rank)


def _diffuse_in_parts(args: argparse.Namespace, folder: Path, rank: int) -> None:
    steps: Sequence[int] = args.num_steps
    if min(steps) < 0 or any(a >= b for a, b in pairwise(steps)) or args.block_columns < 1:
        raise ValueError(
            f"Expected '--num_steps' to ascend from 0 on and '--block_columns' to be positive "
            f"(got {steps} and {args.block_columns})"
        )
    features = map_features(args, folder, rank)
    num_nodes = load_ogb(args.dataset, args.root, features=False, edges=False).num_nodes
    if features.ndim != 2 or len(features) != num_nodes:
        raise ValueError(
            f"'{args.features}' has shape {list(features.shape)}, expected [{num_nodes}, F]"
        )
    columns = features.shape[1]
    dtype = np.result_type(features.dtype, np.float32)
    stat = EdgeFile(args.dataset, args.root).path.stat()
    plan = {
        "dataset": [str(args.dataset), stat.st_size, stat.st_mtime_ns],
        "features": None if args.features is None else [str(args.features.resolve())],
        "shape": [len(steps), num_nodes, columns],
        "dtype": dtype.str,
        "num_steps": list(steps),
        "step_size": args.step_size,
        "normalization": args.normalization,
        "block_columns": args.block_columns,
    }
    result = MappedResult(args.out, plan, not args.no_resume, rank)
    settings = {"step_size": args.step_size, "normalization": args.normalization}
    operator = open_parts(
        args, num_nodes, folder, min(args.block_columns, columns), kind="diffusion", **settings
    )
    rows: Any = operator.nodes.numpy()
    if len(rows) and rows[-1] - rows[0] + 1 == len(rows):
        rows = slice(int(rows[0]), int(rows[-1]) + 1)
    bounds = [*range(0, max(columns, 1), args.block_columns), columns]
    blocks = [block for block in enumerate(pairwise(bounds)) if block[0] not in result.done]
    for number, (first, last) in tqdm(blocks, disable=None if rank == 0 else True, unit="block"):
        own = np.ascontiguousarray(features[rows, first:last]).astype(dtype, copy=False)
        x, done = torch.from_numpy(own), 0
        if not bool(x.isfinite().all()):
            raise ValueError(f"Expected 'x' to be finite (columns {first} to {last} are not)")
        for place, k in enumerate(steps):
            x, done = diffuse(x, operator, k - done), k
            result.array[place, rows, first:last] = x.numpy()
        result.finish_block(number)
    result.finish()
    if rank == 0:
        print(f"wrote {args.out} {plan['shape']}")


class SyncedBatchNorm(BatchNorm1d):
    """Batch norm over the rows of all ranks, on the CPU too, where torch has none."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        count = sums(len(x))[0]
        mean = _total(x.sum(0)) / count
        var = _total((x - mean).square().sum(0)) / count
        with torch.no_grad():
            unbiased = var * count / max(count - 1, 1)
            for running, now in ((self.running_mean, mean), (self.running_var, unbiased)):
                running.lerp_(now, self.momentum or 0.0)  # type: ignore[union-attr]
        return (x - mean) * (var + self.eps).rsqrt() * self.weight + self.bias


def _total(x: Tensor) -> Tensor:
    """A sum over all ranks, through which gradients pass."""
    return all_reduce(x) if dist.is_initialized() else x


def synced(model: Module) -> Module:
    """The model with batch norms over all ranks, which hold the same numbers."""
    for name, child in model.named_children():
        if type(child) is BatchNorm1d:
            other = SyncedBatchNorm(child.num_features, child.eps, child.momentum)
            other.to(child.weight.dtype).load_state_dict(child.state_dict())
            setattr(model, name, other)
        else:
            synced(child)
    return model


def sums(*numbers: Tensor | float) -> list[float]:
    """Sums over all ranks."""
    total = torch.tensor([float(each) for each in numbers], dtype=torch.float64)
    if dist.is_initialized():
        dist.all_reduce(total)
    return total.tolist()


class RankData:
    """The rows of a set that a rank owns: features, labels and its nodes of the split."""

    def __init__(self, args: argparse.Namespace, folder: Path, rank: int, settings: Row) -> None:
        data = load_ogb(args.dataset, args.root, features=False, edges=False)
        features = map_features(args, folder, rank)
        self.name, self.split = data.name, data.split
        self.num_classes, self.num_nodes = int(data.num_classes), int(data.num_nodes or 0)
        self.num_features = features.shape[1]
        self.operator = open_parts(args, self.num_nodes, folder, self.num_classes, **settings)
        nodes = self.operator.nodes
        self.x = torch.from_numpy(features[nodes.numpy()].astype(np.float32))
        self.y = data.y[nodes]
        self.parts = []
        for part in ("train", "valid", "test"):
            mask = torch.zeros(data.num_nodes, dtype=torch.bool)
            mask[data[f"{part}_index"]] = True
            self.parts.append(mask[nodes].nonzero().flatten())

    def measure(self, logits: Tensor, part: int) -> tuple[float, float]:
        """Loss and accuracy of a part of the split, over all ranks."""
        own = self.parts[part]
        loss = F.cross_entropy(logits[own], self.y[own], reduction="sum")
        hits = (logits[own].argmax(dim=-1) == self.y[own]).sum()
        loss_sum, hit_sum, count = sums(loss, hits, len(own))
        return loss_sum / count, hit_sum / count


def fit_in_parts(
    data: RankData, model: Module, *, lr: float, weight_decay: float, max_epochs: int, patience: int
) -> Row:
    """What :func:`benchmarks.common.fit` does, on the rows of all ranks."""
    model, own = synced(model), data.parts[0]
    size = dist.get_world_size() if dist.is_initialized() else 1
    (count,) = sums(len(own))
    # gradients are averaged over the ranks, which in the sum of the losses they are not
    parallel = DistributedDataParallel(model, broadcast_buffers=False) if size > 1 else model
    optimizer = Adam(model.parameters(), lr=lr, weight_decay=weight_decay)
    stopping, best = EarlyStopping(patience), copy.deepcopy(model.state_dict())
    for epoch in range(max_epochs):
        model.train()
        optimizer.zero_grad()
        logits = parallel(data.x, data.operator)
        loss = F.cross_entropy(logits[own], data.y[own], reduction="sum") * (size / count)
        loss.backward()
        optimizer.step()
        model.eval()
        with torch.no_grad():
            val_loss, val_acc = data.measure(model(data.x, data.operator), 1)
        if not np.isfinite(val_loss):
            raise ValueError(f"The loss is not finite in epoch {epoch}; lower 'lr' (got {lr})")
        if stopping.progress(val_loss, val_acc):
            best = copy.deepcopy(model.state_dict())
        if stopping.stop:
            break
    model.load_state_dict(best)
    with torch.no_grad():
        logits = model(data.x, data.operator)
    return {
        "test_acc": data.measure(logits, 2)[1],
        "val_acc": data.measure(logits, 1)[1],
        "best_epoch": stopping.best_epoch,
        "epochs": stopping.epochs,
    }


def make_model(name: str, data: RankData, settings: Row) -> Module:
    """A model that ends in diffusion."""
    hidden, layers = settings["hidden"], settings["num_layers"]
    widths = (data.num_features, hidden, layers, data.num_classes)
    if name == "diff-resnet":
        steps = settings["num_steps"], settings["step_size"]
        return WideDiffResNet(widths, settings["dropout"], *steps)
    channels = [widths[0], *[hidden] * (layers - 1), widths[3]]
    mlp = MLP(channels, dropout=settings["dropout"], norm="batch_norm")
    return PropagatedMLP(mlp, settings["num_steps"], settings["alpha"])


def train_in_parts(args: argparse.Namespace, settings: dict[str, tuple[Row, Row]]) -> None:
    """The seeds of every model; the first rank keeps the rows."""
    if unknown := sorted({*args.model} - {"diff-resnet", "appnp"}):
        raise ValueError(
            f"'--partition' is for 'diff-resnet' and 'appnp', which end in diffusion (got "
            f"{unknown})"
        )
    with joined_ranks() as (rank, _):
        folder = args.out.with_name(f"{args.out.name}.parts")
        with make_folder(args.out.parent), make_folder(folder):
            for place, name in enumerate(args.model):
                args.resume = args.resume or place > 0
                _train(args, name, settings[name], folder, rank)
            wait()
            if rank == 0:
                shutil.rmtree(folder, ignore_errors=True)


def _train(
    args: argparse.Namespace, name: str, settings: tuple[Row, Row], folder: Path, rank: int
) -> None:
    model_settings, training = settings
    kind: Row = {"kind": "gcn_norm"}
    if name == "diff-resnet":
        step_size = model_settings["step_size"]
        kind = {"kind": "diffusion", "step_size": step_size, "normalization": "row"}
    data = RankData(args, folder, rank, kind)
    header = {
        "dataset": data.name,
        "source": "ogb layout",
        "split_kind": f"official, {data.split}",
        "model": name,
        "seed": args.seed,
        "features": None,
        "evaluator": "accuracy",
        "settings": {**model_settings, **training},
    }
    results = Results(args.out, header, args.resume) if rank == 0 else None
    finished = told(None if results is None else results.finished)
    inits = [init for init in range(args.num_inits) if (0, init) not in finished]
    for init in tqdm(inits, disable=None if rank == 0 else True, unit="seed"):
        start, seed = time.perf_counter(), args.seed + init
        torch.manual_seed(seed)
        model = make_model(name, data, model_settings)
        torch.manual_seed(seed + (rank << 32))  # dropout of the dense part is a rank's own
        row = fit_in_parts(data, model, **training)
        row |= {"seconds": round(time.perf_counter() - start, 3)}
        if results is not None:
            row = {"split": 0, "init": init, "init_seed": seed, **row}
            results.file.append({**header, **row, "versions": environment()})
    if results is not None:
        done = {row["init"]: row for row in results.rows()}
        print(summary([done[init] for init in range(args.num_inits)]))
