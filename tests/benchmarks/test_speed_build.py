import pytest
import torch
from torch_geometric.nn.conv.gcn_conv import gcn_norm

from benchmarks.speed import __main__ as speed
from benchmarks.speed import build, harness
from benchmarks.speed.graphs import synthetic
from benchmarks.speed.harness import Harness, copy_bandwidth

TINY = synthetic("tiny", 60, 150, 20)


def test_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "citation", lambda name: TINY)
    rows = build.run(Harness(), quick=True)
    assert len({row["case"] for row in rows}) == 3
    assert {build.OURS, "scipy coo -> csr", "PyG gcn_norm"} <= {row["name"] for row in rows}


def test_products(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "PRODUCTS", (100, 400))
    rows = build.products()
    assert [row["input_bytes"] for row in rows] == [2 * 800 * 8] * 2
    assert all(row["peak_bytes"] >= 0 and row["seconds"] > 0 for row in rows)


def test_products_go_with_this_suite_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(harness, "copy_bandwidth", lambda: copy_bandwidth(1 << 20))
    with pytest.raises(ValueError, match="'--suite build' beside '--products'"):
        speed.main(["--products"])


def test_molecules_are_connected_and_undirected() -> None:
    case = build.molecules(5)
    assert int(case.edge_index.max()) + 1 == case.num_nodes
    adj = torch.zeros(case.num_nodes, case.num_nodes).index_put(
        tuple(case.edge_index), torch.ones(1)
    )
    assert torch.equal(adj, adj.t()) and adj.sum(1).min() >= 1
    assert gcn_norm(case.edge_index)[1].isfinite().all()
