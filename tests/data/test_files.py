"""Graphs in every form that is taken, and what each says of bad files."""

import json
import pickle
import random
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import sparse
from torch_geometric.data import Data, HeteroData

from benchmarks.common.splits import mask_splits
from torch_geometric_diff.data import load_graph

NODES, FEATURES, CLASSES = 20, 6, 3


def arrays(seed: int = 0) -> dict[str, np.ndarray]:
    """A ring with chords: connected, undirected after both directions are taken."""
    rng = np.random.default_rng(seed)
    ring = np.stack([np.arange(NODES), (np.arange(NODES) + 1) % NODES])
    edges = np.concatenate([ring, rng.integers(0, NODES, (2, 15))], axis=1)
    x = (rng.random((NODES, FEATURES)) < 0.4) * rng.integers(1, 4, (NODES, FEATURES))
    x[:, 0] += 1
    return {"edge_index": edges, "x": x.astype(np.float32), "y": np.arange(NODES) % CLASSES}


def masks() -> dict[str, np.ndarray]:
    """Two splits, a column each."""
    place = (np.arange(NODES)[:, None] + np.array([0, 7])) % NODES
    return {
        "train_mask": place < 8,
        "val_mask": (place >= 8) & (place < 12),
        "test_mask": place > 11,
    }


def shchur(**more: np.ndarray) -> dict[str, Any]:
    graph, found = arrays(), dict(more)
    ends = graph["edge_index"]
    adjacency = sparse.csr_matrix((np.ones(ends.shape[1]), ends), (NODES, NODES))
    for key, csr in (("adj", adjacency), ("attr", sparse.csr_matrix(graph["x"]))):
        found |= {f"{key}_data": csr.data, f"{key}_indices": csr.indices}
        found |= {f"{key}_indptr": csr.indptr, f"{key}_shape": np.array(csr.shape)}
    return found | {"labels": graph["y"]}


def tensors(**changes: Any) -> dict[str, torch.Tensor]:
    return {name: torch.as_tensor(value) for name, value in (arrays() | masks() | changes).items()}


def write(path: Path, form: str) -> Path:
    objects = {"node_names": np.array([{"a": 1}, None], dtype=object)}  # are not read
    if form == "shchur":
        np.savez(path, **shchur(**masks()), **objects)
    elif form == "arrays":
        np.savez_compressed(path, **arrays(), **masks(), **objects)
    elif form == "heterophilous":  # PyG's files: a row an edge, a row a split
        graph = arrays()
        names = {"node_features": graph["x"], "node_labels": graph["y"]}
        rows = {name + "s": mask.T for name, mask in masks().items()}
        np.savez(path, edges=graph["edge_index"].T, **names, **rows)
    elif form == "data":
        torch.save(Data(**tensors()), path)
    elif form == "dict":
        torch.save(tensors(), path)
    else:  # what PyG's data sets keep of their processing
        torch.save((Data(**tensors()).to_dict(), None, Data), path)
    return path


FORMS = ["shchur", "arrays", "heterophilous", "data", "dict", "processed"]


@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_the_same_graph(tmp_path: Path, form: str) -> None:
    suffix = ".npz" if FORMS.index(form) < 3 else ".pt"
    data = load_graph(str(write(tmp_path / f"mine{suffix}", form)))
    graph = arrays()
    dense = np.zeros((NODES, NODES), dtype=bool)
    dense[tuple(graph["edge_index"])] = True
    np.fill_diagonal(dense, False)
    dense |= dense.T
    assert torch.equal(data.edge_index, torch.from_numpy(np.argwhere(dense).T))
    total = graph["x"].sum(axis=1, keepdims=True)
    torch.testing.assert_close(data.x, torch.from_numpy(graph["x"] / total))
    assert data.y.tolist() == graph["y"].tolist()
    assert (data.name, data.source, data.form) == ("mine", suffix, "rows features, undirected")
    for i, parts in enumerate(mask_splits(data)):
        for part, mask in zip(parts, masks().values(), strict=True):
            assert part.tolist() == np.flatnonzero(mask[:, i]).tolist()


def test_options_of_the_form(tmp_path: Path) -> None:
    graph = arrays()
    edges = graph["edge_index"][:, :NODES]  # the ring alone, cut in two
    edges = edges[:, ~np.isin(edges[0], [11, NODES - 1])]
    path = tmp_path / "g.npz"
    np.savez(path, edge_index=edges, x=graph["x"], y=graph["y"] * 5 - 1, **masks())
    data = load_graph(str(path), component="all", words="raw", undirected=False)
    assert (
        torch.equal(data.x, torch.from_numpy(graph["x"])) and data.form == "raw features, directed"
    )
    assert torch.equal(data.edge_index, torch.from_numpy(edges))
    assert data.y.tolist() == [-1 if c == 0 else c - 1 for c in graph["y"].tolist()]
    data = load_graph(str(path), words="binary")
    assert data.num_nodes == 12 and data.train_mask.shape == (12, 2)
    torch.testing.assert_close(data.x.sum(dim=1), torch.ones(12))
    assert all(len(row[row > 0].unique()) == 1 for row in data.x)
    np.savez(path, edge_index=edges, x=-graph["x"], y=graph["y"])
    assert load_graph(str(path)).form == "raw features, undirected"
    torch.testing.assert_close(load_graph(str(path), words="rows").x.sum(dim=1), -torch.ones(12))
    with pytest.raises(ValueError, match="'words'"):
        load_graph(str(path), words="some")


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return print, ("unpickled",)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"x": None}, "there is no 'x'"),
        ({"y": None}, "there is no 'y'"),
        ({"edge_index": None}, "there is no 'edge_index'"),
        ({"x": np.array([Evil()] * NODES)}, "damaged or no graph: Object arrays"),
        ({"x": np.full((NODES, 2), np.nan)}, "not finite"),
        ({"x": np.ones(NODES)}, "'x' has shape"),
        ({"x": np.ones((NODES - 1, 2))}, "names nodes 0 to 19, but 'x' has 19 rows"),
        ({"x": np.array([["a"]] * NODES)}, "'x' is of type <U1"),
        ({"edge_index": np.zeros((3, 3), dtype=int)}, "'edge_index' has shape"),
        ({"edge_index": np.array([[0.0], [1.0]])}, "'edge_index' has shape"),
        ({"edge_index": np.array([[0], [-1]])}, "names nodes -1 to 0"),
        ({"y": np.zeros(NODES, dtype=int)}, "fewer than two classes"),
        ({"y": np.arange(NODES) + 0.5}, "no class"),
        ({"y": np.eye(NODES - 1, 3)}, "'y' has shape"),
        ({"y": 2 * np.eye(NODES, 3)}, "other labels than 0 and 1"),
        ({"x": np.array([[1.0, np.inf]] * NODES)}, "not finite"),
        ({"x": np.full((NODES, 2), 1e300)}, "not finite"),
        ({"train_mask": np.ones(3)}, "'train_mask' has shape"),
    ],
)
def test_bad_arrays_name_the_file(
    tmp_path: Path, capsys: pytest.CaptureFixture, changes: dict[str, Any], message: str
) -> None:
    path = tmp_path / "mine.npz"
    found = {name: value for name, value in (arrays() | changes).items() if value is not None}
    np.savez(path, **found)
    with pytest.raises(ValueError, match=r"mine\.npz'") as error:
        load_graph(str(path))
    assert message in str(error.value) and "\n" not in str(error.value)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("suffix", [".npz", ".pt"])
@pytest.mark.parametrize("content", [b"", b"nonsense", b"PK\x03\x04", "cut", "array", "pickle"])
def test_damaged_files_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture, suffix: str, content: Any
) -> None:
    path = tmp_path / f"mine{suffix}"
    write(path, "arrays" if suffix == ".npz" else "data")
    if content == "cut":
        content = path.read_bytes()[:-200]
    elif content == "array":
        np.save(tmp_path / "a.npy", np.ones(3))
        torch.save(torch.ones(3), tmp_path / "a.pt")
        content = (tmp_path / ("a.npy" if suffix == ".npz" else "a.pt")).read_bytes()
    elif content == "pickle":
        torch.save(Evil(), tmp_path / "e.pt")
        content = pickle.dumps(Evil()) if suffix == ".npz" else (tmp_path / "e.pt").read_bytes()
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"mine\{suffix}'") as error:
        load_graph(str(path))
    assert len(str(error.value)) < 400
    assert "unpickled" not in capsys.readouterr().out


def test_missing_and_unknown(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"none\.npz' does not exist"):
        load_graph(str(tmp_path / "none.npz"))
    with pytest.raises(ValueError, match="no graph 'coral'"):
        load_graph("coral")
    with pytest.raises(ValueError, match="A 'source' is for cora"):
        load_graph("digits", "shchur")
    with pytest.raises(FileNotFoundError, match="ogbn-arxiv|arxiv.zip"):
        load_graph("ogbn-arxiv", root=tmp_path)
    with pytest.raises(FileNotFoundError, match="raw"):
        load_graph(str(tmp_path))


def wikics(raw: Path) -> None:
    raw.mkdir(parents=True)
    graph, split = arrays(), masks()
    links: list[list[int]] = [[] for _ in range(NODES)]
    for source, target in graph["edge_index"].T.tolist():
        links[source].append(target)
    content = {
        "features": (graph["x"] - 1).tolist(),
        "labels": graph["y"].tolist(),
        "links": links,
        "train_masks": split["train_mask"].T.tolist(),
        "val_masks": split["val_mask"].T.tolist(),
        "stopping_masks": np.zeros((2, NODES), dtype=bool).tolist(),
        "test_mask": (~(split["train_mask"] | split["val_mask"]).any(axis=1)).tolist(),
    }
    (raw / "data.json").write_text(json.dumps(content))


@pytest.mark.parametrize("folder", ["Amazon", "amazon", ""])
def test_pyg_by_class_and_name(tmp_path: Path, folder: str) -> None:
    raw = tmp_path / folder / "Photo" / "raw"
    raw.mkdir(parents=True)
    np.savez(raw / "amazon_electronics_photo.npz", **shchur())
    before = sorted(tmp_path.rglob("*"))
    data = load_graph("Amazon:Photo", root=tmp_path)
    np.savez(tmp_path / "mine.npz", **shchur())
    expected = load_graph(str(tmp_path / "mine.npz"), words="binary")
    assert torch.equal(data.edge_index, expected.edge_index) and torch.equal(data.y, expected.y)
    assert torch.equal(data.x, expected.x)  # PyG makes words 0 or 1 itself
    assert (data.name, data.source) == ("Amazon:Photo", "torch_geometric")
    assert sorted(tmp_path.rglob("*")) == [
        *before[:-1],
        *sorted([before[-1], tmp_path / "mine.npz"]),
    ]


def test_pyg_by_class(tmp_path: Path) -> None:
    wikics(tmp_path / "wikics" / "raw")
    data = load_graph("WikiCS", root=tmp_path)
    assert data.num_nodes == NODES and len(mask_splits(data)) == 2
    assert load_graph("KarateClub", root=tmp_path).num_nodes == 34
    state = random.getstate(), torch.get_rng_state()
    made = [load_graph("BAShapes", root=tmp_path).edge_index for _ in range(2)]
    assert torch.equal(*made)  # drawn at random, and the same at every load
    assert random.getstate() == state[0] and torch.equal(torch.get_rng_state(), state[1])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Amazon:Photo", "amazon/Photo/raw' lacks amazon_electronics_photo.npz and they could"),
        ("WikiCS", "lacks data.json"),
        ("Amazon", "Expected 'Amazon:NAME'"),
        ("WikiCS:one", "Expected 'WikiCS'"),
        ("Amazone:Photo", "no data set 'Amazone'"),
        ("Amazon:Phono", "Amazon:Phono"),
        ("TUDataset:MUTAG", "lacks MUTAG"),
    ],
)
def test_missing_pyg_files_are_named_and_leave_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, message: str
) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise OSError("no network in tests")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    monkeypatch.setattr("fsspec.open", refuse)
    with pytest.raises((FileNotFoundError, ValueError)) as error:
        load_graph(name, root=tmp_path / "data")
    assert message in str(error.value) and "\n" not in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_damaged_pyg_files_and_other_tasks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = tmp_path / "wikics" / "raw"
    wikics(raw)
    (raw / "data.json").write_text((raw / "data.json").read_text()[:-30])
    with pytest.raises(ValueError, match="'WikiCS' in .* cannot be read"):
        load_graph("WikiCS", root=tmp_path)
    monkeypatch.setattr(
        "torch_geometric.datasets.KarateClub.__getitem__", lambda s, i: HeteroData()
    )
    with pytest.raises(ValueError, match="'KarateClub'"):
        load_graph("KarateClub", root=tmp_path)
