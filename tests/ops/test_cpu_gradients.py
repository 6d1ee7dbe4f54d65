"""Gradients of the C++ recurrence against autograd through the formula, in dense float64."""

import itertools
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import pytest
import scipy.sparse
import torch
from torch import Tensor

from torch_geometric_diff.ops import Recurrence, propagate
from torch_geometric_diff.ops._random import dropout_scale, keep_mask
from torch_geometric_diff.ops.attention import EdgeList
from torch_geometric_diff.ops.kernels import cpu

if cpu.available() is not None:
    pytest.skip(f"the C++ kernel: {cpu.available()}", allow_module_level=True)

LEVELS = cpu.levels()
Out = tuple[Tensor | None, Tensor | None, Tensor | None]


class Case(NamedTuple):
    """A recurrence on a random matrix and the gradient by its outputs."""

    x: Tensor
    g: Tensor
    matrix: scipy.sparse.csr_matrix
    table: Tensor
    threshold: int
    seeds: Tensor

    def run(
        self,
        dtype: torch.dtype,
        index: torch.dtype = torch.int32,
        need: tuple[bool, bool, str] = (True, True, "adbcw"),
        order: np.ndarray | None = None,
        **options: str | int,
    ) -> Out:
        matrix = self.matrix if order is None else self.matrix[order][:, order].tocsr()
        csr, csr_t = (
            (
                torch.tensor(m.indptr, dtype=index),
                torch.tensor(m.indices, dtype=index),
                torch.tensor(m.data, dtype=dtype),
            )
            for m in (matrix, matrix.T.tocsr())
        )
        perm = None if order is None else torch.tensor(order, dtype=index)
        arguments = (self.x.to(dtype), self.g.to(dtype), csr, csr_t, self.table)
        return cpu.gradients(*arguments, self.threshold, self.seeds, need, perm, **options)

    def expected(self) -> tuple[Tensor, Tensor, Tensor]:
        """Autograd through the formula."""
        inputs, _batch, rows, columns = self.x.shape
        x, table = self.x.clone().requires_grad_(), self.table.clone().requires_grad_()
        (a, d, b), c, w = table[:3], table[3 : 3 + inputs], table[3 + inputs :]
        matrix = torch.tensor(self.matrix.toarray()).requires_grad_()
        steps = table.size(1) - 1

        def mask(step: int) -> Tensor:
            each = self.seeds.tolist()
            keep = [keep_mask(seed, step, rows, columns, self.threshold) for seed in each]
            return torch.stack(keep).double() * dropout_scale(self.threshold)

        z = [torch.einsum("i,ibnf->bnf", c[:, 0], x)]
        for k in range(1, steps + 1):
            dropped = mask(k - 1) * z[-1]
            next_z = a[k] * (matrix @ dropped) + d[k] * dropped
            if k > 1 and not self.threshold:
                next_z = next_z + b[k] * z[-2]
            z.append(next_z + torch.einsum("i,ibnf->bnf", c[:, k], x))
        y = torch.einsum("ok,kbnf->obnf", w, torch.stack(z))
        dx, dmatrix, dtable = torch.autograd.grad(
            (y * self.g).sum(), [x, matrix, table], allow_unused=True, materialize_grads=True
        )
        coo = self.matrix.tocoo()
        return dx, dmatrix[coo.row, coo.col], dtable

    def check(self, out: Out) -> None:
        for got, expected in zip(out, self.expected(), strict=True):
            if got is None:
                continue
            largest = max(1, expected.abs().max()) if expected.numel() else 1
            tolerance = (2e-4 if self.dtype(out) == torch.float32 else 1e-10) * largest
            assert got.shape == expected.shape
            assert expected.numel() == 0 or (got - expected).abs().max() <= tolerance

    @staticmethod
    def dtype(out: Out) -> torch.dtype:
        return next((o.dtype for o in out[:2] if o is not None), torch.float32)


def random_case(rng: np.random.Generator, size: int = 0) -> Case:
    size = size or int(rng.integers(1, 50))
    columns, batch = rng.integers(1, 140), rng.integers(1, 3)
    steps, inputs, outputs = rng.integers(0, 6), rng.integers(1, 4), rng.integers(1, 4)
    dense = rng.standard_normal((size, size)) * (rng.random((size, size)) < 0.2)
    if rng.random() < 0.3:
        dense[rng.integers(size)] = rng.standard_normal(size)
    shape = (3 + inputs + outputs, steps + 1)
    table = rng.choice([0.0, 1.0, -0.5, 0.3], p=[0.3, 0.3, 0.2, 0.2], size=shape)
    threshold = int(rng.choice([0, 0, 16384]))
    if threshold:
        table[2] = 0
    return Case(
        torch.tensor(rng.standard_normal((inputs, batch, size, columns))),
        torch.tensor(rng.standard_normal((outputs, batch, size, columns))),
        scipy.sparse.csr_matrix(dense),
        torch.tensor(table),
        threshold,
        torch.tensor(rng.integers(2**63, size=batch)),
    )


def kinds(case: Case) -> str:
    """Dropout does not go with b, nor does its gradient."""
    return "adcw" if case.threshold else "adbcw"


@pytest.fixture(autouse=True)
def restore_threads() -> Iterator[None]:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_fuzzed_recurrences(level: str, dtype: torch.dtype) -> None:
    rng = np.random.default_rng(LEVELS.index(level))
    for trial in range(25):
        index = torch.int64 if trial % 2 else torch.int32
        case = random_case(rng)
        case.check(case.run(dtype, index, (True, True, kinds(case)), level=level))


def test_any_subset_of_what_can_be_wanted() -> None:
    rng = np.random.default_rng(0)
    for x, value, letters in itertools.product(
        [False, True], [False, True], ["", "a", "d", "b", "c", "w", "ad", "cw", "adbcw"]
    ):
        case = random_case(rng)._replace(threshold=0)
        out = case.run(torch.float64, need=(x, value, letters))
        assert [o is not None for o in out] == [x, value, letters != ""]
        expected = case.expected()
        if out[2] is not None:
            unwanted = [row for row in range(3) if "adb"[row] not in letters]
            inputs = case.x.size(0)
            unwanted += [] if "c" in letters else range(3, 3 + inputs)
            unwanted += [] if "w" in letters else range(3 + inputs, len(case.table))
            assert not out[2][unwanted].any()
            expected[2][unwanted] = 0
        for got, want in zip(out, expected, strict=True):
            assert got is None or torch.allclose(got, want, atol=1e-9)


@pytest.mark.parametrize("needs_x", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_weights_of_polynomials(dtype: torch.dtype, needs_x: bool) -> None:
    rng = np.random.default_rng(8)
    for trial in range(12):
        case = random_case(rng, size=rng.integers(1, 50))
        table = torch.cat([case.table[:4], case.table[-1:]])
        table[3] = 0
        table[3, 0] = [1.0, -0.5, 0.0][trial % 3]
        torch.set_num_threads(1 + trial % 2)
        case = case._replace(x=case.x[:1], g=case.g[:1], table=table, threshold=0)
        out = case.run(dtype, need=(needs_x, False, "w"))
        dx, _, dtable = case.expected()
        dtable[:4] = 0
        for got, expected in zip((out[0], out[2]), (dx, dtable), strict=True):
            if got is not None:
                largest = max(1, expected.abs().max())
                tolerance = 2e-4 if dtype == torch.float32 else 1e-10
                assert (got - expected).abs().max() <= tolerance * largest


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_reordered_rows(dtype: torch.dtype) -> None:
    rng = np.random.default_rng(6)
    for _ in range(8):
        case = random_case(rng)
        order = rng.permutation(case.matrix.shape[0])
        need = (True, True, kinds(case))
        out, plain = case.run(dtype, need=need, order=order), case.run(dtype, need=need)
        place = scipy.sparse.csr_matrix(case.matrix, copy=True)
        place.data = np.arange(1.0, place.nnz + 1)  # where the entries went
        moved = torch.tensor(place[order][:, order].tocsr().data).long() - 1
        tolerance = {"rtol": 1e-3, "atol": 1e-3} if dtype == torch.float32 else {}
        torch.testing.assert_close(out[0], plain[0], **tolerance)
        torch.testing.assert_close(out[1], plain[1][moved], **tolerance)
        torch.testing.assert_close(out[2], plain[2], **tolerance)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_same_bits_for_any_threads(level: str, dtype: torch.dtype) -> None:
    rng = np.random.default_rng(4)
    for _ in range(4):
        case = random_case(rng, size=300)
        for width in (0, 16):
            outs = []
            for threads in (1, 2, 4):
                torch.set_num_threads(threads)
                out = case.run(dtype, need=(True, True, kinds(case)), level=level, width=width)
                outs.append(torch.cat([o.double().flatten() for o in out if o is not None]))
            assert all(torch.equal(out, outs[0]) for out in outs)


def test_unsorted_and_repeated_entries() -> None:
    """Rows in any order, an entry given twice: each of the two has the gradient of the place."""
    rng = np.random.default_rng(1)
    case = random_case(rng, size=20)._replace(threshold=0)
    row, col = rng.integers(20, size=(2, 90))
    row, col = np.append(row, row[:9]), np.append(col, col[:9])
    value = rng.standard_normal(99)

    def csr(row: np.ndarray, col: np.ndarray) -> tuple[Tensor, Tensor, Tensor]:
        order = rng.permutation(99)
        order = order[np.argsort(row[order], kind="stable")]
        rowptr = np.append(0, np.cumsum(np.bincount(row, minlength=20)))
        names.append(order)
        arrays = (rowptr, col[order], value[order])
        return torch.tensor(rowptr), torch.tensor(arrays[1]), torch.tensor(arrays[2])

    names: list[np.ndarray] = []
    matrices = (csr(row, col), csr(col, row))
    _, dvalue, _ = cpu.gradients(case.x, case.g, *matrices, case.table, 0, case.seeds)
    dense = np.zeros((20, 20))
    np.add.at(dense, (row, col), value)
    full = case._replace(matrix=scipy.sparse.csr_matrix(dense))
    _, expected, _ = full.expected()
    place = np.zeros((20, 20), dtype=int)
    place[tuple(full.matrix.nonzero())] = np.arange(full.matrix.nnz)
    assert torch.allclose(dvalue, expected[place[row[names[0]], col[names[0]]]])


def test_other_pattern_is_refused() -> None:
    case = random_case(np.random.default_rng(2), size=5)
    one = scipy.sparse.csr_matrix(([1.0], ([0], [1])), (5, 5))
    csr = tuple(map(torch.tensor, (one.indptr, one.indices, one.data)))
    with pytest.raises(ValueError, match="not the transpose"):
        cpu.gradients(case.x, case.g, csr, csr, case.table, 0, case.seeds)


def test_states_behind_the_last_that_is_summed():
    # the way back begins far before the last of the states that were kept
    n, steps, last, generator = 13_500, 40, 21, torch.Generator().manual_seed(0)
    edges = EdgeList(torch.randint(0, n, (2, n), generator=generator).unique(dim=1))
    value = torch.rand(edges.target.numel(), generator=generator, dtype=torch.float64)
    x = torch.randn(n, 2, generator=generator, dtype=torch.float64)
    w = torch.zeros(steps + 1, dtype=torch.float64)
    w[last] = 1.0
    found, wanted = [], []
    for recurrence, out in ((Recurrence(steps, w=w), found), (Recurrence.power(last), wanted)):
        leaves = [t.clone().requires_grad_() for t in (x, value)]
        y = propagate(leaves[0], edges.operator(leaves[1]), recurrence)
        out += torch.autograd.grad(y.square().sum(), leaves)
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_states_that_are_computed_again(dtype):
    # 13,500 rows: memory for ten states, so that most of 25 are computed again on the way back
    n, steps, generator = 13_500, 25, torch.Generator().manual_seed(0)
    edges = EdgeList(torch.randint(0, n, (2, 3 * n), generator=generator).unique(dim=1))
    weight = torch.rand(edges.target.numel(), generator=generator, dtype=dtype) / 4
    x = torch.randn(n, 3, generator=generator, dtype=dtype)
    step, grad = 0.5 * torch.ones(steps, dtype=dtype), torch.randn(n, 3, dtype=dtype)

    def gradients(threads):
        torch.set_num_threads(threads)
        leaves = [t.clone().requires_grad_() for t in (x, weight, step)]
        y = propagate(leaves[0], edges.operator(leaves[1]), Recurrence(steps, a=0.9, d=leaves[2]))
        return torch.autograd.grad(y, leaves, grad)

    before = torch.get_num_threads()
    try:
        ours, others = gradients(1), gradients(2)
    finally:
        torch.set_num_threads(before)
    leaves = [t.double().requires_grad_() for t in (x, weight, step)]
    z, value, d = leaves
    for k in range(steps):
        product = torch.zeros_like(z).index_add(0, edges.target, value[:, None] * z[edges.source])
        z = 0.9 * product + d[k] * z
    wanted = torch.autograd.grad(z, leaves, grad.double())
    for one, two, right in zip(ours, others, wanted, strict=True):
        assert torch.equal(one, two)
        error = (one.double() - right).norm() / right.norm()
        assert error < (1e-5 if dtype == torch.float32 else 1e-13)
