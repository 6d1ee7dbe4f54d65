"""Diffusion of features on disk: values, resuming, sharing among ranks, full disks, bad input."""

import errno
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from torch_geometric_diff import streaming
from torch_geometric_diff.ops import DiffusionOperator, diffuse
from torch_geometric_diff.streaming import diffuse_features

NODES, COLUMNS = 60, 11


@pytest.fixture
def operator() -> DiffusionOperator:
    torch.manual_seed(0)
    return DiffusionOperator(torch.randint(NODES, (2, 200)), num_nodes=NODES, step_size=0.5)


@pytest.fixture
def x() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((NODES, COLUMNS)).astype(np.float32)


@pytest.mark.parametrize("block_columns", [1, 4, 11, 32])
def test_several_step_counts_at_once(tmp_path, operator, x, block_columns) -> None:
    steps = (0, 1, 4)
    result = diffuse_features(x, operator, steps, tmp_path / "y.npy", block_columns=block_columns)
    assert result.shape == (3, NODES, COLUMNS) and result.dtype == np.float32
    dense = operator.to_dense().double().numpy()
    for k, found in zip(steps, result, strict=True):
        np.testing.assert_allclose(found, np.linalg.matrix_power(dense, k) @ x, atol=1e-6)
    assert np.array_equal(result, np.load(tmp_path / "y.npy"))
    assert os.listdir(tmp_path) == ["y.npy"]


def test_file_tensor_and_array_give_the_same(tmp_path, operator, x) -> None:
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "fortran.npy", np.asfortranarray(x))
    inputs = (x, torch.from_numpy(x), tmp_path / "x.npy", str(tmp_path / "fortran.npy"))
    results = [
        diffuse_features(source, operator, 2, tmp_path / f"y{i}.npy", block_columns=4)
        for i, source in enumerate(inputs)
    ]
    assert results[0].shape == (NODES, COLUMNS)
    assert all(np.array_equal(results[0], other) for other in results[1:])


@pytest.mark.parametrize("given, written", [("f2", "f4"), ("f4", "f4"), ("f8", "f8")])
def test_types(tmp_path, operator, x, given, written) -> None:
    x = x.astype(given)
    result = diffuse_features(x, operator, 3, tmp_path / "y.npy", block_columns=4)
    assert result.dtype == written
    expected = diffuse(torch.from_numpy(x.astype(written)), operator, 3)
    np.testing.assert_allclose(result, expected, atol=1e-6 if written == "f4" else 1e-14)


def test_rows_are_joined_in_chunks(tmp_path, operator, x, monkeypatch) -> None:
    whole = diffuse_features(x, operator, [1, 2], tmp_path / "a.npy", block_columns=4)
    monkeypatch.setattr(streaming, "_CHUNK", 4 * COLUMNS * 7)  # 7 rows; 60 is no multiple
    assert np.array_equal(
        whole, diffuse_features(x, operator, [1, 2], tmp_path / "b.npy", block_columns=4)
    )


def _stop_after(monkeypatch, count: int, error: BaseException) -> list[str]:
    """Let ``count`` blocks be written, then raise; returns the list of blocks begun."""
    begun, write = [], streaming._write_block

    def limited(path, *args) -> None:
        begun.append(path.name)
        if len(begun) > count:
            raise error
        write(path, *args)

    monkeypatch.setattr(streaming, "_write_block", limited)
    return begun


def test_finished_blocks_are_not_computed_again(tmp_path, operator, x, monkeypatch) -> None:
    expected = diffuse_features(x, operator, [1, 3], tmp_path / "whole.npy", block_columns=3)
    out = tmp_path / "y.npy"
    begun = _stop_after(monkeypatch, 2, KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        diffuse_features(x, operator, [1, 3], out, block_columns=3)
    assert not out.exists() and len(begun) == 3
    monkeypatch.undo()

    again = _stop_after(monkeypatch, 99, KeyboardInterrupt())
    result = diffuse_features(x, operator, [1, 3], out, block_columns=3)
    assert again == ["000006-000009.npy", "000009-000011.npy"]
    assert np.array_equal(result, expected)
    assert sorted(os.listdir(tmp_path)) == ["whole.npy", "y.npy"]


def test_blocks_of_another_run_are_refused(tmp_path, operator, x, monkeypatch) -> None:
    out = tmp_path / "y.npy"
    _stop_after(monkeypatch, 2, KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        diffuse_features(x, operator, [1, 3], out, block_columns=3)
    monkeypatch.undo()
    other = operator.with_step_size(0.25)
    for name, arguments in {
        "operator": (x, other, [1, 3], out),
        "input": (x + 1, operator, [1, 3], out),
        "num_steps": (x, operator, [1, 2], out),
        "shape": (x[:, :5], operator, [1, 3], out),
    }.items():
        with pytest.raises(ValueError, match="blocks of another run: .*resume=False") as info:
            diffuse_features(*arguments, block_columns=3)
        assert f": {name} is" in str(info.value) or name == "shape"
    result = diffuse_features(x, other, [1, 3], out, block_columns=3, resume=False)
    np.testing.assert_allclose(result[1], diffuse(torch.from_numpy(x), other, 3), atol=1e-6)


class _FullDisk:
    """A file that takes so many bytes and then behaves as on a full disk."""

    def __init__(self, file, room: list[int]) -> None:
        self.file, self.room = file, room

    def __enter__(self):
        return self

    def __exit__(self, *args) -> None:
        self.file.close()

    def write(self, data) -> None:
        size = memoryview(data).nbytes
        if size > self.room[0]:
            raise OSError(errno.ENOSPC, "No space left on device")
        self.room[0] -= size
        self.file.write(data)


@pytest.mark.parametrize("room", [100, 5000, 12000, 20000])
def test_full_disk_leaves_nothing_that_looks_complete(
    tmp_path, operator, x, monkeypatch, room
) -> None:
    """The result has 5280 bytes; the blocks as many, so both phases meet the full disk."""
    left, out = [room], tmp_path / "y.npy"
    monkeypatch.setattr(streaming, "open", lambda *a: _FullDisk(open(*a), left), raising=False)
    if room < 11000:
        with pytest.raises(OSError, match="No space left"):
            diffuse_features(x, operator, [1, 3], out, block_columns=3)
        assert not out.exists()
        leftover = [path.name for path in tmp_path.rglob("*") if path.is_file()]
        assert not any(name.startswith(".") for name in leftover)
    monkeypatch.undo()
    result = diffuse_features(x, operator, [1, 3], out, block_columns=3)
    assert np.array_equal(
        result, diffuse_features(x, operator, [1, 3], tmp_path / "z.npy", block_columns=3)
    )


@pytest.mark.parametrize(
    "change, error, message",
    [
        ({"x": np.ones((5, 3), np.float32)}, ValueError, r"'x' of shape \[60, F\].*\[5, 3\]"),
        ({"x": np.ones(60, np.float32)}, ValueError, r"'x' of shape"),
        ({"x": np.ones((60, 3), int)}, TypeError, "floating numbers .*int64"),
        ({"x": np.full((60, 3), np.nan)}, ValueError, "'x' to be finite"),
        ({"num_steps": []}, ValueError, "'num_steps' to be integers"),
        ({"num_steps": [-1]}, ValueError, "'num_steps' to be integers"),
        ({"num_steps": [1.5]}, ValueError, "'num_steps' to be integers"),
        ({"num_steps": [2, 2]}, ValueError, "'num_steps' to ascend"),
        ({"block_columns": 0}, ValueError, "'block_columns' to be positive"),
    ],
)
def test_bad_input(tmp_path, operator, x, change, error, message) -> None:
    arguments = {"x": x, "operator": operator, "num_steps": 1, "out": tmp_path / "y.npy"} | change
    with pytest.raises(error, match=message):
        diffuse_features(**arguments)
    assert not any(path.suffix == ".npy" for path in tmp_path.rglob("*"))


def test_bad_files(tmp_path, operator, x) -> None:
    out = tmp_path / "y.npy"
    with pytest.raises(FileNotFoundError, match="missing.npy"):
        diffuse_features(tmp_path / "missing.npy", operator, 1, out)
    np.save(tmp_path / "x.npy", x)
    content = (tmp_path / "x.npy").read_bytes()
    (tmp_path / "x.npy").write_bytes(content[:-100])
    with pytest.raises(ValueError, match="x.npy' is no whole npy file"):
        diffuse_features(tmp_path / "x.npy", operator, 1, out)
    out.write_text("something")
    with pytest.raises(ValueError, match="already exists"):
        diffuse_features(x, operator, 1, out)
    assert out.read_text() == "something"


# Ranks ###########################################################################################

RANK = """
import sys, time
import numpy as np, torch, torch.distributed as dist
from torch_geometric_diff import streaming
from torch_geometric_diff.ops import DiffusionOperator
torch.set_num_threads(1)
dist.init_process_group("gloo")
torch.manual_seed(0)
operator = DiffusionOperator(torch.randint(60, (2, 200)), num_nodes=60, step_size=0.5)
if sys.argv[3] == "slow":  # leave time for a kill
    write = streaming._write_block
    streaming._write_block = lambda *a: (time.sleep(0.7), write(*a))
streaming.diffuse_features(sys.argv[1], operator, [0, 1, 4], sys.argv[2], block_columns=2)
dist.destroy_process_group()
"""


def _torchrun(tmp_path: Path, ranks: int, out: Path, mode: str) -> subprocess.Popen:
    (tmp_path / "rank.py").write_text(RANK)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += [f"--nproc-per-node={ranks}", str(tmp_path / "rank.py")]
    root = Path(streaming.__file__).parents[1]
    environment = os.environ | {"PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    command += [str(tmp_path / "x.npy"), str(out), mode]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, env=environment, stdout=pipe, stderr=pipe, text=True)


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [2, 4])
def test_ranks_give_the_bits_of_one_process(tmp_path, operator, x, ranks) -> None:
    np.save(tmp_path / "x.npy", x)
    one = diffuse_features(x, operator, [0, 1, 4], tmp_path / "one.npy", block_columns=2)
    process = _torchrun(tmp_path, ranks, tmp_path / "many.npy", "fast")
    assert process.wait(timeout=120) == 0, process.stderr.read()
    process.communicate()
    assert (tmp_path / "many.npy").read_bytes() == (tmp_path / "one.npy").read_bytes()
    assert not (tmp_path / "many.npy.blocks").exists()
    assert one.shape == (3, NODES, COLUMNS)


@pytest.mark.slow
def test_killed_rank_loses_no_finished_block(tmp_path, operator, x, monkeypatch) -> None:
    np.save(tmp_path / "x.npy", x)
    out = tmp_path / "y.npy"
    process = _torchrun(tmp_path, 2, out, "slow")
    blocks = tmp_path / "y.npy.blocks"
    deadline = time.monotonic() + 100
    while len(list(blocks.glob("0*.npy"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.02)
    pids = subprocess.run(
        ["pgrep", "-P", str(process.pid)], capture_output=True, text=True, check=True
    )
    os.kill(int(pids.stdout.split()[0]), 9)  # one rank; torchrun ends the other
    assert process.wait(timeout=100) != 0
    process.communicate()
    finished = {path: path.stat().st_mtime_ns for path in blocks.glob("0*.npy")}
    assert 2 <= len(finished) < 6 and not out.exists()

    begun = _stop_after(monkeypatch, 99, KeyboardInterrupt())
    result = diffuse_features(tmp_path / "x.npy", operator, [0, 1, 4], out, block_columns=2)
    assert not set(begun) & {path.name for path in finished} and len(begun) + len(finished) == 6
    one = diffuse_features(x, operator, [0, 1, 4], tmp_path / "one.npy", block_columns=2)
    assert np.array_equal(result, one)
