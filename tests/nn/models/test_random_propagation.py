"""Views of a graph against a dense reference."""

import pytest
import torch
from dense import dense_step, dense_weight, random_graph

from torch_geometric_diff.nn import RandomPropagation


def graph() -> tuple[torch.Tensor, ...]:
    edge_index, weight = random_graph(12, 30, undirected=True)
    x = torch.randn(12, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    step = dense_step(dense_weight(edge_index, weight, 12), 0.3, "row")
    return x, edge_index, weight, step.matrix_power(3)


@pytest.mark.parametrize("hidden", [None, 4])
def test_evaluation_equals_a_dense_reference(hidden: int | None) -> None:
    x, edge_index, weight, steps = graph()
    model = RandomPropagation(5, 3, hidden, num_steps=3, step_size=0.3).double().eval()
    with torch.no_grad():
        model.bias.add_(0.5)
    expected = steps @ x @ model.encoder.weight.t() + model.bias
    if model.classifier is not None:
        expected = model.classifier(expected.relu())
    for form in (x, x.to_sparse_csr()):
        torch.testing.assert_close(model(form, edge_index, weight), expected)


def test_each_view_is_the_diffusion_of_the_nodes_that_it_keeps() -> None:
    x, edge_index, weight, steps = graph()
    model = RandomPropagation(5, 3, num_steps=3, step_size=0.3, num_views=4, node_dropout=0.25)
    model.double()
    torch.manual_seed(5)
    out = model(x, edge_index, weight)
    torch.manual_seed(5)
    keep = (torch.rand(12, 4) >= 0.25).double() / 0.75
    assert out.shape == (12, 4, 3) and 0 < keep.count_nonzero() < keep.numel()
    for view in range(4):
        expected = steps @ (keep[:, view : view + 1] * (x @ model.encoder.weight.t()))
        torch.testing.assert_close(out[:, view], expected)


def test_its_form_and_what_it_refuses() -> None:
    assert repr(RandomPropagation(5, 3, 4)) == (
        "RandomPropagation(5, 3, hidden_channels=4, num_views=4, node_dropout=0.5, "
        "conv=DiffConv(num_steps=8, step_size=0.5))"
    )
    model = RandomPropagation(5, 3)
    before = model.encoder.weight.clone()
    model.reset_parameters()
    assert not torch.equal(before, model.encoder.weight)
    for name, wrong in {
        "num_views": 0,
        "node_dropout": 1.0,
        "dropout": -0.1,
        "hidden_channels": 0,
    }.items():
        with pytest.raises(ValueError, match=f"'{name}' to .* \\(got {wrong}\\)"):
            RandomPropagation(5, 3, **{name: wrong})
    with pytest.raises(TypeError, match="'num_views' to be an integer \\(got True\\)"):
        RandomPropagation(5, 3, num_views=True)


def test_an_infinite_node_that_is_dropped_is_gone() -> None:
    model = RandomPropagation(2, 3, num_steps=2, node_dropout=0.75, num_views=64).train()
    x = torch.ones(4, 2)
    x[0] = torch.inf
    out = model(x, torch.tensor([[0, 1, 2, 3], [1, 0, 3, 2]]))
    assert not out[2:].isnan().any()
    gone = out[:2].isfinite().all(-1).all(0)  # in the views that drop it
    assert 16 < int(gone.sum()) < 64
