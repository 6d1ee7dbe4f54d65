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
            arrays = _shchur(file) if "adj_data" in file or "labels" in file else {}
            for name, names in NAMES.items():
                found = [each for each in names if each in file]
                if found and name not in arrays:
                    arrays[name] = file[found[0]]
    except _DAMAGE as error:
        text = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"'{path}' is damaged or no graph: {text}") from error
    return check_graph(arrays, path)


def _shchur(file: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key in ("adj", "attr"):
        if f"{key}_data" in file:
            csr = (file[f"{key}_data"], file[f"{key}_indices"], file[f"{key}_indptr"])
            found[key] = sparse.csr_matrix(csr, shape=file[f"{key}_shape"])
    if "attr_matrix" in file and "attr" not in found:
        found["attr"] = sparse.csr_matrix(file["attr_matrix"])
    arrays = {"y": file["labels"]} if "labels" in file else {}
    if "adj" in found:
        adjacency = found["adj"].tocoo()
        arrays["edge_index"] = np.stack([adjacency.row, adjacency.col])
    if "attr" in found:
        arrays["x"] = found["attr"].toarray()
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
            of :math:`N` classes, below 0 or NaN where there is none; perhaps masks :math:`(N)` or
            :math:`(N, S)`. Others are left out.
        origin: What an error names.

    Raises:
        ValueError: If something is missing or does not fit; names ``origin``.
    """

    def refuse(text: str) -> ValueError:
        return ValueError(f"'{origin}': {text}")

    tensors = {}
    for name in ("x", "edge_index", "y", *MASKS):
        value = arrays.get(name)
        if value is None:
            if name in MASKS:
                continue
            raise refuse(f"there is no '{name}', which every model here needs")
        if isinstance(value, np.ndarray) and value.dtype.kind not in "biuf":
            raise refuse(f"'{name}' is of type {value.dtype}, expected numbers")
        tensor = value if isinstance(value, torch.Tensor) else torch.as_tensor(value, device="cpu")
        tensors[name] = tensor.to_dense() if tensor.layout != torch.strided else tensor
    x, y, edge_index = tensors["x"], tensors["y"], tensors["edge_index"]
    if x.dim() != 2 or x.is_complex() or 0 in x.shape:
        raise refuse(f"'x' has shape {list(x.shape)}, expected a row of features a node")
    if not x.float().isfinite().all():
        raise refuse("'x' holds values that are not finite numbers")
    if edge_index.dim() == 2 and edge_index.size(0) != 2 and edge_index.size(1) == 2:
        edge_index = edge_index.t()
    if edge_index.dim() != 2 or edge_index.size(0) != 2 or edge_index.is_floating_point():
        raise refuse(
            f"'edge_index' has shape {list(edge_index.shape)} and type {edge_index.dtype}, "
            "expected whole numbers [2, E]"
        )
    num_nodes, edge_index = x.size(0), edge_index.long()
    if edge_index.numel() and not 0 <= int(edge_index.min()) <= int(edge_index.max()) < num_nodes:
        raise refuse(
            f"'edge_index' names nodes {int(edge_index.min())} to {int(edge_index.max())}, but "
            f"'x' has {num_nodes} rows"
        )
    if y.dim() == 2 and y.size(1) == 1:
        y = y.squeeze(1)
    if y.dim() != 1 or y.numel() != num_nodes:
        raise refuse(f"'y' has shape {list(y.shape)}, expected one class for each of {num_nodes}")
    y = torch.where(y.isnan(), -1.0, y) if y.is_floating_point() else y
    if not bool((y == y.long()).all()):
        raise refuse("'y' holds numbers that are no class")
    if y.long().clamp(min=-1).unique().numel() - int((y < 0).any()) < 2:
        raise refuse("'y' holds fewer than two classes")
    return Data(x=x, edge_index=edge_index, y=y.long(), **_masks(tensors, num_nodes, refuse))


def _masks(tensors: Mapping[str, Tensor], num_nodes: int, refuse: Any) -> dict[str, Tensor]:
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
            raise refuse(f"'{name}' has shape {list(tensors[name].shape)}, expected [{num_nodes}]")
        masks[name] = mask
    return masks
