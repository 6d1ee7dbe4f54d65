"""The flags of the commands that need torch: read, checked and told before it is imported.

Names that a flag chooses from are written out here; a test compares them with what there is.
"""

import argparse
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from benchmarks.common.cli import Parser, add_device_flag, path, refuse_unused
from benchmarks.common.metrics import METRICS
from benchmarks.common.tables import add_format_flag
from benchmarks.rows import RESULTS

SOURCES = {"cora": "shchur", "citeseer": "shchur", "pubmed": "planetoid"}  # of the reported rows
DATASETS = [*SOURCES, "digits"]
FORMS = "a file .npz, .pt, .csv (edges, with nodes.csv beside it), .graphml, .gml or .gexf"
SPLITS = ("per_class", "development", "fractions", "masks")
SPLIT_KINDS = {  # of the reported rows, in their words
    "per_class": "random, 20 train and 30 val per class, largest component",
    "development": "random, 20 train per class and 1500 less those val, largest component",
}
COMPONENTS = ("largest", "all")
WORDS = ("binary", "rows", "raw")
MODELS = (
    "node-classifier",
    "diff-resnet",
    "diff-resnet-words",
    "diff-resnet-tuned",
    "diff-linear",
    "gcn",
    "appnp",
    "coin",
    "mlp",
    "sgc",
    "sage",
    "label-propagation",
    "correct-and-smooth",
    "gat",
    "grand-l",
)
SETTINGS: dict[str, type] = {  # of a model of `benchmarks.nodes` that have a flag of their own
    "step_size": float,
    "layer_num": int,
    "dropout": float,
    "diffuse": str,
    "hidden": int,
    "lr": float,
    "weight_decay": float,
    "max_epochs": int,
    "patience": int,
}
STUDIES = ("steps", "step_size", "dropout", "diffuse", "learned", "encoders")
OGB_MODELS = (
    "diff-resnet",
    "mlp",
    "gcn",
    "sage",
    "sgc",
    "appnp",
    "correct-and-smooth",
    "diffused-mlp",
)
OGB_SETTINGS: dict[str, type] = {
    "hidden": int,
    "num_layers": int,
    "dropout": float,
    "num_steps": int,
    "step_size": float,
    "alpha": float,
    "correct_alpha": float,
    "smooth_alpha": float,
    "feature_steps": int,
    "label_steps": int,
    "post_steps": int,
    "batch_size": int,
}
OGB_TRAINING: dict[str, Any] = {
    "lr": 0.01,
    "weight_decay": 0.0,
    "max_epochs": 500,
    "patience": 50,
}
ORDERS = ("auto", "metis", "cuthill-mckee", "ranges")
SHAPES, KINDS = ("small", "medium", "arxiv", "products"), ("plain", "noisy")
POINTS = ("digits", "wine", "breast cancer", "omniglot")
POINT_MODELS = (
    "diffusion",
    "graph alone",
    "label spreading, kNN",
    "label spreading, Gaussian",
    "label propagation, kNN",
    "label propagation, Gaussian",
    "self-training",
    "logistic regression",
)
CARDS = ("A100", "B200", "H100")
NONE: Mapping[str, Any] = MappingProxyType({})


def model(text: str) -> str:
    """The name of a model of ours, or ``module:class`` of a user's."""
    if text not in MODELS and ":" not in text:
        raise argparse.ArgumentTypeError(
            f"There is no model '{text}': expected one of {', '.join(MODELS)}, or module:class"
        )
    return text


def add_graph_flags(p: argparse.ArgumentParser, dataset: str | None) -> None:
    """The flags that choose a graph and its form; ``dataset`` is the default."""
    p.add_argument(
        "--dataset",
        default=dataset,
        required=dataset is None,
        help=f"{', '.join(DATASETS)}; a data set of PyG, CLASS:NAME (Amazon:Photo, WikiCS);"
        f"\n{FORMS};\na folder in OGB's layout",
    )
    p.add_argument(
        "--source",
        choices=["planetoid", "shchur"],
        help="files of a citation graph (default: shchur where DATA_ROOT has it)",
    )
    p.add_argument("--data_root", type=path, help="folder of data sets (default: DATA_ROOT)")
    p.add_argument("--component", choices=COMPONENTS, default="largest", help="of the graph")
    p.add_argument(
        "--words",
        choices=WORDS,
        help="features as 0 or 1 in rows that sum to one, as rows that sum to one, or as they are"
        "\n(default: binary for citation graphs, raw where some are negative, else rows)",
    )
    p.add_argument("--directed", action="store_true", help="keep the directions of edges")


def add_split_flags(p: argparse.ArgumentParser) -> None:
    """The flags that choose the splits."""
    p.add_argument(
        "--split",
        default="per_class",
        choices=SPLITS,
        help="per_class: the paper's; development: that of GDC and GRAND;\n"
        "fractions: shares of all nodes; masks: those that come with the graph",
    )
    p.add_argument("--num_train", type=int, default=20, help="per class")
    p.add_argument("--num_val", type=int, default=30, help="per class")
    p.add_argument(
        "--fractions",
        type=float,
        nargs=2,
        metavar=("TRAIN", "VAL"),
        default=[0.6, 0.2],
        help="of all nodes",
    )
    p.add_argument("--num_splits", type=int, help="(default: 100, or all of the masks)")


def check_split_flags(p: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """Refuse what another kind of splits would read."""
    reads = {
        "per_class": {"num_train", "num_val"},
        "development": {"num_train"},
        "fractions": {"fractions"},
        "masks": set(),
    }
    others = sorted({"num_train", "num_val", "fractions"} - reads[args.split])
    refuse_unused(p, args, others, f"'--split {args.split}'")


def nodes(text: str | None, defaults: Mapping[str, Any] = NONE) -> Parser:
    """``benchmarks.nodes`` and ``.planetoid``; those of the paper's code keep their names."""
    p = Parser(text)
    add_graph_flags(p, defaults.get("dataset"))
    p.add_argument(
        "--model",
        type=model,
        nargs="+",
        default=["diff-resnet"],
        help=f"one or several, which are compared on the same splits:\n{', '.join(MODELS)},\n"
        "or module:class (or function), which builds a model of (x, edge_index) from the numbers\n"
        "of features and classes (default: diff-resnet)",
    )
    add_split_flags(p)
    p.add_argument(
        "--metric",
        choices=METRICS,
        default="accuracy",
        help="what to report beside accuracy, which training watches",
    )
    p.add_argument(
        "--num_inits", type=int, default=defaults.get("num_inits", 1), help="starts of each split"
    )
    p.add_argument("--seed", type=int, default=42, help="seed of the split seeds")
    add_device_flag(p)
    p.add_argument(
        "--batch_inits",
        type=int,
        metavar="B",
        help="trials to train side by side (default: 10 on a GPU where the model can, else 1);\n"
        "the rows do not depend on it",
    )
    p.add_argument("--out", type=path, help="result file (default: a new one in runs)")
    p.add_argument("--resume", action="store_true", help="go on with the result file --out")
    p.add_argument(
        "--fallback",
        choices=["digits"],
        help="run on this graph if the data set is unreachable;\nits rows go to OUT-digits",
    )
    add_format_flag(p, "print a table in this form (default: markdown for several models)")
    p.add_argument(
        "--settings",
        type=path,
        metavar="FILE",
        help="TOML file, a table a model; what it leaves out is as without it",
    )
    settings = p.add_argument_group(
        "settings (default: of benchmarks/nodes/settings/DATASET.toml or default.toml)"
    )
    for name, kind in SETTINGS.items():
        settings.add_argument(f"--{name}", type=kind)
    return p


def tune(text: str | None) -> Parser:
    """``benchmarks.tune``."""
    p = Parser(text)
    add_graph_flags(p, "cora")
    p.add_argument(
        "--model",
        type=model,
        default="diff-resnet-tuned",
        help=f"{', '.join(MODELS)},\nor module:class (or function)",
    )
    p.add_argument(
        "--space",
        type=path,
        metavar="FILE",
        help="TOML file of what to search: hidden = [16, 64], lr = {low = 1e-3, high = 0.1, log = "
        "true}\n(default: of benchmarks/nodes/spaces.py, or around the model's own settings)",
    )
    p.add_argument(
        "--trials", type=int, default=100, help="settings to try, those in FILE included"
    )
    p.add_argument("--num_splits", type=int, default=10, help="splits that each is tried on")
    p.add_argument("--seed", type=int, default=7, help="of the splits and of the search")
    p.add_argument("--max_epochs", type=int, default=10_000, help="most epochs of a training")
    p.add_argument("--out", type=path, required=True, metavar="FILE", help="rows, to go on with")
    p.add_argument("--num_train", type=int, default=20, help="per class")
    p.add_argument(
        "--num_val",
        type=int,
        default=30,
        help="per class: so many stop the training and as many judge",
    )
    p.add_argument(
        "--judge",
        choices=["val", "rest"],
        default="val",
        help="by whose accuracy: as many nodes of every class, or all that are left, in the\n"
        "proportions of the graph (for a model that estimates these)",
    )
    p.add_argument(
        "--write", action="store_true", help="put the best settings into benchmarks/nodes/settings"
    )
    p.add_argument("--settings", type=path, metavar="FILE", help="put them into FILE instead")
    return p


def table(text: str | None) -> Parser:
    """``benchmarks.table``."""
    p = Parser(text)
    p.add_argument("--num_splits", type=int, default=100, help="of each graph")
    p.add_argument("--num_inits", type=int, default=1, help="starts of each split; the paper's 20")
    p.add_argument("--datasets", nargs="+", choices=list(SOURCES), default=list(SOURCES))
    p.add_argument("--split", choices=list(SPLIT_KINDS), default="per_class", help="kind")
    p.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    p.add_argument("--results", type=Path, default=RESULTS / "nodes", help="folder of result files")
    return p


def ablations(text: str | None) -> Parser:
    """``benchmarks.ablations``."""
    p = Parser(text)
    p.add_argument("--study", nargs="+", choices=STUDIES, default=list(STUDIES))
    p.add_argument("--datasets", nargs="+", choices=DATASETS, default=["cora"])
    p.add_argument("--num_splits", type=int, default=20, help="of each graph")
    p.add_argument("--num_inits", type=int, default=1, help="starts of each split")
    p.add_argument("--seed", type=int, default=42, help="seed of the split seeds")
    p.add_argument("--device", default="cpu", help="of torch")
    p.add_argument("--max_epochs", type=int, help="for a quick look (default: as published)")
    p.add_argument("--data_root", type=Path, help="folder of data sets (default: DATA_ROOT)")
    p.add_argument(
        "--results", type=Path, default=RESULTS / "ablations", help="folder of the result files"
    )
    return p


def ogb(text: str | None) -> Parser:
    """``benchmarks.ogb``."""
    p = Parser(text)
    p.add_argument("--dataset", required=True, help="ogbn-arxiv, ogbn-products, ... or a folder")
    p.add_argument("--root", type=Path, default=Path("dataset"), help="where official sets lie")
    p.add_argument(
        "--model", nargs="+", default=["diff-resnet"], choices=OGB_MODELS, help="one or several"
    )
    p.add_argument("--features", type=Path, help="npy file of diffused features, for 'mlp'")
    p.add_argument("--num_inits", type=int, default=10, help="number of seeds")
    p.add_argument("--seed", type=int, default=0, help="the first of the seeds")
    add_device_flag(p)
    p.add_argument("--partition", action="store_true", help="share out the rows over the ranks")
    p.add_argument("--order", choices=ORDERS, default="ranges", help="which rank gets which rows")
    p.add_argument("--out", type=Path, help="result file (default: a new one in runs/ogb)")
    p.add_argument("--resume", action="store_true", help="go on with the result file --out")
    add_format_flag(p, "print a table in this form (default: markdown for several models)")
    settings = p.add_argument_group("settings (default: those of the model)")
    for name, kind in {**OGB_SETTINGS, **{n: type(v) for n, v in OGB_TRAINING.items()}}.items():
        settings.add_argument(f"--{name}", type=kind)
    return p


def ogb_features(text: str | None) -> Parser:
    """``benchmarks.ogb_features``."""
    p = Parser(text)
    p.add_argument("--dataset", required=True, help="official name or folder of a set")
    p.add_argument("--root", type=Path, default=Path("dataset"), help="where official sets lie")
    p.add_argument("--features", type=Path, help="npy file of features (default: the set's own)")
    p.add_argument("--num_steps", type=int, nargs="+", required=True, help="ascending")
    p.add_argument("--step_size", type=float, default=0.5, help="of the diffusion")
    p.add_argument("--normalization", choices=["row", "sym"], default="row", help="of the graph")
    p.add_argument("--block_columns", type=int, default=32, help="columns in memory at a time")
    p.add_argument("--partition", action="store_true", help="share out the rows over the ranks")
    p.add_argument("--order", choices=ORDERS, default="ranges", help="which rank gets which rows")
    p.add_argument("--no_resume", action="store_true", help="drop the blocks of a killed run")
    p.add_argument("--out", type=Path, required=True, help="npy file [steps, nodes, columns]")
    return p


def make_ogb(text: str | None) -> Parser:
    """``benchmarks.make_ogb``."""
    p = Parser(text)
    p.add_argument("--shape", choices=SHAPES, required=True, help="the size of the set")
    p.add_argument("--kind", choices=KINDS, default="plain", help="of features and labels")
    p.add_argument("--out", type=Path, required=True, help="folder to make")
    p.add_argument("--seed", type=int, default=0, help="of all that is drawn")
    return p


def classifier(text: str | None) -> Parser:
    """``benchmarks.classifier``."""
    p = Parser(text)
    data = p.add_mutually_exclusive_group()
    data.add_argument("--data", nargs="+", choices=POINTS, default=list(POINTS))
    data.add_argument("--features", metavar="FILE", help="embeddings in place of these")
    p.add_argument("--models", nargs="+", choices=POINT_MODELS, default=list(POINT_MODELS))
    p.add_argument("--labels", type=int, nargs="+", default=[1, 2, 5, 10], help="per class")
    p.add_argument("--draws", type=int, help="of the labels (default: 100, with --tune 20)")
    p.add_argument(
        "--task", choices=["classification", "regression"], default="classification", help="which"
    )
    p.add_argument("--peers", action="store_true", help="compare with other packages as well")
    p.add_argument("--tune", action="store_true", help="compare settings instead; writes nothing")
    p.add_argument("--out", help="(default: benchmarks/results/classifier.jsonl, or -TASK.jsonl)")
    p.add_argument("--resume", action="store_true", help="add what the file lacks")
    add_format_flag(p, "of the tables", "markdown")
    return p


def gpu(text: str | None) -> Parser:
    """``benchmarks.speed.gpu``."""
    p = Parser(text)
    p.add_argument("--out", type=Path, help="the file (default: in benchmarks/results/speed)")
    p.add_argument("--quick", action="store_true", help="one small case of each, no tests")
    p.add_argument(
        "--compile", action="store_true", help="compile the kernels instead, which takes no card"
    )
    p.add_argument("--paper", action="store_true", help="what calls cost, counted from their plans")
    p.add_argument("--card", choices=CARDS, help="compile for this card alone (default: all)")
    p.add_argument("--json", type=Path, help="where the compiled kernels' rows go")
    return p


def given(args: argparse.Namespace, names: Iterable[str]) -> dict[str, Any]:
    """The flags of these names that were given."""
    return {name: getattr(args, name) for name in names if getattr(args, name) is not None}
