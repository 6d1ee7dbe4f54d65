"""Kill the training of a backbone at random moments, resume it each time, and look at its files.

python tests/fewshot/killing_training.py OUT KILLS FLAGS...
"""

import random
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

from killing import ended, kill, start

from fewshot.checkpoints import load_checkpoint
from fewshot.train_backbone import main as command


def epoch(path: Path) -> int:
    """The epoch of a checkpoint, which must be whole; 0 if there is none."""
    return load_checkpoint(path)[1]["epoch"] if path.exists() else 0


def to_the_end(flags: list[str]) -> float:
    begin, pid = time.monotonic(), start(command, flags)
    while not ended(pid):
        time.sleep(1e-3)
    return time.monotonic() - begin


def main(out: Path, kills: int, flags: list[str]) -> None:
    names = ("best.safetensors", "last.safetensors")
    whole = out / "whole"
    to_the_end([*flags, "--out", str(whole)])
    longest = to_the_end([*flags, "--out", str(out / "again")])
    expected = {name: (whole / name).read_bytes() for name in names}
    draw, hits, ends, known = random.Random(0), 0, 0, 0
    folder = out / "killed"
    while hits < kills or known:
        last = folder / "last.safetensors"
        arguments = [*flags, "--out", str(folder), "--resume"]
        if hits < kills:
            pid = start(command, arguments)
            killed = kill(pid, last, longest, draw)
        else:  # the last is left to its end
            to_the_end(arguments)
            killed = False
        hits += killed
        now = epoch(last)
        epoch(folder / "best.safetensors")
        assert now >= known, f"epoch {known} was lost"
        known = now
        if not killed:
            for name in names:
                assert (folder / name).read_bytes() == expected[name], f"another {name}"
            for path in folder.iterdir():
                path.unlink()
            known, ends = 0, ends + 1
    print(f"{hits} kills, {ends} runs to the end")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3:])
