"""The runner: rows, resume after a kill, ranks, flags and their errors."""

import gc
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("sklearn", reason="scikit-learn is not installed")

from torch_geometric.data import Data
from torch_geometric.utils import to_undirected

from benchmarks import planetoid
from benchmarks.common import accuracy, command_line, draw_trials, read_rows
from benchmarks.common.splits import development_split, per_class_split
from benchmarks.nodes.models import DiffResNetMethod
from benchmarks.rows import run_trials
from torch_geometric_diff.data import load_graph

FLAGS = "--dataset digits --max_epochs 3 --layer_num 2 --num_splits 2 --num_inits 2".split()
MODULE = [sys.executable, "-m", "benchmarks.planetoid", *FLAGS]
MEASURES = ["split", "init", "split_seed", "init_seed", "test_acc", "val_acc", "best_epoch"]


def numbers(*paths: Path) -> list[list[Any]]:
    return sorted([row[name] for name in MEASURES] for row in read_rows(paths))


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("planetoid") / "unbroken.jsonl"
    planetoid.main([*FLAGS, "--out", str(out)])
    return out


def test_rows_hold_what_a_reader_needs(unbroken: Path) -> None:
    rows = read_rows(unbroken)
    assert [(row["split"], row["init"]) for row in rows] == [(0, 0), (0, 1), (1, 0), (1, 1)]
    row = rows[0]
    assert row["dataset"] == "digits" and row["source"] == "scikit-learn"
    assert row["split_seed"] == 121958 and row["epochs"] == 3 and row["best_epoch"] <= 2
    assert row["settings"]["layer_num"] == 2 and row["settings"]["step_size"] == 0.25
    assert {"torch", "torch_geometric", "numpy", "python"} <= set(row["versions"])
    train, val, test = per_class_split(load_graph("digits").y, row["split_seed"])
    assert (len(train), len(val)) == (200, 300)
    assert (row["test_acc"] * len(test)) == pytest.approx(round(row["test_acc"] * len(test)))
    assert 0.1 < row["test_acc"] < 1 and row["seconds"] > 0


def test_development_split(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    planetoid.main([*FLAGS, "--split", "development", "--out", str(out)])
    rows = read_rows(out)
    train, val, test = development_split(load_graph("digits").y, rows[0]["split_seed"])
    assert (len(train), len(val), len(test)) == (200, 1300, 297)
    for name, count in (("val_acc", 1300), ("test_acc", 297)):
        assert rows[0][name] * count == pytest.approx(round(rows[0][name] * count), abs=1e-4)
    with pytest.raises(ValueError, match="another experiment: seed is 42 there and 5 here"):
        planetoid.main(
            [*FLAGS, "--split", "development", "--seed", "5", "--out", str(out), "--resume"]
        )


def test_last_line_and_no_progress_bar_in_a_pipe(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    done = subprocess.run([*MODULE, "--out", str(out)], capture_output=True, text=True)
    assert done.returncode == 0 and done.stderr == ""
    values = [100 * row["test_acc"] for row in read_rows(out)]
    mean = sum(values) / 4
    std = (sum((value - mean) ** 2 for value in values) / 4) ** 0.5
    last = f"test accuracy: {mean:.2f} ± {std:.2f} % (4 runs: 2 splits x 2 inits)"
    assert done.stdout.splitlines()[-1] == last


def test_resume_repeats_nothing_and_gives_the_same_numbers(unbroken: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    lines = unbroken.read_bytes().splitlines(keepends=True)
    out.write_bytes(lines[0] + lines[2] + lines[3][:40])  # killed while the last row was written
    planetoid.main([*FLAGS, "--out", str(out), "--resume"])
    assert out.read_bytes().startswith(lines[0] + lines[2])
    assert len(read_rows(out)) == 4 and numbers(out) == numbers(unbroken)
    finished = out.read_bytes()
    planetoid.main([*FLAGS, "--out", str(out), "--resume"])
    assert out.read_bytes() == finished


def test_killed_run_resumes(unbroken: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    process = subprocess.Popen([*MODULE, "--out", str(out)], stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not (out.exists() and out.stat().st_size) and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert read_rows(out)
    planetoid.main([*FLAGS, "--out", str(out), "--resume"])
    assert numbers(out) == numbers(unbroken)


def test_ranks_share_the_trials(
    unbroken: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    out = tmp_path / "out.jsonl"
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank, last in (("0", "2 of 4 trials are done"), ("1", "test accuracy: ")):
        monkeypatch.setenv("RANK", rank)
        planetoid.main([*FLAGS, "--out", str(out)])
        assert capsys.readouterr().out.splitlines()[-1].startswith(last)
    files = [tmp_path / "out.rank0.jsonl", tmp_path / "out.rank1.jsonl"]
    assert [len(read_rows(file)) for file in files] == [2, 2]
    assert numbers(*files) == numbers(unbroken)

    files[1].write_bytes(files[1].read_bytes()[:-7])  # rank 1 was killed; go on without ranks
    monkeypatch.delenv("RANK")
    monkeypatch.delenv("WORLD_SIZE")
    planetoid.main([*FLAGS, "--out", str(out), "--resume"])
    assert len(read_rows(out)) == 1 and numbers(*files, out) == numbers(unbroken)


@pytest.mark.parametrize("batch", ["3", "10"])
def test_trials_side_by_side_give_the_same_rows(unbroken: Path, tmp_path: Path, batch: str) -> None:
    out = tmp_path / "out.jsonl"
    lines = unbroken.read_bytes().splitlines(keepends=True)
    # a batch was killed after its first row, and before it ran trials one by one
    out.write_bytes(lines[0] + lines[2] + lines[3][:40])
    planetoid.main([*FLAGS, "--out", str(out), "--resume", "--batch_inits", batch])
    assert numbers(out) == numbers(unbroken)
    trials = [(row["split"], row["init"]) for row in read_rows(out)]
    assert trials == [(0, 0), (1, 0), (0, 1), (1, 1)]
    varying = {"seconds", "split", "init", "split_seed", "init_seed", "test_acc", "val_acc"}
    rows = [{k: v for k, v in row.items() if k not in varying} for row in read_rows(out)]
    assert all(row.keys() == rows[0].keys() for row in rows)
    assert rows[2]["settings"] == rows[0]["settings"]


def cora_like() -> Data:
    """Sparse words that tell the class a little, and edges mostly inside a class."""
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(400) % 4
    likely = 0.02 + 0.1 * (torch.arange(120) % 4 == y[:, None])
    x = (torch.rand(400, 120, generator=generator) < likely).float()
    pairs = torch.randint(400, (2, 2000), generator=generator)
    keep = (y[pairs[0]] == y[pairs[1]]) | (torch.rand(2000, generator=generator) < 0.1)
    edge_index = to_undirected(pairs[:, keep])
    return Data(x=x / x.sum(1, keepdim=True).clamp(min=1), edge_index=edge_index, y=y)


@pytest.mark.parametrize("dropout", [0.0, 0.4])
@pytest.mark.parametrize("diffuse", ["features", "logits", "probabilities"])
def test_batches_stop_one_by_one_as_alone(dropout: float, diffuse: str) -> None:
    data = cora_like()
    method = DiffResNetMethod(data, step_size=0.25, layer_num=4, dropout=dropout, diffuse=diffuse)
    trials = list(draw_trials(data.y, 42, 2, 2))
    options = {"lr": 0.02, "patience": 3, "max_epochs": 60}
    together = method.run(trials, **options)
    assert len({result.epochs for result in together}) > 1
    alone = [method.run([trial], **options)[0] for trial in reversed(trials)][::-1]
    for result, expected in zip(together, alone, strict=True):
        assert (result.best_epoch, result.epochs) == (expected.best_epoch, expected.epochs)
        torch.testing.assert_close(result.logits, expected.logits)
    # the seconds are shares of one training
    start = time.perf_counter()
    rows = run_trials(data, method, trials, options)
    total = time.perf_counter() - start
    assert sum(row["seconds"] for row in rows) <= total + 0.01
    assert len({row["seconds"] for row in rows}) == 1
    for row, trial, expected in zip(rows, trials, alone, strict=True):
        assert row["test_acc"] == accuracy(expected.logits, data.y, trial.test)


@pytest.mark.slow
def test_torchrun(unbroken: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    command += ["-m", "benchmarks.planetoid", *FLAGS, "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert numbers(*tmp_path.glob("out.rank*.jsonl")) == numbers(unbroken)
    assert "(4 runs: 2 splits x 2 inits)" in done.stdout


def test_an_extended_run_keeps_its_rows(unbroken: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    few = [*FLAGS, "--num_inits", "1", "--out", str(out)]
    planetoid.main(few)
    planetoid.main([*FLAGS, "--out", str(out), "--resume"])
    assert numbers(out) == numbers(unbroken)


def test_thread_count_changes_nothing_but_rounding(unbroken: Path, tmp_path: Path) -> None:
    out, threads = tmp_path / "out.jsonl", torch.get_num_threads()
    torch.set_num_threads(threads % 2 + 1)
    planetoid.main([*FLAGS, "--out", str(out)])
    torch.set_num_threads(threads)
    for a, b in zip(numbers(out), numbers(unbroken), strict=True):
        assert a[:4] == b[:4] and a[4] == pytest.approx(b[4], abs=0.005)


def test_fallback_runs_on_the_embedded_graph(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("urllib.request.urlopen", lambda *a, **k: (_ for _ in ()).throw(OSError()))
    flags = [*FLAGS, "--dataset", "cora", "--data_root", str(tmp_path / "none")]
    flags += ["--num_splits", "1", "--num_inits", "1", "--out", str(tmp_path / "out.jsonl")]
    planetoid.main([*flags, "--fallback", "digits"])
    printed = capsys.readouterr()
    assert len(printed.err.splitlines()) == 1
    assert "lacks ind.cora.x" in printed.err and "'digits' instead" in printed.err
    assert read_rows(tmp_path / "out-digits.jsonl")[0]["dataset"] == "digits"


def damaged(tmp_path: Path) -> str:
    path = tmp_path / "damaged.jsonl"
    path.write_text('{"split": 0, "init": 0}\nnonsense\n')
    return str(path)


def foreign(tmp_path: Path) -> str:
    path = tmp_path / "foreign.jsonl"
    path.write_text(json.dumps({"split": 0, "init": 0, "dataset": "cora"}) + "\n")
    return str(path)


def unwritable(tmp_path: Path) -> str:
    (tmp_path / "file").write_text("")
    return str(tmp_path / "file" / "out.jsonl")


def truncated(tmp_path: Path) -> str:
    (tmp_path / "shchur").mkdir()
    (tmp_path / "shchur" / "cora.npz").write_bytes(b"PK\x03\x04")
    return str(tmp_path)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--dataset", "coral"], "no graph 'coral'"),
        (["--layer_num", "two"], "invalid int value: 'two'"),
        (["--layer_num", "-1"], "layer_num"),
        (["--dropout", "1.5"], "dropout"),
        (["--step_size", "0"], "step_size"),
        (["--patience", "0"], "patience"),
        (["--num_splits", "0"], "positive number"),
        (["--seed", "-3"], "'seed'"),
        (["--device", "gpu"], "gpu"),
        (["--diffuse", "colors"], "colors"),
        (["--batch_inits", "0"], "'--batch_inits' to be at least 1 (got 0)"),
        (["--batch_inits", "2", "--model", "gcn"], "'gcn' trains one initialization at a time"),
        (["--hidden", "5"], "no setting ['hidden']"),
        (["--resume"], "need '--out'"),
        (["--out", unwritable], "file"),
        (["--out", damaged], "already holds results"),
        (["--out", damaged, "--resume"], "line 2 is not a JSON object"),
        (["--out", foreign, "--resume"], "lacks ['source'"),
        (["--dataset", "cora", "--data_root", truncated], "cora.npz' is damaged"),
        (["--dataset", "digits", "--nonsense", "1"], "--nonsense"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    flags: list[Any],
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    flags = [str(flag(tmp_path)) if callable(flag) else flag for flag in flags]
    monkeypatch.chdir(tmp_path)
    before = {path: path.stat().st_size for path in tmp_path.rglob("*.jsonl")}
    with pytest.raises(SystemExit) as exit_:
        command_line(lambda: planetoid.main([*FLAGS, *flags]))
    error, code = capsys.readouterr().err, exit_.value.code
    del exit_
    gc.collect()  # what the end of the process does: no frame holds the file of results
    assert code == 2 and message in error and len(error.splitlines()) == 1
    assert {path: path.stat().st_size for path in tmp_path.rglob("*.jsonl")} == before
