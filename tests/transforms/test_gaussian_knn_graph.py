"""The transform writes what the function returns."""

import copy

import pytest
import torch
from torch_geometric.data import Batch, Data
from torch_geometric.transforms import BaseTransform, Compose, NormalizeScale

from torch_geometric_diff.graph import gaussian_knn_graph
from torch_geometric_diff.transforms import GaussianKNNGraph


def points(n=20, seed=0):
    return torch.randn(n, 3, generator=torch.Generator().manual_seed(seed))


def test_repr():
    transform = GaussianKNNGraph(8, ("local", 4), symmetrize="mean")
    assert isinstance(transform, BaseTransform)
    assert repr(transform) == "GaussianKNNGraph(n_top=8, sigma=('local', 4), symmetrize='mean')"


@pytest.mark.parametrize("attr", ["x", "pos"])
def test_equals_the_function(attr):
    data = Data(**{attr: points()})
    out = GaussianKNNGraph(5, 0.5, normalization="sym", symmetrize="mean")(data)
    expected = gaussian_knn_graph(points(), 5, 0.5, normalization="sym", symmetrize="mean")
    assert torch.equal(out.edge_index, expected[0])
    assert torch.equal(out.edge_weight, expected[1])
    assert data.edge_index is None, "the input stays as it was"


def test_positions_go_before_features():
    data = Data(x=points(seed=1), pos=points(), edge_attr=torch.ones(3))
    out = GaussianKNNGraph(5, 0.5)(copy.copy(data))
    assert torch.equal(out.edge_index, gaussian_knn_graph(points(), 5, 0.5)[0])
    assert out.edge_attr is None
    out = GaussianKNNGraph(5, 0.5, attr="x")(data)
    assert torch.equal(out.edge_index, gaussian_knn_graph(points(seed=1), 5, 0.5)[0])


def test_batch():
    single = [Data(pos=points(n, seed)) for seed, n in enumerate((9, 14))]
    transform = GaussianKNNGraph(4, 1.0)
    together = transform(Batch.from_data_list(single))
    apart = Batch.from_data_list([transform(data) for data in single])
    assert torch.equal(together.edge_index, apart.edge_index)
    torch.testing.assert_close(together.edge_weight, apart.edge_weight)


def test_composes():
    out = Compose([NormalizeScale(), GaussianKNNGraph(5, 0.5)])(Data(pos=points()))
    assert out.edge_index.shape == (2, 100)


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="points in 'x'"):
        GaussianKNNGraph(5, 0.5)(Data(y=torch.ones(4)))
    with pytest.raises(ValueError, match="points in 'z'"):
        GaussianKNNGraph(5, 0.5, attr="z")(Data(x=points()))
    with pytest.raises(TypeError, match="'n_top' to be an integer .got True"):
        GaussianKNNGraph(True, 0.5)(Data(x=points()))
    with pytest.raises(TypeError, match="'x' to be dense"):
        GaussianKNNGraph(5, 0.5)(Data(x=points().to_sparse()))


def test_fewer_points_than_asked_for():
    single = [Data(pos=points(n, seed)) for seed, n in enumerate((3, 14))]
    out = GaussianKNNGraph(8, ("local", 5))(Batch.from_data_list(single))
    assert torch.bincount(out.edge_index[1]).tolist() == [3] * 3 + [8] * 14
