"""Graphs in files of their own: ``.npz`` in two layouts and ``.pt``; nothing is unpickled."""

import pickle
import re
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import sparse
from torch import Tensor
from torch_geometric.data import Data
from torch_geometric.data.data import DataEdgeAttr, DataTensorAttr
from torch_geometric.data.storage import GlobalStorage

from .features import MASKS

NAMES = {  # what an array may be called, the usual name first
    "x": ("x", "node_features", "features"),
    "edge_index": ("edge_index", "edges"),
    "y": ("y", "node_labels", "labels"),
    "train_mask": ("train_mask", "train_masks"),
    "val_mask": ("val_mask", "val_masks"),
    "test_mask": ("test_mask", "test_masks"),
}
_DAMAGE = (ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error, pickle.UnpicklingError)


def read_npz(path: Path) -> Data:
    """A graph from an ``.npz`` file.

    Either of the layout of Shchur et al. (``adj_data``, ``adj_indices``, ``adj_indptr``,
    ``adj_shape``, the same of ``attr`` or a dense ``attr_matrix``, ``labels``), or of arrays
    ``edge_index`` (or ``edges``, a row an edge), ``x`` and ``y``; either may hold masks. Only these
    arrays are read: others may be pickled objects.

    Raises:
        ValueError: If the file is damaged, lacks an array or holds no graph; names it.
    """
    try:
        with open(path, "rb") as opened:
            file = np.load(opened, allow_pickle=False)
            if isinstance(file, np.ndarray):
                raise ValueError("it holds one array and no archive")
            arrays = shchur_arrays(file) if "adj_data" in file or "labels" in file else {}
            for name, names in NAMES.items():
                there = [known for known in names if known in file]
                if there and name not in arrays:
                    arrays[name] = file[there[0]]
    except _DAMAGE as error:
        text = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"'{path}' is damaged or no graph: {text}") from error
    return check_graph(arrays, path)


def shchur_arrays(file: Any) -> dict[str, Any]:
    """The arrays of :func:`check_graph` from those of Shchur's layout."""
    matrices: dict[str, Any] = {}
    for key in ("adj", "attr"):
        if f"{key}_data" in file:
            csr = (file[f"{key}_data"], file[f"{key}_indices"], file[f"{key}_indptr"])
            matrices[key] = sparse.csr_matrix(csr, shape=file[f"{key}_shape"])
    if "attr_matrix" in file and "attr" not in matrices:
        matrices["attr"] = sparse.csr_matrix(file["attr_matrix"])
    arrays = {"y": file["labels"]} if "labels" in file else {}
    if "adj" in matrices:
        adjacency = matrices["adj"].tocoo()
        arrays["edge_index"] = np.stack([adjacency.row, adjacency.col])
    if "attr" in matrices:
        arrays["x"] = matrices["attr"].toarray()
    return arrays


def read_pt(path: Path) -> Data:
    """A graph from a ``.pt`` file: a :class:`~torch_geometric.data.Data` or a dict of tensors.

    Read with ``weights_only=True``, which admits tensors and PyG's own containers.

    Raises:
        ValueError: If the file is damaged, holds anything else, or no graph; names it.
    """
    containers: list[Any] = [Data, DataEdgeAttr, DataTensorAttr, GlobalStorage]
    try:
        with torch.serialization.safe_globals(containers):
            loaded = torch.load(path, map_location="cpu", weights_only=True)
    except (*_DAMAGE, RuntimeError) as error:
        refused = re.search(r"Unsupported \w+: \w+ \S+", str(error))  # in the long text of torch
        text = " ".join((refused[0] if refused else str(error)[:200]).split())
        raise ValueError(f"'{path}' is damaged or holds more than tensors: {text}") from error
    if isinstance(loaded, tuple) and loaded:  # as PyG's data sets keep what they processed
        loaded = loaded[0]
    if not isinstance(loaded, (Data, Mapping)):
        raise ValueError(f"'{path}' holds a {type(loaded).__name__}, expected a 'Data' or a dict")
    return check_graph(dict(loaded.items() if isinstance(loaded, Mapping) else loaded), path)


def check_graph(arrays: Mapping[str, Any], origin: Any) -> Data:
    """A graph of arrays or tensors that fit together.

    Args:
        arrays (dict): ``x`` :math:`(N, F)`, ``edge_index`` :math:`(2, E)` or a row an edge, ``y``
            of :math:`N` classes, below 0 or NaN where there is none, or text, empty where there is
            none, or of several labels a node :math:`(N, C)`, each 0 or 1; perhaps masks :math:`(N)`
            or :math:`(N, S)`. Others are left out.
        origin: What an error names.

    Raises:
        ValueError: If something is missing or does not fit; names ``origin``.
    """
    try:
        named, names = _numbered(arrays)
        tensors = _tensors(named)
        x = tensors["x"]
        if x.dim() != 2 or x.is_complex() or 0 in x.shape:
            raise ValueError(f"'x' has shape {list(x.shape)}, expected a row of features a node")
        if not torch.stack(x.aminmax()).float().isfinite().all():  # makes no copy of all
            raise ValueError("'x' holds values that are not finite numbers")
        edge_index = _edges(tensors["edge_index"], x.size(0))
        y = _classes(tensors["y"], x.size(0))
        return Data(x=x, edge_index=edge_index, y=y, **names, **_masks(tensors, x.size(0)))
    except ValueError as error:
        raise ValueError(f"'{origin}': {error}") from None


def _numbered(arrays: Mapping[str, Any]) -> tuple[Mapping[str, Any], dict[str, list[str]]]:
    """Labels of text as numbers, in their order, and what they stand for; empty ones as -1."""
    y = np.asarray(arrays.get("y"))
    if y.dtype.kind not in "US":
        return arrays, {}
    names, number = np.unique(y.astype(str), return_inverse=True)
    empty = int(names[0] == "")
    return {**arrays, "y": number.reshape(y.shape) - empty}, {"class_names": names[empty:].tolist()}


def _tensors(arrays: Mapping[str, Any]) -> dict[str, Tensor]:
    """What a graph is made of, dense."""
    tensors = {}
    for name in ("x", "edge_index", "y", *MASKS):
        value = arrays.get(name)
        if value is None:
            if name in MASKS:
                continue
            raise ValueError(f"there is no '{name}', which every model here needs")
        if isinstance(value, np.ndarray) and value.dtype.kind not in "biuf":
            raise ValueError(f"'{name}' is of type {value.dtype}, expected numbers")
        tensor = value if isinstance(value, torch.Tensor) else torch.as_tensor(value, device="cpu")
        tensors[name] = tensor.to_dense() if tensor.layout != torch.strided else tensor
    return tensors


def _edges(edge_index: Tensor, num_nodes: int) -> Tensor:
    """Edges [2, E] of so many nodes; those of files may have a row an edge."""
    if edge_index.dim() == 2 and edge_index.size(0) != 2 and edge_index.size(1) == 2:
        edge_index = edge_index.t()
    if edge_index.dim() != 2 or edge_index.size(0) != 2 or edge_index.is_floating_point():
        raise ValueError(
            f"'edge_index' has shape {list(edge_index.shape)} and type {edge_index.dtype}, "
            "expected whole numbers [2, E]"
        )
    edge_index = edge_index.long()
    if edge_index.numel() and not 0 <= int(edge_index.min()) <= int(edge_index.max()) < num_nodes:
        raise ValueError(
            f"'edge_index' names nodes {int(edge_index.min())} to {int(edge_index.max())}, but "
            f"'x' has {num_nodes} rows"
        )
    return edge_index


def _classes(y: Tensor, num_nodes: int) -> Tensor:
    """The class of each node, or its labels, below 0 where there is none."""
    if y.dim() == 2 and y.size(1) == 1:
        y = y.squeeze(1)
    if y.dim() not in (1, 2) or y.size(0) != num_nodes or y.numel() == 0:
        raise ValueError(
            f"'y' has shape {list(y.shape)}, expected one class for each of {num_nodes}, or a row "
            "of labels"
        )
    y = torch.where(y.isnan(), -1.0, y) if y.is_floating_point() else y
    if not bool((y == y.long()).all()):
        raise ValueError("'y' holds numbers that are no class")
    y = y.long()
    if y.dim() == 2:
        none = (y < 0).any(dim=1, keepdim=True)
        if bool((y > 1).any()):
            raise ValueError(f"'y' of shape {list(y.shape)} holds other labels than 0 and 1")
        return torch.where(none, -1, y)
    if y[y >= 0].unique().numel() < 2:
        raise ValueError("'y' holds fewer than two classes")
    return y


def _masks(tensors: Mapping[str, Tensor], num_nodes: int) -> dict[str, Tensor]:
    """Masks with a column a split; those of PyG's Heterophilous files have a row a split."""
    masks = {}
    for name in MASKS:
        if name not in tensors:
            continue
        mask = tensors[name].bool()
        mask = mask[:, None] if mask.dim() == 1 else mask
        if mask.dim() == 2 and mask.size(0) != num_nodes and mask.size(1) == num_nodes:
            mask = mask.t()
        if mask.dim() != 2 or mask.size(0) != num_nodes:
            shape = list(tensors[name].shape)
            raise ValueError(f"'{name}' has shape {shape}, expected [{num_nodes}]")
        masks[name] = mask
    return masks
