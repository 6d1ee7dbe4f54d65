"""What the processes run that tests/test_streaming_resume.py kills."""

import sys
import threading
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from torch_geometric_diff import preprocessing as streaming
from torch_geometric_diff.ops import DiffusionOperator

NODES, COLUMNS, STEPS = 60, 11, [0, 1, 4]


def operator() -> DiffusionOperator:
    torch.manual_seed(0)
    return DiffusionOperator(torch.randint(NODES, (2, 200)), num_nodes=NODES, step_size=0.5)


def run(folder: str, block_columns: int) -> None:
    """Diffuse ``x.npy`` beside the folder into ``y.npy`` in it.

    Its file ``begun`` gets a line a block before that is computed.
    """
    torch.set_num_threads(1)
    tqdm.set_lock(threading.RLock())  # its own is shared among forks: a killed one would keep it
    write = streaming._write_block

    def logged(path: Path, *args: object) -> None:
        with open(Path(folder, "begun"), "a") as log:
            log.write(f"{path.name}\n")
        write(path, *args)

    setattr(streaming, "_write_block", logged)  # noqa: B010
    arguments = (Path(folder).with_name("x.npy"), operator(), STEPS, Path(folder, "y.npy"))
    streaming.diffuse_features(*arguments, block_columns=block_columns)


def waiting(folder: Path, begun: Any, go_on: Any) -> None:
    """A run that waits before its first block, the window held open."""
    write = streaming._write_block

    def wait_first(*args: Any) -> None:
        begun.set()
        go_on.wait()
        write(*args)

    setattr(streaming, "_write_block", wait_first)  # noqa: B010
    streaming.diffuse_features(Path(folder).with_name("x.npy"), operator(), STEPS, folder / "y.npy")


if __name__ == "__main__":  # a rank
    import time

    import torch.distributed as dist

    dist.init_process_group("gloo")
    if sys.argv[2] == "stuck":  # one block, and time for a kill
        fast, waits = streaming._write_block, iter([0, 3600])

        def slow(*args: Any) -> None:
            time.sleep(next(waits))
            fast(*args)

        setattr(streaming, "_write_block", slow)  # noqa: B010
    run(sys.argv[1], 2)
    dist.destroy_process_group()
