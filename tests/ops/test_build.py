"""Both ways from edges to CSR, in C++ and in torch, hold to the same bits and to dense matrices."""

import pytest
import torch
from dense import dense_step, dense_weight

from torch_geometric_diff import DiffusionOperator
from torch_geometric_diff.graph.adjacency import RawEdges
from torch_geometric_diff.ops import SparseOperator
from torch_geometric_diff.ops import _build as build
from torch_geometric_diff.ops import _pattern as pattern
from torch_geometric_diff.ops._build import Recipe
from torch_geometric_diff.ops.kernels import cpu

needs_extension = pytest.mark.skipif(cpu.available() is not None, reason="no C++ extension")
RECIPES = [
    Recipe(signed=True),
    Recipe("sym"),
    Recipe("row"),
    *(Recipe(how, "step", 0.3, loops) for how in ("sym", "row", None) for loops in (True, False)),
    *(Recipe("sym", diagonal, 2.0) for diagonal in ("keep", "add", "set")),
]


@pytest.fixture
def torch_path(monkeypatch: pytest.MonkeyPatch):
    """A function that makes what follows run in torch alone."""

    def without_extension():
        for module in (build, pattern):
            monkeypatch.setattr(module, "native", lambda index: False)

    return without_extension


def random_edges(num_nodes: int, num_edges: int, seed: int, dtype: torch.dtype | None) -> RawEdges:
    """Edges in any order; loops and edges given twice among them, with different weights."""
    generator = torch.Generator().manual_seed(seed)
    index = torch.randint(max(num_nodes, 1), (2, num_edges), generator=generator)
    index[:, : num_edges // 3] = index[:, num_edges // 3 : 2 * (num_edges // 3)]
    index[1, : num_edges // 9] = index[0, : num_edges // 9]
    weight = torch.rand(num_edges, generator=generator, dtype=torch.float64)
    return RawEdges(*index, None if dtype is None else weight.to(dtype), num_nodes)


def parts(built: build.Built) -> list[torch.Tensor]:
    return [built.pattern.rowptr, built.pattern.col, built.pattern.row, built.value]


@needs_extension
@pytest.mark.parametrize("recipe", RECIPES, ids=str)
@pytest.mark.parametrize("dtype", [None, torch.float32, torch.float64, torch.float16, torch.long])
def test_both_ways_give_the_same_bits(recipe, dtype, torch_path):
    graphs = [(1, 3), (7, 0), (0, 0), (5, 60), (200, 1500), (3000, 2000)]
    all_edges = [random_edges(*size, seed, dtype) for seed, size in enumerate(graphs)]
    types = [None, torch.float32, torch.float64, torch.bfloat16]
    fast = [build.build(edges, recipe, out) for edges in all_edges for out in types]
    torch_path()
    slow = [build.build(edges, recipe, out) for edges in all_edges for out in types]
    for one, other in zip(fast, slow, strict=True):
        for a, b in zip(parts(one), parts(other), strict=True):
            assert a.dtype == b.dtype and torch.equal(a, b)
        assert one.largest_degree == other.largest_degree or recipe.diagonal != "step"


@needs_extension
@pytest.mark.parametrize("weighted", [True, False])
def test_threads_change_no_bit(weighted):
    # enough edges for several threads, a hub of sorted and of unsorted edges
    edges = random_edges(500, 250_000, 0, torch.float64 if weighted else None)
    edges.row[:30_000] = 7
    edges.col[:10_000] = edges.col[:10_000].sort().values
    results = []
    before = torch.get_num_threads()
    for threads in (1, 2, 3, 7):
        torch.set_num_threads(threads)
        operator = build.build(edges, Recipe("row", "step", 0.3, True))
        pattern = operator.pattern
        place = build.compress(edges.row, edges.col, 500)[1]
        found = [*pattern.transposition, place]
        results.append([*parts(operator), *found])
    torch.set_num_threads(before)
    for result in results[1:]:
        for a, b in zip(results[0], result, strict=True):
            assert torch.equal(a, b)


@pytest.mark.parametrize("way", [pytest.param("native", marks=needs_extension), "torch"])
@pytest.mark.parametrize("kind", ["symmetric", "symmetric pattern", "directed", "loops", "empty"])
def test_transpose(way, kind, torch_path):
    if way == "torch":
        torch_path()
    index = torch.randint(40, (2, 300), generator=torch.Generator().manual_seed(1))
    index = {
        "loops": index[:1].expand(2, -1),
        "empty": index[:, :0],
        "directed": index.sort(0).values,
    }.get(kind, torch.cat([index, index.flip(0)], 1))
    generator = torch.Generator().manual_seed(2)
    weight = torch.rand(index.size(1), dtype=torch.float64, generator=generator)
    if kind == "symmetric":
        weight = (torch.cat([weight[:300], weight[:300]]) * 8).round()  # sums are exact
    operator = SparseOperator(index, weight, num_nodes=40)
    dense = dense_weight(index, weight, 40)
    pattern = operator.pattern
    assert (pattern.transpose is pattern) == (kind != "directed")
    back = pattern.transpose.transposition.entries[pattern.transposition.entries]
    assert torch.equal(back, torch.arange(operator.nnz, dtype=back.dtype))
    assert operator.is_symmetric == torch.equal(operator.to_dense(), operator.to_dense().t())
    assert operator.is_symmetric == (kind in ("symmetric", "loops", "empty"))
    torch.testing.assert_close(operator.to_dense(), dense)
    assert torch.equal(operator.t().to_dense(), operator.to_dense().t())
    assert torch.equal(operator.t().t().to_dense(), operator.to_dense())


@needs_extension
def test_large_graph_equals_scipy():
    import numpy as np
    import scipy.sparse

    index = torch.randint(1500, (2, 100_000), generator=torch.Generator().manual_seed(2))
    weight = torch.rand(100_000, dtype=torch.float64)
    operator = SparseOperator(index, weight, num_nodes=1500)
    expected = scipy.sparse.coo_matrix((weight, (index[1], index[0])), shape=(1500, 1500)).tocsr()
    ours = operator.to_scipy()
    assert np.array_equal(ours.indptr, expected.indptr)
    assert np.array_equal(ours.indices, expected.indices)
    np.testing.assert_allclose(ours.data, expected.data, rtol=1e-15)
    other, transposed = operator.t().to_scipy(), ours.T.tocsr()
    assert np.array_equal(other.indptr, transposed.indptr)
    assert np.array_equal(other.indices, transposed.indices)
    assert np.array_equal(other.data, transposed.data)


@pytest.mark.parametrize("normalization", ["sym", "row", None])
@pytest.mark.parametrize("learned", ["weights", "step", "both"])
def test_learned_entries_pass_gradients(normalization, learned):
    edges = random_edges(6, 20, 3, torch.float64)
    index = torch.stack([edges.col, edges.row])
    weight = (edges.weight + 0.1).requires_grad_(learned != "step")
    step_size = torch.tensor(0.1, dtype=torch.float64, requires_grad=learned != "weights")

    def entries(weight, step_size):
        keywords = {"step_size": step_size, "normalization": normalization, "num_nodes": 6}
        operator = DiffusionOperator(index, weight, **keywords)
        return operator.to_dense(), operator.t().to_dense()

    def expected(weight, step_size):
        dense = dense_step(dense_weight(index, weight, 6), step_size, normalization)
        return dense, dense.t()

    for a, b in zip(entries(weight, step_size), expected(weight, step_size), strict=True):
        torch.testing.assert_close(a, b, atol=1e-14, rtol=0)
    inputs = (weight, step_size)
    assert torch.autograd.gradcheck(entries, inputs, fast_mode=True)
    assert torch.autograd.gradgradcheck(entries, inputs, fast_mode=True)
