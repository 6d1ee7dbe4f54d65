"""Diffuse the features of an OGB set into one npy file, on one process or under torchrun.

python -m benchmarks.ogb_features --dataset runs/ogb/arxiv --num_steps 0 1 2 4 --out runs/x.npy
torchrun --nproc-per-node 4 -m benchmarks.ogb_features ...   (ranks share the columns)
torchrun --nproc-per-node 4 -m benchmarks.ogb_features --partition ...   (and no rank has all rows)
"""

import argparse
from pathlib import Path

import torch.distributed as dist

from benchmarks.common import world
from benchmarks.common.partitions import METHODS
from benchmarks.ogb.partitioned import diffuse_in_parts
from torch_geometric_diff.data.ogb import load_ogb, undirected
from torch_geometric_diff.ops import DiffusionOperator
from torch_geometric_diff.preprocessing import diffuse_features


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = argparse.ArgumentParser(
        prog="python -m benchmarks.ogb_features",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    p.add_argument("--dataset", required=True, help="official name or folder of a set")
    p.add_argument("--root", type=Path, default=Path("dataset"), help="where official sets lie")
    p.add_argument("--features", type=Path, help="npy file of features (default: the set's own)")
    p.add_argument("--num_steps", type=int, nargs="+", required=True, help="ascending")
    p.add_argument("--step_size", type=float, default=0.5)
    p.add_argument("--normalization", choices=["row", "sym"], default="row")
    p.add_argument("--block_columns", type=int, default=32)
    p.add_argument("--partition", action="store_true", help="share out the rows over the ranks")
    p.add_argument("--order", choices=METHODS, default="ranges", help="how (see the docs)")
    p.add_argument("--no_resume", action="store_true", help="drop the blocks of a killed run")
    p.add_argument("--out", type=Path, required=True, help="npy file [steps, nodes, columns]")
    return p


def main(argv: list[str] | None = None) -> None:
    """Diffuse what the command line asks for."""
    args = parser().parse_args(argv)
    if args.partition:
        return diffuse_in_parts(args)
    data = load_ogb(args.dataset, args.root, features=args.features is None)
    if args.features is None and data.x is None:
        raise ValueError(f"'{args.dataset}' has no node features; pass '--features'")
    operator = DiffusionOperator(
        undirected(data.edge_index, data.num_nodes),
        num_nodes=data.num_nodes,
        step_size=args.step_size,
        normalization=args.normalization,
    )
    rank, ranks = world()
    if ranks > 1:
        dist.init_process_group("gloo")
    result = diffuse_features(
        args.features or data.x,
        operator,
        args.num_steps,
        args.out,
        block_columns=args.block_columns,
        resume=not args.no_resume,
    )
    if rank == 0:
        print(f"wrote {args.out} {list(result.shape)}")
    if ranks > 1:
        dist.destroy_process_group()
