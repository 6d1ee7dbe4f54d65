"""The made-up OGB sets: sizes, structure, and OGB's own reader agreeing on them."""

import numpy as np
import pytest
import torch

from benchmarks.ogb import make as make_ogb
from torch_geometric_diff.data.ogb import load_ogb

SMALL = make_ogb.SHAPES["small"]


def test_block_model_has_the_stated_structure() -> None:
    graph, labels, split = make_ogb.block_model(SMALL, seed=1)
    source, target = graph["edge_index"]
    year = graph["node_year"][:, 0]

    assert graph["edge_index"].shape == (2, SMALL.edges)
    assert (source != target).all()
    pairs = np.sort(graph["edge_index"], axis=0)
    assert np.unique(pairs, axis=1).shape == pairs.shape
    assert (year[source] >= year[target]).all()  # a citation points back in time
    assert year[split["train"]].max() < year[split["valid"]].min()
    assert year[split["valid"]].max() < year[split["test"]].min()
    assert sorted(np.concatenate(list(split.values()))) == list(range(SMALL.nodes))
    assert [len(split[part]) for part in ("train", "valid")] == [SMALL.train, SMALL.valid]

    inside = (labels[source, 0] == labels[target, 0]).mean()
    chance = (np.bincount(labels[:, 0]) ** 2).sum() / SMALL.nodes**2
    assert inside == pytest.approx(0.5 + 0.5 * chance, abs=0.05)
    feature, classes = graph["node_feat"], range(SMALL.classes)
    means = np.stack([feature[labels[:, 0] == c].mean(axis=0) for c in classes])
    distance = ((feature[:, None] - means) ** 2).sum(axis=2)
    assert 0.2 < (distance.argmin(axis=1) == labels[:, 0]).mean() < 0.9


def test_noisy_labels_are_told_by_nothing() -> None:
    plain, labels, split = make_ogb.block_model(SMALL, 3)
    noisy, wrong, again = make_ogb.block_model(SMALL, 3, noise=0.25)
    for name in plain:
        assert np.array_equal(plain[name], noisy[name])
    assert all(np.array_equal(split[part], again[part]) for part in split)
    assert (labels != wrong).mean() == pytest.approx(0.25, abs=0.06)
    assert make_ogb.KINDS["noisy"]["noise"] == 0.2 and make_ogb.KINDS["plain"]["noise"] == 0


def test_seed_decides_the_set() -> None:
    one, again, other = (make_ogb.block_model(SMALL, seed)[0] for seed in (0, 0, 1))
    assert np.array_equal(one["node_feat"], again["node_feat"])
    assert np.array_equal(one["edge_index"], again["edge_index"])
    assert not np.array_equal(one["edge_index"], other["edge_index"])


@pytest.mark.parametrize(
    "name, nodes, edges, features, classes",
    [("arxiv", 169343, 1166243, 128, 40), ("products", 2449029, 61859140, 100, 47)],
)
def test_official_sizes(name: str, nodes: int, edges: int, features: int, classes: int) -> None:
    shape = make_ogb.SHAPES[name]
    assert (shape.nodes, shape.edges, shape.features, shape.classes) == (
        nodes,
        edges,
        features,
        classes,
    )


def test_ogb_package_and_our_reader_agree(tmp_path, capsys) -> None:
    pytest.importorskip("ogb", reason="the package ogb is not installed")
    from ogb.nodeproppred import NodePropPredDataset

    out = tmp_path / "set"
    make_ogb.main(["--shape", "small", "--out", str(out), "--seed", "3"])
    assert capsys.readouterr().out == f"wrote {out}\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["set"]
    meta = torch.load(out / "meta_dict.pt", weights_only=True)
    theirs = NodePropPredDataset("ogbn-small", meta_dict=meta)  # the first read needs no pickle
    graph, labels = theirs[0]

    data = load_ogb(out)
    assert np.array_equal(graph["edge_index"], data.edge_index)
    assert np.array_equal(graph["node_feat"], data.x)
    assert np.array_equal(graph["node_year"], data.node_year)
    assert np.array_equal(labels[:, 0], data.y)
    assert theirs.num_classes == data.num_classes == SMALL.classes
    drawn = make_ogb.block_model(SMALL, seed=3)[2]
    for part in ("train", "valid", "test"):
        assert np.array_equal(drawn[part], data[f"{part}_index"])


def test_existing_folder_is_left_alone(tmp_path) -> None:
    with pytest.raises(ValueError, match="already exists"):
        make_ogb.main(["--shape", "small", "--out", str(tmp_path)])
    assert list(tmp_path.iterdir()) == []
