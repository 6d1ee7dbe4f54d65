"""python -m benchmarks.ablations"""

from benchmarks.ablations.command import main
from torch_geometric_diff.experiment import command_line

if __name__ == "__main__":
    command_line(main)
