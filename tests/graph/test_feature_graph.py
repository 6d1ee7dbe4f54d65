"""Graphs of features: what counts as near, and what joins what."""

import pytest
import torch
from dense import as_form, dense_weight, random_graph

from torch_geometric_diff.graph import feature_graph, with_feature_neighbors
from torch_geometric_diff.graph.feature_graph import is_bag_of_words, rare_words


def test_rare_words_are_tf_idf_in_unit_rows() -> None:
    x = torch.tensor([[1.0, 0, 1, 0], [1, 2, 0, 0], [1, 0, 0, 0]])
    idf = (
        torch.tensor([0.0, 3, 3, 0]).clamp(min=1).log()
    )  # a word of all and one of none say nothing
    expected = torch.nn.functional.normalize(x * idf, dim=1)
    torch.testing.assert_close(rare_words(x), expected)


def test_neighbors_are_those_of_the_smallest_angle() -> None:
    x = torch.randn(40, 6, generator=torch.Generator().manual_seed(0)) + 5
    assert not is_bag_of_words(x)
    edge_index, weight = feature_graph(x, 3)
    angle = torch.nn.functional.normalize(x - x.mean(0), dim=1)
    cosine = (angle @ angle.t()).fill_diagonal_(-2)
    near = torch.zeros(40, 40, dtype=torch.bool).scatter_(1, cosine.topk(3).indices, True)
    found = torch.zeros(40, 40)
    found[edge_index[0], edge_index[1]] = weight
    assert torch.equal(found > 0, near | near.t())
    torch.testing.assert_close(found, found.t())
    assert weight.max() <= 1


def test_words_shared_by_few_decide() -> None:
    x = torch.zeros(8, 9)
    x[:, 0] = 1  # a word of all
    for pair in range(4):
        x[2 * pair : 2 * pair + 2, 1 + pair] = 1  # and one of each pair
    assert is_bag_of_words(x)
    edge_index, _ = feature_graph(x, 1)
    assert torch.equal(edge_index[0] // 2, edge_index[1] // 2)


def test_the_joined_graph_holds_both() -> None:
    x = torch.randn(10, 4, generator=torch.Generator().manual_seed(0))
    edges = torch.tensor([[0, 1], [1, 0]])
    joined, weight = with_feature_neighbors(x, edges, None, 2, 0.5)
    others, similarity = feature_graph(x, 2)
    assert torch.equal(joined, torch.cat([edges, others], 1))
    torch.testing.assert_close(weight, torch.cat([torch.ones(2), 0.5 * similarity]))
    for off in ({"k": 0}, {"mix": 0.0}):
        assert torch.equal(with_feature_neighbors(x, edges, torch.ones(2), **off)[0], edges)


def test_a_graph_of_any_form_is_joined(form: str) -> None:
    x = torch.randn(10, 4, generator=torch.Generator().manual_seed(0))
    edges, weight = random_graph(10, 20)
    expected = dense_weight(*with_feature_neighbors(x, edges, weight, 2), 10)
    found = dense_weight(*with_feature_neighbors(x, *as_form(form, edges, weight, 10), 2), 10)
    torch.testing.assert_close(found, expected)


def test_the_scale_and_type_of_features_change_nothing() -> None:
    x = torch.randint(1, 50, (20, 4), generator=torch.Generator().manual_seed(0)).double()
    edges, weight = feature_graph(x, 3)
    for other in (x * 1e-30, x * 1e306, (x * 6e36).float(), x.long(), x.float(), x.half() * 1000):
        found, values = feature_graph(other, 3)
        assert torch.equal(found, edges)
        torch.testing.assert_close(values.double(), weight, rtol=1e-3, atol=1e-3)
    with pytest.raises(ValueError, match="'x'"):
        feature_graph(x * torch.nan, 3)
