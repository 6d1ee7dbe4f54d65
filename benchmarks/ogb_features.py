"""python -m benchmarks.ogb_features: see ``ogb/features.py``."""

from benchmarks.ogb.features import main
from torch_geometric_diff.experiment import command_line

if __name__ == "__main__":
    command_line(main)
