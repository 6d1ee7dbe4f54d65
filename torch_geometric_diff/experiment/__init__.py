"""Trials that resume, results that last, command lines that end in one line."""

from ..writing import check_writable as check_writable
from ..writing import make_folder as make_folder
from ..writing import write_atomically as write_atomically
from .cli import command_line as command_line
from .memory import keep_freed_memory as keep_freed_memory
from .results import ResultFile as ResultFile
from .results import environment as environment
from .results import read_rows as read_rows
from .results import write_rows as write_rows
from .statistics import mean_and_interval as mean_and_interval
from .training import EarlyStopping as EarlyStopping
from .training import Fit as Fit
from .training import accuracy as accuracy
from .training import fit as fit
from .trials import Trial as Trial
from .trials import draw_trials as draw_trials
from .trials import share_of_rank as share_of_rank
from .trials import world as world
