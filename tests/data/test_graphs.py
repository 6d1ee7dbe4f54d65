"""Loading: the standard form, read-only folders, missing and damaged files."""

import os
import pickle
import urllib.request
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import sparse
from torch_geometric.utils import contains_self_loops, is_undirected

from torch_geometric_diff.data import data_root, graphs, load_graph, sparse_features

ADJACENCY = np.array(  # directed, with a loop, a weight, and nodes 4 and 5 apart from 0 to 3
    [
        [1, 2, 0, 0, 0, 0],
        [0, 0, 1, 0, 0, 0],
        [0, 0, 0, 0, 0, 0],
        [1, 0, 0, 0, 0, 0],
        [0, 0, 0, 0, 0, 1],
        [0, 0, 0, 0, 0, 0],
    ],
    dtype=np.float32,
)
FEATURES = np.array(
    [[2, 0, 3], [0, 1, 0], [0, 0, 0], [5, 5, 5], [1, 0, 0], [0, 1, 0]], dtype=np.float32
)
LABELS = np.array([0, 1, 0, 1, 1, 0])


def write_shchur(root: Path) -> Path:
    arrays: dict = {}
    for key, matrix in (("adj", ADJACENCY), ("attr", FEATURES)):
        csr = sparse.csr_matrix(matrix)
        arrays |= {f"{key}_data": csr.data, f"{key}_indices": csr.indices}
        arrays |= {f"{key}_indptr": csr.indptr, f"{key}_shape": np.array(csr.shape)}
    path = root / "shchur" / "cora.npz"
    path.parent.mkdir(parents=True)
    np.savez(path, labels=LABELS, **arrays)
    return path


def write_planetoid(root: Path) -> Path:
    """Four nodes in a ring plus 1000 test nodes attached to node 0."""
    raw = root / "planetoid" / "Cora" / "raw"
    raw.mkdir(parents=True)
    graph = {0: [*list(range(4, 1004)), 1], 1: [2], 2: [3], 3: [0, 3]}
    features = sparse.csr_matrix(np.eye(4, 3, dtype=np.float32))
    test_features = sparse.csr_matrix(np.ones((1000, 3), dtype=np.float32))
    one_hot = np.eye(2, dtype=np.int32)[[0, 1, 0, 1]]
    parts = {
        "x": features[:2],
        "tx": test_features,
        "allx": features,
        "y": one_hot[:2],
        "ty": np.eye(2, dtype=np.int32)[np.arange(1000) % 2],
        "ally": one_hot,
        "graph": graph,
    }
    for part, value in parts.items():
        (raw / f"ind.cora.{part}").write_bytes(pickle.dumps(value))
    (raw / "ind.cora.test.index").write_text("".join(f"{i}\n" for i in reversed(range(4, 1004))))
    return raw


@pytest.fixture
def tiny_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(graphs.SIZES, ("cora", "shchur"), (4, 3, 3, 2))
    monkeypatch.setitem(graphs.SIZES, ("cora", "planetoid"), (1004, 1004, 3, 2))
    monkeypatch.setitem(graphs.FIRST_TEST_NODE, "cora", 4)


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise OSError("no network in tests")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)


def test_standard_form(tmp_path: Path, tiny_sizes: None) -> None:
    write_shchur(tmp_path)
    data = load_graph("cora", "shchur", tmp_path)
    assert set(map(tuple, data.edge_index.t().tolist())) == {
        (0, 1), (1, 0), (1, 2), (2, 1), (0, 3), (3, 0)
    }  # fmt: skip
    third = 1 / 3
    expected = [[0.5, 0, 0.5], [0, 1, 0], [0, 0, 0], [third, third, third]]
    torch.testing.assert_close(data.x, torch.tensor(expected))
    assert data.y.tolist() == [0, 1, 0, 1]
    assert (data.name, data.source) == ("cora", "shchur")
    torch.testing.assert_close(sparse_features(data).to_dense(), data.x)


def test_planetoid_files_from_a_read_only_folder(tmp_path: Path, tiny_sizes: None) -> None:
    raw = write_planetoid(tmp_path)
    before = sorted(path.name for path in tmp_path.rglob("*"))
    raw.chmod(0o555)
    data = load_graph("cora", "planetoid", tmp_path)
    raw.chmod(0o755)
    assert data.num_nodes == 1004 and data.num_edges == 2008
    assert data.y[4:8].tolist() == [1, 0, 1, 0]  # the index file is reversed
    assert sorted(path.name for path in tmp_path.rglob("*")) == before


@pytest.mark.parametrize("part", ["x", "tx", "allx", "y", "ty", "ally", "graph", "test.index"])
def test_truncated_planetoid_file_is_named(tmp_path: Path, part: str, tiny_sizes: None) -> None:
    path = write_planetoid(tmp_path) / f"ind.cora.{part}"
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(ValueError, match=f"ind.cora.{part}' is damaged"):
        load_graph("cora", "planetoid", tmp_path)


def test_files_that_do_not_fit_together(tmp_path: Path, tiny_sizes: None) -> None:
    raw = write_planetoid(tmp_path)
    (raw / "ind.cora.allx").write_bytes(pickle.dumps(sparse.csr_matrix(np.ones((4, 9)))))
    with pytest.raises(ValueError, match="do not fit together"):
        load_graph("cora", "planetoid", tmp_path)


def test_damaged_npz_is_named(tmp_path: Path, tiny_sizes: None) -> None:
    path = write_shchur(tmp_path)
    whole = path.read_bytes()
    for bytes_ in (whole[: len(whole) // 2], b"", b"no zip file"):
        path.write_bytes(bytes_)
        with pytest.raises(ValueError, match=r"cora\.npz' is damaged"):
            load_graph("cora", "shchur", tmp_path)
    np.savez(path, labels=LABELS)
    with pytest.raises(ValueError, match=r"cora\.npz': there is no 'x'"):
        load_graph("cora", "shchur", tmp_path)


def test_another_graph_is_refused(tmp_path: Path) -> None:
    write_shchur(tmp_path)
    with pytest.raises(ValueError, match=r"\(4, 3, 3, 2\).*expected \(2485, 5069, 1433, 7\)"):
        load_graph("cora", "shchur", tmp_path)


def test_missing_files_are_listed(tmp_path: Path, no_network: None) -> None:
    with pytest.raises(FileNotFoundError, match=r"lacks pubmed\.npz .*no network"):
        load_graph("pubmed", "shchur", tmp_path)
    raw = write_planetoid(tmp_path)
    (raw / "ind.cora.tx").unlink()
    (raw / "ind.cora.graph").unlink()
    with pytest.raises(FileNotFoundError, match=r"lacks ind\.cora\.tx, ind\.cora\.graph and"):
        load_graph("cora", "planetoid", tmp_path)


def test_missing_files_are_downloaded(
    tmp_path: Path, tiny_sizes: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write_shchur(tmp_path / "server")
    asked = []

    def fetch(url: str, timeout: float) -> object:
        asked.append(url)
        return open(source, "rb")

    monkeypatch.setattr(urllib.request, "urlopen", fetch)
    assert load_graph("cora", "shchur", tmp_path / "new").num_nodes == 4
    assert load_graph("cora", "shchur", tmp_path / "new").num_nodes == 4
    assert asked == [f"{graphs.SHCHUR_URL}/cora.npz"]
    assert os.listdir(tmp_path / "new" / "shchur") == ["cora.npz"]


def test_unknown_names() -> None:
    with pytest.raises(ValueError, match="no graph 'coral'.*digits"):
        load_graph("coral")
    with pytest.raises(ValueError, match="'source'.*got 'web'"):
        load_graph("cora", "web")


def test_data_root(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DATA_ROOT", str(tmp_path / "x"))
    assert data_root() == tmp_path / "x"
    monkeypatch.delenv("DATA_ROOT")
    assert data_root() == Path("data")


def test_digits() -> None:
    pytest.importorskip("sklearn", reason="scikit-learn is not installed")
    data = load_graph("digits")
    assert (data.num_nodes, data.num_features, int(data.y.max())) == (1797, 64, 9)
    assert is_undirected(data.edge_index) and not contains_self_loops(data.edge_index)
    degree = data.edge_index[0].bincount()
    assert degree.min() >= 10
    source, target = data.edge_index
    assert (data.y[source] == data.y[target]).float().mean() > 0.95


@pytest.mark.parametrize("key", [key for key in graphs.SIZES if key != ("pubmed", "shchur")])
def test_real_graphs_have_the_published_sizes(key: tuple[str, str]) -> None:
    name, source = key
    folder = f"planetoid/{graphs.FOLDERS[name]}/raw" if source == "planetoid" else "shchur"
    file = f"ind.{name}.x" if source == "planetoid" else f"{name}.npz"
    if not (data_root() / folder / file).is_file():
        pytest.skip(f"{folder}/{file} is not in the data root")
    data = load_graph(name, source)  # checks the sizes
    assert is_undirected(data.edge_index) and not contains_self_loops(data.edge_index)
    total = data.x.sum(dim=1)
    assert (((total - 1).abs() < 1e-5) | (total == 0)).all()


def test_no_default_device_is_followed() -> None:
    pytest.importorskip("sklearn", reason="scikit-learn")
    expected = load_graph("digits")
    torch.set_default_device("meta")
    try:
        found = load_graph("digits")
    finally:
        torch.set_default_device(None)
    for name in ("x", "edge_index", "y"):
        assert torch.equal(found[name], expected[name])
