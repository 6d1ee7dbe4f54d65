"""Gaussian weights equal the paper's formulas, written densely."""

import numpy as np
import pytest
import torch
from torch_geometric.utils import is_undirected, to_dense_adj

from torch_geometric_diff import DiffusionOperator
from torch_geometric_diff.graph import gaussian_knn_graph


def points(n=40, dim=3, seed=0):
    return torch.randn(n, dim, generator=torch.Generator().manual_seed(seed)).double()


def dense(edge_index, weight, n):
    """W with rows the targets."""
    return torch.zeros(n, n, dtype=weight.dtype).index_put((edge_index[1], edge_index[0]), weight)


def toy_weights(x, n_top, sigma):
    weight = torch.exp(-torch.cdist(x, x).square() / sigma**2)
    kept = torch.zeros_like(weight).scatter(1, weight.topk(n_top).indices, 1.0)
    weight = weight * kept
    return weight / weight.sum(dim=1, keepdim=True)


def few_shot_weights(x, n_top, sigma):
    distance = torch.cdist(x, x)
    width = distance.kthvalue(sigma, dim=1, keepdim=True).values
    kept = distance < distance.kthvalue(n_top, dim=1, keepdim=True).values
    weight = torch.exp(-((distance / width) ** 2)) * kept
    scale = weight.sum(dim=1).rsqrt()
    weight = scale[:, None] * weight * scale
    return (weight + weight.t()) / 2


def test_toy_construction():
    x = points(dim=2)
    edge_index, weight = gaussian_knn_graph(x, 25, 0.5, normalization="row")
    expected = toy_weights(x, 25, 0.5)
    torch.testing.assert_close(dense(edge_index, weight, 40), expected, rtol=0, atol=1e-6)
    step = DiffusionOperator(edge_index, weight, num_nodes=40, step_size=1.0, normalization=None)
    torch.testing.assert_close(step.to_dense(), expected, rtol=0, atol=1e-6)


def test_few_shot_construction():
    x = points(dim=16)
    edge_index, weight = gaussian_knn_graph(
        x, 7, ("local", 4), normalization="sym", symmetrize="mean"
    )
    expected = few_shot_weights(x, 8, 4)
    torch.testing.assert_close(dense(edge_index, weight, 40), expected, rtol=0, atol=1e-6)
    laplacian = torch.diag(expected.sum(dim=1)) - expected
    step = DiffusionOperator(edge_index, weight, num_nodes=40, step_size=0.5, normalization=None)
    torch.testing.assert_close(step.to_dense(), torch.eye(40) - 0.5 * laplacian, rtol=0, atol=1e-6)


def test_graph_construction():
    edge_index, _ = gaussian_knn_graph(points(), 5, 1.0, symmetrize="max")
    edge_index = edge_index[:, edge_index[0] != edge_index[1]]
    looped = to_dense_adj(edge_index)[0].double() + torch.eye(40)
    scale = looped.sum(dim=1).rsqrt()
    weight = scale[:, None] * looped * scale
    expected = torch.eye(40) - 0.25 * (torch.diag(weight.sum(dim=1)) - weight)
    step = DiffusionOperator(edge_index, step_size=0.25, add_self_loops=True, dtype=torch.double)
    torch.testing.assert_close(step.to_dense(), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("sigma", [0.7, ("local", 3)])
def test_symmetrizations(sigma):
    x = points()
    directed = dense(*gaussian_knn_graph(x, 5, sigma), 40)
    assert not torch.equal(directed, directed.t())
    both = torch.minimum(directed, directed.t()) > 0
    mean = (directed + directed.t()) / 2
    expected = {
        "mean": mean,
        "max": torch.maximum(directed, directed.t()),
        "mutual": mean * both,
    }
    for name, matrix in expected.items():
        edge_index, weight = gaussian_knn_graph(x, 5, sigma, symmetrize=name)
        assert torch.equal(dense(edge_index, weight, 40), matrix)
        assert is_undirected(edge_index, weight)
        assert edge_index.size(1) == (matrix > 0).sum()


@pytest.mark.parametrize("sigma", [0.5, ("local", 4)])
def test_rows_sum_to_one(sigma):
    x = torch.cat([points(), points()[:7].repeat(6, 1)])  # with copies
    edge_index, weight = gaussian_knn_graph(x, 6, sigma, normalization="row")
    total = torch.zeros(len(x)).double().index_add(0, edge_index[1], weight)
    torch.testing.assert_close(total, torch.ones(len(x)).double())


def test_width_of_many_copies_is_zero():
    x = torch.cat([torch.zeros(5, 2), torch.tensor([[3.0, 4.0]])]).requires_grad_()
    edge_index, weight = gaussian_knn_graph(x, 6, ("local", 4))
    matrix = dense(edge_index, weight, 6)
    assert torch.equal(matrix[:5, :5], torch.ones(5, 5))
    assert torch.equal(matrix[:5, 5], torch.zeros(5))
    torch.testing.assert_close(matrix[5], torch.tensor([1.0] * 5 + [torch.e]) / torch.e)
    weight.sum().backward()
    assert torch.isfinite(x.grad).all()


def test_batch_and_cosine():
    x = points()
    batch = torch.tensor([0] * 15 + [3] * 25)
    edge_index, weight = gaussian_knn_graph(x, 4, 0.3, batch, cosine=True, symmetrize="mean")
    assert torch.equal(batch[edge_index[0]], batch[edge_index[1]])
    first, weight_first = gaussian_knn_graph(x[:15], 4, 0.3, cosine=True, symmetrize="mean")
    assert torch.equal(edge_index[:, : first.size(1)], first)
    assert torch.equal(weight[: first.size(1)], weight_first)
    plain, weight = gaussian_knn_graph(x, 4, 0.3, cosine=True)
    similarity = torch.cosine_similarity(x[plain[0]], x[plain[1]])
    torch.testing.assert_close(weight, torch.exp(-(((1 - similarity) / 0.3) ** 2)))


def test_sets_with_fewer_points_than_asked_for():
    x = points()
    batch = torch.tensor([0] * 3 + [1] + [2] * 36).int()
    edge_index, weight = gaussian_knn_graph(x, np.int64(6), ("local", np.int32(5)), batch)
    assert torch.equal(torch.bincount(edge_index[1]), torch.tensor([3] * 3 + [1] + [6] * 36))
    distance = torch.cdist(x[:3], x[:3])
    expected = torch.exp(-((distance / distance.amax(dim=1, keepdim=True)) ** 2))
    torch.testing.assert_close(dense(edge_index, weight, 40)[:3, :3], expected)
    assert weight[9] == 1  # a point alone
    whole = gaussian_knn_graph(x[4:], 6, ("local", 5))[1]
    assert torch.equal(weight[10:], whole)


@pytest.mark.parametrize("sigma", [0.8, ("local", 3)])
@pytest.mark.parametrize("normalization", [None, "row", "sym"])
def test_weights_are_differentiable(sigma, normalization):
    x = points(9).requires_grad_()

    def weights(x):
        return gaussian_knn_graph(x, 4, sigma, normalization=normalization, symmetrize="mean")[1]

    assert torch.autograd.gradcheck(weights, x)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"sigma": 0.0}, "'sigma'.*got 0.0"),
        ({"sigma": -1}, "'sigma'.*got -1"),
        ({"sigma": float("nan")}, "'sigma'.*got nan"),
        ({"sigma": ("local", 1)}, "'sigma'"),
        ({"sigma": ("near", 4)}, "'sigma'.*'near'"),
        ({"sigma": True}, "'sigma'.*got True"),
        ({"sigma": ("local", True)}, "'sigma'"),
        ({"n_top": 0}, "'n_top'.*got 0"),
        ({"normalization": "col"}, "'normalization'.*'col'"),
        ({"symmetrize": "min"}, "'symmetrize'.*'min'"),
        ({"x": torch.full((10, 2), float("nan"))}, "finite"),
    ],
)
def test_bad_input_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        gaussian_knn_graph(**{"x": points(10), "n_top": 3, "sigma": 1.0} | arguments)
