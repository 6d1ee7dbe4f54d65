"""OGB's two layouts read without pickles, and every kind of damage named by its file."""

import gzip
from pathlib import Path

import numpy as np
import pytest
import torch
from torch_geometric.utils import remove_self_loops, to_undirected

from torch_geometric_diff.data.ogb import find_ogb, load_ogb, undirected, unpack_features

NODES, EDGES, FEATURES, CLASSES = 30, 70, 4, 3
SPLIT = {"train": np.arange(10), "valid": np.arange(10, 16), "test": np.arange(16, NODES)}


def _arrays() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        "edge_index": rng.integers(0, NODES, (2, EDGES)),
        "node_feat": rng.standard_normal((NODES, FEATURES)).astype(np.float32).round(4),
        "node_year": rng.integers(2000, 2020, (NODES, 1)),
        "node_label": np.arange(NODES)[:, None] % CLASSES,
    }


def _write_csv(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with gzip.open(path, "wt") as file:
        np.savetxt(file, array, delimiter=",", fmt="%.6g")


@pytest.fixture
def csv_set(tmp_path: Path) -> Path:
    """The layout of ogbn-arxiv."""
    arrays, folder = _arrays(), tmp_path / "ogbn_arxiv"
    _write_csv(folder / "raw/edge.csv.gz", arrays["edge_index"].T)
    _write_csv(folder / "raw/node-feat.csv.gz", arrays["node_feat"])
    _write_csv(folder / "raw/node_year.csv.gz", arrays["node_year"])
    _write_csv(folder / "raw/node-label.csv.gz", arrays["node_label"])
    _write_csv(folder / "raw/num-node-list.csv.gz", np.array([NODES]))
    _write_csv(folder / "raw/num-edge-list.csv.gz", np.array([EDGES]))
    for part, index in SPLIT.items():
        _write_csv(folder / f"split/time/{part}.csv.gz", index)
    return folder


@pytest.fixture
def npz_set(tmp_path: Path) -> Path:
    """The layout of ogbn-papers100M: labels are floats, nan where there is none."""
    folder = tmp_path / "papers"
    _write_npz(folder)
    for part, index in SPLIT.items():
        _write_csv(folder / f"split/time/{part}.csv.gz", index)
    return folder


def _write_npz(folder: Path, **changes: np.ndarray) -> None:
    arrays = _arrays()
    label = arrays.pop("node_label").astype(np.float32)
    counts = {"num_nodes_list": np.array([NODES]), "num_edges_list": np.array([EDGES])}
    (folder / "raw").mkdir(parents=True, exist_ok=True)
    stored = arrays | counts | {"node_label": label} | changes
    np.savez_compressed(folder / "raw/node-label.npz", node_label=stored.pop("node_label"))
    np.savez_compressed(folder / "raw/data.npz", **stored)


def _snapshot(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("layout", ["csv_set", "npz_set"])
def test_both_layouts_give_the_arrays(layout: str, request: pytest.FixtureRequest) -> None:
    folder = request.getfixturevalue(layout)
    data, arrays = load_ogb(folder), _arrays()
    assert np.array_equal(data.edge_index, arrays["edge_index"])
    assert np.array_equal(data.x, arrays["node_feat"])
    assert data.x.dtype == torch.float32
    assert np.array_equal(data.node_year, arrays["node_year"])
    assert np.array_equal(data.y, arrays["node_label"][:, 0])
    assert (data.num_nodes, data.num_classes, data.split) == (NODES, CLASSES, "time")
    for part, index in SPLIT.items():
        assert np.array_equal(data[f"{part}_index"], index)
    assert load_ogb(folder, features=False).x is None


def test_official_name_is_found_under_the_root(csv_set: Path) -> None:
    assert find_ogb("ogbn-arxiv", csv_set.parent) == csv_set
    assert load_ogb("ogbn-arxiv", csv_set.parent).name == "ogbn-arxiv"


def test_nodes_without_a_label(npz_set: Path) -> None:
    label = _arrays()["node_label"].astype(np.float32)
    label[20:] = np.nan
    _write_npz(npz_set, node_label=label)
    _write_csv(npz_set / "split/time/test.csv.gz", np.arange(16, 20))
    assert load_ogb(npz_set).y[20:].tolist() == [-1] * 10
    _write_csv(npz_set / "split/time/test.csv.gz", np.arange(16, 21))
    with pytest.raises(ValueError, match=r"test\.csv\.gz': .*without a label"):
        load_ogb(npz_set)


def test_split_dict_of_dataset_saver(npz_set: Path) -> None:
    path = npz_set / "split/time/split_dict.pt"
    shuffled = {"train": SPLIT["test"], "valid": SPLIT["valid"], "test": SPLIT["train"]}
    torch.save(shuffled, path)
    assert np.array_equal(load_ogb(npz_set).train_index, SPLIT["test"])
    torch.save({"train": SPLIT["train"], "valid": SPLIT["valid"]}, path)
    with pytest.raises(ValueError, match="split_dict.pt': expected a dict"):
        load_ogb(npz_set)


def test_split_dict_with_code_in_it_is_refused(npz_set: Path, tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "boom",))

    torch.save({**SPLIT, "x": Bomb()}, npz_set / "split/time/split_dict.pt")
    with pytest.raises(ValueError, match=r"split_dict\.pt' is damaged or holds more than arrays"):
        load_ogb(npz_set)
    assert not (tmp_path / "boom").exists()


CSV_DAMAGE = {
    "text": ("raw/node-label.csv.gz", np.array(["a"] * NODES), "damaged"),
    "no such class": ("raw/node-label.csv.gz", np.full(NODES, 1.5), "not class numbers"),
    "two label columns": ("raw/node-label.csv.gz", np.ones((NODES, 2)), r"shape \(30, 2\)"),
    "few labels": ("raw/node-label.csv.gz", np.ones(NODES - 1), r"shape \(29, 1\)"),
    "one class": ("raw/node-label.csv.gz", np.zeros(NODES), "at least 2"),
    "few features": ("raw/node-feat.csv.gz", np.ones((NODES - 1, 4)), "29 rows .* 30 nodes"),
    "nan features": ("raw/node-feat.csv.gz", np.full((NODES, 4), np.nan), "not finite"),
    "few years": ("raw/node_year.csv.gz", np.ones((9, 1)), "9 rows .* 30 nodes"),
    "edge columns": ("raw/edge.csv.gz", np.ones((EDGES, 3)), r"shape \(3, 70\)"),
    "edge range": ("raw/edge.csv.gz", np.full((EDGES, 2), NODES), "nodes 30 to 30, but .* 30"),
    "edge count": ("raw/edge.csv.gz", np.ones((EDGES + 1, 2)), "71 edges, .* says 70"),
    "two graphs": ("raw/num-node-list.csv.gz", np.array([10, 20]), "expected one graph"),
    "split range": ("split/time/valid.csv.gz", np.array([NODES]), "30 to 30, .* 30 nodes"),
    "negative split": ("split/time/valid.csv.gz", np.array([-1]), "-1 to -1"),
    "split overlap": ("split/time/valid.csv.gz", np.array([3]), "a second time"),
    "empty split": ("split/time/test.csv.gz", np.empty(0), "the test split is empty"),
}


@pytest.mark.filterwarnings("ignore:loadtxt. input contained no data")
@pytest.mark.parametrize("case", CSV_DAMAGE)
def test_bad_csv_is_named_and_nothing_is_written(csv_set: Path, case: str) -> None:
    name, array, message = CSV_DAMAGE[case]
    if array.dtype.kind == "U":
        with gzip.open(csv_set / name, "wt") as file:
            file.write("\n".join(array))
    else:
        _write_csv(csv_set / name, array)
    before = _snapshot(csv_set)
    with pytest.raises(ValueError, match=f"{name}'.*{message}"):
        load_ogb(csv_set)
    assert _snapshot(csv_set) == before


@pytest.mark.parametrize(
    "name",
    ["raw/edge", "raw/node-feat", "raw/node-label", "raw/num-node-list", "split/time/train"],
)
@pytest.mark.parametrize("keep", [0.0, 0.5, 0.95])
def test_truncated_csv(csv_set: Path, name: str, keep: float) -> None:
    path = csv_set / f"{name}.csv.gz"
    content = path.read_bytes()
    path.write_bytes(content[: max(5, int(len(content) * keep))])
    with pytest.raises(ValueError, match=f"{name}.csv.gz' is damaged"):
        load_ogb(csv_set)


@pytest.mark.parametrize("name", ["raw/data.npz", "raw/node-label.npz"])
@pytest.mark.parametrize("damage", ["cut", "flipped", "empty"])
def test_damaged_npz(npz_set: Path, name: str, damage: str) -> None:
    path = npz_set / name
    content = bytearray(path.read_bytes())
    middle = 120
    content[middle : middle + 8] = bytes(255 - b for b in content[middle : middle + 8])
    changed = {"cut": content[: len(content) // 2], "flipped": content, "empty": b""}
    path.write_bytes(changed[damage])
    with pytest.raises(ValueError, match=f"{name}' is damaged"):
        load_ogb(npz_set)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"num_nodes_list": np.array([NODES + 1])}, r"node-label.npz': .*\(30, 1\).*\(31, 1\)"),
        ({"edge_index": np.zeros((2, EDGES), np.float32)}, "data.npz': .*float32"),
        ({"node_feat": np.ones(NODES, np.float32)}, r"data.npz': node_feat has shape \(30,\)"),
        ({"node_label": np.full((NODES, 1), -2.0)}, "node-label.npz': labels are not class"),
    ],
)
def test_disagreeing_npz(npz_set: Path, changes: dict[str, np.ndarray], message: str) -> None:
    _write_npz(npz_set, **changes)
    with pytest.raises(ValueError, match=message):
        load_ogb(npz_set)


@pytest.mark.parametrize(
    "name", ["raw/edge", "raw/node-label", "raw/num-edge-list", "split/time/valid"]
)
def test_missing_file(csv_set: Path, name: str) -> None:
    (csv_set / f"{name}.csv.gz").unlink()
    with pytest.raises(FileNotFoundError, match="edge.csv.gz" if name.endswith("edge") else name):
        load_ogb(csv_set)


def test_missing_set(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"ogbn_arxiv/raw' does not exist: unzip http"):
        load_ogb("ogbn-arxiv", tmp_path)
    with pytest.raises(FileNotFoundError, match="expected the folder of an OGB set or one of"):
        load_ogb(tmp_path / "nothing")
    (tmp_path / "set/raw").mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match=r"neither 'data\.npz' nor 'edge\.csv\.gz'"):
        load_ogb(tmp_path / "set")


def test_two_splits_are_ambiguous(csv_set: Path) -> None:
    (csv_set / "split/other").mkdir()
    with pytest.raises(FileNotFoundError, match=r"expected one folder .*'other', 'time'"):
        load_ogb(csv_set)


def test_unpacked_features_are_mapped_and_equal(npz_set: Path, tmp_path: Path) -> None:
    out = tmp_path / "x.npy"
    unpack_features(npz_set, out)
    assert np.array_equal(np.load(out, mmap_mode="r"), _arrays()["node_feat"])


def test_unpacking_leaves_nothing_behind_on_damage(npz_set: Path, tmp_path: Path) -> None:
    out = tmp_path / "out/x.npy"
    path = npz_set / "raw/data.npz"
    content = bytearray(path.read_bytes())
    at = content.index(b"node_feat.npy") + 150
    content[at : at + 20] = bytes(255 - b for b in content[at : at + 20])
    path.write_bytes(content)
    with pytest.raises(ValueError, match="data.npz' is damaged"):
        unpack_features(npz_set, out)
    assert not out.parent.exists()


def test_unpacking_needs_the_npz_layout(csv_set: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no 'node_feat' in"):
        unpack_features(csv_set, tmp_path / "x.npy")
    assert not (tmp_path / "x.npy").exists()


def test_undirected_is_that_of_pyg() -> None:
    edge_index = torch.from_numpy(_arrays()["edge_index"])
    expected = to_undirected(remove_self_loops(edge_index)[0])
    assert torch.equal(undirected(edge_index, NODES + 3), expected)
