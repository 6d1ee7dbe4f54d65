"""Diffuse the features of an OGB set into one npy file, on one process or under torchrun.

python -m benchmarks.ogb_features --dataset runs/ogb/arxiv --num_steps 0 1 2 4 --out runs/x.npy
torchrun --nproc-per-node 4 -m benchmarks.ogb_features ...   (ranks share the columns)
torchrun --nproc-per-node 4 -m benchmarks.ogb_features --partition ...   (and no rank has all rows)
"""

from benchmarks import flags
from benchmarks.common import command_line

if __name__ == "__main__":  # a typo waits for no import
    flags.ogb_features(__doc__).parse_args()
    from benchmarks.ogb.features import main

    command_line(main)
