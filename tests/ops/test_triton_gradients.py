"""Gradients of the Triton kernels against autograd through the formula, in dense float64.

As :mod:`test_triton`, whose ``test_interpreter`` runs this file too.
"""

import itertools
import os
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from torch_geometric_diff.ops._random import dropout_scale, keep_mask
from torch_geometric_diff.ops.kernels import cuda, plan

pytest.importorskip("triton", reason="triton is not installed")

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
GPU = torch.cuda.is_available() and not INTERPRETED
DEVICE = "cuda" if GPU else "cpu"
on_device = pytest.mark.skipif(not (INTERPRETED or GPU), reason="no GPU")
SEEDS = torch.tensor([7, 2**61])


def case(seed: int, inputs: int, outputs: int, columns: int, steps: int, threshold: int) -> Any:
    """A matrix with a full row and an empty one, features, gradients and a table."""
    rng = np.random.default_rng(seed)
    dense = rng.standard_normal((9, 9)) * (rng.random((9, 9)) < 0.4)
    dense[2], dense[5] = rng.standard_normal(9), 0
    table = rng.choice([0.0, 1.0, -0.5, 0.3], size=(3 + inputs + outputs, steps + 1))
    table[0, :2] = 1.0
    if threshold:
        table[2] = 0
    x = rng.standard_normal((inputs, 2, 9, columns))
    g = rng.standard_normal((outputs, 2, 9, columns))
    return *map(torch.tensor, (dense, x, g, table)), threshold


def wanted(dense: Tensor, x: Tensor, g: Tensor, table: Tensor, threshold: int) -> list[Tensor]:
    """Autograd through the formula."""
    dense, x, table = (t.clone().requires_grad_() for t in (dense, x, table))
    inputs, batch, rows, columns = x.shape
    (a, d, b), c, w = table[:3], table[3 : 3 + inputs], table[3 + inputs :]
    z = [torch.einsum("i,ibnf->bnf", c[:, 0], x)]
    for k in range(1, table.size(1)):
        keep = [keep_mask(int(s), k - 1, rows, columns, threshold) for s in SEEDS[:batch]]
        u = z[-1] * torch.stack(keep) * dropout_scale(threshold)
        z.append(a[k] * (dense @ u) + d[k] * u + torch.einsum("i,ibnf->bnf", c[:, k], x))
        if k > 1 and not threshold:
            z[-1] = z[-1] + b[k] * z[-3]
    y = torch.einsum("ok,kbnf->obnf", w, torch.stack(z))
    grads = torch.autograd.grad(
        (y * g).sum(), [x, dense, table], allow_unused=True, materialize_grads=True
    )
    return [grads[0], grads[1][dense.detach() != 0], grads[2]]


def found(
    dense: Tensor, x: Tensor, g: Tensor, table: Tensor, threshold: int, need: Any,
    dtype: torch.dtype = torch.float64, index: torch.dtype = torch.int32,
) -> list[Tensor | None]:  # fmt: skip
    """The same by the kernels."""
    both = [m.to(dtype).to_sparse_csr().to(DEVICE) for m in (dense, dense.t())]
    csrs = [(m.crow_indices().to(index), m.col_indices().to(index), m.values()) for m in both]
    x, g = x.to(DEVICE, dtype), g.to(DEVICE, dtype)
    out = cuda.gradients(x, g, *csrs, table, threshold, SEEDS, need)
    return [None if each is None else each.cpu() for each in out]


def check(got: list[Tensor | None], expected: list[Tensor], tolerance: float) -> None:
    for one, other in zip(got, expected, strict=True):
        if one is not None:
            largest = other.abs().max().clamp(min=1)
            assert (one - other).abs().max() <= tolerance * largest


@on_device
@pytest.mark.parametrize("threshold", [0, 20000])
@pytest.mark.parametrize("long, kept", [(256, 1 << 28), (4, 1)])
def test_all(threshold: int, long: int, kept: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Several inputs and outputs, pieces of long rows, columns a few at a time."""
    monkeypatch.setattr(plan, "LONG", long)
    monkeypatch.setattr(plan, "MOST_STATES", kept)
    need = (True, True, "adcw" if threshold else "adbcw")
    one = case(threshold + long, 2, 2, 7, 3, threshold)
    for dtype, index in ((torch.float64, torch.int64), (torch.float32, torch.int32)):
        tolerance = 1e-10 if dtype == torch.float64 else 2e-4
        check(found(*one, need, dtype, index), wanted(*one), tolerance)


@on_device
@pytest.mark.parametrize("steps", [0, 1])
def test_few_steps(steps: int) -> None:
    one = case(steps, 1, 2, 3, steps, 0)
    check(found(*one, (True, True, "adbcw")), wanted(*one), 1e-10)


@on_device
@pytest.mark.parametrize("letters", ["", "a", "d", "b", "c", "w", "cw"])
def test_what_is_wanted_alone(letters: str) -> None:
    dense, x, g, table, _ = case(3, 1, 1, 3, 2, 0)
    expected = wanted(dense, x, g, table, 0)
    rows = ["adbcw".index(letter) for letter in letters]
    expected[2][[row for row in range(5) if row not in rows]] = 0
    for of_x, of_entries in itertools.product([False, True], repeat=2):
        got = found(dense, x, g, table, 0, (of_x, of_entries, letters))
        assert [each is not None for each in got] == [of_x, of_entries, letters != ""]
        check(got, expected, 1e-10)


@on_device
def test_weights_of_powers_alone() -> None:
    """One run of the transpose gives them and the gradient of the inputs."""
    dense, x, g, table, _ = case(4, 1, 1, 5, 3, 0)
    table[3] = torch.tensor([1.0, 0, 0, 0])
    expected = wanted(dense, x, g, table, 0)
    expected[2][:4] = 0
    check(found(dense, x, g, table, 0, (True, False, "w")), expected, 1e-10)


def backward(need: tuple[bool, bool, str], steps: int) -> plan.Backward:
    """The launches for Pubmed's shape and 64 columns."""
    nodes = torch.arange(19717)
    rowptr, col = torch.arange(19718).int(), nodes.int()
    rows = plan.Rows(rowptr, col, None, True)
    table = np.zeros((5, steps + 1))
    table[0, 1:], table[3, 0], table[4] = 1, 1, 0.5
    one = plan.shape_of(table.tobytes(), steps + 1, 1)
    back = np.zeros_like(table)
    back[0, 1:], back[3], back[4, -1] = 1, 0.5, 1
    other = plan.shape_of(back.tobytes(), steps + 1, 1)
    sizes = (1, 19717, 19717, 19717)
    width = plan.columns_at_once(plan.Layout(*sizes, 64, 64, 0, 4, 8, 4), 3 + steps, need)
    layout = plan.Layout(*sizes, width, 64, 0, 4, 8, 4)
    return plan.Backward((rows, rows), (one, other), layout, False, False, need)


def test_memory_does_not_grow_with_steps() -> None:
    """By the allocations of the plan: Pubmed's shape, 64 columns."""
    weights = (True, False, "w")
    assert backward(weights, 10).bytes() == backward(weights, 100).bytes()
    assert backward(weights, 100).bytes() < 4.1 * 19717 * 64 * 4  # inputs, sums, two states
    for need in ((True, False, "cw"), (True, False, "c")):
        assert backward(need, 10).bytes() == backward(need, 100).bytes()
    for steps in (100, 800):  # at 850 the states of the narrowest columns are the bound
        assert backward((True, True, "adbcw"), steps).bytes() <= 1.1 * plan.MOST_STATES
