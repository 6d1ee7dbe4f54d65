"""Diffusion of features that outgrow memory, as preprocessing for any model."""

import json
import os
import shutil
import zlib
from collections.abc import Iterator, Sequence
from contextlib import nullcontext, suppress
from itertools import pairwise
from numbers import Integral
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor
from tqdm import tqdm

from ._utils.files import locked, write_atomically
from ._utils.functorch import is_transformed
from .ops import DiffusionOperator, diffuse

_CHUNK = 1 << 26  # bytes of the result that are joined in memory at a time


def diffuse_features(
    x: Tensor | np.ndarray | str | Path,
    operator: DiffusionOperator,
    num_steps: int | Sequence[int],
    out: str | Path,
    *,
    block_columns: int = 32,
    resume: bool = True,
) -> np.ndarray:
    r"""Write :math:`\mathbf{P}^{k} \mathbf{X}` for several step counts :math:`k` into one npy file.

    This is diffusion as preprocessing (as SIGN and SGC do it): any model, with mini-batches or
    without a graph, can train on the result. Columns do not depend on each other, so a block of
    them goes through all steps alone and memory holds the operator and two blocks; input and output
    stay on disk. A finished block is a file in the folder ``OUT.blocks``: a killed run continues
    with the blocks that are missing.

    Under ``torchrun``, with ``torch.distributed`` initialized, ranks share the blocks and do not
    communicate between steps; they need one file system. The result is bit for bit that of one
    process.

    Args:
        x (Tensor, ndarray, str or Path): Features :math:`(N, F)`, or a ``.npy`` file, which is
            mapped. float16 and bfloat16 are computed and written as float32.
        operator (DiffusionOperator): The matrix :math:`\mathbf{P}`. A learned one counts with the
            values it has; no gradient passes.
        num_steps (int or sequence of int): Step counts, ascending; 0 is the input itself.
        out (str or Path): The ``.npy`` file to write. It appears only when it is whole.
        block_columns (int, optional): Columns of a block. One block is read from a file in rows
            with one pass over it, so take as many as fit into memory. (default: :obj:`32`)
        resume (bool, optional): Continue with the blocks of an earlier run of the same input,
            operator and step counts. (default: :obj:`True`)

    Returns:
        The file, mapped: shape :math:`(N, F)` for one step count, :math:`(S, N, F)` for a sequence
        of :math:`S`.

    Raises:
        FileNotFoundError: If ``x`` is a file that does not exist.
        ValueError: If the shape of ``x``, ``num_steps`` or ``block_columns`` are wrong, ``x`` is
            not finite, ``x`` is no npy file, ``out`` exists or another run is writing it, or
            finished blocks of another run are found, or damaged ones.
        TypeError: If ``x`` is none of the forms above or does not hold floating numbers.
        OSError: If the disk is full; finished blocks stay.

    Example:
        >>> import tempfile
        >>> operator = DiffusionOperator(torch.tensor([[0, 1], [1, 0]]), normalization=None)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     out = diffuse_features(torch.eye(2), operator, [0, 1], f"{folder}/out.npy")
        ...     print(out.shape, out[1].tolist())
        (2, 2, 2) [[0.75, 0.25], [0.25, 0.75]]
    """
    out = Path(out)
    features = _open(x)
    steps = _checked_steps(num_steps)
    if features.ndim != 2 or len(features) != operator.num_nodes:
        raise ValueError(
            f"Expected 'x' of shape [{operator.num_nodes}, F], one row a node of the graph "
            f"(got {list(features.shape)})"
        )
    if features.dtype.newbyteorder("=") not in (np.float16, np.float32, np.float64):
        raise TypeError(f"Expected 'x' to hold floating numbers (got {features.dtype})")
    if not _is_integer(block_columns) or block_columns < 1:
        raise ValueError(f"Expected 'block_columns' to be a positive integer (got {block_columns})")

    rank, ranks = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
    operator = operator.to(torch.float64 if features.dtype.itemsize == 8 else torch.float32)
    plan = _plan(x, features, operator, steps, int(block_columns))
    with locked(out) if rank == 0 else nullcontext():
        shape = features.shape if _is_integer(num_steps) else (len(steps), *features.shape)
        _diffuse_blocks(features, operator, plan, out, shape, resume, rank, ranks)
    return np.load(out, mmap_mode="r")


def _diffuse_blocks(
    features: np.ndarray,
    operator: DiffusionOperator,
    plan: dict[str, Any],
    out: Path,
    shape: tuple[int, ...],
    resume: bool,
    rank: int,
    ranks: int,
) -> None:
    """Write the blocks that are missing, and of all of them ``out``."""
    blocks = out.with_name(f"{out.name}.blocks")
    done = out.exists()
    if done and not (resume and _read_plan(blocks) == plan):  # else killed while it cleaned up
        if rank == 0:
            with suppress(OSError):  # of one killed at the very end there is an empty folder
                blocks.rmdir()
        raise ValueError(f"'{out}' already exists; remove it or choose another 'out'")
    _wait()
    if not done:
        if rank == 0:
            _start(blocks, plan, resume)
        _wait()
        _check_plan(blocks, plan)  # on every rank, so that all of them end
        num_columns = features.shape[1]
        bounds = [*range(0, max(num_columns, 1), plan["block_columns"]), num_columns]
        files = [(blocks / f"{a:06d}-{b:06d}.npy", a, b) for a, b in pairwise(bounds)]
        for path, start, end in tqdm(files[rank::ranks], disable=None, unit="block"):
            if not path.exists():
                part = np.ascontiguousarray(features[:, start:end])
                _write_block(path, part, operator, plan["num_steps"])
        _wait()
        if rank == 0:
            whole = blocks / out.name
            _join(whole, [path for path, _, _ in files], shape)
            os.replace(whole, out)
    if rank == 0:
        _remove(blocks)
    _wait()


def _wait() -> None:
    if dist.is_initialized():
        dist.barrier()


def _open(x: Tensor | np.ndarray | str | Path) -> np.ndarray:
    if isinstance(x, Tensor) and x.layout == torch.strided:
        if torch.compiler.is_compiling() or is_transformed(x):
            raise NotImplementedError("The result is a file, which no transform follows")
        x = x.detach().cpu()
        return (x.float() if x.dtype == torch.bfloat16 else x).numpy()  # NumPy has no bfloat16
    if isinstance(x, np.ndarray) and not isinstance(x, np.ma.MaskedArray):
        return x
    if not isinstance(x, (str, Path)):
        got = x.layout if isinstance(x, Tensor) else type(x).__name__
        raise TypeError(f"Expected 'x' to be a dense Tensor, an ndarray or a npy file (got {got})")
    try:
        array = np.load(x, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise ValueError(f"'{x}' is no whole npy file: {error}") from error
    if not isinstance(array, np.ndarray):
        with array:
            raise ValueError(
                f"'{x}' is an archive of arrays ({', '.join(array.files)}), which cannot be "
                "mapped; save one of them with 'numpy.save', or pass it as an array"
            )
    return array


def _is_integer(value: Any) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


def _checked_steps(num_steps: int | Sequence[int]) -> list[int]:
    several = isinstance(num_steps, (Sequence, np.ndarray)) and np.ndim(num_steps) == 1
    steps: list[Any] = list(num_steps) if several else [num_steps]  # type: ignore[arg-type]
    if not steps or any(not _is_integer(k) or k < 0 for k in steps):
        raise ValueError(f"Expected 'num_steps' to be integers from 0 on (got {num_steps})")
    if any(a >= b for a, b in pairwise(steps)):
        raise ValueError(f"Expected 'num_steps' to ascend (got {num_steps})")
    return [int(k) for k in steps]


def _plan(
    x: Any, features: np.ndarray, operator: DiffusionOperator, steps: list[int], block_columns: int
) -> dict[str, Any]:
    """What decides the content of the blocks; files are known by size and time, not by content."""
    if isinstance(x, (str, Path)):
        status = Path(x).stat()
        source = [str(Path(x).resolve()), status.st_size, status.st_mtime_ns]
    else:
        source = [zlib.crc32(np.ascontiguousarray(features).data)]
    matrix = 0
    for part in operator.csr():
        matrix = zlib.crc32(part.detach().cpu().numpy().data, matrix)
    return {
        "input": source,
        "shape": list(features.shape),
        "operator": [matrix, operator.nnz],
        "num_steps": steps,
        "block_columns": block_columns,
    }


def _start(blocks: Path, plan: dict[str, Any], resume: bool) -> None:
    if blocks.exists() and not resume:
        shutil.rmtree(blocks)
    if not any(blocks.glob("*.npy")):  # nothing finished that a new plan could contradict
        with write_atomically(blocks / "plan.json") as temporary:
            temporary.write_text(json.dumps(plan))


def _read_plan(blocks: Path) -> dict[str, Any] | None:
    """The plan of a folder of blocks, or :obj:`None` where it is missing or damaged."""
    try:
        plan = json.loads((blocks / "plan.json").read_text())
    except (FileNotFoundError, ValueError):
        return None
    return plan if isinstance(plan, dict) else None


def _check_plan(blocks: Path, plan: dict[str, Any]) -> None:
    stored = _read_plan(blocks)
    if stored is None:
        raise ValueError(
            f"'{blocks / 'plan.json'}' is missing or damaged, and with it what run the blocks "
            "beside it belong to; pass 'resume=False' to drop them"
        )
    for name, value in plan.items():
        if stored.get(name) != value:
            raise ValueError(
                f"'{blocks}' holds blocks of another run: {name} is {stored.get(name)} there and "
                f"{value} here; pass 'resume=False' to drop them"
            )


def _remove(blocks: Path) -> None:
    """Drop the folder, the plan last: while there are blocks, it says of what run."""
    for path in blocks.glob("*.npy"):
        path.unlink()
    shutil.rmtree(blocks)


@torch.no_grad()  # the operator may be learned
def _write_block(
    path: Path, features: np.ndarray, operator: DiffusionOperator, steps: list[int]
) -> None:
    native = features.astype(features.dtype.newbyteorder("="), copy=False)
    x = torch.from_numpy(native).to(operator.device, operator.dtype)
    if not bool(x.isfinite().all()):
        raise ValueError(f"Expected 'x' to be finite (columns of '{path.name}' are not)")
    with write_atomically(path) as temporary, open(temporary, "wb") as file:
        _write_header(file, (len(steps), *x.shape), np.result_type(native, np.float32))
        done = 0
        for k in steps:
            x, done = diffuse(x, operator, k - done), k
            file.write(x.cpu().numpy().data)


def _write_header(file: Any, shape: tuple[int, ...], dtype: np.dtype) -> None:
    header = {"descr": dtype.str, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_2_0(file, header)


def _join(out: Path, paths: list[Path], shape: tuple[int, ...]) -> None:
    """Put the blocks side by side, rows in chunks.

    With plain writes: a full disk raises there, but kills the process that writes through a map.
    """
    missing = [path for path in paths if not path.exists()]
    if missing:
        raise FileNotFoundError(f"'{missing[0]}' is missing; do all ranks see the same folder?")
    blocks = [_load_block(path) for path in paths]
    with write_atomically(out) as temporary, open(temporary, "wb") as file:
        _write_header(file, shape, blocks[0].dtype)
        for step in range(len(blocks[0])):
            for rows in _row_chunks(shape[-2], shape[-1] * blocks[0].dtype.itemsize):
                file.write(np.concatenate([block[step, rows] for block in blocks], axis=1).data)


def _load_block(path: Path) -> np.ndarray:
    try:
        return np.load(path, mmap_mode="r")
    except (ValueError, EOFError) as error:
        raise ValueError(f"'{path}' is damaged ({error}); remove it and run again") from error


def _row_chunks(num_rows: int, row_bytes: int) -> Iterator[slice]:
    size = max(1, _CHUNK // max(1, row_bytes))
    for start in range(0, num_rows, size):
        yield slice(start, start + size)
