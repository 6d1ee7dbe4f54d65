"""python -m benchmarks.ogb"""

from benchmarks.common import command_line
from benchmarks.ogb.command import main

if __name__ == "__main__":
    command_line(main)
