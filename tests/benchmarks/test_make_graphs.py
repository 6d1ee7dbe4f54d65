"""Graphs that no search has seen."""

import ast
from pathlib import Path

import numpy as np
import pytest

from benchmarks.make_graphs import blocks, columns, imports, main, roles, worded, words_of
from torch_geometric_diff.data import load_graph


def test_a_table_becomes_a_graph(tmp_path: Path) -> None:
    pytest.importorskip("sklearn", reason="scikit-learn")
    main(["--out", str(tmp_path / "new"), "--graphs", "wine"])
    data = load_graph(str(tmp_path / "new" / "wine.npz"))
    assert (data.num_nodes, data.num_features, int(data.y.max())) == (178, 13, 2)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["wine.npz"]


@pytest.mark.parametrize("inside", [0.05, 0.7])
def test_so_many_edges_stay_in_a_class(inside: float) -> None:
    graph = blocks(0, inside, 3.0)
    source, target = graph["edge_index"]
    assert abs((graph["y"][source] == graph["y"][target]).mean() - inside) < 0.03
    assert graph["x"].shape == (1200, 40) and np.bincount(graph["y"]).tolist() == [200] * 6
    assert all(np.array_equal(graph[name], blocks(0, inside, 3.0)[name]) for name in graph)


def test_classes_of_very_different_size_keep_their_edges() -> None:
    graph = blocks(0, 0.7, 3.0, nodes=2000, classes=4, unequal=True)
    counts = np.bincount(graph["y"])
    assert (counts[:-1] > 1.3 * counts[1:]).all() and graph["edge_index"].max() < len(graph["y"])
    source, target = graph["edge_index"]
    assert (graph["y"][source] == graph["y"][target]).mean() > 0.7


@pytest.mark.parametrize(
    ("kind", "classes"), [("exclusive", 2), ("line", 2), ("counts", 4), ("categories", 4)]
)
def test_columns_have_classes(kind: str, classes: int) -> None:
    pytest.importorskip("sklearn", reason="scikit-learn")
    graph = columns(kind, 200)
    assert graph["x"].shape[0] == 200 and graph["edge_index"].shape == (2, 2000)
    assert np.unique(graph["y"]).tolist() == list(range(classes))


@pytest.mark.parametrize("kind", ["houses", "degrees", "triangles"])
def test_roles_are_told_by_the_graph_alone(kind: str) -> None:
    graph = roles(kind, 90)
    number = len(graph["y"])
    assert np.unique(graph["x"]).tolist() == [1.0] and graph["x"].shape == (number, 1)
    assert graph["edge_index"].shape[0] == 2 and graph["edge_index"].max() < number
    assert np.bincount(graph["y"]).min() > 5


def test_imports_and_words_of_a_source_file() -> None:
    tree = ast.parse(
        "import p.a.one\nfrom . import two, x\nfrom ..b.three import f as g\nimport os\n"
        "def walk(firstStep): return SomeName.other_part"
    )
    module = {"p.a.one": 0, "p.a.two": 1, "p.b.three": 2}
    assert sorted(set(imports(tree, ("p", "a", "me"), module))) == list(module)
    assert words_of(tree) == {"first", "step", "some", "name", "other", "part"}


def test_a_graph_of_a_shape_is_connected_and_in_shchurs_layout(tmp_path: Path) -> None:
    graph = worded(500, 2_000, 120, 0.1, 4)
    assert all(np.array_equal(graph[name], worded(500, 2_000, 120, 0.1, 4)[name]) for name in graph)
    np.savez(tmp_path / "shape.npz", **graph)
    data = load_graph(str(tmp_path / "shape.npz"))
    assert (data.num_nodes, data.num_edges, data.num_features) == (500, 4_000, 120)
    assert abs((data.x > 0).float().mean() - 0.1) < 0.01 and data.y.bincount().tolist() == [125] * 4
    source, target = data.edge_index
    assert 0.5 < (data.y[source] == data.y[target]).float().mean() < 0.9
    degree = source.bincount()
    assert degree.max() > 3 * degree.float().mean()
