"""Diffusion by attention, beside dense algebra."""

import copy
import pickle

import pytest
import torch

from torch_geometric_diff.nn import AttentionDiffusion

N, F = 12, 5

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def graph():
    return torch.randn(N, F, dtype=torch.float64), torch.randint(0, N, (2, 40)).unique(dim=1)


def dense_attention(layer, x, edge_index):
    """The matrix A of the class, with loops."""
    allowed = torch.zeros(N, N, dtype=torch.bool)
    allowed[edge_index[1], edge_index[0]] = True
    if layer.add_self_loops:
        allowed |= torch.eye(N, dtype=torch.bool)
    shape = (N, layer.heads, layer.attention_channels)
    query, key = layer.lin_query(x).view(shape), layer.lin_key(x).view(shape)
    scores = torch.einsum("ihd,jhd->hij", query, key) * layer.attention_channels**-0.5
    scores = scores.masked_fill(~allowed, -torch.inf)
    return scores.softmax(-1).nan_to_num().mean(0)


@pytest.mark.parametrize("loops", [True, False])
@pytest.mark.parametrize("t", [None, 0.0, 0.3, 4.0])
def test_is_the_formula_with_gradients(graph, t, loops):
    x, edge_index = graph
    x.requires_grad_()
    layer = AttentionDiffusion(F, 3, 2, num_steps=6, t=t, add_self_loops=loops).double()
    out = layer(x, edge_index)
    a = dense_attention(layer, x, edge_index)
    if t is None:
        p = 0.75 * torch.eye(N, dtype=torch.float64) + 0.25 * a
        expected = torch.linalg.matrix_power(p, 6) @ x
    else:
        expected = torch.linalg.matrix_exp(t * (a - torch.eye(N, dtype=torch.float64))) @ x
    torch.testing.assert_close(out, expected, rtol=1e-8, atol=1e-8)
    inputs = [x, *layer.parameters()]
    g = torch.randn_like(out)
    found = torch.autograd.grad(out, inputs, g)
    wanted = torch.autograd.grad(expected, inputs, g)
    torch.testing.assert_close(found, wanted, rtol=1e-7, atol=1e-8)


def test_differentiates_twice(graph):
    x, edge_index = graph
    layer = AttentionDiffusion(F, 2, 2, num_steps=3).double()
    x.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: layer(x, edge_index), x)
    assert torch.autograd.gradgradcheck(lambda x: layer(x, edge_index), x)


def test_constants_stay(graph):
    _, edge_index = graph
    layer = AttentionDiffusion(F, num_steps=50).double()
    torch.testing.assert_close(
        layer(torch.ones(N, F, dtype=torch.float64), edge_index),
        torch.ones(N, F, dtype=torch.float64),
    )


def test_cache_copies_and_forms(graph):
    x, edge_index = graph
    layer = AttentionDiffusion(F, cached=True).double()
    out = layer(x, edge_index)
    assert torch.equal(layer(x, edge_index), out)
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert torch.equal(other(x, edge_index), out)
    adj_t = torch.sparse_coo_tensor(edge_index.flip(0), torch.ones(edge_index.size(1)), (N, N))
    torch.testing.assert_close(AttentionDiffusion.forward(layer_like(layer), x, adj_t), out)
    with pytest.raises(ValueError, match="was called with another graph than"):
        layer(x, edge_index.flip(0))
    layer.reset_parameters()
    layer(x, edge_index.flip(0))


def layer_like(layer):
    other = AttentionDiffusion(layer.in_channels).double()
    other.load_state_dict(layer.state_dict())
    return other


def test_dropout_falls_on_weights(graph):
    x, edge_index = graph
    layer = AttentionDiffusion(F, attention_dropout=0.5, num_steps=1).double()
    torch.manual_seed(0)
    first = layer(x, edge_index)
    torch.manual_seed(0)
    assert torch.equal(layer(x, edge_index), first)
    assert not torch.equal(layer(x, edge_index), first)
    many = torch.stack([layer(x, edge_index) for _ in range(400)]).mean(0)
    torch.testing.assert_close(many, layer.eval()(x, edge_index), rtol=0.0, atol=0.15)


def test_refusals():
    layer, edge_index = AttentionDiffusion(F), torch.tensor([[0, 1], [1, 0]])
    with pytest.raises(ValueError, match="Expected 'x' to be dense, of shape"):
        layer(torch.ones(2, 3, F), edge_index)
    with pytest.raises(ValueError, match="Expected 'x' of shape"):
        layer(torch.ones(2, F + 1), edge_index)
    with pytest.raises(TypeError, match="Expected 'x' to be a floating Tensor"):
        layer(torch.ones(2, F, dtype=torch.long), edge_index)
    with pytest.raises(ValueError, match="Expected 'step_size' to lie in \\(0, 1\\]"):
        AttentionDiffusion(F, step_size=1.5)
    with pytest.raises(ValueError, match="Expected 't' to lie in"):
        AttentionDiffusion(F, t=-1.0)
    assert repr(AttentionDiffusion(F, t=2.0)) == "AttentionDiffusion(5, heads=4, t=2)"
