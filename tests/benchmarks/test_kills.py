"""Runs killed at 50 moments each: no finished row is lost or repeated."""

import gzip
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]


def graph(path: Path) -> str:
    rng = np.random.default_rng(0)
    y = np.arange(240) % 3
    x = rng.standard_normal((240, 8)) + np.eye(3, 8)[y]
    ring = np.stack([np.arange(240), (np.arange(240) + 3) % 240])
    chord = np.stack([np.arange(240), (np.arange(240) + 1) % 240])
    np.savez(path, x=x, y=y, edge_index=np.concatenate([ring, chord], axis=1))
    return str(path)


def ogb_folder(folder: Path) -> str:
    rng = np.random.default_rng(0)
    y = np.arange(240) % 3
    arrays = {
        "raw/edge": np.stack([np.arange(240), (np.arange(240) + 3) % 240], axis=1),
        "raw/node-feat": rng.standard_normal((240, 8)) + np.eye(3, 8)[y],
        "raw/node-label": y[:, None],
        "raw/num-node-list": np.array([[240]]),
        "raw/num-edge-list": np.array([[240]]),
        "split/time/train": np.arange(120)[:, None],
        "split/time/valid": np.arange(120, 180)[:, None],
        "split/time/test": np.arange(180, 240)[:, None],
    }
    for name, array in arrays.items():
        path = folder / f"{name}.csv.gz"
        path.parent.mkdir(parents=True, exist_ok=True)
        with gzip.open(path, "wt") as file:
            np.savetxt(file, array, delimiter=",", fmt="%.6g")
    return str(folder)


def killed(module: str, out: Path, key: str, flags: list[str]) -> str:
    command = [sys.executable, "-W", "ignore", str(ROOT / "tests/benchmarks/killing.py")]
    command += [module, str(out), "50", key, *flags]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_planetoid(tmp_path: Path) -> None:
    flags = "--num_splits 6 --num_inits 2 --max_epochs 15 --layer_num 2 --dataset".split()
    flags.append(graph(tmp_path / "graph.npz"))
    said = killed("benchmarks.planetoid", tmp_path / "out.jsonl", "split,init", flags)
    assert said.startswith("50 kills") and said.endswith("12 rows each\n")


@pytest.mark.slow
def test_ogb(tmp_path: Path) -> None:
    flags = "--num_inits 12 --max_epochs 10 --hidden 16 --dataset".split()
    flags.append(ogb_folder(tmp_path / "set"))
    said = killed("benchmarks.ogb.command", tmp_path / "out.jsonl", "init", flags)
    assert said.startswith("50 kills") and said.endswith("12 rows each\n")
