"""python -m benchmarks.nodes"""

from benchmarks.common import command_line
from benchmarks.nodes.command import main

if __name__ == "__main__":
    command_line(main)
