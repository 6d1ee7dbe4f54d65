"""Runs of diffuse_features that end early: resuming, full disks, ranks, kills."""

import errno
import multiprocessing
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import preprocessing_child
import pytest
import torch
from preprocessing_child import COLUMNS, NODES, STEPS

from torch_geometric_diff import preprocessing as streaming
from torch_geometric_diff.ops import DiffusionOperator, diffuse
from torch_geometric_diff.preprocessing import diffuse_features


@pytest.fixture
def operator() -> DiffusionOperator:
    return preprocessing_child.operator()


@pytest.fixture
def x() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((NODES, COLUMNS)).astype(np.float32)


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


def test_a_run_that_finished_no_block_does_not_stand_in_the_way(tmp_path, operator, x) -> None:
    out = tmp_path / "y.npy"
    with pytest.raises(ValueError, match="'x' to be finite"):
        diffuse_features(np.full_like(x, np.nan), operator, [1, 3], out)
    result = diffuse_features(x, operator, 2, out)
    np.testing.assert_allclose(result, diffuse(torch.from_numpy(x), operator, 2), atol=1e-6)


@pytest.mark.parametrize("content", ["", "{", "[1]", None])
def test_a_damaged_plan_names_the_file_and_the_way_out(
    tmp_path, operator, x, monkeypatch, content
) -> None:
    out, plan = tmp_path / "y.npy", tmp_path / "y.npy.blocks" / "plan.json"
    _stop_after(monkeypatch, 2, KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        diffuse_features(x, operator, 2, out, block_columns=3)
    monkeypatch.undo()
    plan.unlink() if content is None else plan.write_text(content)
    with pytest.raises(ValueError, match="plan.json' is missing or damaged.*resume=False"):
        diffuse_features(x, operator, 2, out, block_columns=3)
    for block in plan.parent.glob("0*.npy"):
        block.unlink()
    diffuse_features(x, operator, 2, out, block_columns=3)  # no block: nothing to protect


def test_a_damaged_block_is_named(tmp_path, operator, x, monkeypatch) -> None:
    out = tmp_path / "y.npy"
    _stop_after(monkeypatch, 2, KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        diffuse_features(x, operator, 2, out, block_columns=3)
    monkeypatch.undo()
    block = tmp_path / "y.npy.blocks" / "000003-000006.npy"
    block.write_bytes(block.read_bytes()[:-10])
    with pytest.raises(ValueError, match="000003-000006.npy' is damaged .*remove it"):
        diffuse_features(x, operator, 2, out, block_columns=3)
    block.unlink()
    diffuse_features(x, operator, 2, out, block_columns=3)


def test_a_run_killed_while_it_cleaned_up_is_finished(tmp_path, operator, x, monkeypatch) -> None:
    out = tmp_path / "y.npy"
    monkeypatch.setattr(streaming, "_remove", lambda blocks: None)
    whole = diffuse_features(x, operator, 2, out).copy()
    monkeypatch.undo()
    with pytest.raises(ValueError, match="already exists"):
        diffuse_features(x, operator, 3, out)  # another run
    again = _stop_after(monkeypatch, 0, KeyboardInterrupt())
    assert np.array_equal(diffuse_features(x, operator, 2, out), whole) and not again
    assert os.listdir(tmp_path) == ["y.npy"]
    (tmp_path / "y.npy.blocks").mkdir()  # killed before the last folder went
    with pytest.raises(ValueError, match="already exists"):
        diffuse_features(x, operator, 2, out)
    assert os.listdir(tmp_path) == ["y.npy"]


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


# Ranks ###########################################################################################


def _torchrun(folder: Path, ranks: int, mode: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += [f"--nproc-per-node={ranks}", preprocessing_child.__file__, str(folder), mode]
    root = Path(streaming.__file__).parents[1]
    environment = os.environ | {"PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    folder.mkdir()
    pipe = subprocess.PIPE
    return subprocess.Popen(command, env=environment, stdout=pipe, stderr=pipe, text=True)


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [2, 4])
def test_ranks_give_the_bits_of_one_process(tmp_path, operator, x, ranks) -> None:
    np.save(tmp_path / "x.npy", x)
    one = diffuse_features(x, operator, STEPS, tmp_path / "one.npy", block_columns=2)
    many = tmp_path / "many"
    process = _torchrun(many, ranks, "fast")
    assert process.wait() == 0, process.stderr.read()
    process.communicate()
    assert (many / "y.npy").read_bytes() == (tmp_path / "one.npy").read_bytes()
    assert not (many / "y.npy.blocks").exists()
    assert one.shape == (3, NODES, COLUMNS)


@pytest.mark.slow
def test_killed_rank_loses_no_finished_block(tmp_path, operator, x, monkeypatch) -> None:
    np.save(tmp_path / "x.npy", x)
    out, blocks = tmp_path / "many" / "y.npy", tmp_path / "many" / "y.npy.blocks"
    process = _torchrun(tmp_path / "many", 2, "stuck")
    while len(list(blocks.glob("0*.npy"))) < 2 and process.poll() is None:
        time.sleep(0.02)
    pids = subprocess.run(
        ["pgrep", "-P", str(process.pid)], capture_output=True, text=True, check=True
    )
    os.kill(int(pids.stdout.split()[0]), 9)  # one rank; torchrun ends the other
    assert process.wait() != 0
    process.communicate()
    finished = {path: path.stat().st_mtime_ns for path in blocks.glob("0*.npy")}
    assert len(finished) == 2 and not out.exists()

    begun = _stop_after(monkeypatch, 99, KeyboardInterrupt())
    result = diffuse_features(tmp_path / "x.npy", operator, STEPS, out, block_columns=2)
    assert not set(begun) & {path.name for path in finished} and len(begun) + len(finished) == 6
    one = diffuse_features(x, operator, STEPS, tmp_path / "one.npy", block_columns=2)
    assert np.array_equal(result, one)


# Kills ###########################################################################################


@pytest.mark.slow
def test_kills_at_random_moments_lose_and_repeat_nothing(tmp_path, x, monkeypatch) -> None:
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload(["preprocessing_child"])  # imports torch once, not 100 times
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))  # before Python 3.13 it needs that

    def start(folder: Path) -> multiprocessing.process.BaseProcess:
        folder.mkdir(exist_ok=True)
        process = processes.Process(target=preprocessing_child.run, args=(str(folder), 1))
        process.start()
        return process

    np.save(tmp_path / "x.npy", x)
    whole, seconds = tmp_path / "whole", 0.0
    for _ in range(2):  # the first also starts the server
        (whole / "y.npy").unlink(missing_ok=True)
        seconds = -time.monotonic()
        process = start(whole)
        process.join()
        seconds += time.monotonic()
        assert process.exitcode == 0
    expected = (whole / "y.npy").read_bytes()
    every = {f"{i:06d}-{i + 1:06d}.npy" for i in range(COLUMNS)}

    rng, cut_short = np.random.default_rng(0), 0
    for number, share in enumerate(rng.uniform(0, 1, 50)):
        folder = tmp_path / str(number)
        process = start(folder)
        if number % 2:  # at any time, or once some blocks are there
            time.sleep(share * seconds)
        else:
            blocks = folder / "y.npy.blocks"
            while process.is_alive() and len([*blocks.glob("0*.npy")]) <= share * (COLUMNS - 1):
                time.sleep(0.001)
        process.kill()
        process.join()
        out, begun = folder / "y.npy", folder / "begun"
        finished = {path.name for path in (folder / "y.npy.blocks").glob("0*.npy")}
        finished = every if out.exists() else finished
        cut_short += 0 < len(finished) < COLUMNS
        begun.unlink(missing_ok=True)
        process = start(folder)
        process.join()
        assert process.exitcode == 0 or out.exists()
        again = begun.read_text().split() if begun.exists() else []
        assert sorted([*again, *finished]) == sorted(every), "each block once"
        assert out.read_bytes() == expected
        assert set(os.listdir(folder)) - {"begun"} == {"y.npy"}
    assert cut_short >= 10, "most moments should fall between the first and the last block"


def test_a_second_run_into_the_same_file_is_refused(tmp_path, operator, x) -> None:
    """The second begins while the first is in its first block, with other columns."""
    np.save(tmp_path / "x.npy", x)
    folder = tmp_path / "out"
    folder.mkdir()
    context = multiprocessing.get_context("spawn")
    begun, go_on = context.Event(), context.Event()
    process = context.Process(target=preprocessing_child.waiting, args=(folder, begun, go_on))
    process.start()
    try:
        assert begun.wait(120)
        for resume in (True, False):
            with pytest.raises(ValueError, match="y.npy.lock' is in use by another run"):
                diffuse_features(x + 1, operator, STEPS, folder / "y.npy", resume=resume)
        go_on.set()
        process.join(120)
        assert process.exitcode == 0
    finally:
        process.kill()
        process.join()
    expected = diffuse_features(x, operator, STEPS, tmp_path / "whole.npy")
    assert np.array_equal(np.load(folder / "y.npy"), expected)
    assert os.listdir(folder) == ["y.npy"]


def test_the_lock_of_a_killed_run_is_free(tmp_path, operator, x) -> None:
    np.save(tmp_path / "x.npy", x)
    folder = tmp_path / "out"
    folder.mkdir()
    context = multiprocessing.get_context("spawn")
    begun, never = context.Event(), context.Event()  # which end when nobody here holds them
    process = context.Process(target=preprocessing_child.waiting, args=(folder, begun, never))
    process.start()
    assert begun.wait(120)
    process.kill()
    process.join()
    assert (folder / "y.npy.lock").exists()  # the file stays, the lock does not
    result = diffuse_features(x, operator, STEPS, folder / "y.npy", resume=False)
    assert np.array_equal(result, diffuse_features(x, operator, STEPS, tmp_path / "whole.npy"))
    assert os.listdir(folder) == ["y.npy"]
