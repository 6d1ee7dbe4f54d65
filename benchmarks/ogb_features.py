"""python -m benchmarks.ogb_features: see ``ogb/features.py``."""

from benchmarks.common import command_line
from benchmarks.ogb.features import main

if __name__ == "__main__":
    command_line(main)
