"""knn of two point sets: torch_cluster's answers where these are unique, brute force where not."""

import pytest
import torch

from torch_geometric_diff.graph import knn, knn_graph, search

BACKENDS = [
    pytest.param(
        name, marks=pytest.mark.skipif(search.missing(name) is not None, reason="not installed")
    )
    for name in search.BACKENDS
] + ["auto"]


def draw(n: int, dim: int, seed: int, dtype: torch.dtype = torch.float) -> torch.Tensor:
    return torch.randn(n, dim, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def brute_force(x, y, k, batch_x=None, batch_y=None):
    squared = torch.zeros(len(y), len(x)).double()
    for a, b in zip(y.double().t(), x.double().t(), strict=True):
        gap = a.unsqueeze(1) - b
        squared += gap * gap
    if batch_x is not None:
        squared.masked_fill_(batch_y.unsqueeze(1) != batch_x, torch.inf)
    near = squared.sort(dim=1, stable=True)
    index, wanted = near.indices[:, :k], near.values[:, :k].isfinite()
    row = torch.arange(len(y)).unsqueeze(1).expand_as(index)
    return torch.stack([row[wanted], index[wanted]])


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dim", [1, 3, 40])
@pytest.mark.parametrize("k", [1, 6, 200])
def test_equals_brute_force(dim, k, backend) -> None:
    x, y = draw(90, dim, 1), draw(50, dim, 2)
    x[40:60], y[:5] = x[3], x[3]  # copies
    assert torch.equal(knn(x, y, k, backend=backend), brute_force(x, y, k))
    sets = torch.tensor([-1, 0, 2, 7])
    batch_x = sets.repeat_interleave(torch.tensor([30, 1, 0, 59]))
    batch_y = sets.repeat_interleave(torch.tensor([10, 20, 15, 5]))  # 15 have nothing to find
    found = knn(x, y, k, batch_x, batch_y, backend=backend, block_bytes=1 << 12)
    assert torch.equal(found, brute_force(x, y, k, batch_x, batch_y))


def test_arguments_in_the_order_of_torch_cluster() -> None:
    torch_cluster = pytest.importorskip("torch_cluster")
    x, y = draw(60, 4, 3), draw(40, 4, 4)
    batch_x, batch_y = torch.arange(60) // 20, torch.arange(40) // 15
    both = (x, y, 3, batch_x, batch_y, False, 2, 3)
    assert torch.equal(knn(*both), torch_cluster.knn(*both))
    assert torch.equal(knn(x, y, 3), torch_cluster.knn(x, y, 3))
    assert torch.equal(knn(x[:, 0], y[:, 0], 3), torch_cluster.knn(x[:, 0], y[:, 0], 3))
    for loop in (False, True):
        for flow in ("source_to_target", "target_to_source"):
            one = (x, 3, batch_x, loop, flow, False, 2, 3)
            assert torch.equal(knn_graph(*one), torch_cluster.knn_graph(*one))
    edge_index, distance = knn_graph(x, 3, flow="target_to_source", return_distances=True)
    assert torch.equal(edge_index[0], torch.arange(60).repeat_interleave(3))
    expected = (x[edge_index[0]] - x[edge_index[1]]).norm(dim=1)
    torch.testing.assert_close(distance, expected)


@pytest.mark.parametrize("cosine", [False, True])
def test_distances(cosine) -> None:
    x, y = (draw(n, 3, n, torch.double).requires_grad_() for n in (12, 7))
    (row, col), distance = knn(x, y, 2, cosine=cosine, return_distances=True)
    similarity = torch.cosine_similarity(x[col], y[row])
    torch.testing.assert_close(
        distance, 1 - similarity if cosine else (x[col] - y[row]).norm(dim=1)
    )
    assert torch.autograd.gradcheck(
        lambda x, y: knn(x, y, 2, cosine=cosine, return_distances=True)[1], (x, y)
    )


@pytest.mark.parametrize("scale", [1e-300, 1e-30, 1e30, 1e300])
def test_any_scale_and_mixed_types(scale) -> None:
    x, y = draw(30, 3, 5, torch.double), draw(20, 3, 6, torch.double)
    expected, distance = knn(x, y, 4, return_distances=True)
    found, scaled = knn(x * scale, y * scale, 4, return_distances=True)
    assert torch.equal(found, expected)
    torch.testing.assert_close(scaled / scale, distance, rtol=1e-12, atol=0)
    whole = (100 * x).long()
    assert torch.equal(knn(whole, y.float(), 4), knn(whole.double(), y.float().double(), 4))
    assert knn(whole, y.float(), 4, return_distances=True)[1].dtype == torch.float


def test_nothing_to_find() -> None:
    assert knn(torch.empty(0, 3), torch.ones(4, 3), 2).shape == (2, 0)
    assert knn(torch.ones(4, 3), torch.empty(0, 3), 2).shape == (2, 0)
    assert knn(torch.ones(1, 3), torch.ones(2, 3), 5).tolist() == [[0, 1], [0, 0]]


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda x: knn(x, x[:, :2], 1), "'y' of as many dimensions as 'x', 3"),
        (lambda x: knn(x, x, 1, torch.arange(4)), "both 'batch_x' and 'batch_y'"),
        (lambda x: knn(x, x, 1, None, torch.arange(4)), "both 'batch_x' and 'batch_y'"),
        (
            lambda x: knn(x, x, 1, torch.arange(4), torch.arange(4).flip(0)),
            "'batch_y' to be sorted",
        ),
        (lambda x: knn(x, x * torch.nan, 1), "'y' to be finite"),
        (lambda x: knn_graph(x, 1, torch.arange(4), batch_size=3), "at most 3 sets"),
        (lambda x: knn_graph(x, 1, batch_size=3), "'batch' beside a 'batch_size' of 3"),
        (lambda x: knn_graph(x, 1, None, False, True), "'flow' to be one of .*got True"),
        (lambda x: knn_graph(x, 1, flow="down"), "'flow' to be one of .*got 'down'"),
        (lambda x: knn_graph(x, 1, num_workers=0), "'num_workers' to be at least 1"),
    ],
)
def test_bad_input_is_refused(function, message) -> None:
    with pytest.raises(ValueError, match=message):
        function(torch.rand(4, 3))
