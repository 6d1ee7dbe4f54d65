import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import scipy.sparse
import torch
from torch import Tensor

from torch_geometric_diff.ops import sparse_mm
from torch_geometric_diff.ops._random import dropout_scale, keep_mask
from torch_geometric_diff.ops.kernels import cpu

if cpu.available() is not None:
    pytest.skip(f"the C++ kernel: {cpu.available()}", allow_module_level=True)

LEVELS = cpu.levels()
WIDTHS = [0, 1, 2, 8, 16, 32, 64]
CSR = tuple[Tensor, Tensor, Tensor]


def diffuse(
    x: Tensor,
    rowptr: Tensor,
    col: Tensor,
    value: Tensor,
    num_steps: int,
    threshold: int,
    seed: int,
    reverse: bool,
    perm: Tensor | None = None,
    **options: Any,
) -> Tensor:
    """The kernel on a batch of one, every step a plain product."""
    batch, seeds = x[None, None], torch.tensor([seed])
    table = torch.zeros(5, num_steps + 1, dtype=torch.float64)
    table[0] = table[3, 0] = table[4, -1] = 1
    csr = (rowptr, col, value)
    out = cpu.propagate(batch, *csr, table, threshold, seeds, reverse, None, perm, **options)
    return out[0, 0]


@pytest.fixture(autouse=True)
def restore_threads() -> Iterator[None]:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def random_matrix(rng: np.random.Generator, size: int) -> scipy.sparse.csr_matrix:
    """Empty rows, no edges at all, or a hub of full degree, among others."""
    dense = rng.standard_normal((size, size)) * (
        rng.random((size, size)) < rng.choice([0, 0.05, 0.3])
    )
    if rng.random() < 0.3:
        dense[rng.integers(size)] = rng.standard_normal(size)
    return scipy.sparse.csr_matrix(dense)


def csr(matrix: scipy.sparse.csr_matrix, dtype: torch.dtype, index: torch.dtype) -> CSR:
    return (
        torch.tensor(matrix.indptr, dtype=index),
        torch.tensor(matrix.indices, dtype=index),
        torch.tensor(matrix.data, dtype=dtype),
    )


def dense_diffuse(
    x: Tensor, matrix: scipy.sparse.csr_matrix, steps: int, threshold: int, seed: int, reverse: bool
) -> Tensor:
    dense, y = torch.tensor(matrix.toarray()), x.double()

    def mask(step: int) -> Tensor:
        keep = keep_mask(seed, step, x.size(0), x.size(1), threshold)
        return keep.double() * dropout_scale(threshold)

    for step in reversed(range(steps)) if reverse else range(steps):
        y = (dense @ y) * mask(step) if reverse else dense @ (y * mask(step))
    return y


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_fuzzed_operators_against_dense(level: str, reverse: bool, dtype: torch.dtype) -> None:
    rng = np.random.default_rng(LEVELS.index(level) + 10 * reverse)
    for trial in range(18):
        size, columns, steps = int(rng.integers(1, 60)), int(rng.integers(1, 301)), trial % 6
        threshold = int(rng.choice([0, 1, 16384, 65535]))
        seed = int(rng.integers(2**63))
        index = torch.int64 if rng.random() < 0.5 else torch.int32
        matrix = random_matrix(rng, size)
        x = torch.tensor(rng.standard_normal((size, columns)), dtype=dtype)
        before = x.clone()
        expected = dense_diffuse(x, matrix, steps, threshold, seed, reverse)
        settings = (steps, threshold, seed, reverse)
        out = diffuse(x, *csr(matrix, dtype, index), *settings, level=level)
        assert out.dtype == dtype and torch.equal(x, before)
        # 65535 of 65536 dropped: what is kept grows by 2^16 a step
        tolerance = (1e-4 if dtype == torch.float32 else 1e-11) * max(1, expected.abs().max())
        assert (out - expected).abs().max() <= tolerance, (size, columns, settings)

        order = rng.permutation(size)
        permuted = csr(matrix[order][:, order].tocsr(), dtype, index)
        perm = torch.tensor(order, dtype=index)
        out = diffuse(x, *permuted, *settings, perm, level=level)
        assert (out - expected).abs().max() <= tolerance, (size, columns, settings)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("columns", [1, 7, 16, 33, 100, 300])
def test_same_bits_for_any_threads_and_tiles(level: str, columns: int) -> None:
    rng = np.random.default_rng(columns)
    matrix = random_matrix(rng, 200) + scipy.sparse.identity(200)
    for dtype, index, reverse in itertools.product(
        [torch.float32, torch.float64], [torch.int32, torch.int64], [False, True]
    ):
        x = torch.tensor(rng.standard_normal((200, columns)), dtype=dtype)
        arguments = (x, *csr(matrix.tocsr(), dtype, index), 4, 16384, 3, reverse)
        outs = []
        for threads, width in itertools.product([1, 2, 4], WIDTHS):
            torch.set_num_threads(threads)
            outs.append(diffuse(*arguments, level=level, width=width))
        assert all(torch.equal(out, outs[0]) for out in outs)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("threshold", [1, 16384, 40000, 65535])
def test_mask_bits(level: str, dtype: torch.dtype, threshold: int) -> None:
    identity = csr(scipy.sparse.identity(77, format="csr"), dtype, torch.int32)
    x = torch.ones(77, 300, dtype=dtype)
    for seed, step, width in itertools.product([0, 1, 2**63 - 1], [0, 1, 6], WIDTHS):
        # Only the first mask of the forward direction and the last of the reverse one, step 0, are
        # alone in a call; later steps show as differences of calls.
        keep = torch.ones(77, 300, dtype=torch.bool)
        for k in range(step + 1):
            keep &= keep_mask(seed, k, 77, 300, threshold)
        for reverse in (False, True):
            out = diffuse(
                x, *identity, step + 1, threshold, seed, reverse, level=level, width=width
            )
            assert torch.equal(out != 0, keep)
        if step == 0:
            assert torch.equal(out, keep.to(dtype) * dropout_scale(threshold))


@pytest.mark.parametrize("columns", [7, 40, 300])
def test_same_bits_for_any_threads_on_larger_graphs(columns: int) -> None:
    """Enough work for the kernel to use its threads by its own choice."""
    rng = np.random.default_rng(columns)
    matrix = csr(
        scipy.sparse.random(3000, 3000, 2e-3, "csr", random_state=1), torch.float32, torch.int32
    )
    x = torch.tensor(rng.standard_normal((3000, columns)), dtype=torch.float32)
    outs = []
    for threads in (1, 2, 4):
        torch.set_num_threads(threads)
        outs.append(diffuse(x, *matrix, 5, 16384, 3, False))
    assert all(torch.equal(out, outs[0]) for out in outs)


def test_no_rows_and_no_columns() -> None:
    for rows, columns in [(0, 5), (5, 0)]:
        matrix = csr(scipy.sparse.identity(rows, format="csr"), torch.float32, torch.int32)
        out = diffuse(torch.ones(rows, columns), *matrix, 3, 100, 0, False)
        assert out.shape == (rows, columns)


def test_transpose_is_the_adjoint() -> None:
    rng = np.random.default_rng(5)
    matrix = random_matrix(rng, 50) + scipy.sparse.random(50, 50, 0.1, random_state=5)
    forward = csr(matrix.tocsr(), torch.float64, torch.int32)
    backward = csr(matrix.T.tocsr(), torch.float64, torch.int32)
    x, y = torch.tensor(rng.standard_normal((2, 50, 40)))
    left = (diffuse(x, *forward, 5, 20000, 9, False) * y).sum()
    right = (x * diffuse(y, *backward, 5, 20000, 9, True)).sum()
    torch.testing.assert_close(left, right)


def test_unknown_level_is_refused() -> None:
    matrix = csr(scipy.sparse.identity(3, format="csr"), torch.float32, torch.int32)
    with pytest.raises(ValueError, match="an instruction set of this processor"):
        diffuse(torch.ones(3, 3), *matrix, 1, 0, 0, False, level="mmx")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(40, 7), (7, 40), (1, 90), (90, 1), (5, 0), (0, 5), (400, 300)])
def test_product_with_any_matrix(dtype: torch.dtype, shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(sum(shape))
    dense = rng.standard_normal(shape) * (rng.random(shape) < 0.2)
    matrix = torch.tensor(dense, dtype=dtype).to_sparse_csr()
    for columns in (1, 33, 300):
        x = torch.tensor(rng.standard_normal((columns, shape[1])), dtype=dtype).t()
        out = sparse_mm(matrix, x)
        assert out.dtype == dtype and out.shape == (shape[0], columns)
        expected = torch.tensor(dense) @ x.double()
        assert torch.allclose(
            out.double(), expected, rtol=0, atol=1e-4 if dtype.itemsize == 4 else 1e-11
        )


def test_product_refuses_what_does_not_fit() -> None:
    matrix = torch.eye(3, 5).to_sparse_csr()
    with pytest.raises(ValueError, match=r"shape \[5, F\]"):
        sparse_mm(matrix, torch.ones(4, 2))
    with pytest.raises(TypeError, match="float32"):
        sparse_mm(matrix, torch.ones(5, 2, dtype=torch.float64))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("index", [torch.int32, torch.int64])
def test_columns_of_a_product(dtype: torch.dtype, index: torch.dtype) -> None:
    """Matrices of any shape, on several threads; no other column is written."""
    rng = np.random.default_rng(0)
    for rows, sources, width, count, first in itertools.product(
        [0, 1, 3000], [0, 1, 50], [1, 2, 4, 8, 16], [1, 5, 16], [0, 3]
    ):
        if count > width:
            continue
        matrix = scipy.sparse.random(rows, sources, 0.2, "csr", rng=rng)
        arrays = matrix.indptr, matrix.indices
        csr = (
            *(torch.from_numpy(a).to(index) for a in arrays),
            torch.tensor(matrix.data).to(dtype),
        )
        x, y = torch.randn(sources, width, dtype=dtype), torch.full((rows, 20), 7.0, dtype=dtype)
        torch.set_num_threads(1 + rows % 3)
        cpu.multiply_tile(y, x, csr, first, count)
        wanted = torch.full_like(y, 7.0)
        dense = torch.from_numpy(matrix.toarray()).to(dtype)
        wanted[:, first : first + count] = dense @ x[:, :count]
        torch.testing.assert_close(y, wanted)
    for one, other in (((3, 3), (3, 4)), ((2, 20), (3, 4)), ((3, 20), (3, 5))):
        csr = (torch.arange(4), torch.zeros(3, dtype=torch.long), torch.ones(3))
        with pytest.raises(ValueError, match="Expected '[xy]' to have"):
            cpu.multiply_tile(torch.ones(one), torch.ones(other), csr, 0, 4)
