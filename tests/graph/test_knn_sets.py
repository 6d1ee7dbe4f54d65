"""kNN within sets of any sizes equals brute force set by set, on every path and thread count."""

import pytest
import torch

from torch_geometric_diff.graph import gaussian_knn_graph, knn_graph, search

SIZES = [1, 2, 3, 30, 0, 33, 1, 260, 65, 129, 5]
COMPILED = pytest.mark.skipif(
    search.missing("compiled") is not None, reason="the C++ extension is not built"
)


@pytest.fixture(params=[pytest.param("compiled", marks=COMPILED), "blocked"])
def path(request, monkeypatch):
    """Each way in which ``"auto"`` searches small sets."""
    if request.param == "blocked":
        monkeypatch.setattr(search.native, "MISSING", "not built")


def batch_of(sizes):
    return torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes)) * 2 - 5


def brute_force(x, k):
    """The others of each point by (squared distance, index), columns summed in order."""
    squared = torch.zeros(len(x), len(x)).double()
    for column in x.double().t():
        gap = column - column.unsqueeze(1)
        squared += gap * gap
    squared.fill_diagonal_(torch.inf)
    return squared.sort(dim=1, stable=True).indices[:, : min(k, len(x) - 1)]


def kinds(n, dim):
    generator = torch.Generator().manual_seed(n + dim)
    x = torch.randn(n, dim, generator=generator)
    copies = x[torch.randint(0, max(1, n // 20), (n,), generator=generator)]
    return {
        "normal": x,
        "double": x.double(),
        "ties": 0.1 * (2 * x).round(),
        "ties in double": 0.1 * (2 * x).round().double(),
        "copies": copies,
        "equal": torch.full((n, dim), 0.3),
        "far from the origin": x.double() + 1e8,
        "clusters": x + 1e4 * (torch.arange(n) % 2).unsqueeze(1),
    }


@pytest.mark.parametrize("dim", [1, 3, 20])
@pytest.mark.parametrize("kind", kinds(1, 1))
def test_equals_brute_force(kind, dim, path):
    x, batch = kinds(sum(SIZES), dim)[kind], batch_of(SIZES)
    for k in (1, 6, 60):
        edge_index = knn_graph(x, k, batch)
        begin = 0
        expected = []
        for part in x.split(SIZES):
            near = brute_force(part, k) + begin
            target = torch.arange(begin, begin + len(part)).unsqueeze(1).expand_as(near)
            expected.append(torch.stack([near.flatten(), target.flatten()]))
            begin += len(part)
        assert torch.equal(edge_index, torch.cat(expected, dim=1))


@COMPILED
@pytest.mark.parametrize("dim", [2, 24])
@pytest.mark.parametrize("scaled", [False, True])
def test_each_instruction_set_and_thread_count(dim, scaled):
    x = torch.randn(700, dim, generator=torch.Generator().manual_seed(3)).double().clamp(-4, 4) / 4
    if scaled:
        x = (3 * x).round() / 3
    expected = brute_force(x, 9)
    start = torch.tensor([0, 700])
    for level in search._C.levels():
        for single in (False, True):
            for threads in (1, 2, 5):
                found = torch.empty(700, 9, dtype=torch.long)
                search._C.knn(found, x, start, single, threads, level)
                assert torch.equal(found, expected)


def test_a_large_set_among_small_ones(path):
    x = torch.randn(2371, 70, generator=torch.Generator().manual_seed(4))
    batch = batch_of([30, 1100, 1, 40, 1200])
    edge_index = knn_graph(x, 4, batch)
    near = brute_force(x[1171:], 4) + 1171
    assert torch.equal(edge_index[0, -4 * 1200 :].view(-1, 4), near)
    near = brute_force(x[30:1130], 4) + 30
    assert torch.equal(edge_index[0, 120:4520].view(-1, 4), near)


def test_all_points_equal_costs_no_more():
    edge_index = knn_graph(torch.ones(100_000, 3), 4)
    assert edge_index[0, -4:].tolist() == [0, 1, 2, 3]
    assert edge_index[0, :8].tolist() == [1, 2, 3, 4, 0, 2, 3, 4]


@pytest.mark.parametrize("backend", ["auto", "blocked"])
@pytest.mark.parametrize("cosine", [False, True])
def test_another_default_device(cosine, backend, path):
    x = torch.randn(60, 20, generator=torch.Generator().manual_seed(5))
    batch = torch.tensor([0] * 25 + [1] * 35)

    def results():
        return [
            *knn_graph(x, 4, batch, cosine=cosine, return_distances=True, backend=backend),
            *gaussian_knn_graph(
                x, 4, ("local", 3), batch, cosine=cosine, normalization="sym",
                symmetrize="mean", backend=backend,
            ),
            gaussian_knn_graph(x, 4, 0.5, batch, backend=backend)[1],
        ]  # fmt: skip

    expected = results()
    torch.set_default_device("meta")
    try:
        found = results()
    finally:
        torch.set_default_device(None)
    for a, b in zip(found, expected, strict=True):
        assert torch.equal(a, b)
