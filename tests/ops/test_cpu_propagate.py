"""The C++ recurrence against the formula, in dense float64."""

import itertools
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import pytest
import scipy.sparse
import torch
from torch import Tensor

from torch_geometric_diff.ops._random import dropout_scale, keep_mask
from torch_geometric_diff.ops.kernels import cpu

if cpu.available() is not None:
    pytest.skip(f"the C++ kernel: {cpu.available()}", allow_module_level=True)

LEVELS = cpu.levels()


class Case(NamedTuple):
    """A recurrence on a random matrix."""

    x: Tensor
    matrix: scipy.sparse.csr_matrix
    table: np.ndarray
    threshold: int
    seeds: Tensor
    reverse: bool
    bounds: tuple[float, float] | None

    def run(
        self,
        dtype: torch.dtype,
        index: torch.dtype = torch.int32,
        order: np.ndarray | None = None,
        **options: str | int,
    ) -> Tensor:
        matrix = self.matrix if order is None else self.matrix[order][:, order].tocsr()
        return cpu.propagate(
            self.x.to(dtype),
            torch.tensor(matrix.indptr, dtype=index),
            torch.tensor(matrix.indices, dtype=index),
            torch.tensor(matrix.data, dtype=dtype),
            torch.tensor(self.table),
            self.threshold,
            self.seeds,
            self.reverse,
            self.bounds,
            None if order is None else torch.tensor(order, dtype=index),
            **options,
        )

    def expected(self) -> Tensor:
        """The formula, an element of the batch after the other."""
        inputs, batch = self.x.shape[:2]
        matrix, x = torch.tensor(self.matrix.toarray()), self.x.double()
        (a, d, b), c, w = self.table[:3], self.table[3 : 3 + inputs], self.table[3 + inputs :]
        steps = self.table.shape[1] - 1
        outs = []
        for element in range(batch):

            def mask(step: int, seed: int = int(self.seeds[element])) -> Tensor:
                keep = keep_mask(seed, step, *x.shape[2:], self.threshold)
                return keep.double() * dropout_scale(self.threshold)

            def injected(k: int, element: int = element) -> Tensor:
                return torch.einsum("i,inf->nf", torch.tensor(c[:, k]), x[:, element])

            z = [injected(0)]
            for k in range(1, steps + 1):
                if self.reverse:
                    next_z = mask(steps - k) * (a[k] * (matrix @ z[-1]) + d[k] * z[-1])
                else:
                    dropped = mask(k - 1) * z[-1]
                    next_z = a[k] * (matrix @ dropped) + d[k] * dropped
                if k > 1:
                    next_z = next_z + b[k] * z[-2]
                next_z = next_z + injected(k)
                z.append(next_z if self.bounds is None else next_z.clamp(*self.bounds))
            outs.append(torch.einsum("ok,knf->onf", torch.tensor(w), torch.stack(z)))
        return torch.stack(outs, 1)

    def check(self, out: Tensor) -> None:
        expected = self.expected()
        assert out.shape == expected.shape
        tolerance = (1e-4 if out.dtype == torch.float32 else 1e-11) * max(1, expected.abs().max())
        assert (out - expected).abs().max() <= tolerance, self


def random_case(rng: np.random.Generator, **given: object) -> Case:
    """Coefficients that are zero, one or anything, so that every shortcut is met."""
    size, columns, batch = rng.integers(1, 50), rng.integers(1, 140), rng.integers(1, 4)
    steps, inputs, outputs = rng.integers(0, 6), rng.integers(1, 4), rng.integers(1, 4)
    dense = rng.standard_normal((size, size)) * (rng.random((size, size)) < 0.2)
    if rng.random() < 0.3:
        dense[rng.integers(size)] = rng.standard_normal(size)
    shape = (3 + inputs + outputs, steps + 1)
    table = rng.choice([0.0, 1.0, -0.5, 0.3], p=[0.4, 0.3, 0.15, 0.15], size=shape)
    if rng.random() < 0.3:
        table[:3] = np.array([1, 0, 0])[:, None]
    threshold = int(rng.choice([0, 0, 16384, 40000]))
    if threshold:
        table[2] = 0
    table[:3, 0] = table[2, :2] = np.nan  # are not read
    case = Case(
        torch.tensor(rng.standard_normal((inputs, batch, size, columns))),
        scipy.sparse.csr_matrix(dense),
        table,
        threshold,
        torch.tensor(rng.integers(2**63, size=batch)),
        bool(rng.random() < 0.5),
        (-0.25, 0.75) if rng.random() < 0.3 else None,
    )
    return case._replace(**given)


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
        case.check(case.run(dtype, index, level=level))
        order = rng.permutation(case.matrix.shape[0])
        case.check(case.run(dtype, index, order, level=level))


def short_table(rng: np.random.Generator, steps: int) -> np.ndarray:
    """Steps that add a term, are added to a sum, add two terms, or do nothing of these."""
    table = np.zeros((5, steps + 1))
    table[0], table[3, 0], table[4, -1] = 0.5, 1, 1
    kind = rng.integers(5)
    if kind == 1:
        table[3] = 1
    elif kind == 2:
        table[4] = 0.25
    elif kind == 3:
        table[2], table[4] = -0.5, 0.25
    elif kind == 4:
        table[1], table[2], table[3] = 0.5, -0.5, 0.25
    return table


@pytest.mark.parametrize("level", LEVELS)
def test_narrow_tiles_of_many_steps(level: str) -> None:
    """Their rows lie side by side, but for those that differ much in length or are too long."""
    rng = np.random.default_rng(5)
    for columns, drop in itertools.product((1, 2, 4, 7), (0, 16384)):
        case = random_case(rng, x=torch.tensor(rng.standard_normal((1, 1, 299, columns))))
        dense = rng.standard_normal((299, 299)) * (rng.random((299, 299)) < 0.02) / 3
        dense[7], dense[8:40] = rng.standard_normal(299) / 20, 0
        table = short_table(rng, 9)
        threshold = 0 if table[2].any() else drop
        case = case._replace(matrix=scipy.sparse.csr_matrix(dense), table=table)
        case = case._replace(threshold=threshold, seeds=torch.tensor([3]))
        order = rng.permutation(299)
        case.check(case.run(torch.float32, order=order if columns % 2 else None, level=level))


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_same_bits_for_any_threads_and_tiles(level: str, dtype: torch.dtype) -> None:
    rng = np.random.default_rng(3)
    for _ in range(8):
        case = random_case(rng)
        outs = []
        for threads, width in itertools.product([1, 2, 4], [0, 1, 2, 8, 16, 32, 64]):
            torch.set_num_threads(threads)
            outs.append(case.run(dtype, level=level, width=width))
        assert all(torch.equal(out, outs[0]) for out in outs)


@pytest.mark.parametrize("columns", [5, 40, 150])
def test_same_bits_for_any_threads_on_larger_graphs(columns: int) -> None:
    """Enough work for the kernel to use its threads by its own choice, shared tiles included."""
    rng = np.random.default_rng(columns)
    matrix = scipy.sparse.random(3000, 3000, 2e-3, "csr", random_state=1)
    for batch in (1, 3):
        x = torch.tensor(rng.standard_normal((2, batch, 3000, columns)))
        table = rng.standard_normal((7, 7))
        case = Case(x, matrix, table, 0, torch.zeros(batch, dtype=torch.long), False, None)
        outs = []
        for threads in (1, 2, 4):
            torch.set_num_threads(threads)
            outs.append(case.run(torch.float32))
        assert all(torch.equal(out, outs[0]) for out in outs)


def test_transpose_is_the_adjoint() -> None:
    """<g, R x> = <R' g, x> with the table of the transpose as the design has it."""
    rng = np.random.default_rng(8)
    for _ in range(30):
        case = random_case(rng, bounds=None)
        inputs, (rows, columns) = case.x.shape[0], case.table.shape
        table, last = np.zeros((rows, columns)), columns - 1
        for j in range(1, columns):
            table[:2, j] = case.table[:2, last + 1 - j]
        for j in range(2, columns):
            table[2, j] = case.table[2, last + 2 - j]
        outputs = rows - 3 - inputs
        table[3:] = np.roll(case.table[3:, ::-1], outputs, axis=0)
        x, y = case.x, case.run(torch.float64)
        g = torch.tensor(rng.standard_normal(y.shape))
        back = case._replace(
            x=g, matrix=case.matrix.T.tocsr(), table=table, reverse=not case.reverse
        ).run(torch.float64)
        torch.testing.assert_close((g * y).sum(), (back * x).sum())


def test_masks_are_those_of_the_design() -> None:
    """Powers of two come through exactly, so that what is kept shows bit for bit."""
    x = torch.ones(1, 2, 60, 70)
    identity = scipy.sparse.identity(60, format="csr")
    table = np.zeros((8, 4))
    table[1], table[3, 0] = 1, 1  # d: without the product
    table[4:] = np.eye(4)
    seeds = torch.tensor([5, 2**63 - 1])
    out = Case(x, identity, table, 32768, seeds, False, None).run(torch.float32)
    for element in range(2):
        expected = torch.ones(60, 70)
        for step in range(3):
            assert torch.equal(out[step, element], expected)
            keep = keep_mask(int(seeds[element]), step, 60, 70, 32768)
            expected = expected * keep.float() * 2
        assert torch.equal(out[3, element], expected)


def test_nothing_reaches_an_output() -> None:
    rng = np.random.default_rng(0)
    case = random_case(rng, bounds=None)
    for row in (slice(3, 3 + case.x.shape[0]), slice(3 + case.x.shape[0], None)):
        table = case.table.copy()
        table[row] = 0
        assert not case._replace(table=table).run(torch.float32).any()


def test_nan_stays_within_bounds() -> None:
    table = np.zeros((5, 2))
    table[0], table[3, 0], table[4, 1] = 1, 1, 1
    x = torch.full((1, 1, 3, 20), float("nan"))
    identity = scipy.sparse.identity(3, format="csr")
    case = Case(x, identity, table, 0, torch.zeros(1, dtype=torch.long), False, (0.0, 1.0))
    assert case.run(torch.float32).isnan().all()
