"""The suites of the GPU, on the CPU at a small size, and what is said without a card."""

import importlib.util
import json
import os
from pathlib import Path

import pytest
import torch

from benchmarks.speed import gpu, gpu_costs, machine_code
from benchmarks.speed.graphs import synthetic
from torch_geometric_diff import DiffusionOperator

compiles = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None
    or os.environ.get("TRITON_INTERPRET") == "1"
    or torch.__version__ < "2.9",
    reason="needs Triton's compiler, of torch 2.9 or newer",
)


def test_suites_compare_the_same_work() -> None:
    rows = gpu.suites("cpu", quick=True)
    cases = {row["case"] for row in rows}
    assert len(cases) == 6 and all(row["seconds"] > 0 for row in rows)
    assert {row["name"] for row in rows} >= {"ours", gpu.CUSPARSE, "PyG", "PyG gcn_norm"}


def test_the_peer_is_the_same_matrix_forward_and_backward() -> None:
    case = synthetic("small", 50, 150, 4)
    operator = DiffusionOperator(case.edge_index, num_nodes=50, step_size=0.1, normalization="row")
    x = gpu.features(case, "cpu")
    found = gpu.cusparse(operator)(x)
    assert torch.allclose(found, operator.to_dense() @ x, atol=1e-6)
    (grad,) = torch.autograd.grad(found.sum(), x)
    assert torch.allclose(grad, operator.to_dense().t() @ torch.ones(50, 4), atol=1e-6)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a card")
def test_without_a_card_one_line_and_exit_2(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        gpu.main([])
    said = capsys.readouterr()
    assert stop.value.code == 2 and said.err.startswith("no GPU") and not said.out
    assert said.err.count("\n") == 1


@compiles
@pytest.mark.parametrize("arch", [80, 90, 100])
def test_machine_code(arch: int) -> None:
    """A few kernels, each for other widths and types; the slow suite compiles all."""
    dtype, index = {80: ("float32", "int64"), 90: ("float16", "int32"), 100: ("float64", "int64")}[
        arch
    ]
    found = machine_code.representative(machine_code.launches(47, dtype, index))
    some = [(name, flags) for name, flags in found if name in ("advance", "entries")]
    for name, flags in some:
        case = machine_code.Case(name, flags, 47, arch, dtype, index)
        row = machine_code.compiled(*found[name, flags], case)
        assert not machine_code.faults(row), row
        assert row["gather_bytes"] == 16 and row["arch"] == f"sm_{arch}"
    assert {name for name, _ in some} == {"advance", "entries"}


@compiles
@pytest.mark.slow
def test_all_machine_code(tmp_path: Path) -> None:
    """Every width, type and architecture, and every combination of flags."""
    gpu.main(["--compile", "--json", str(tmp_path / "rows.json")])
    rows = json.loads((tmp_path / "rows.json").read_text())
    names = {"kernel", "flags", "width", "arch", "dtype", "index", "registers", "spills"}
    assert names | {"gather_bytes"} <= rows[0].keys()
    assert {row["width"] for row in rows} == set(machine_code.WIDTHS)
    assert {row["arch"] for row in rows} == {"sm_80", "sm_90", "sm_100"}
    assert {row["dtype"] for row in rows} == set(machine_code.TYPES)
    assert {row["kernel"] for row in rows} == {"begin", "advance", "join", "total", "entries"}


def test_what_a_kernel_must_not_have() -> None:
    row = {"dtype": "float32", "spills": 0, "registers": 64, "limit": 64, "gather_bytes": 16}
    row |= {"atomics": 0, "float64": False}
    assert not machine_code.faults(row)
    bad = dict(spills=8, registers=65, gather_bytes=4, atomics=1, float64=True)
    for name, value in bad.items():
        assert len(machine_code.faults({**row, name: value})) == 1
    assert not machine_code.faults({**row, "dtype": "float64", "float64": True})


def test_costs_are_counted_from_the_plan(capsys: pytest.CaptureFixture[str]) -> None:
    """A launch a step, and another for rows of more than 256 entries; two states of scratch."""
    costs = {n: gpu_costs.cost(1000, 9000, n, 40, 10, torch.float32) for n in (20, 300)}
    assert costs[20].launches == 10 and costs[300].launches == 20
    assert costs[20].gathered == 9000 * 40 * 4 and costs[20].scratch == 2 * 1000 * 40 * 4
    half = gpu_costs.cost(1000, 9000, 20, 40, 10, torch.float16)
    assert 2 * half.gathered == costs[20].gathered and 2 * half.scratch == costs[20].scratch
    odd = gpu_costs.cost(1000, 9000, 20, 47, 10, torch.float32)
    assert odd.launches == 11 and odd.gathered == 9000 * 48 * 4
    for row in gpu_costs.table():
        for name, card in gpu_costs.CARDS.items():
            fits = row["states"] <= card.l2_size
            assert row[f"{name} host calls"] == (2 if fits else row["launches"])
    gpu.main(["--paper"])
    assert capsys.readouterr().out.count("\n") == 2 + 4 * len(gpu_costs.GRAPHS)
