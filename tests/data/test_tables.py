"""Graphs of named nodes: networkx, its files, CSV, labels of text."""

import csv
from pathlib import Path
from typing import Any

import networkx
import numpy as np
import pytest
import torch

from torch_geometric_diff.data import load_graph

EDGES = [("ann", "bob"), ("bob", "cid"), ("cid", "dot"), ("dot", "ann"), ("ann", "cid")]
NODES = {  # name: class, two features
    "dot": ("red", 1.0, 0.5),
    "ann": ("blue", 2.0, 0.25),
    "cid": ("", 3.0, 0.0),
    "bob": ("blue", 4.0, 1.0),
}


def graph() -> networkx.Graph:
    found = networkx.Graph()
    for name, (kind, a, b) in NODES.items():
        found.add_node(name, kind=kind, a=a, b=b)
    found.add_edges_from(EDGES)
    return found


def write(path: Path) -> Path:
    if path.suffix == ".csv":
        for file, lines in (
            (path, [["from", "to", "weight"], *([*edge, 1] for edge in EDGES)]),
            (
                path.with_suffix(".nodes.csv"),
                [["id", "kind", "a", "b"], *([n, *v] for n, v in NODES.items())],
            ),
        ):
            with open(file, "w", newline="") as opened:
                csv.writer(opened).writerows(lines)
    else:
        getattr(networkx, f"write_{path.suffix[1:]}")(graph(), path)
    return path


@pytest.mark.parametrize("form", ["networkx", ".csv", ".graphml", ".gml", ".gexf"])
def test_every_form_is_the_same_graph(form: str, tmp_path: Path) -> None:
    source: Any = graph() if form == "networkx" else str(write(tmp_path / f"mine{form}"))
    data = load_graph(source, words="raw")
    names = list(NODES)
    dense = torch.zeros(4, 4)
    for one, other in EDGES:
        dense[names.index(one), names.index(other)] = dense[
            names.index(other), names.index(one)
        ] = 1
    assert torch.equal(data.edge_index, dense.nonzero().t())
    assert data.x.tolist() == [[a, b] for _, a, b in NODES.values()]
    assert data.y.tolist() == [1, 0, -1, 0] and data.class_names == ["blue", "red"]
    assert (data.name, data.source) == (("networkx",) * 2 if form == "networkx" else ("mine", form))


def test_classes_of_other_components_are_not_named() -> None:
    more = graph()
    more.add_node("eve", kind="also", a=0.0, b=0.0)
    data = load_graph(more)
    assert data.num_nodes == 4 and data.class_names == ["blue", "red"] and data.y.max() == 1
    data = load_graph(more, component="all")
    assert data.class_names == ["also", "blue", "red"] and data.y.tolist() == [2, 1, -1, 1, 0]


def test_a_graph_without_features_has_a_constant() -> None:
    data = load_graph(networkx.karate_club_graph())
    assert data.class_names == ["Mr. Hi", "Officer"] and data.num_nodes == 34
    assert data.x.tolist() == [[1.0]] * 34


def test_vectors_and_masks_are_read() -> None:
    found = graph()
    for i, name in enumerate(found):
        found.nodes[name].update(x=[float(i), 1.0, 2.0], train_mask=i < 2, y=i % 2)
    data = load_graph(found, words="raw")
    assert data.x.tolist() == [[float(i), 1.0, 2.0] for i in range(4)]
    assert data.train_mask[:, 0].tolist() == [True, True, False, False]
    assert data.y.tolist() == [0, 1, 0, 1] and "class_names" not in data


def test_labels_of_text_in_npz(tmp_path: Path) -> None:
    y = np.array(["b", "a", "", "b"])
    np.savez(tmp_path / "g.npz", x=np.eye(4), y=y, edge_index=[[0, 1, 2], [1, 2, 3]])
    data = load_graph(str(tmp_path / "g.npz"))
    assert data.y.tolist() == [1, 0, -1, 1] and data.class_names == ["a", "b"]


@pytest.mark.parametrize(
    ("nodes", "edges", "message"),
    [
        ("id,y,a\nu,1,2\nv,0,1\n", "s,t\nu,w\n", "an edge names 'w', which is no node"),
        ("id,y,a\nu,1,2\nu,0,1\n", "s,t\nu,u\n", "names a node twice"),
        ("id,y,a\nu,1\n", "s,t\nu,u\n", "line 2: expected as many cells as names"),
        ("id,y,a\nu,1,\nv,0,1\n", "s,t\nu,v\n", "expected features of every node|not finite"),
        ("id,a\nu,1\nv,0\n", "s,t\nu,v\n", "expected labels in an attribute y, class"),
        ("id,a,b\nu,m,n\nv,n,m\n", "s,t\nu,v\n", "in the only text"),
        ("", "s,t\nu,v\n", "is no CSV file"),
        (None, "s,t\nu,v\n", "which tells the nodes of"),
        ("id,y,a\nu,one,2\nv,one,1\n", "s,t\nu,v\n", "fewer than two classes"),
    ],
)
def test_what_is_no_graph_is_named(
    nodes: str | None, edges: str, message: str, tmp_path: Path
) -> None:
    (tmp_path / "g.csv").write_text(edges)
    if nodes is not None:
        (tmp_path / "nodes.csv").write_text(nodes)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        load_graph(str(tmp_path / "g.csv"))


@pytest.mark.parametrize("suffix", [".graphml", ".gml", ".gexf"])
def test_damaged_files_are_named(suffix: str, tmp_path: Path) -> None:
    (tmp_path / f"g{suffix}").write_text("graph <")
    with pytest.raises(ValueError, match=f"g{suffix}' is damaged or no graph"):
        load_graph(str(tmp_path / f"g{suffix}"))


def test_files_by_default_are_those_of_the_command_line(tmp_path: Path) -> None:
    (tmp_path / "shchur").mkdir()
    (tmp_path / "shchur" / "cora.npz").write_bytes(b"damaged")
    with pytest.raises(ValueError, match="shchur/cora.npz' is damaged"):
        load_graph("cora", root=tmp_path)
