import json
from pathlib import Path

import pytest
import torch
import torch_geometric.nn
from torch_geometric.data import Data

from benchmarks.speed import __main__ as speed
from benchmarks.speed import (
    accelerate,
    graphs,
    harness,
    kernels,
    memory,
    peers,
    propagation,
    scale,
    train,
)
from benchmarks.speed.graphs import Case, synthetic
from benchmarks.speed.harness import Harness, copy_bandwidth
from torch_geometric_diff import DiffusionOperator, SparseOperator, diffuse, nn

TINY = synthetic("tiny", 60, 150, 20)


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> Case:
    for module in (accelerate, kernels, memory, propagation, train):
        monkeypatch.setattr(module, "citation", lambda name: TINY)
    monkeypatch.setattr(kernels, "arxiv", lambda shuffled: TINY)
    monkeypatch.setattr(harness, "copy_bandwidth", lambda: copy_bandwidth(1 << 20))
    return TINY


def test_compare_times_in_turn_and_leaves_the_warm_up_out() -> None:
    calls: list[str] = []
    candidates = {name: lambda name=name: calls.append(name) for name in "ab"}
    rows = Harness().compare("case", candidates, ours="b", repeats=3)
    assert calls == list("abababab")
    assert [row["name"] for row in rows] == ["a", "b"]
    assert rows[1]["ratio"] == 1 and all(row["seconds"] > 0 for row in rows)
    with pytest.raises(ValueError, match="'ours' to be one of"):
        Harness().compare("case", candidates, ours="c")


def test_bandwidth_is_that_of_a_computer() -> None:
    assert 1e8 < copy_bandwidth(1 << 20) < 1e13


def test_all_peers_do_the_same_step(tiny: Case) -> None:
    operator = DiffusionOperator(tiny.edge_index, num_nodes=tiny.num_nodes, step_size=0.1)
    x = torch.rand(tiny.num_nodes, tiny.channels)
    expected = diffuse(x, operator, 3)
    for name, step in kernels.steps(operator).items():
        torch.testing.assert_close(kernels.peer(step, x, 3, 0.0), expected, msg=name)


def test_the_original_network_equals_ours(tiny: Case) -> None:
    operator = DiffusionOperator(tiny.edge_index, num_nodes=tiny.num_nodes, step_size=0.25)
    x = torch.rand(tiny.num_nodes, tiny.channels)
    original = train._original(x, operator).eval()
    h = x + (x @ original.lin.weight.T + original.lin.bias).relu()
    expected = original.classifier(diffuse(h, operator, train.NUM_STEPS))
    torch.testing.assert_close(original(x, operator), expected)


def test_synthetic_graphs_have_the_shape_asked_for() -> None:
    case = graphs.synthetic("x", 1000, 3000, 5, shuffled=False)
    assert case.edge_index.shape == (2, 6000) and int(case.edge_index.max()) < 1000
    assert torch.equal(case.edge_index, graphs.synthetic("x", 1000, 3000, 5, False).edge_index)


@pytest.mark.parametrize("suite", ["kernels", "columns", "small", "sizes", "train"])
def test_command_writes_rows_and_picture(
    suite: str, tiny: Case, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib", reason="'matplotlib' is not installed: no picture")
    paths = tmp_path / "rows.json", tmp_path / "rows.png"
    speed.main(["--suite", suite, "--quick", "--json", str(paths[0]), "--plot", str(paths[1])])
    record = json.loads(paths[0].read_text())
    assert record["copy_bytes_per_second"] > 0 and "torch" in json.dumps(record["environment"])
    for row in record["rows"]:
        assert row["suite"] == suite and row["case"] and row["seconds"] > 0
        assert row["ratio"] == 1 or row["name"] != "ours"
    assert paths[1].read_bytes().startswith(b"\x89PNG")
    assert "| ours |" in capsys.readouterr().out


def test_all_peers_propagate_the_same(tiny: Case) -> None:
    x = torch.rand(tiny.num_nodes, tiny.channels)
    layer = torch_geometric.nn.APPNP(propagation.STEPS, propagation.ALPHA)
    expected = nn.APPNP(propagation.STEPS, propagation.ALPHA)(x, tiny.edge_index)
    for name, graph in peers.forms(tiny).items():
        torch.testing.assert_close(layer(x, graph), expected, msg=name)
    operator = SparseOperator.gcn_norm(tiny.edge_index, num_nodes=tiny.num_nodes)
    for name, step in peers.products(operator).items():
        torch.testing.assert_close(step(x), operator @ x, msg=name)


@pytest.mark.parametrize(
    ("suite", "flags"),
    [
        ("propagation", []),
        ("propagation", ["--beside"]),
        ("accelerate", []),
        pytest.param("accelerate", ["--beside"], marks=pytest.mark.slow),  # threads of torch wait
    ],
)
def test_propagation_suites(
    suite: str,
    flags: list[str],
    tiny: Case,
    one_thread: None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    data = Data(
        x=torch.rand(60, 20), y=torch.arange(60) % 2, edge_index=tiny.edge_index, num_nodes=60
    )
    monkeypatch.setattr(accelerate, "graph", lambda name: data)
    speed.main(["--suite", suite, "--quick", *flags])
    out = capsys.readouterr().out
    assert "| ours |" in out and ("| PyG" in out) is not bool(flags)
    assert ("bits compared" in out) is bool(flags)


def test_beside_refuses_other_bits_and_other_suites() -> None:
    numbers = iter(range(100))
    with harness.BesideHarness() as beside:
        with pytest.raises(AssertionError, match="the same bits .* case"):
            beside.compare("case", {"ours": lambda: torch.tensor(next(numbers))}, ours="ours")
        rows = beside.compare("case", {"ours": lambda: torch.ones(2), "PyG": list}, ours="ours")
    assert [row["name"] for row in rows] == ["ours"] and rows[0]["bits compared"]
    with pytest.raises(ValueError, match="one of the suites .* beside '--beside'"):
        speed.main(["--suite", "train", "--beside"])


@pytest.mark.parametrize("what", ["GAT", "GCNConv", "AttentionDiffusion, K = 10"])
def test_memory_of_accelerated_layers(
    what: str, tiny: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(accelerate, "arxiv", lambda shuffled: TINY)
    other = "GRAND's own form" if "Diffusion" in what else "PyG, edge_index"
    for name in ("ours", other):
        assert accelerate.measure(what, name)["seconds"] > 0


def test_both_forms_of_attention_diffusion_are_equal() -> None:
    x, forms = torch.rand(TINY.num_nodes, 64), accelerate.diffusion_pair(10)
    one, other = (layer(x, TINY.edge_index) for layer in forms.values())
    degree = torch.zeros(TINY.num_nodes).index_add(0, TINY.edge_index[1], torch.ones(300))
    torch.testing.assert_close(one[degree > 0], other[degree > 0])


def test_memory_of_a_layer(tiny: Case) -> None:
    taken = propagation.measure("APPNP", "ours", 3)
    assert taken["seconds"] > 0 and taken["bytes"] >= 0


def test_scale_restores_the_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    monkeypatch.setattr(
        scale.reference, "propagate", lambda *arguments: seen.append(torch.get_num_threads())
    )
    monkeypatch.setattr(scale, "cpu", scale.reference)
    threads = torch.get_num_threads()
    rows = scale.run(Harness(), quick=True)
    assert torch.get_num_threads() == threads and set(seen) == {1, threads}
    assert all(row["ns per edge and step"] > 0 for row in rows)


@pytest.mark.parametrize("reach", [100, None])
def test_matrices_of_the_scale_suite(reach: int | None) -> None:
    rowptr, col, value = scale.matrix(10_000, reach)
    assert rowptr[-1] == col.numel() == value.numel() == 10_000
    assert int(col.min()) >= 0 and int(col.max()) < 1000
    if reach is not None:
        row = torch.arange(1000).repeat_interleave(10)
        apart = (row - col).abs()
        assert int(torch.minimum(apart, 1000 - apart).max()) <= reach


def test_threads_below_one_are_refused() -> None:
    with pytest.raises(ValueError, match="'--threads' to be at least 1"):
        speed.main(["--threads", "0"])


@pytest.mark.parametrize("flag", ["--json", "--plot"])
def test_a_file_that_cannot_be_written_is_refused_first(
    flag: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(kernels, "run", lambda *_: pytest.fail("the suite ran"))
    with pytest.raises((NotADirectoryError, FileExistsError)):
        speed.main(["--suite", "kernels", flag, str(tmp_path / "file" / "rows")])


@pytest.mark.slow
def test_memory_does_not_grow_with_the_number_of_steps() -> None:
    few, many = (memory.in_child(memory.__name__, "ours", str(k))["bytes"] for k in (10, 100))
    assert many == pytest.approx(few, rel=0.1)
    assert memory.in_child(memory.__name__, memory.PEERS[0], "10")["bytes"] > 2 * few
