"""The commands with ``--partition``: results of one process, and faults that end all ranks."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.common.partitions import METHODS
from benchmarks.ogb.features import main as features
from benchmarks.ogb.make import SHAPES, write_ogb

ROOT = Path(__file__).parent.parent.parent
LIMIT = 30  # seconds until all ranks have ended


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("ogb")
    out = tmp_path_factory.mktemp("ogb") / "small"
    write_ogb(SHAPES["small"], out, seed=0)
    return out


def torchrun(module: str, flags: list[str], size: int, **settings: Any) -> subprocess.Popen:
    command = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={size}"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    return subprocess.Popen(
        [sys.executable, *command, "-m", module, *flags],
        cwd=ROOT,
        env=environment,
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        **settings,
    )


def lines_of(run: subprocess.Popen) -> tuple[int, list[str], str]:
    """The exit status, the lines that name errors, and what was printed."""
    out, err = run.communicate(timeout=280)
    return run.returncode, re.findall(r"error: .*$", err, re.MULTILINE), out


def flags_of(folder: Path, out: Path, *more: str) -> list[str]:
    return ["--dataset", str(folder), "--num_steps", "0", "2", "--out", str(out), *more]


def test_one_rank_alone(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    features(flags_of(folder, tmp_path / "one.npy"))
    features(flags_of(folder, tmp_path / "two.npy", "--partition", "--block_columns", "7"))
    assert "0.0 % of the entries are cut" in capsys.readouterr().out
    one, two = (np.load(tmp_path / f"{name}.npy") for name in ("one", "two"))
    np.testing.assert_allclose(two, one, rtol=1e-5, atol=1e-6)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one.npy", "two.npy"]
    with pytest.raises(ValueError, match="already exists"):
        features(flags_of(folder, tmp_path / "two.npy", "--partition"))


@pytest.mark.slow
@pytest.mark.parametrize("order", METHODS)
def test_ranks_write_what_one_process_does(folder: Path, tmp_path: Path, order: str) -> None:
    if order == "metis":
        pytest.importorskip("pymetis")
    features(flags_of(folder, tmp_path / "one.npy"))
    flags = flags_of(folder, tmp_path / "two.npy", "--partition", "--order", order)
    status, errors, out = lines_of(torchrun("benchmarks.ogb_features", flags, 3))
    assert (status, errors) == (0, [])
    assert re.search(r"3 ranks of 2000 nodes: [\d.]+ % of the entries are cut; a step of", out)
    one, two = (np.load(tmp_path / f"{name}.npy") for name in ("one", "two"))
    np.testing.assert_allclose(two, one, rtol=1e-5, atol=1e-6)


def ranks_of(run: subprocess.Popen) -> list[int]:
    found = subprocess.run(["pgrep", "-P", str(run.pid)], capture_output=True, text=True)
    return [int(pid) for pid in found.stdout.split()]


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1, 2])
def test_a_rank_killed_in_a_step(folder: Path, tmp_path: Path, victim: int) -> None:
    """All end in time, one line says which; the same command goes on where it was."""
    out = tmp_path / "out.npy"
    flags = flags_of(folder, out, "--partition", "--block_columns", "1")
    flags[flags.index("2")] = "4000"  # a long block
    run = torchrun("benchmarks.ogb_features", flags, 3)
    log = tmp_path / "out.npy.parts" / "done.json"
    until = time.monotonic() + 200
    while not (log.exists() and len(log.read_text()) > 0 and '"blocks": [0' in log.read_text()):
        assert time.monotonic() < until and run.poll() is None
        time.sleep(0.05)
    ranks = ranks_of(run)
    os.kill(ranks[victim], signal.SIGKILL)
    start = time.monotonic()
    status, errors, _ = lines_of(run)
    assert status != 0 and time.monotonic() - start < LIMIT
    assert errors == [f"error: rank {victim} was killed or lost; all ranks end"]
    assert not out.exists() and not any(os.path.exists(f"/proc/{pid}") for pid in ranks)


@pytest.mark.slow
def test_resumes_on_another_number_of_ranks(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.npy"
    flags = flags_of(folder, out, "--partition", "--block_columns", "4")
    run = torchrun("benchmarks.ogb_features", flags, 2)
    log = tmp_path / "out.npy.parts" / "done.json"
    while not (log.exists() and '"blocks": [0' in log.read_text()):
        assert run.poll() is None or out.exists()
        if out.exists():
            break
        time.sleep(0.01)
    for pid in ranks_of(run):
        os.kill(pid, signal.SIGKILL)
    run.communicate()
    status, errors, _ = lines_of(torchrun("benchmarks.ogb_features", flags, 3))
    assert (status, errors) == (0, []) or "already exists" in errors[0]
    features(flags_of(folder, tmp_path / "one.npy"))
    one, two = (np.load(path) for path in (tmp_path / "one.npy", out))
    np.testing.assert_allclose(two, one, rtol=1e-5, atol=1e-6)


_FAULT = """
import os, sys, resource
from benchmarks.common import command_line
from benchmarks.common.edges import EdgeFile
from benchmarks.ogb import command, features, partitioned
from torch_geometric_diff.ops import partition
rank = int(os.environ["RANK"])
{fault}
command_line((command if "--model" in sys.argv else features).main)
"""
FAULTS = {
    "unreadable": (
        "share = EdgeFile.share\n"
        "def broken(self, r, size):\n"
        "    if r == 1: self.path = self.path.with_name('gone.npz')\n"
        "    return share(self, r, size)\n"
        "EdgeFile.share = broken",
        "gone.npz",
    ),
    "truncated": (
        "share = EdgeFile.share\n"
        "def broken(self, r, size):\n"
        "    if r == 1:\n"
        "        whole, self.path = self.path.read_bytes(), self.path.with_name('short.npz')\n"
        "        self.path.write_bytes(whole[:-2000])\n"
        "    return share(self, r, size)\n"
        "EdgeFile.share = broken",
        "short.npz' is damaged",
    ),
    "killed while it builds": (
        "make = partition.make_part\n"
        "partition.make_part = lambda *a: make(*a) if rank != 1 else os.kill(os.getpid(), 9)",
        "rank 1 was killed or lost; all ranks end",
    ),
    "killed in backward": (
        "back = partition._Run.backward\n"
        "def dying(ctx, *g): return back(ctx, *g) if rank != 2 else os.kill(os.getpid(), 9)\n"
        "partition._Run.backward = staticmethod(dying)",
        "rank 2 was killed or lost; all ranks end",
    ),
    "sizes": (
        "load = partitioned.load_ogb\n"
        "def other(*args, **settings):\n"
        "    data = load(*args, **settings)\n"
        "    data.num_nodes += rank == 2\n"
        "    return data\n"
        "partitioned.load_ogb = other",
        r"expected \[2001, F\]|agree on 'num_nodes'",
    ),
    "disk": (
        "size = 400_000\nresource.setrlimit(resource.RLIMIT_FSIZE, (size, size))",
        "File too large",
    ),
    "columns": (
        "diffuse = partitioned.diffuse\n"
        "partitioned.diffuse = lambda x, p, k: diffuse(x[:, : 8 - rank], p, k)",
        r"agree on 'columns of 'x''",
    ),
    "types": (
        "diffuse = partitioned.diffuse\n"
        "partitioned.diffuse = lambda x, p, k: diffuse(x.double() if rank == 1 else x, p, k)",
        r"agree on 'dtype of 'x''",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", list(FAULTS))
def test_faults_end_all_ranks(folder: Path, tmp_path: Path, kind: str) -> None:
    fault, cause = FAULTS[kind]
    script = tmp_path / "fault.py"
    script.write_text(_FAULT.format(fault=fault))
    features_file = tmp_path / "x.npy"
    np.save(features_file, np.ones((2000, 40), np.float32))
    flags = flags_of(folder, tmp_path / "out.npy", "--partition", "--features", str(features_file))
    if "backward" in kind:
        flags = ["--partition", "--dataset", str(folder), "--out", str(tmp_path / "rows.jsonl")]
        flags += ["--model", "diff-resnet"]
    command = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=3", str(script)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    run = subprocess.Popen(
        [sys.executable, "-W", "ignore", *command, *flags],
        cwd=ROOT, env=environment, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    while len(ranks := ranks_of(run)) < 3 and run.poll() is None:
        time.sleep(0.05)
    while all(os.path.exists(f"/proc/{pid}") for pid in ranks):
        time.sleep(0.05)
    start = time.monotonic()  # the first one has ended
    status, errors, _ = lines_of(run)
    assert time.monotonic() - start < LIMIT
    assert status != 0 and len(errors) == 1 and re.search(cause, errors[0]), errors
    assert not (tmp_path / "out.npy").exists()
