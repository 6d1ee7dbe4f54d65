"""kNN graphs are exact on every backend, whatever the points."""

import importlib.util
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from torch_geometric_diff.graph import gaussian_knn_graph, knn_graph


def needs(package):
    missing = importlib.util.find_spec(package) is None
    return pytest.mark.skipif(missing, reason=f"'{package}' is not installed")


EXACT = [
    "auto",
    pytest.param("compiled", marks=needs("torch_geometric_diff._C")),
    "blocked",
    pytest.param("torch_cluster", marks=needs("torch_cluster")),
]
DEVICES = [
    "cpu",
    pytest.param(
        "cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
    ),
]


def brute_force(x, k, loop=False):
    """Neighbors by (squared distance in double precision, index), one row a point."""
    points = x.double()
    rows = []
    for i, point in enumerate(points):
        squared = (points - point).square().sum(dim=1).tolist()
        others = sorted((j for j in range(len(x)) if j != i), key=lambda j: (squared[j], j))
        rows.append([i] * loop + others[: k - loop])
    return torch.tensor(rows)


def degenerate():
    """Points that trip nearest-neighbor codes."""
    generator = torch.Generator().manual_seed(0)

    def normal(*shape):
        return torch.randn(*shape, generator=generator)

    line = torch.arange(9.0)
    return {
        "normal": normal(80, 3),
        "high-dimensional": normal(60, 40),
        "double": normal(60, 20).double(),
        "all equal": torch.full((50, 5), 0.3),
        "many copies": torch.randint(0, 3, (80, 4), generator=generator).float(),
        "lattice": torch.cartesian_prod(line, line),
        "far": torch.cat([normal(40, 3), 1e10 * normal(40, 3)]),
        "one far": torch.cat([normal(50, 20), torch.full((1, 20), 1e10)]),
        "far from the origin": normal(60, 20) + 1e4,
        "tiny": 1e-30 * normal(60, 3),
        "huge": 1e37 * normal(60, 20),
    }


@pytest.mark.parametrize("backend", EXACT)
@pytest.mark.parametrize("loop", [False, True])
@pytest.mark.parametrize("case", degenerate())
def test_equals_brute_force(case, loop, backend):
    x = degenerate()[case]
    edge_index = knn_graph(x, 7, loop=loop, backend=backend)
    assert torch.equal(edge_index[1], torch.arange(len(x)).repeat_interleave(7))
    assert torch.equal(edge_index[0].view(-1, 7), brute_force(x, 7, loop))


@settings(max_examples=40, deadline=None)
@given(
    points=st.lists(st.lists(st.integers(-2, 2), min_size=2, max_size=2), min_size=1, max_size=12),
    k=st.integers(1, 12),
    loop=st.booleans(),
    backend=st.sampled_from(["auto", "blocked"]),
)
def test_points_on_a_lattice(points, k, loop, backend):
    x = torch.tensor(points, dtype=torch.float)
    edge_index = knn_graph(x, k, loop=loop, backend=backend)
    found = min(k, len(x) - (not loop))  # what there is
    assert torch.equal(edge_index[0].view(len(x), found), brute_force(x, found, loop))


@pytest.mark.parametrize("backend", EXACT)
def test_small_blocks_change_nothing(backend):
    x = torch.randn(200, 20, generator=torch.Generator().manual_seed(1))
    whole = knn_graph(x, 5, backend=backend)
    assert torch.equal(knn_graph(x, 5, backend=backend, block_bytes=1), whole)


def test_a_row_that_is_near_to_all_and_has_many_copies():
    # all others are further from each other than from the copies, which tie
    x = torch.randn(60, 30, generator=torch.Generator().manual_seed(2))
    x[20:40] = 0
    for k in (5, 25):
        assert torch.equal(knn_graph(x, k)[0].view(-1, k), brute_force(x, k))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("copies", [1, 5000])
def test_more_points_than_are_surveyed_at_once(copies, dtype):
    # the first 4,096 bound where to look among the rest; copies tie with what was found
    x = torch.randn(5000 // copies, 16, generator=torch.Generator().manual_seed(3), dtype=dtype)
    x = torch.cat([x.repeat(copies, 1), torch.zeros(200, 16, dtype=dtype)])
    for k in (3, 40):
        assert torch.equal(knn_graph(x, k), knn_graph(x, k, backend="blocked"))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("backend", ["auto", "blocked"])
def test_device(device, backend):
    x = torch.randn(150, 4, generator=torch.Generator().manual_seed(2))
    edge_index = knn_graph(x.to(device), 6, backend=backend)
    assert edge_index.device.type == device
    assert torch.equal(edge_index[0].view(-1, 6).cpu(), brute_force(x, 6))


@pytest.mark.parametrize("k", [1, 6])
@pytest.mark.parametrize("loop", [False, True])
def test_agrees_with_torch_cluster(k, loop):
    torch_cluster = pytest.importorskip("torch_cluster", reason="'torch_cluster' is not installed")
    x = torch.randn(90, 3, generator=torch.Generator().manual_seed(3))
    batch = torch.arange(3).repeat_interleave(30)
    ours = knn_graph(x, k, batch, loop)
    theirs = torch_cluster.knn_graph(x, k, batch, loop)
    assert set(map(tuple, ours.t().tolist())) == set(map(tuple, theirs.t().tolist()))
    assert torch.equal(ours[1], theirs[1])


def test_batch_with_empty_sets():
    x = torch.randn(30, 3, generator=torch.Generator().manual_seed(4))
    batch = torch.tensor([1] * 12 + [4] * 18)
    edge_index = knn_graph(x, 4, batch)
    first, second = knn_graph(x[:12], 4), knn_graph(x[12:], 4) + 12
    assert torch.equal(edge_index, torch.cat([first, second], dim=1))
    edge_index = knn_graph(x, 15, batch.int())
    assert torch.equal(torch.bincount(edge_index[1]), torch.tensor([11] * 12 + [15] * 18))
    assert torch.equal(edge_index[:, : 11 * 12], knn_graph(x[:12], 11))


def test_no_points_and_one_point():
    assert knn_graph(torch.empty(0, 3), 4).shape == (2, 0)
    assert knn_graph(torch.empty(0, 3), 4, torch.empty(0, dtype=torch.long)).shape == (2, 0)
    assert knn_graph(torch.ones(1, 3), 1, loop=True).tolist() == [[0], [0]]
    assert knn_graph(torch.ones(1, 3), 1).shape == (2, 0)
    assert knn_graph(torch.ones(1, 3), 7, loop=True).tolist() == [[0], [0]]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(dtype):
    x = torch.randn(50, 4, generator=torch.Generator().manual_seed(8)).to(dtype)
    edge_index, distance = knn_graph(x, 5, return_distances=True)
    assert torch.equal(edge_index[0].view(-1, 5), brute_force(x.float(), 5))
    assert distance.dtype == dtype


def test_exact_whatever_precision_users_allow():
    x = torch.randn(200, 30, generator=torch.Generator().manual_seed(9))
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("medium")
        with torch.autocast("cpu", dtype=torch.bfloat16):
            edge_index = knn_graph(x, 6, backend="blocked")
    finally:
        torch.set_float32_matmul_precision(before)
    assert torch.equal(edge_index[0].view(-1, 6), brute_force(x, 6))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"x": torch.tensor([[0.0], [float("nan")], [1.0]])}, ValueError, "finite.*row 1"),
        ({"x": torch.tensor([[0.0], [1.0], [float("inf")]])}, ValueError, "finite.*row 2"),
        ({"x": [[0.0], [1.0]]}, TypeError, "'x' to be a Tensor .got list"),
        ({"x": np.zeros((3, 2))}, TypeError, "'x' to be a Tensor .got ndarray"),
        ({"x": torch.eye(3).to_sparse()}, TypeError, "'x' to be dense .*sparse_coo"),
        ({"x": torch.eye(3) > 0}, TypeError, "'x' to hold real numbers .got torch.bool"),
        ({"x": torch.tensor(1.0)}, ValueError, r"'x' of shape \[N, D\].*got \[\]"),
        ({"x": torch.rand(3, 0)}, ValueError, "D > 0"),
        ({"k": 0}, ValueError, "'k' to be at least 1 .got 0"),
        ({"k": True}, TypeError, "'k' to be an integer .got True"),
        ({"k": np.float64(2)}, TypeError, "'k' to be an integer .got np.float64"),
        ({"k": 1.5}, TypeError, "'k' to be an integer .got 1.5"),
        ({"batch": torch.zeros(2, dtype=torch.long)}, ValueError, r"'batch'.*\[3\]"),
        ({"batch": torch.zeros(3)}, ValueError, "'batch' to hold integers"),
        ({"batch": np.zeros(3, dtype=int)}, TypeError, "'batch' to be a Tensor .got ndarray"),
        ({"batch": torch.tensor([1, 0, 0])}, ValueError, "sorted"),
        ({"backend": "magic"}, ValueError, "'blocked'.*got 'magic'"),
        ({"block_bytes": 0}, ValueError, "'block_bytes'"),
    ],
)
def test_bad_input_is_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        knn_graph(**{"x": torch.rand(3, 2), "k": 1} | arguments)


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch_cluster", None)
    x = torch.rand(5, 2)
    with pytest.raises(ValueError, match="'torch_cluster', which is not installed"):
        knn_graph(x, 2, backend="torch_cluster")
    assert torch.equal(knn_graph(x, 2), knn_graph(x, 2, backend="blocked"))


@pytest.mark.skipif(torch.__version__ < "2.9", reason="compiled and exported by torch 2.9 or newer")
def test_compiled_graphs_break_at_the_search() -> None:
    """C++ reads memory: none of what a compiled graph has freed."""
    torch._dynamo.reset()
    x = torch.randn(50, 3, generator=torch.Generator().manual_seed(0))

    def both(x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return knn_graph(x * 2, 3), *gaussian_knn_graph(x * 2, 3, 1.0)

    for found, expected in zip(torch.compile(both, backend="eager")(x), both(x), strict=True):
        assert torch.equal(found, expected)
    whole = torch.compile(lambda x: knn_graph(x, 3), backend="eager", fullgraph=True)
    with pytest.raises(Exception, match="knn_graph"):
        whole(x)
