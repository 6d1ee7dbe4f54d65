"""Graphs by name or file, in the standard form, and one that needs no file at all."""

import os
import shutil
import tempfile
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch_geometric import datasets
from torch_geometric.data import Data
from torch_geometric.datasets import Planetoid
from torch_geometric.io import planetoid as planetoid_files
from torch_geometric.utils import index_to_mask

from .._utils.files import make_folder
from .features import MASKS, standard_form
from .files import check_graph, read_npz, read_pt
from .ogb import load_ogb
from .pyg import read_pyg
from .tables import read_csv, read_networkx

FOLDERS = {"cora": "Cora", "citeseer": "CiteSeer", "pubmed": "PubMed"}
SHCHUR_URL = "https://github.com/shchur/gnn-benchmark/raw/master/data/npz"

# Nodes, undirected edges, features and classes of the largest component. The number of edges of
# Shchur's Pubmed is not checked: sources disagree (44,324 to 44,338).
SIZES: dict[tuple[str, str], tuple[int, int | None, int, int]] = {
    ("cora", "planetoid"): (2485, 5069, 1433, 7),
    ("citeseer", "planetoid"): (2120, 3679, 3703, 6),
    ("pubmed", "planetoid"): (19717, 44324, 500, 3),
    ("cora", "shchur"): (2485, 5069, 1433, 7),
    ("citeseer", "shchur"): (2110, 3668, 3703, 6),
    ("pubmed", "shchur"): (19717, None, 500, 3),
}
FIRST_TEST_NODE = {"cora": 1708, "citeseer": 2312, "pubmed": 18717}


def data_root() -> Path:
    """The folder of data sets.

    The environment variable ``DATA_ROOT``, else ``data`` in the working folder.

    Example:
        >>> import os
        >>> from unittest.mock import patch
        >>> with patch.dict(os.environ, DATA_ROOT="/graphs"):
        ...     print(data_root())
        /graphs
    """
    return Path(os.environ.get("DATA_ROOT") or "data")


def load_graph(
    name: Any,
    source: str | None = None,
    root: str | Path | None = None,
    *,
    component: str = "largest",
    words: str | None = None,
    undirected: bool = True,
) -> Data:
    r"""Load any node-classification graph, by default in the standard form of the paper.

    The largest connected component of the undirected, loop-free, unweighted graph, the features of
    the citation graphs binarised and divided by their row sum. Files are only read, so ``root`` may
    be read-only; missing ones are downloaded into it. Nothing but Planetoid's own files is
    unpickled.

    Args:
        name (str or networkx.Graph): One of

            - ``'cora'``, ``'citeseer'``, ``'pubmed'``, or ``'digits'``: the handwritten digits that
              come with scikit-learn, joined to their 10 nearest neighbors; no file;
            - a data set of PyG by class and name: ``'Amazon:Photo'``, ``'WikiCS'`` (see
              :func:`~torch_geometric_diff.data.pyg.read_pyg`);
            - an ``.npz`` file, of the layout of Shchur et al. or with ``edge_index``, ``x``, ``y``
              (see :func:`~torch_geometric_diff.data.files.read_npz`);
            - a ``.pt`` file of a :class:`~torch_geometric.data.Data` or a dict of tensors;
            - a ``.csv`` file of edges with ``nodes.csv`` beside it (see
              :func:`~torch_geometric_diff.data.tables.read_csv`);
            - a :class:`networkx.Graph`, or a ``.graphml``, ``.gml`` or ``.gexf`` file, whose nodes
              have a label (see :func:`~torch_geometric_diff.data.tables.graph_of_nodes`);
            - a folder in OGB's layout, or an official name such as ``'ogbn-arxiv'``.
        source (str, optional): Files of a citation graph: ``'planetoid'`` (files
            ``planetoid/<Name>/raw/ind.*`` as in :class:`torch_geometric.datasets.Planetoid`) or
            ``'shchur'`` (file ``shchur/<name>.npz``). The two Citeseer graphs differ.
            (default: ``'shchur'`` where its file is, else ``'planetoid'``)
        root (str or Path, optional): Folder of data sets. (default: :func:`data_root`)
        component (str, optional): See :func:`~torch_geometric_diff.data.features.standard_form`.
            (default: ``'largest'``)
        words (str, optional): See there. By default ``'binary'`` for the citation graphs, ``'raw'``
            where features are negative, ``'rows'`` elsewhere.
        undirected (bool, optional): Edges lead both ways. (default: :obj:`True`)

    Returns:
        A graph with dense features ``x`` (see :func:`sparse_features`), ``edge_index``, ``y`` with
        -1 where a node has no label, the masks :math:`(N, S)` that came with it, the strings
        ``name``, ``source`` and ``form``, and ``class_names`` where labels were text.

    Raises:
        ValueError: If ``name`` or ``source`` is unknown, or a file is damaged; names the file.
        FileNotFoundError: If files are missing and cannot be downloaded; lists them.

    Example:
        >>> data = load_graph("digits")
        >>> data.num_nodes, data.num_features, int(data.y.max()) + 1
        (1797, 64, 10)
    """
    folder = Path(root) if root is not None else data_root()
    raw, source = _open(name, source, folder)
    if source in ("planetoid", "shchur"):
        words = words or "binary"
    words = words or ("raw" if bool(raw.x.amin() < 0) else "rows")
    data = standard_form(raw, component, words, undirected)
    if data.num_nodes < 2:
        raise ValueError(f"'{name}': its largest component is a single node")
    if not isinstance(name, str):
        name = "networkx"
    data.name, data.source = Path(name).stem if source in FILES else name, source
    data.form = f"{words} features, {'undirected' if undirected else 'directed'}"
    return data


def _open(name: Any, source: str | None, folder: Path) -> tuple[Data, str]:
    """A graph as its files have it, and what kind of files they are."""
    if not isinstance(name, str):
        return read_networkx(name), "networkx"
    if not name.strip():
        raise ValueError(f"Expected the name of a graph, a file or a folder (got {name!r})")
    if name in FOLDERS:
        if source is None:  # the graph of the paper, where it is
            there = (folder / "shchur" / f"{name}.npz").is_file()
            source = "shchur" if there else "planetoid"
        if source not in ("planetoid", "shchur"):
            raise ValueError(f"Expected 'source' to be 'planetoid' or 'shchur' (got '{source}')")
        return (_planetoid if source == "planetoid" else _shchur)(folder, name), source
    if source is not None:
        raise ValueError(f"A 'source' is for {', '.join(FOLDERS)} (got '{name}')")
    return (_digits(), "scikit-learn") if name == "digits" else _read(name, folder)


FILES = {
    ".npz": read_npz,
    ".pt": read_pt,
    ".csv": read_csv,
    **dict.fromkeys((".graphml", ".gml", ".gexf"), read_networkx),
}


def _read(name: str, root: Path) -> tuple[Data, str]:
    """A graph of no name of ours, and what kind of files it came from."""
    path = Path(name)
    if path.suffix in FILES:
        if not path.is_file():
            raise FileNotFoundError(f"'{path}' does not exist")
        return FILES[path.suffix](path), path.suffix
    if name.startswith("ogbn-") or path.is_dir():
        return _ogb(name, root), "ogb layout"
    if ":" in name or hasattr(datasets, name):
        return read_pyg(name, root), "torch_geometric"
    raise ValueError(
        f"There is no graph '{name}': expected {', '.join([*FOLDERS, 'digits'])}, a data set of "
        f"PyG such as 'Amazon:Photo', a file {', '.join(FILES)}, or a folder in OGB's layout"
    )


def _ogb(name: str, root: Path) -> Data:
    data = load_ogb(name, root)
    arrays = {"x": data.x, "edge_index": data.edge_index, "y": data.y}
    for mask, part in zip(MASKS, ("train", "valid", "test"), strict=True):
        arrays[mask] = index_to_mask(data[f"{part}_index"], data.num_nodes)
    return check_graph(arrays, name)


def _check_sizes(data: Data, name: str, source: str, path: Path) -> Data:
    whole = standard_form(data)
    sizes = (whole.num_nodes, whole.num_edges // 2, whole.num_features, int(whole.y.max()) + 1)
    expected = SIZES[name, source]
    if any(want is not None and got != want for got, want in zip(sizes, expected, strict=True)):
        raise ValueError(
            f"'{path}' is damaged or another graph: its largest component has {sizes} nodes, "
            f"edges, features and classes, expected {expected}"
        )
    return data


def _planetoid(root: Path, name: str) -> Data:
    raw = root / "planetoid" / FOLDERS[name] / "raw"
    parts = ["x", "tx", "allx", "y", "ty", "ally", "graph", "test.index"]
    _download(raw, [f"ind.{name}.{part}" for part in parts], Planetoid.url)
    try:
        data = planetoid_files.read_planetoid_data(str(raw), name)
    except Exception as error:
        for part in parts:  # PyG's reader does not say which file it stumbled over
            try:
                planetoid_files.read_file(str(raw), name, part)
            except Exception as cause:
                path = raw / f"ind.{name}.{part}"
                raise ValueError(
                    f"'{path}' is damaged ({type(cause).__name__}: {cause})"
                ) from cause
        raise ValueError(f"The files 'ind.{name}.*' in '{raw}' do not fit together") from error
    test = data.test_mask.nonzero().view(-1)
    if len(test) != 1000 or int(test[0]) != FIRST_TEST_NODE[name]:
        raise ValueError(
            f"'{raw / f'ind.{name}.test.index'}' is damaged: expected 1000 different nodes from "
            f"{FIRST_TEST_NODE[name]} on (got {len(test)} from {int(test[0])} on)"
        )
    masks = {mask: data[mask][:, None] for mask in MASKS}
    graph = Data(x=data.x, edge_index=data.edge_index, y=data.y, **masks)
    return _check_sizes(graph, name, "planetoid", raw)


def _shchur(root: Path, name: str) -> Data:
    path = root / "shchur" / f"{name}.npz"
    _download(path.parent, [path.name], SHCHUR_URL)
    return _check_sizes(read_npz(path), name, "shchur", path)


def _download(folder: Path, names: list[str], url: str) -> None:
    """Fetch those of ``names`` that ``folder`` lacks; each file appears whole or not at all."""
    missing = [name for name in names if not (folder / name).is_file()]
    if not missing:
        return
    try:
        with make_folder(folder), tempfile.TemporaryDirectory(dir=folder) as temporary:
            for name in missing:
                with (
                    urllib.request.urlopen(f"{url}/{name}", timeout=20) as response,
                    open(Path(temporary) / name, "wb") as file,
                ):
                    shutil.copyfileobj(response, file)
                os.replace(Path(temporary) / name, folder / name)
    except OSError as error:  # no network, no such file, or a read-only folder
        missing = [name for name in missing if not (folder / name).is_file()]
        raise FileNotFoundError(
            f"'{folder}' lacks {', '.join(missing)} and they could not be downloaded from {url} "
            f"({error})"
        ) from error


def _digits(k: int = 10) -> Data:
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise ImportError(
            "The graph 'digits' needs scikit-learn (pip install scikit-learn)"
        ) from error
    digits = load_digits()
    x = torch.from_numpy(digits.data)  # whole numbers, so squared distances are exact
    norm = x.square().sum(dim=1)
    distance = (norm[:, None] + norm[None, :] - 2 * x @ x.t()).fill_diagonal_(float("inf"))
    index = torch.arange(len(x), device=x.device)
    ranked = distance * len(x) + index  # of equal distances, the lowest index first
    nearest = ranked.topk(k, dim=1, largest=False).indices.numpy()
    rows = np.repeat(np.arange(len(nearest)), k)
    edges = np.stack([rows, nearest.ravel()])
    return check_graph({"x": digits.data, "edge_index": edges, "y": digits.target}, "digits")
