"""What the compiled module refuses: it checks its arrays instead of reading beyond them."""

import os
import subprocess
import sys
from typing import Any

import pytest
import torch
from torch import Tensor

from torch_geometric_diff._utils.native import _C, MISSING

pytestmark = pytest.mark.skipif(MISSING is not None, reason=str(MISSING))


def arguments() -> dict[str, Any]:
    csr = torch.tensor([0, 1, 3, 3]), torch.tensor([1, 0, 2]), torch.tensor([0.5, 0.25, 2.0])
    table = torch.tensor([[0, 1], [0, 0], [0, 0], [1, 0], [0, 1]], dtype=torch.float64)
    return {
        "y": torch.empty(1, 1, 3, 2),
        "x": torch.arange(6.0).view(1, 1, 3, 2),
        "csr": csr,
        "table": table,
        "seeds": torch.zeros(1, dtype=torch.int64),
        "threshold": 0,
        "reverse": False,
        "bounds": None,
        "original": None,
        "within": None,
        "threads": 1,
        "level": "",
        "width": 0,
    }


def with_csr(at: int, array: Tensor) -> dict[str, Any]:
    csr = list(arguments()["csr"])
    csr[at] = array
    return {"csr": tuple(csr)}


def test_what_it_takes():
    given = arguments()
    _C.propagate(**given)
    rowptr, col, value = given["csr"]
    dense = torch.sparse_csr_tensor(rowptr, col, value, (3, 3)).to_dense()
    assert torch.equal(given["y"][0, 0], dense @ given["x"][0, 0])


WRONG = [
    ({"x": [1.0]}, TypeError, "Expected 'x' to be a Tensor"),
    ({"x": torch.ones(3, 2)}, ValueError, "Expected 'x' to have 4 dimensions"),
    ({"x": torch.ones(1, 1, 2, 3).mT}, ValueError, "Expected 'x' to be contiguous"),
    ({"x": torch.ones(1, 1, 3, 2, device="meta")}, ValueError, "Expected 'x' to be on the CPU"),
    ({"x": torch.ones(1, 1, 3, 2).half()}, TypeError, "Expected 'x' to be of floats or integers"),
    ({"x": torch.ones(1, 1, 3, 2).long()}, TypeError, r"to be torch\.float32 \(got torch\.\w+64\)"),
    ({"x": torch.ones(1, 1, 3, 2).double()}, TypeError, "Expected '[xy]|value' to be torch.float"),
    ({"y": torch.empty(1, 1, 3, 3)}, ValueError, r"Expected 'y' to have 6 elements \(got 9\)"),
    (with_csr(0, torch.tensor([0, 1, 3, 4])), ValueError, "Expected 'rowptr' to go from 0"),
    (with_csr(0, torch.tensor([1, 1, 3, 3])), ValueError, "Expected 'rowptr' to go from 0"),
    (with_csr(0, torch.tensor([])), TypeError, "Expected 'rowptr' to be torch.int32"),
    (with_csr(0, torch.tensor([], dtype=torch.int32)), (TypeError, ValueError), "rowptr|col"),
    (with_csr(1, torch.tensor([1, 0, 2]).int()), TypeError, "Expected 'col' to be torch.int64"),
    (with_csr(2, torch.ones(2)), ValueError, r"Expected 'value' to have 3 elements \(got 2\)"),
    (with_csr(2, torch.ones(3).double()), TypeError, "Expected 'value' to be torch.float32"),
    ({"table": torch.ones(5, 2)}, TypeError, "Expected 'table' to be torch.float64"),
    ({"table": torch.ones(3, 2).double()}, ValueError, "Expected 'table' to have a column and"),
    ({"threshold": 9, "seeds": torch.zeros(0).long()}, ValueError, "Expected 'seeds' to have 1"),
    ({"original": torch.arange(2)}, ValueError, "Expected 'original' to have 3 elements"),
    ({"original": torch.arange(3).int()}, TypeError, "Expected 'original' to be torch.int64"),
    ({"within": torch.arange(0)}, ValueError, "Expected 'within' to have at least one element"),
    ({"level": "sse9"}, ValueError, "Expected 'level' to be an instruction set"),
]


@pytest.mark.parametrize(("changes", "kind", "match"), WRONG)
def test_what_it_refuses(changes, kind, match):
    with pytest.raises(kind, match=match):
        _C.propagate(**(arguments() | changes))


def test_gradients_refuse_other_letters_and_sizes():
    given = arguments()
    csr, grad = given["csr"], torch.empty_like(given["x"])
    rest = (given["x"], given["x"], csr, csr, given["table"], given["seeds"], 0)
    with pytest.raises(ValueError, match="Expected 'coefficients' to be of the letters 'adbcw'"):
        _C.gradients(grad, None, None, *rest, "az", None, 1, "", 0)
    with pytest.raises(ValueError, match="Expected 'dx' to have 6 elements"):
        _C.gradients(grad[..., 0].contiguous(), None, None, *rest, "", None, 1, "", 0)
    with pytest.raises(ValueError, match="Expected 'dvalue' to have 3 elements"):
        _C.gradients(grad, torch.ones(4), None, *rest, "", None, 1, "", 0)


def test_build_and_search_refuse_other_sizes():
    row, rest = torch.arange(3), (3, _C.Normalization.none, _C.Diagonal.given, 1.0, False, False, 1)
    with pytest.raises(ValueError, match="Expected 'col' to have 3 elements"):
        _C.build(row, torch.arange(4), None, *rest)
    with pytest.raises(TypeError, match="Expected 'row' to be torch.int64"):
        _C.build(row.int(), row, None, *rest)
    made = _C.build(row, row, None, *rest)
    ints, value = [torch.empty(n, dtype=torch.int32) for n in (4, 3)], torch.empty(3)
    with pytest.raises(ValueError, match="Expected 'col' to have 3 elements"):
        made.fill(ints[0], ints[0], value, 1)
    with pytest.raises(TypeError, match="Expected 'rowptr' to be torch.int32"):
        made.fill(row, ints[1], value, 1)
    with pytest.raises(ValueError, match="Expected 'start' to end with the 3 points"):
        _C.knn(torch.empty(3, 1).long(), torch.ones(3, 2).double(), torch.arange(2), True, 1, "")


@pytest.mark.skipif(
    "__dlpack_c_exchange_api__" not in vars(torch.Tensor), reason="this torch is read by attributes"
)
@pytest.mark.slow
def test_the_same_without_dlpack():
    code = "import sys, torch, pytest\ndel torch.Tensor.__dlpack_c_exchange_api__\n"
    code += f"sys.exit(pytest.main(['-q', '-p', 'no:cacheprovider', {__file__!r}]))"
    run = [sys.executable, "-c", code]
    done = subprocess.run(run, capture_output=True, text=True, env=os.environ, check=False)
    assert done.returncode == 0, done.stdout
