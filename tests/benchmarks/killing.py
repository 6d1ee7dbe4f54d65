"""Kill a command at random moments, resume it each time, and look at its rows.

python tests/benchmarks/killing.py MODULE OUT KILLS KEY FLAGS...

The command is imported once and runs in forked processes, so that a moment costs no start. Half of
the kills come at a random time, half right after the result file has changed. Prints the number of
runs that reached their end.
"""

import importlib
import os
import random
import signal
import sys
import time
import traceback
from pathlib import Path
from typing import Any

from benchmarks.common import read_rows

Key = tuple[Any, ...]


def start(main: Any, flags: list[str]) -> int:
    """A process that runs the command."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        main(flags)
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def ended(pid: int) -> bool:
    done, status = os.waitpid(pid, os.WNOHANG)
    if done and status:
        raise SystemExit(f"the command failed with status {status}")
    return bool(done)


def state(out: Path) -> tuple[int, int]:
    """What tells a file from itself after it was written to."""
    try:
        found = out.stat()
    except FileNotFoundError:  # not there yet, or an empty one that was taken away
        return 0, 0
    return found.st_size, found.st_mtime_ns


def kill(pid: int, out: Path, longest: float, draw: random.Random) -> bool:
    """Whether the process was killed before its end."""
    moment, before = time.monotonic() + draw.uniform(0, longest), None
    if draw.random() < 0.5:  # soon after a row has been begun
        moment, before = time.monotonic() + 60, state(out)
        wait = draw.choice([0, 0, 1e-4, 1e-3, 5e-3])
    while time.monotonic() < moment and (before is None or state(out) == before):
        if ended(pid):
            return False
        time.sleep(2e-5 if before is not None else 1e-3)
    if before is not None:
        time.sleep(wait)
    if ended(pid):
        return False
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return True


def finished(out: Path, key: list[str]) -> dict[Key, dict[str, Any]]:
    """The rows by their key, each of which must be there once."""
    rows = read_rows(out) if out.exists() else []
    found = {tuple(row[name] for name in key): row for row in rows}
    assert len(found) == len(rows), "a row was repeated"
    return found


def numbers(rows: dict[Key, dict[str, Any]]) -> dict[Key, Any]:
    return {key: {**row, "seconds": 0, "versions": 0} for key, row in rows.items()}


def main(module: str, out: Path, kills: int, key: list[str], flags: list[str]) -> None:
    command = importlib.import_module(module).main
    flags = [*flags, "--resume", "--out", str(out)]
    begin = time.monotonic()
    pid = start(command, flags)
    while not ended(pid):
        time.sleep(1e-3)
    longest, expected = time.monotonic() - begin, finished(out, key)
    out.unlink()
    draw, hits, ends = random.Random(0), 0, 0
    known: dict[Key, dict[str, Any]] = {}
    while hits < kills or known:
        alive = hits >= kills  # the last is left to its end
        pid = start(command, flags)
        killed = not alive and kill(pid, out, longest, draw)
        if alive:
            while not ended(pid):
                time.sleep(1e-3)
        hits += killed
        rows = finished(out, key)
        assert known.items() <= rows.items(), "a finished row was lost or changed"
        known = rows
        if not killed:
            assert numbers(rows) == numbers(expected), "a resumed run has other rows"
            out.unlink()
            known, ends = {}, ends + 1
    print(f"{hits} kills, {ends} runs to the end, {len(expected)} rows each")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), sys.argv[4].split(","), sys.argv[5:])
