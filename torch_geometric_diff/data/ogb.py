"""OGB node sets, read from the files as they lie on disk: no pickles, no prompts, no network."""

import gzip
import shutil
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse
import torch
from torch import Tensor
from torch_geometric.data import Data

from .._utils.files import write_atomically

_URL = "http://snap.stanford.edu/ogb/data/nodeproppred"
_DOWNLOADS = {
    "ogbn-arxiv": f"{_URL}/arxiv.zip",
    "ogbn-products": f"{_URL}/products.zip",
    "ogbn-papers100M": f"{_URL}/papers100M-bin.zip",
}
_SPLITS = ("train", "valid", "test")


def find_ogb(name: str | Path, root: str | Path = "dataset") -> Path:
    """Find the folder of a set: ``root/ogbn_arxiv`` for ``'ogbn-arxiv'``, else ``name`` as a path.

    Raises:
        FileNotFoundError: If there is no such folder or it holds no ``raw/``; says where to fetch
            an official set (nothing is downloaded).
    """
    official = _DOWNLOADS.get(str(name))
    folder = Path(root) / str(name).replace("-", "_") if official else Path(name)
    if (folder / "raw").is_dir():
        return folder
    if official:
        raise FileNotFoundError(f"'{folder}/raw' does not exist: unzip {official} as '{folder}'")
    raise FileNotFoundError(
        f"'{folder}/raw' does not exist: expected the folder of an OGB set or one of "
        f"{', '.join(_DOWNLOADS)}"
    )


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Turn whatever a damaged file raises into one error that names it."""
    damage = (ValueError, EOFError, KeyError, OverflowError, zlib.error, zipfile.BadZipFile)
    try:
        yield
    except (*damage, gzip.BadGzipFile) as error:
        text = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"'{path}' is damaged or not in OGB's layout: {text}") from error


def _csv(path: Path, dtype: type) -> np.ndarray:
    with _reading(path), gzip.open(path, "rt", encoding="utf-8-sig") as file:
        return np.loadtxt(file, delimiter=",", dtype=dtype, ndmin=2)


def _require(condition: bool, path: Path, message: str) -> None:
    if not condition:
        raise ValueError(f"'{path}': {message}")


class _Raw:
    """The arrays of ``raw/`` with the file each came from, in either of OGB's two layouts."""

    def __init__(self, folder: Path) -> None:
        self.raw = folder / "raw"
        self.binary = (self.raw / "data.npz").exists()
        if not self.binary and not (self.raw / "edge.csv.gz").exists():
            raise FileNotFoundError(f"neither 'data.npz' nor 'edge.csv.gz' is in '{self.raw}'")

    def file(self, name: str) -> Path:
        if self.binary:
            return self.raw / ("node-label.npz" if name == "node_label" else "data.npz")
        names = {
            "edge_index": "edge",
            "num_nodes_list": "num-node-list",
            "num_edges_list": "num-edge-list",
            "node_feat": "node-feat",
            "node_label": "node-label",
        }
        return self.raw / f"{names.get(name, name)}.csv.gz"

    def has(self, name: str) -> bool:
        path = self.file(name)
        if not self.binary or not path.exists():
            return path.exists()
        with _reading(path), zipfile.ZipFile(path) as archive:
            return f"{name}.npy" in archive.namelist()

    def read(self, name: str, dtype: type) -> np.ndarray:
        path = self.file(name)
        if self.binary:
            with _reading(path), open(path, "rb") as file:
                with np.load(file, allow_pickle=False) as arrays:
                    return arrays[name]
        array = _csv(path, dtype)
        return array.T if name == "edge_index" else array


def load_ogb(
    name: str | Path, root: str | Path = "dataset", features: bool = True, edges: bool = True
) -> Data:
    r"""Read a node classification set in OGB's layout.

    Both kinds are read: csv.gz, as ogbn-arxiv and ogbn-products, and npz, as ogbn-papers100M and
    whatever :class:`ogb.io.DatasetSaver` writes. The result equals what the ``ogb`` package reads,
    without its pickled caches, which torch >= 2.6 refuses to load, and without its questions on
    stdin. Files are checked against each other before anything is returned; nothing is written.

    Args:
        name (str or Path): ``'ogbn-arxiv'``, ``'ogbn-products'``, ``'ogbn-papers100M'``, or the
            folder that holds ``raw/`` and ``split/``.
        root (str or Path): Where the folders of the official sets lie. (default: ``'dataset'``)
        features (bool): Read the node features. Without them see :func:`unpack_features`.
            (default: ``True``)
        edges (bool): Read the edges. (default: ``True``)

    Returns:
        ``Data`` with ``x`` :math:`(N, F)`, ``edge_index`` :math:`(2, E)` as stored (citations
        directed, undirected edges once), ``y`` :math:`(N)` with -1 where there is no label,
        ``train_index``, ``valid_index``, ``test_index``, ``num_classes``, ``node_year`` if stored,
        ``name`` and ``split``, the name of the split.

    Raises:
        FileNotFoundError: If a file is missing.
        ValueError: If a file is damaged or disagrees with the others; names the file.
    """
    folder = find_ogb(name, root)
    raw = _Raw(folder)
    num_nodes = _single(raw, "num_nodes_list")
    y = _labels(raw, num_nodes)
    split, indices = _read_split(folder, y)
    data = Data(
        y=torch.from_numpy(y),
        num_nodes=num_nodes,
        num_classes=int(y.max()) + 1,
        name=str(name) if str(name) in _DOWNLOADS else folder.name,
        split=split,
        **{f"{part}_index": index for part, index in indices.items()},
    )
    if edges:
        data.edge_index = _edges(raw, num_nodes)
    if features and raw.has("node_feat"):
        data.x = _per_node(raw, "node_feat", np.float32, num_nodes)
    if raw.has("node_year"):
        data.node_year = _per_node(raw, "node_year", np.int64, num_nodes)
    return data


def _single(raw: _Raw, name: str) -> int:
    counts = raw.read(name, np.int64).reshape(-1)
    _require(len(counts) == 1, raw.file(name), f"expected one graph, got {len(counts)}")
    return int(counts[0])


def _edges(raw: _Raw, num_nodes: int) -> Tensor:
    path, edge_index = raw.file("edge_index"), raw.read("edge_index", np.int64)
    _require(
        edge_index.ndim == 2 and edge_index.shape[0] == 2 and edge_index.dtype == np.int64,
        path,
        f"edges have shape {edge_index.shape} and type {edge_index.dtype}, expected two int64 ends",
    )
    num_edges, listed = edge_index.shape[1], _single(raw, "num_edges_list")
    _require(num_edges == listed, path, f"{num_edges} edges, but the list of counts says {listed}")
    if num_edges:
        low, high = int(edge_index.min()), int(edge_index.max())
        _require(
            0 <= low and high < num_nodes,
            path,
            f"edges name nodes {low} to {high}, but there are {num_nodes} nodes",
        )
    return torch.from_numpy(np.ascontiguousarray(edge_index))


def _per_node(raw: _Raw, name: str, dtype: type, num_nodes: int) -> Tensor:
    path = raw.file(name)
    array = raw.read(name, dtype)
    _require(array.ndim == 2, path, f"{name} has shape {array.shape}, expected two dimensions")
    _require(len(array) == num_nodes, path, f"{len(array)} rows of {name}, but {num_nodes} nodes")
    values = torch.from_numpy(array)
    _require(bool(values.isfinite().all()), path, f"{name} holds values that are not finite")
    return values


def _labels(raw: _Raw, num_nodes: int) -> np.ndarray:
    path = raw.file("node_label")
    labels = raw.read("node_label", np.float64)
    _require(
        labels.shape == (num_nodes, 1),
        path,
        f"labels have shape {labels.shape}, expected ({num_nodes}, 1)",
    )
    labels = labels[:, 0]
    if labels.dtype.kind == "f":  # ogbn-papers100M marks nodes without a label with NaN
        labels = np.where(np.isnan(labels), -1.0, labels)
    y = labels.astype(np.int64)
    _require(bool((y == labels).all() and y.min() >= -1), path, "labels are not class numbers")
    _require(y.max() >= 1, path, f"labels name {int(y.max()) + 1} classes, expected at least 2")
    return y


def _read_split(folder: Path, y: np.ndarray) -> tuple[str, dict[str, Tensor]]:
    folders = sorted(path for path in folder.glob("split/*") if path.is_dir())
    if len(folders) != 1:
        names = [path.name for path in folders]
        raise FileNotFoundError(f"expected one folder in '{folder}/split' (got {names})")
    whole = folders[0] / "split_dict.pt"  # what DatasetSaver writes
    stored = _split_dict(whole) if whole.exists() else None
    times_used = np.zeros(len(y), dtype=np.int8)
    indices = {}
    for part in _SPLITS:
        path = whole if stored else folders[0] / f"{part}.csv.gz"
        index = stored[part] if stored else _csv(path, np.int64)
        index = index.reshape(-1)
        _require(index.size > 0, path, f"the {part} split is empty")
        low, high = int(index.min()), int(index.max())
        _require(
            0 <= low and high < len(y),
            path,
            f"the {part} split names nodes {low} to {high}, but there are {len(y)} nodes",
        )
        np.add.at(times_used, index, 1)
        _require(times_used.max() == 1, path, f"the {part} split names a node a second time")
        _require(bool((y[index] >= 0).all()), path, f"the {part} split names nodes without a label")
        indices[part] = torch.from_numpy(index)
    return folders[0].name, indices


def _split_dict(path: Path) -> dict[str, np.ndarray]:
    """Read OGB's ``split_dict.pt`` with the unpickler that admits arrays and nothing else."""
    reconstruct = np.empty(0).__reduce__()[0]
    arrays: list[Any] = [
        np.ndarray,
        np.dtype,
        type(np.dtype(np.int64)),
        (reconstruct, "numpy._core.multiarray._reconstruct"),
        (reconstruct, "numpy.core.multiarray._reconstruct"),  # written with numpy 1
    ]
    try:
        with torch.serialization.safe_globals(arrays):
            split = torch.load(path, weights_only=True)
    except Exception as error:  # the unpickler and the zip reader raise many kinds
        raise ValueError(f"'{path}' is damaged or holds more than arrays") from error
    whole = isinstance(split, dict) and all(
        isinstance(split.get(part), np.ndarray) and split[part].dtype == np.int64
        for part in _SPLITS
    )
    _require(whole, path, f"expected a dict of int64 arrays {', '.join(_SPLITS)}")
    return split


def unpack_features(name: str | Path, out: str | Path, root: str | Path = "dataset") -> None:
    """Copy the node features of a set in the npz layout into a ``.npy`` file that can be mapped.

    The copy streams: features of ogbn-papers100M (56 GB) need no memory. The file appears under
    its name only when it is whole.

    Args:
        name (str or Path): The set, as in :func:`load_ogb`.
        out (str or Path): The ``.npy`` file to write.
        root (str or Path): Where the folders of the official sets lie. (default: ``'dataset'``)

    Raises:
        FileNotFoundError: If the set or its features do not exist.
        ValueError: If the archive is damaged.
        OSError: If the disk is full; nothing is left.
    """
    raw = _Raw(find_ogb(name, root))
    path = raw.file("node_feat")
    if not raw.binary or not raw.has("node_feat"):
        raise FileNotFoundError(f"there is no 'node_feat' in '{raw.raw / 'data.npz'}'")
    with write_atomically(out) as temporary, _reading(path), zipfile.ZipFile(path) as archive:
        with archive.open("node_feat.npy") as source, open(temporary, "wb") as target:
            shutil.copyfileobj(source, target, length=1 << 22)


def undirected(edge_index: Tensor, num_nodes: int) -> Tensor:
    """Both directions of every edge, each once and without loops, in the order of rows.

    The same as ``to_undirected(remove_self_loops(edge_index)[0])`` of PyG in a third of the memory,
    which is what ogbn-products asks for.
    """
    row, col = edge_index.numpy().astype(np.int32 if num_nodes < 2**31 else np.int64)
    keep = row != col
    row, col = row[keep], col[keep]
    ones = np.ones(len(row), dtype=bool)
    matrix = scipy.sparse.coo_matrix((ones, (row, col)), shape=(num_nodes, num_nodes)).tocsr()
    matrix = (matrix + matrix.T.tocsr()).tocoo()
    return torch.from_numpy(np.stack([matrix.row, matrix.col]).astype(np.int64))
