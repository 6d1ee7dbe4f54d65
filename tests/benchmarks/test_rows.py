"""Rows of several experiments and ranks in one file, and their folding."""

import json
import multiprocessing
import multiprocessing.process
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import fold
from benchmarks.common import command_line, read_rows, write_rows
from benchmarks.rows import Results, parts

HEADER = {"dataset": "d", "source": "s", "split_kind": "k", "model": "a", "seed": 1}


def add(results: Results, split: int) -> None:
    results.file.append({**results.header, "split": split, "init": 0, "test_acc": 0.5})


def test_experiments_share_a_file(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    one = Results(out, HEADER, resume=False)
    add(one, 0)
    with pytest.raises(ValueError, match="in use by another run"):
        Results(out, {**HEADER, "model": "b"}, resume=True)
    del one  # and with it the lock
    other = Results(out, {**HEADER, "model": "b"}, resume=True)
    assert other.finished == set() and other.rows() == []
    add(other, 0)
    add(other, 1)
    assert other.finished == {(0, 0), (1, 0)} and len(other.own) == 2
    del other
    assert Results(out, HEADER, resume=True).finished == {(0, 0)}
    with pytest.raises(ValueError, match="seed is 1 there and 2 here"):
        Results(out, {**HEADER, "seed": 2}, resume=True)
    with pytest.raises(ValueError, match="already holds results"):
        Results(out, {**HEADER, "model": "c"}, resume=False)


def test_folding_keeps_every_row_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    out = tmp_path / "out.jsonl"
    add(Results(out, HEADER, resume=False), 0)
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank in (0, 1):
        monkeypatch.setenv("RANK", str(rank))
        add(Results(out, HEADER, resume=True), 1 + rank)
    monkeypatch.delenv("WORLD_SIZE")
    monkeypatch.delenv("RANK")
    (tmp_path / "out.rank1x.jsonl").write_text("")  # of nobody
    rows, half = read_rows(parts(out)), '{"split": 3, "in'
    with open(out, "a") as file:
        file.write(half)  # cut by a kill
    assert [path.name for path in parts(out)] == [
        "out.jsonl",
        "out.rank0.jsonl",
        "out.rank1.jsonl",
    ]
    plain = {path: path.read_bytes() for path in parts(out)}
    fold.main([str(tmp_path)])
    assert "out.jsonl.gz: 3 rows" in capsys.readouterr().out
    assert [path.name for path in parts(out)] == ["out.jsonl.gz"]
    assert read_rows(parts(out)) == rows and len(rows) == 3
    whole = parts(out)[0].read_bytes()
    for path, text in plain.items():  # killed before they were removed
        path.write_bytes(text)
    assert Results(out, HEADER, resume=True).finished == {(0, 0), (1, 0), (2, 0)}
    fold.main([str(tmp_path)])
    assert parts(out)[0].read_bytes() == whole

    more = Results(out, HEADER, resume=True)
    add(more, 4)
    assert more.finished == {(0, 0), (1, 0), (2, 0), (4, 0)}
    with pytest.raises(ValueError, match="out.jsonl' is in use by another run"):
        fold.main([str(tmp_path)])
    del more
    fold.main([str(tmp_path)])
    assert read_rows(parts(out))[:3] == rows and len(read_rows(parts(out))) == 4
    with pytest.raises(ValueError, match="already holds results"):
        Results(out, HEADER, resume=False)


@pytest.mark.slow
def test_a_fold_killed_at_any_moment_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload(["benchmarks.fold"])  # imported once, not 50 times
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    out = tmp_path / "out.jsonl"
    rows = [{"split": i, "text": "x" * 2000} for i in range(1000)]
    write_rows(f"{out}.gz", rows[:500])
    old = parts(out)[0].read_bytes()
    new = "".join(json.dumps(row) + "\n" for row in rows[500:])

    def start() -> multiprocessing.process.BaseProcess:
        Path(f"{out}.gz").write_bytes(old)
        out.write_text(new)
        process = processes.Process(target=fold.main, args=([str(tmp_path)],))
        process.start()
        return process

    seconds = 0.0
    for _ in range(2):  # the first also starts the server
        seconds = -time.monotonic()
        start().join()
        seconds += time.monotonic()
    whole = parts(out)[0].read_bytes()
    for moment in np.random.default_rng(0).uniform(0, seconds, 50):
        process = start()
        time.sleep(moment)
        process.kill()
        process.join()
        found = {row["split"]: row for row in read_rows(parts(out))}
        assert [found[i] for i in range(1000)] == rows
        fold.main([str(tmp_path)])
        assert parts(out) == [tmp_path / "out.jsonl.gz"] and parts(out)[0].read_bytes() == whole


def damaged(tmp_path: Path) -> list[str]:
    (tmp_path / "out.jsonl.gz").write_bytes(b"\x1f\x8b\x08half")
    (tmp_path / "out.jsonl").write_text('{"split": 0}\n')
    return [str(tmp_path)]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (lambda folder: [str(folder / "none")], "none' is no folder"),
        (damaged, "out.jsonl.gz' is damaged"),
    ],
)
def test_bad_input(flags: Any, message: str, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as stop:
        command_line(lambda: fold.main(flags(tmp_path)))
    error = capsys.readouterr().err
    assert stop.value.code == 2 and message in error and len(error.splitlines()) == 1
    for path in tmp_path.glob("*.jsonl"):
        assert path.read_text() == '{"split": 0}\n'


def test_a_compressed_file_is_only_read(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="without '.gz'"):
        Results(tmp_path / "out.jsonl.gz", HEADER, resume=True)
    with pytest.raises(ValueError, match="ends in '.jsonl.gz'"):
        write_rows(tmp_path / "out.jsonl", [])
    assert list(tmp_path.iterdir()) == []
