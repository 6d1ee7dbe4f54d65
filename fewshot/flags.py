"""The flags of the commands here: read, checked and told before torch is imported.

Names that a flag chooses from are written out; a test compares them with what there is.
"""

import argparse

from benchmarks.common.cli import Parser, add_device_flag

DATASETS = ("mini", "tiered", "cub", "tiny", "omniglot")
BACKBONES = ("resnet18", "resnet10", "wideres", "conv4")
SPLITS = ("train", "val", "test")
METHODS = (
    "simple",
    "laplacian",
    "diffusion",
    "heat",
    "power",
    "bdcspn",
    "tim",
    "alpha-tim",
    "ptmap",
    "ptmap-free",
    "propagation",
    "logistic",
)
PRIORS = ("learned", "balanced", "dirichlet")
ROOT = "folder of the data sets (default: DATA_ROOT/fewshot, else DATA_ROOT)"


def train(text: str | None) -> Parser:
    """``fewshot.train``."""
    p = Parser(text)
    p.add_argument("--dataset", required=True, help="that the features are of")
    p.add_argument("--backbone", required=True, help="that made them")
    p.add_argument("--split", default="test", help="classes to draw from")
    p.add_argument(
        "--features", help="(default: runs/fewshot/features/DATASET_BACKBONE_SPLIT.safetensors)"
    )
    p.add_argument("--method", choices=METHODS, default="diffusion", help="that is measured")
    p.add_argument("--way", type=int, default=5, help="classes of a task")
    p.add_argument("--shot", type=int, default=1, help="labels of a class")
    p.add_argument("--query_per_class", type=int, default=15, help="points to label, a class")
    p.add_argument("--test_iter", type=int, help="tasks (default: 10000, with --raw 1000)")
    p.add_argument(
        "--raw",
        action="store_true",
        help="features as they are (the paper's Table 2); otherwise as each method wants them:\n"
        "centered, normalized, and shifted and rectified where it does so (Table 3)",
    )
    p.add_argument("--unbalanced", action="store_true", help="class shares ~ Dirichlet(2)")
    p.add_argument("--seed", type=int, default=0, help="of the tasks")
    diffusion = p.add_argument_group("diffusion (n_top and sigma: propagation too)")
    diffusion.add_argument("--step_size", type=float, default=0.5, help="of the diffusion")
    diffusion.add_argument("--layer_num", type=int, default=6, help="diffusion steps")
    diffusion.add_argument("--n_top", type=int, default=8, help="neighbors + 1, itself counted")
    diffusion.add_argument("--sigma", type=int, default=4, help="neighbor that sets the width")
    diffusion.add_argument("--alpha", type=float, default=0.0, help="distance term of the loss")
    diffusion.add_argument("--mu", type=float, default=0.0, help="smoothness term of the loss")
    laplacian = p.add_argument_group("laplacian")
    laplacian.add_argument("--lamda", type=float, default=0.5, help="weight of the neighbors")
    laplacian.add_argument("--knn", type=int, default=3, help="neighbors, itself counted")
    heat = p.add_argument_group("heat")
    heat.add_argument(
        "--prior",
        choices=PRIORS,
        default="learned",
        help="of the classes' sizes among the queries (default: learned from each task)",
    )
    p.add_argument("--out", help="(default: runs/fewshot/results/..., one file per setting)")
    p.add_argument("--resume", action="store_true", help="go on with an existing --out")
    p.add_argument("--threads", type=int, help="CPU threads (default: torch's)")
    add_device_flag(p)
    p.add_argument("--silent", action="store_true", help="print the last line only")
    return p


def train_backbone(text: str | None) -> Parser:
    """``fewshot.train_backbone``."""
    p = Parser(text)
    p.add_argument("--dataset", choices=DATASETS, required=True)
    p.add_argument("--backbone", choices=BACKBONES, required=True)
    p.add_argument("--epochs", type=int, default=100, help="of training")
    p.add_argument("--batch_size", type=int, default=256, help="of all ranks together")
    p.add_argument("--lr", type=float, default=0.1, help="x0.1 at 50 %% and 75 %%")
    p.add_argument("--image_size", type=int, help="input side (default: the data set's)")
    p.add_argument("--load_size", type=int, help="stored side (default: the data set's)")
    p.add_argument("--min_area", type=float, default=0.08, help="of the random crops")
    p.add_argument("--eval_tasks", type=int, default=1000, help="that judge an epoch")
    p.add_argument("--data_root", help=ROOT)
    p.add_argument("--out", help="(default: runs/fewshot/DATASET_BACKBONE)")
    p.add_argument(
        "--resume",
        action="store_true",
        help="go on from OUT/last.safetensors, if an epoch has ended (up to the first drop of the\n"
        "learning rate with other '--epochs' too)",
    )
    p.add_argument("--seed", type=int, default=0, help="of the network and the order of images")
    add_device_flag(p)
    p.add_argument(
        "--amp",
        action=argparse.BooleanOptionalAction,
        help="mixed precision in bfloat16 (default: on GPUs that have it)",
    )
    p.add_argument("--silent", action="store_true", help="print the last line only")
    return p


def embed(text: str | None) -> Parser:
    """``fewshot.embed``."""
    p = Parser(text)
    p.add_argument("--checkpoint", required=True, help="best.safetensors of train_backbone")
    p.add_argument("--split", choices=SPLITS, default="test", help="classes to embed")
    p.add_argument("--data_root", help=ROOT)
    p.add_argument("--out", help="(default: runs/fewshot/features/DATASET_BACKBONE_SPLIT)")
    p.add_argument(
        "--image_size",
        type=int,
        help="input side (default: the training's; crops show things larger than whole images do,\n"
        "which a larger side makes up for)",
    )
    p.add_argument("--mirror", action="store_true", help="mean of each image and its mirror's")
    p.add_argument("--half", action="store_true", help="store the features as float16")
    p.add_argument("--batch_size", type=int, default=256, help="images at a time")
    add_device_flag(p)
    p.add_argument("--silent", action="store_true", help="no progress bars")
    return p
