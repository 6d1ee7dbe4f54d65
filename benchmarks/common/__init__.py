"""Trials that resume, results that last, command lines that end in one line.

Names are imported when they are first used, so that ``--help`` waits for nothing.
"""

from typing import TYPE_CHECKING

from torch_geometric_diff._utils.files import make_folder as make_folder
from torch_geometric_diff._utils.files import write_atomically as write_atomically
from torch_geometric_diff._utils.lazy import lazy_names

if TYPE_CHECKING:
    from benchmarks.common.cli import Parser as Parser
    from benchmarks.common.cli import add_device_flag as add_device_flag
    from benchmarks.common.cli import command_line as command_line
    from benchmarks.common.cli import device as device
    from benchmarks.common.cli import refuse_unused as refuse_unused
    from benchmarks.common.files import check_writable as check_writable
    from benchmarks.common.memory import keep_freed_memory as keep_freed_memory
    from benchmarks.common.results import ResultFile as ResultFile
    from benchmarks.common.results import environment as environment
    from benchmarks.common.results import new_path as new_path
    from benchmarks.common.results import read_rows as read_rows
    from benchmarks.common.results import write_rows as write_rows
    from benchmarks.common.statistics import mean_and_interval as mean_and_interval
    from benchmarks.common.training import EarlyStopping as EarlyStopping
    from benchmarks.common.training import Fit as Fit
    from benchmarks.common.training import accuracy as accuracy
    from benchmarks.common.training import fit as fit
    from benchmarks.common.trials import Trial as Trial
    from benchmarks.common.trials import draw_trials as draw_trials
    from benchmarks.common.trials import share_of_rank as share_of_rank
    from benchmarks.common.trials import world as world

_HOMES = {
    "cli": ("Parser", "add_device_flag", "command_line", "device", "refuse_unused"),
    "files": ("check_writable",),
    "memory": ("keep_freed_memory",),
    "results": ("ResultFile", "environment", "new_path", "read_rows", "write_rows"),
    "statistics": ("mean_and_interval",),
    "training": ("EarlyStopping", "Fit", "accuracy", "fit"),
    "trials": ("Trial", "draw_trials", "share_of_rank", "world"),
}
__getattr__, __dir__ = lazy_names(__name__, _HOMES)
