"""Write a made-up set in OGB's true layout: a stochastic block model with features and years.

``python -m benchmarks.make_ogb --shape arxiv --out runs/arxiv`` writes a set of the size of
ogbn-arxiv (``products``: of ogbn-products, ``medium``: an eighth of ogbn-arxiv, ``small``: for
tests) that every reader of OGB's format takes. Nodes have a class, a popularity with a heavy tail
and a year; an edge stays inside the class with probability 0.5; features are a class mean plus
noise; training nodes are the oldest, test nodes the newest, and features drift with time. ``--kind
noisy`` writes one whose features tell more of the class, whose edges tell less, and a fifth of
whose labels is wrong.
"""

from benchmarks import flags
from benchmarks.common import command_line

if __name__ == "__main__":  # a typo waits for no import
    flags.make_ogb(__doc__).parse_args()
    from benchmarks.ogb.make import main

    command_line(main)
