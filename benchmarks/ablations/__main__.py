"""python -m benchmarks.ablations"""

from benchmarks.ablations.command import main
from benchmarks.common import command_line

if __name__ == "__main__":
    command_line(main)
