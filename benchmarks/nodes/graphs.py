"""The graph that the flags of a command ask for, and the kinds of splits."""

import argparse
import sys
from pathlib import Path

from torch_geometric.data import Data

from torch_geometric_diff.data import (
    data_root,
    development_split,
    load_graph,
    per_class_split,
)

SOURCES = {"cora": "shchur", "citeseer": "shchur", "pubmed": "planetoid"}  # of the reported rows
SPLITS = {"per_class": per_class_split, "development": development_split}
SPLIT_KINDS = {
    "per_class": "random, 20 train and 30 val per class, largest component",
    "development": "random, 20 train per class and 1500 less those val, largest component",
}


def default_source(dataset: str, root: Path) -> str:
    """Shchur's graphs are the paper's; where the file is missing, Planetoid's are taken."""
    return "shchur" if (root / "shchur" / f"{dataset}.npz").is_file() else "planetoid"


def open_graph(args: argparse.Namespace) -> Data:
    """Load the graph that the flags ask for, or the fallback."""
    root = args.data_root or data_root()
    try:
        data = load_graph(args.dataset, args.source or default_source(args.dataset, root), root)
    except FileNotFoundError as error:
        if args.fallback is None:
            raise
        print(f"{error}; running on the embedded graph '{args.fallback}' instead", file=sys.stderr)
        data = load_graph(args.fallback)
    return data.to(args.device)
