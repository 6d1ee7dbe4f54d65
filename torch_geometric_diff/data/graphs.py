"""Citation graphs from Planetoid or Shchur files, and a graph that needs no file at all."""

import os
import pickle
import shutil
import tempfile
import urllib.request
import zipfile
from pathlib import Path

import numpy as np
import torch
from scipy import sparse
from torch_geometric.data import Data
from torch_geometric.datasets import Planetoid
from torch_geometric.io import planetoid as planetoid_files
from torch_geometric.utils import to_scipy_sparse_matrix

from .features import standardise

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

    The environment variable ``DATA_ROOT``, else ``../shared/data`` beside the working folder or the
    repository if it exists, else ``data`` in the working folder.
    """
    if os.environ.get("DATA_ROOT"):
        return Path(os.environ["DATA_ROOT"])
    for base in (Path.cwd(), Path(__file__).resolve().parents[2]):
        shared = base.parent / "shared" / "data"
        if shared.is_dir():
            return shared
    return Path("data")


def load_graph(name: str, source: str = "planetoid", root: str | Path | None = None) -> Data:
    r"""Load a graph in the standard form of the paper.

    The largest connected component of the undirected, loop-free, unweighted graph, features
    binarised and divided by their row sum. Files are only read, so ``root`` may be read-only;
    missing ones are downloaded into it.

    Args:
        name (str): ``'cora'``, ``'citeseer'``, ``'pubmed'``, or ``'digits'``: the handwritten
            digits that come with scikit-learn, joined to their 10 nearest neighbours; no file.
        source (str, optional): ``'planetoid'`` (files
            ``planetoid/<Name>/raw/ind.*`` as in :class:`torch_geometric.datasets.Planetoid`) or
            ``'shchur'`` (file ``shchur/<name>.npz``). The two Citeseer graphs differ. Not used by
            ``'digits'``. (default: ``'planetoid'``)
        root (str or Path, optional): Folder of data sets. (default: :func:`data_root`)

    Returns:
        A graph with dense features ``x`` (see :func:`sparse_features`), ``edge_index`` in both
        directions, ``y``, and the strings ``name`` and ``source``.

    Raises:
        ValueError: If ``name`` or ``source`` is unknown, or a file is damaged; names the file.
        FileNotFoundError: If files are missing and cannot be downloaded; lists them.
    """
    if name == "digits":
        data, source = _digits(), "scikit-learn"
    else:
        if name not in FOLDERS:
            raise ValueError(f"Expected 'name' to be one of {[*FOLDERS, 'digits']} (got '{name}')")
        if source not in ("planetoid", "shchur"):
            raise ValueError(f"Expected 'source' to be 'planetoid' or 'shchur' (got '{source}')")
        read = _planetoid if source == "planetoid" else _shchur
        data = read(Path(root) if root is not None else data_root(), name)
    data.name, data.source = name, source
    return data


def _check_sizes(data: Data, name: str, source: str, path: Path) -> Data:
    sizes = (data.num_nodes, data.num_edges // 2, data.num_features, int(data.y.max()) + 1)
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
    adjacency = to_scipy_sparse_matrix(data.edge_index, num_nodes=data.num_nodes)
    graph = standardise(adjacency, sparse.csr_matrix(data.x.numpy()), data.y.numpy())
    return _check_sizes(graph, name, "planetoid", raw)


def _shchur(root: Path, name: str) -> Data:
    path = root / "shchur" / f"{name}.npz"
    _download(path.parent, [path.name], SHCHUR_URL)
    try:
        with open(path, "rb") as opened, np.load(opened, allow_pickle=False) as file:
            adjacency, features = (
                sparse.csr_matrix(
                    (file[f"{key}_data"], file[f"{key}_indices"], file[f"{key}_indptr"]),
                    shape=file[f"{key}_shape"],
                )
                for key in ("adj", "attr")
            )
            labels = file["labels"]
    except (ValueError, KeyError, EOFError, zipfile.BadZipFile, pickle.UnpicklingError) as error:
        raise ValueError(f"'{path}' is damaged ({type(error).__name__}: {error})") from error
    return _check_sizes(standardise(adjacency, features, labels), name, "shchur", path)


def _download(folder: Path, names: list[str], url: str) -> None:
    """Fetch those of ``names`` that ``folder`` lacks; each file appears whole or not at all."""
    missing = [name for name in names if not (folder / name).is_file()]
    if not missing:
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as temporary:
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
    ranked = distance * len(x) + torch.arange(len(x))  # of equal distances, the lowest index first
    nearest = ranked.topk(k, dim=1, largest=False).indices.numpy()
    rows = np.repeat(np.arange(len(nearest)), k)
    adjacency = sparse.csr_matrix(
        (np.ones(rows.size), (rows, nearest.ravel())), shape=(len(nearest), len(nearest))
    )
    return standardise(adjacency, sparse.csr_matrix(digits.data), digits.target, binary=False)
