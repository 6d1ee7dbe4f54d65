"""python -m benchmarks.make_ogb --shape arxiv --out runs/ogb/sbm-arxiv: see ``ogb/make.py``."""

from benchmarks.ogb.make import main
from torch_geometric_diff.experiment import command_line

if __name__ == "__main__":
    command_line(main)
