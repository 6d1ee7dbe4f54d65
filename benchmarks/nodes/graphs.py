"""The graph and the splits that the flags of a command ask for."""

import argparse
import re
import sys
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

from torch_geometric.data import Data

from benchmarks.common.splits import (
    development_split,
    fraction_split,
    leave_out_small_classes,
    mask_splits,
    per_class_split,
)
from benchmarks.common.trials import Nodes, Split
from torch_geometric_diff.data import data_root, load_graph


class Protocol(NamedTuple):
    """How the nodes of a graph are split."""

    split: Split | Sequence[Nodes]
    kind: str  # in words, for the rows
    num_splits: int


def open_graph(args: argparse.Namespace) -> Data:
    """Load the graph that the flags ask for, or the fallback."""
    root = args.data_root or data_root()
    form = {"component": args.component, "words": args.words, "undirected": not args.directed}
    try:
        return load_graph(args.dataset, args.source, root, **form).to(args.device)
    except FileNotFoundError as error:
        if args.fallback is None:
            raise
        print(f"{error}; running on the embedded graph '{args.fallback}' instead", file=sys.stderr)
        return load_graph(args.fallback, **form).to(args.device)


def open_splits(args: argparse.Namespace, data: Data) -> Protocol:
    """The splits that the flags ask for.

    For those of so many nodes a class, classes that are too small lose their labels in ``data``: a
    class needs one node to test beside those that train and validate.
    """
    where = "largest component" if args.component == "largest" else "all components"
    number = 100 if args.num_splits is None else args.num_splits
    if args.split == "masks":
        splits = mask_splits(data)
        number = len(splits) if args.num_splits is None else number
        return Protocol(splits, f"masks of the graph, {where}", number)
    if args.split == "fractions":
        train, val = args.fractions
        kind = f"random, {100 * train:g} % train and {100 * val:g} % val, {where}"
        return Protocol(partial(fraction_split, train=train, val=val), kind, number)
    if data.y.dim() == 2:
        raise ValueError(
            "Expected '--split fractions' or '--split masks' for a graph of several labels a node "
            f"(got '--split {args.split}')"
        )
    if args.num_train < 1 or args.num_val < 1:
        raise ValueError(
            f"Expected '--num_train' and '--num_val' of at least 1 (got {args.num_train} and "
            f"{args.num_val})"
        )
    if args.split == "development":
        kind = f"random, {args.num_train} train per class and 1500 less those val, {where}"
        return Protocol(partial(development_split, num_train=args.num_train), kind, number)
    kind = f"random, {args.num_train} train and {args.num_val} val per class, {where}"
    kind += drop_small_classes(data, args.num_train + args.num_val + 1)
    split = partial(per_class_split, num_train=args.num_train, num_val=args.num_val)
    return Protocol(split, kind, number)


def drop_small_classes(data: Data, least: int) -> str:
    """Take the labels of classes with too few nodes; say so here and, in words, for the rows."""
    data.y, small = leave_out_small_classes(data.y, least)
    if not small:
        return ""
    names = ", ".join(f"{c} ({count} nodes)" for c, count in small.items())
    print(f"classes of fewer than {least} nodes neither train nor test: {names}")
    return f", classes of fewer than {least} nodes left out"


def file_name(dataset: str) -> str:
    """The name of a graph as a part of a file name."""
    return re.sub(r"[^a-z0-9]+", "-", dataset.lower()).strip("-")
