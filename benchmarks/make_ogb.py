"""python -m benchmarks.make_ogb --shape arxiv --out runs/ogb/sbm-arxiv: see ``ogb/make.py``."""

from benchmarks.common import command_line
from benchmarks.ogb.make import main

if __name__ == "__main__":
    command_line(main)
