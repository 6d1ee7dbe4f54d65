"""The command of ``python -m benchmarks.ogb_features``."""

import torch.distributed as dist

from benchmarks import flags
from benchmarks.common import world
from benchmarks.ogb.partitioned import diffuse_in_parts
from torch_geometric_diff.data.ogb import load_ogb, undirected
from torch_geometric_diff.ops import DiffusionOperator
from torch_geometric_diff.preprocessing import diffuse_features


def main(argv: list[str] | None = None) -> None:
    """Diffuse what the command line asks for."""
    args = flags.ogb_features(None).parse_args(argv)
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
