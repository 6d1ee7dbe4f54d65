"""python -m benchmarks.planetoid: ``benchmarks.nodes`` with the paper's protocol as defaults."""

from benchmarks.nodes.command import main
from torch_geometric_diff.experiment import command_line

if __name__ == "__main__":
    command_line(main)
