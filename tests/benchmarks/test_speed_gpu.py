"""The suites of the GPU, on the CPU at a small size, and what is said without a card."""

import pytest
import torch

from benchmarks.speed import gpu
from benchmarks.speed.graphs import synthetic
from torch_geometric_diff import DiffusionOperator


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
