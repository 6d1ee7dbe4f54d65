"""Result files of two processes at once, and what a file is left as."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks.common import ResultFile, new_path, read_rows

ROOT = Path(__file__).parents[3]
HOLDER = """
import sys, time
from torch_geometric_diff._utils.files import open_locked  # what a ResultFile opens
file = open_locked(sys.argv[1])
file.write(b'{"n": 0}\\n')
file.flush()
print("open", flush=True)
time.sleep(3600)
"""


def holding(path: Path) -> subprocess.Popen:
    """Another process that has added a row and keeps the file."""
    command = [sys.executable, "-W", "ignore", "-c", HOLDER, str(path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    assert process.stdout is not None and process.stdout.readline() == "open\n"
    return process


def test_a_second_process_is_refused_until_the_first_ends(tmp_path: Path) -> None:
    out = tmp_path / "rows.jsonl"
    process = holding(out)
    try:
        for resume in (False, True):
            with pytest.raises(ValueError, match="rows.jsonl' is in use by another run"):
                ResultFile(out, key=("n",), resume=resume)
    finally:
        process.kill()  # no chance to clean up: the lock goes with the process
        process.communicate()
    again = ResultFile(out, key=("n",), resume=True)
    again.append({"n": 1})
    assert again.finished == {(0,), (1,)} and len(read_rows(out)) == 2


def test_a_file_without_rows_vanishes_with_its_folders(tmp_path: Path) -> None:
    out = tmp_path / "a" / "b" / "rows.jsonl"
    file = ResultFile(out)
    with pytest.raises(ValueError, match="in use by another run"):
        ResultFile(out)
    del file
    assert not (tmp_path / "a").exists()
    file = ResultFile(out)
    file.append({"split": 0, "init": 0})
    del file
    assert len(read_rows(out)) == 1
    with pytest.raises(ValueError, match="already holds results"):
        ResultFile(out)
    assert len(ResultFile(out, resume=True).rows) == 1  # a refusal leaves no lock


@pytest.mark.skipif(sys.platform == "win32", reason="devices are no files there")
def test_devices_are_refused() -> None:
    before = Path("/dev/null").stat()
    with pytest.raises(ValueError, match="'/dev/null' to be a regular file"):
        ResultFile("/dev/null")
    assert Path("/dev/null").stat().st_rdev == before.st_rdev


def test_new_paths_differ_within_a_second(tmp_path: Path) -> None:
    start = time.time()
    paths = {new_path(tmp_path, "name") for _ in range(100)}
    assert len(paths) == 100 and time.time() - start < 5
    assert all(path.name.startswith("name-20") and path.suffix == ".jsonl" for path in paths)
