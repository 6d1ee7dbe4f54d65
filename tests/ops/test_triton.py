"""The Triton kernel against dense float64 algebra and a numpy form of the masks.

It runs on a GPU where torch finds one. Everywhere it runs in Triton's interpreter as well, in a
process of its own, since Triton reads TRITON_INTERPRET once for all and then patches itself.
"""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from torch_geometric_diff.ops import Recurrence
from torch_geometric_diff.ops._random import random_u16
from torch_geometric_diff.ops.kernels import cuda, plan, reference
from torch_geometric_diff.ops.recurrence import transposed

pytest.importorskip("triton", reason="triton is not installed")

ROOT = Path(__file__).parents[2]
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
GPU = torch.cuda.is_available() and not INTERPRETED
DEVICE = "cuda" if GPU else "cpu"
SEED = 0x1234_5678_9ABC_DEF0

on_device = pytest.mark.skipif(
    not (INTERPRETED or GPU),
    reason="no GPU (test_interpreter runs this file in Triton's interpreter)",
)


def mix32(h: np.ndarray) -> np.ndarray:
    h = (h ^ (h >> np.uint32(16))) * np.uint32(0x7FEB352D)
    h = (h ^ (h >> np.uint32(15))) * np.uint32(0x846CA68B)
    return h ^ (h >> np.uint32(16))


def bits(seed: int, step: int, rows: int, columns: int) -> np.ndarray:
    """The 16 bits of every mask entry, in the uint32 arithmetic of their definition."""
    s = (seed + (step + 1) * 0x9E3779B97F4A7C15) % 2**64
    s = (s ^ s >> 30) * 0xBF58476D1CE4E5B9 % 2**64
    s = (s ^ s >> 27) * 0x94D049BB133111EB % 2**64
    s ^= s >> 31
    row, column = np.arange(rows, dtype=np.uint32)[:, None], np.arange(columns, dtype=np.uint32)
    a, b = mix32(row ^ np.uint32(s % 2**32)), mix32(row + np.uint32(s >> 32))
    word = column // np.uint32(32) * np.uint32(16) + column % np.uint32(16)
    h = a + word * np.uint32(0x9E3779B1)
    h = (h ^ (h >> np.uint32(16))) * np.uint32(0x7FEB352D)
    h = ((h ^ (h >> np.uint32(15))) + b) * np.uint32(0x846CA68B)
    h = h ^ (h >> np.uint32(16))
    return h >> column // np.uint32(16) % np.uint32(2) * np.uint32(16) & np.uint32(0xFFFF)


def mask(step: int, shape: tuple[int, int], threshold: int) -> np.ndarray:
    return (bits(SEED, step, *shape) >= threshold) * (65536 / (65536 - threshold))


def expected(p: np.ndarray, x: np.ndarray, steps: int, threshold: int, reverse: bool) -> np.ndarray:
    for step in reversed(range(steps)) if reverse else range(steps):
        m = mask(step, x.shape, threshold)
        x = (p @ x) * m if reverse else p @ (x * m)
    return x


def graph(kind: str) -> np.ndarray:
    """A dense matrix; rows 3 and 4 of the random one are empty, and its row 2 is full."""
    rng = np.random.default_rng(0)
    if kind == "one row":
        return np.array([[0.5]])
    if kind == "no edges":
        return np.zeros((5, 5))
    if kind == "star":  # longer than a row that shares its program, at any setting
        p = np.diag(rng.random(plan.LONG + 3))
        p[1] = rng.random(len(p))
        return p
    p = rng.standard_normal((19, 19)) * (rng.random((19, 19)) < 0.15)
    p[2] = rng.standard_normal(19)
    p[3:5] = 0
    return p


def run(
    p: np.ndarray,
    x: np.ndarray,
    steps: int,
    threshold: int,
    reverse: bool,
    dtype: torch.dtype,
    index: torch.dtype = torch.int32,
) -> Tensor:
    csr = torch.from_numpy(p).to(dtype).to_sparse_csr().to(DEVICE)
    rowptr, col = csr.crow_indices().to(index), csr.col_indices().to(index)
    features = torch.from_numpy(x).to(DEVICE, dtype)
    before = features.clone()
    seeds = torch.tensor([SEED])
    table = Recurrence.power(steps).table()
    matrix = rowptr, col, csr.values()
    y = cuda.propagate(features[None, None], *matrix, table, threshold, seeds, reverse)[0, 0]
    assert y.data_ptr() != features.data_ptr() or features.numel() == 0
    assert torch.equal(features, before)
    assert y.shape == x.shape and y.dtype == dtype and y.device == features.device
    return y.cpu()


def check(
    p: np.ndarray,
    channels: int,
    steps: int,
    threshold: int,
    reverse: bool,
    dtype: torch.dtype = torch.float32,
    index: torch.dtype = torch.int32,
) -> None:
    x = np.random.default_rng(1).standard_normal((len(p), channels))
    out = run(p, x, steps, threshold, reverse, dtype, index).double().numpy()
    wanted = expected(p, x, steps, threshold, reverse)
    tolerance = 10 * torch.finfo(dtype).eps * abs(wanted).max(initial=0)
    np.testing.assert_allclose(out, wanted, rtol=0, atol=tolerance)


@on_device
@pytest.mark.parametrize("channels", [1, 7, 8, 9, 33, 70])
@pytest.mark.parametrize("reverse", [False, True])
def test_widths(channels: int, reverse: bool) -> None:
    check(graph("random"), channels, 2, 20000, reverse)


@on_device
@pytest.mark.parametrize("threshold", [0, 65535])
@pytest.mark.parametrize("steps", [0, 1, 4])
@pytest.mark.parametrize("reverse", [False, True])
def test_steps(steps: int, threshold: int, reverse: bool) -> None:
    check(graph("random"), 5, steps, threshold, reverse)


@on_device
@pytest.mark.parametrize("kind", ["one row", "no edges", "star"])
@pytest.mark.parametrize("reverse", [False, True])
def test_graphs(kind: str, reverse: bool) -> None:
    check(graph(kind), 3, 1, 1, reverse)


@on_device
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("index", [torch.int32, torch.int64])
def test_types(dtype: torch.dtype, index: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    # row 2 goes through the program of a long row
    monkeypatch.setattr(plan, "LONG", 10)
    check(graph("random"), 20, 3, 20000, False, dtype, index)


@on_device
def test_longest_shared_row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "LONG", 6)
    p = np.zeros((6, 6))
    p[2] = range(1, 7)
    check(p, 2, 1, 0, False)


@on_device
@pytest.mark.parametrize("channels, threshold", [(5, 0), (5, 20000), (40, 20000)])
@pytest.mark.parametrize("reverse", [False, True])
def test_batch(
    channels: int, threshold: int, reverse: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every element as if it were alone."""
    monkeypatch.setattr(plan, "LONG", 10)
    csr = torch.from_numpy(graph("random")).float().to_sparse_csr().to(DEVICE)
    matrix = (csr.crow_indices().int(), csr.col_indices().int(), csr.values())
    x = torch.randn(3, 19, channels, generator=torch.Generator().manual_seed(0)).to(DEVICE)
    seeds = torch.tensor([0, SEED, 2**63 - 1])
    arguments = (*matrix, Recurrence.power(2).table(), threshold)
    out = cuda.propagate(x[None], *arguments, seeds, reverse)
    torch.testing.assert_close(out, reference.propagate(x[None], *arguments, seeds, reverse))
    alone = cuda.propagate(x[None, 2:], *arguments, seeds[2:], reverse)
    assert torch.equal(out[:, 2:], alone)


TABLES = {
    "states": Recurrence.states([0, 3, 1]),
    "ppr": Recurrence.ppr(3, 0.2),
    "all": Recurrence(3, a=0.7, c=[1, 0, 2.0], d=0.2, w=[1, 0, 2, 3.0]),
    "second order": Recurrence(3, a=0.5, b=-1.0, d=-0.3, w=[1, 2, 3, 4.0]),
    "none": Recurrence.power(0),
}


@on_device
@pytest.mark.parametrize("name", TABLES)
@pytest.mark.parametrize("threshold", [0, 20000])
@pytest.mark.parametrize("bounds", [None, (-0.5, 0.7)])
def test_recurrences(name: str, threshold: int, bounds: Any) -> None:
    """Forward and, with the transposed table of many inputs or outputs, backward."""
    table = TABLES[name].table()
    if threshold and name == "second order":
        pytest.skip("refused above the kernels")
    csr = torch.from_numpy(graph("random")).to_sparse_csr().to(DEVICE)
    matrix = (csr.crow_indices().int(), csr.col_indices().int(), csr.values())
    generator = torch.Generator().manual_seed(0)
    for one, reverse in ((table, False), (transposed(table, 1), True)):
        inputs = 1 if not reverse else len(table) - 4
        x = torch.randn(inputs, 2, 19, 11, generator=generator, dtype=torch.float64).to(DEVICE)
        arguments = (x, *matrix, one, threshold, torch.tensor([0, SEED]), reverse, bounds)
        torch.testing.assert_close(cuda.propagate(*arguments), reference.propagate(*arguments))


@on_device
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("threshold", [0, 20000])
@pytest.mark.filterwarnings("ignore:invalid value encountered")  # of NumPy in the interpreter
def test_infinite_features(reverse: bool, threshold: int) -> None:
    """They spread as on the CPU: what is dropped or has a coefficient of zero is left out."""
    recurrence = Recurrence(3, a=[1.0, 0.0, 0.5], c=[0.0, 1.0, 0.0], w=[0.0, 1.0, 0.0, 1.0])
    csr = torch.from_numpy(graph("random")).to_sparse_csr().to(DEVICE)
    matrix = (csr.crow_indices().int(), csr.col_indices().int(), csr.values())
    for bad in (np.inf, np.nan):
        x = torch.ones(1, 1, 19, 11, dtype=torch.float64, device=DEVICE)
        x[..., 6, 3] = bad
        rest = (recurrence.table(), threshold, torch.tensor([SEED]), reverse)
        for bounds in (None, (-0.5, 0.7)):
            found = cuda.propagate(x, *matrix, *rest, bounds)
            expected = reference.propagate(x, *matrix, *rest, bounds)
            torch.testing.assert_close(found, expected, equal_nan=True)


@on_device
def test_one_launch_a_step_whatever_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    from torch_geometric_diff.ops.kernels import triton_code as code

    launches = []

    class Counted:
        def __init__(self, kernel: Any) -> None:
            self.kernel, self.arg_names = kernel, kernel.arg_names

        def __getitem__(self, grid: tuple[int]) -> Any:
            launches.append(grid)
            return self.kernel[grid]

    monkeypatch.setattr(code, "advance", Counted(code.advance))
    csr = torch.eye(3).to_sparse_csr().to(DEVICE)
    matrix = (csr.crow_indices().int(), csr.col_indices().int(), csr.values())
    for batch in (1, 4):
        launches.clear()
        x, seeds = torch.ones(batch, 3, 2, device=DEVICE), torch.arange(batch)
        cuda.propagate(x[None], *matrix, Recurrence.power(5).table(), 20000, seeds, False)
        assert launches == [(batch,)] * 6  # the first state, then the steps


@on_device
def test_no_columns() -> None:
    check(graph("random"), 0, 2, 0, False)


@on_device
@pytest.mark.parametrize("reverse", [False, True])
def test_masks_bit_equal(reverse: bool) -> None:
    # the identity shows the masks themselves: both steps, a whole block of columns and a part
    shape = (21, 45)
    first, second = bits(SEED, 0, *shape), bits(SEED, 1, *shape)
    # a number that ties is kept, and here the other step keeps it too
    threshold = int(first[(first > 20000) & (first < 40000) & (second > first)][0])
    out = run(np.eye(shape[0]), np.ones(shape), 2, threshold, reverse, torch.float64).numpy()
    np.testing.assert_array_equal(out, mask(0, shape, threshold) * mask(1, shape, threshold))


@on_device
def test_any_tile_gives_the_same_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "LONG", 7)
    csr = torch.from_numpy(graph("random")).float().to_sparse_csr().to(DEVICE)
    matrix = (csr.crow_indices().int(), csr.col_indices().int(), csr.values())
    x = torch.randn(1, 1, 19, 37, generator=torch.Generator().manual_seed(0)).to(DEVICE)
    outs = []
    for tile in ((4, 8), (2, 4), (1, 1)):
        monkeypatch.setattr(
            cuda, "_tiles", dict.fromkeys([(10, 4, 5, csr.values().numel().bit_length())], tile)
        )
        outs.append(
            cuda.propagate(x, *matrix, TABLES["all"].table(), 2000, torch.tensor([1]), False)
        )
    assert torch.equal(outs[0], outs[1]) and torch.equal(outs[0], outs[2])


@on_device
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("channels", [8, 11])
def test_half_types_are_stored_as_such(dtype: torch.dtype, channels: int) -> None:
    """As far from the sums of float32 as rounding every state is."""
    csr = torch.from_numpy(graph("random")).float().to_sparse_csr().to(DEVICE)
    matrix = (csr.crow_indices().int(), csr.col_indices().int(), csr.values())
    x = torch.randn(1, 2, 19, channels, generator=torch.Generator().manual_seed(0)).to(
        DEVICE, dtype
    )
    rest = (*matrix, Recurrence.ppr(3, 0.2).table(), 20000, torch.tensor([0, SEED]), False)
    found = cuda.propagate(x, *rest)
    assert found.dtype == dtype
    expected = reference.propagate(x.float(), *rest)
    error = (found.float() - expected).abs().max() / expected.abs().max()
    assert error < 6 * torch.finfo(dtype).eps


def receptive_field() -> tuple[Any, ...]:
    """Two steps to three nodes of a ring with a hub, as :mod:`..._receptive_field` lays them out:
    a matrix whose first rows are the nodes, then what they read, and the dense matrix.
    """
    size, nodes = 30, [4, 9, 20]
    dense = np.roll(np.eye(size), 1, axis=1) + np.diag(np.arange(1.0, size + 1)) / size
    dense[9, 10:22] = 0.3
    levels, seen = [nodes], set(nodes)
    for _ in range(2):
        near = {int(j) for i in levels[-1] for j in dense[i].nonzero()[0]} - seen
        levels.append(sorted(near))
        seen |= near
    order = [i for level in levels for i in level] + [i for i in range(size) if i not in seen]
    moved = torch.from_numpy(dense[order][:, order])
    both = [m.to_sparse_csr() for m in (moved, moved.t())]
    csrs = [
        tuple(t.to(DEVICE) for t in (m.crow_indices().int(), m.col_indices().int(), m.values()))
        for m in both
    ]
    within = torch.tensor(np.cumsum([len(level) for level in levels[:2]]))
    return dense, nodes, csrs, torch.tensor(order, dtype=torch.int32).to(DEVICE), within


@on_device
@pytest.mark.parametrize("threshold", [0, 20000])
@pytest.mark.parametrize("long", [256, 5])
def test_receptive_field(threshold: int, long: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows that are wanted, forward and backward, with the masks of all rows."""
    monkeypatch.setattr(plan, "LONG", long)
    dense, nodes, (csr, csr_t), order, within = receptive_field()
    table, seeds = Recurrence.power(2).table(), torch.tensor([SEED])
    x = np.random.default_rng(0).standard_normal((len(dense), 9))
    rest = (None, order, within)
    one = torch.from_numpy(x)[None, None].to(DEVICE)
    found = cuda.propagate(one, *csr, table, threshold, seeds, False, *rest)
    np.testing.assert_allclose(found[0, 0].cpu(), expected(dense, x, 2, threshold, False)[nodes])
    g = np.zeros_like(x)
    g[nodes] = np.random.default_rng(1).standard_normal((len(nodes), 9))
    one = torch.from_numpy(g[nodes])[None, None].to(DEVICE)
    found = cuda.propagate(one, *csr_t, transposed(table, 1), threshold, seeds, True, *rest)
    wanted = expected(dense.T, g, 2, threshold, True)
    np.testing.assert_allclose(found[0, 0].cpu(), wanted, atol=1e-14)


class Recorded(TorchDispatchMode):
    """The operations of torch that are not a view and not memory."""

    FREE = ("empty", "empty_like", "new_empty", "select", "slice", "view", "alias", "detach")

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        name = function.overloadpacket.__name__
        if name not in self.FREE:
            self.names.append(name)
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", TABLES)
@pytest.mark.parametrize("threshold", [0, 20000])
@pytest.mark.parametrize("learned", ["", "w", "adbcw"])
def test_a_second_call_launches_and_nothing_else(
    name: str, threshold: int, learned: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No copy, no sort, nothing read of the device: of torch's operations only memory is left, and
    the seed and the table, which are the host's.
    """
    csr = torch.from_numpy(graph("random")).to_sparse_csr()
    matrix = (csr.crow_indices().int(), csr.col_indices().int(), csr.values())
    x, table = torch.ones(1, 1, 19, 5, dtype=torch.float64), TABLES[name].table()
    g, launches = torch.ones(len(table) - 4, 1, 19, 5, dtype=torch.float64), []
    monkeypatch.setattr(cuda, "_launch", lambda some, live: launches.append(len(some)))
    rest = (table, threshold, torch.tensor([SEED]))

    def call() -> None:
        if learned:
            cuda.gradients(x, g, matrix, matrix, *rest, (True, False, learned))
        else:
            cuda.propagate(x, *matrix, *rest, False)

    call()
    count = len(launches)

    def refuse(*args: Any) -> None:
        raise AssertionError("a copy")

    with Recorded() as recorded, monkeypatch.context() as patch:
        patch.setattr(Tensor, "to", refuse)
        call()
    assert len(launches) == 2 * count
    of_the_table = {"flip", "roll", "cat", "zeros_like", "copy_", "t", "new_zeros", "transpose"}
    allowed = {"_local_scalar_dense"} | (of_the_table if learned else set())
    assert set(recorded.names) <= allowed


@on_device
@pytest.mark.parametrize("threshold", [0, 20000])
@pytest.mark.parametrize("name", ["ppr", "all", "states"])
def test_replayed_graph(name: str, threshold: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the second call on a graph is replayed: two host calls, other inputs and other seeds,
    and a third call for other coefficients.
    """
    monkeypatch.setattr(cuda, "GRAPHS", True)
    if not GPU:
        monkeypatch.setattr(cuda, "_capture", lambda run: run)
    csr = torch.from_numpy(graph("random")).to_sparse_csr().to(DEVICE)
    matrix = (csr.crow_indices().int(), csr.col_indices().int(), csr.values())
    table = TABLES[name].table()
    for call in range(6):
        table = table.clone()
        table[-1] *= 1 + call // 2
        x = torch.randn(1, 2, 19, 5, dtype=torch.float64).to(DEVICE)
        seeds = torch.tensor([call, SEED])
        rest = (*matrix, table, threshold, seeds, False)
        found = cuda.propagate(x, *rest)
        torch.testing.assert_close(found, reference.propagate(x, *rest))
        matrix[2].mul_(0.9)  # in place: what was captured sees it
    replays = [
        p
        for p in cuda.rows_of(*matrix[:2], None, True).plans.values()
        if isinstance(p, cuda.Replay)
    ]
    assert len(replays) == 1
    calls = []
    monkeypatch.setattr(cuda, "_launch", lambda launches, live: calls.append(launches))
    monkeypatch.setattr(replays[0], "graph", lambda: calls.append("replay"))
    cuda.propagate(x, *rest)
    assert calls == [replays[0].plan.launches[0], "replay"] and len(calls[0]) == 1


def test_numpy_bits_are_those_of_the_reference() -> None:
    for seed, step in [(0, 0), (SEED, 3), (2**63 - 1, 10**6)]:
        ours = random_u16(seed, step, 40, 100).numpy()
        np.testing.assert_array_equal(ours, bits(seed, step, 40, 100))


@pytest.mark.slow
@pytest.mark.skipif(INTERPRETED, reason="this is the interpreter")
def test_interpreter() -> None:
    """This file, and of every test over kernels some cases (tests/conftest.py), in Triton's
    interpreter, on the CPU.
    """
    folder = str(Path(__file__).parent)
    command = [sys.executable, "-m", "pytest", "-q", "-rs", "-p", "no:cacheprovider", folder]
    environment = os.environ | {"TRITON_INTERPRET": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "no GPU" not in done.stdout, done.stdout


def test_available() -> None:
    reason = cuda.available()
    if GPU or INTERPRETED:
        assert reason is None
    else:
        assert reason is not None and "TRITON_INTERPRET=1" in reason


def test_available_names_missing_triton(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "triton", None)
    monkeypatch.delitem(sys.modules, f"{cuda.__package__}.triton_code", raising=False)
    monkeypatch.delattr(sys.modules[cuda.__package__], "triton_code", raising=False)
    reason = cuda.available.__wrapped__()
    assert reason is not None and reason.startswith("triton cannot be imported")
