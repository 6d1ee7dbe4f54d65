import numpy as np
import pytest
import torch
from dense import random_graph

from torch_geometric_diff import DiffusionOperator
from torch_geometric_diff.nn import DiffResNet, RandomPropagation, ResidualBlock
from torch_geometric_diff.nn.conv import base
from torch_geometric_diff.ops import propagate

N = 23


def bag_of_words(channels=30):
    torch.manual_seed(0)
    return (torch.rand(N, channels) < 0.2).float()


@pytest.mark.parametrize("num_layers", [1, 2])
def test_residual_block(num_layers):
    x = torch.randn(N, 6)
    block = ResidualBlock(6, num_layers)
    inner = torch.relu(x @ block.lin1.weight.t() + block.lin1.bias)
    if num_layers == 2:
        inner = inner @ block.lin2.weight.t() + block.lin2.bias
    torch.testing.assert_close(block(x), x + inner)
    before = block.lin1.weight.clone()
    block.reset_parameters()
    assert not torch.equal(before, block.lin1.weight)
    assert repr(block) == f"ResidualBlock(6, num_layers={num_layers})"


@pytest.mark.parametrize("diffuse", ["features", "logits", "probabilities"])
@pytest.mark.parametrize("training", [True, False])
def test_sparse_input_equals_dense(diffuse, training):
    edge_index, weight = random_graph(N, 60)
    x = bag_of_words()
    model = DiffResNet(30, 4, 3, 0.25, dropout=0.3, diffuse=diffuse).train(training)
    gradients, outs = [], []
    for form in (x, x.to_sparse_csr()):
        model.zero_grad()
        torch.manual_seed(0)
        outs.append(model(form, edge_index, weight.float()))
        outs[-1].square().sum().backward()
        gradients.append([p.grad.clone() for p in model.parameters()])
    torch.testing.assert_close(*outs)
    torch.testing.assert_close(*gradients, atol=1e-4, rtol=1e-4)


def test_logits_are_diffused_where_that_is_equal(monkeypatch):
    edge_index, weight = random_graph(N, 60)
    x = torch.randn(N, 30, dtype=torch.float64)
    model = DiffResNet(30, 4, 20, 0.1, dropout=0.3).double().eval()
    operator = DiffusionOperator(edge_index, weight, num_nodes=N, step_size=0.1)
    step = torch.linalg.matrix_power(operator.to_dense(), 20)
    expected = model.classifier(step @ model.block(x))
    torch.testing.assert_close(model(x, edge_index, weight), expected)
    torch.testing.assert_close(model(x, operator), expected)
    widths = []

    def seen(x, *arguments, **settings):
        widths.append(x.size(-1))
        return propagate(x, *arguments, **settings)

    monkeypatch.setattr(base, "propagate", seen)
    model(x, edge_index, weight)
    model.train()(x, edge_index, weight)
    model.conv.dropout = 0.0
    torch.testing.assert_close(model(x, edge_index, weight), expected)
    assert widths == [4, 30, 4]


def test_probabilities():
    edge_index, weight = random_graph(N, 60)
    model = DiffResNet(30, 4, 5, 0.01, diffuse="probabilities")
    out = model(bag_of_words(), edge_index, weight.float())
    torch.testing.assert_close(out.exp().sum(1), torch.ones(N))
    u = model.classifier(model.block(bag_of_words())).softmax(1)
    operator = DiffusionOperator(edge_index, weight.float(), num_nodes=N, step_size=0.01)
    step = torch.linalg.matrix_power(operator.to_dense(), 5)
    torch.testing.assert_close(out.exp(), step @ u)


def test_reset_and_repr():
    model = DiffResNet(30, 4, 3, 0.25, cached=True)
    edge_index, _weight = random_graph(N, 60)
    model(bag_of_words(), edge_index)
    state = {name: value.clone() for name, value in model.named_parameters()}
    torch.manual_seed(1)
    model.reset_parameters()
    assert model.conv._cached is None
    assert all(not torch.equal(state[name], value) for name, value in model.named_parameters())
    assert repr(model) == (
        "DiffResNet(30, 4, diffuse='features', conv=DiffConv(num_steps=3, step_size=0.25))"
    )


@pytest.mark.parametrize("diffuse", ["features", "logits", "probabilities"])
@pytest.mark.parametrize("training", [True, False])
def test_side_by_side_equals_alone(kernel, diffuse, training):
    edge_index, weight = random_graph(N, 60)
    x = bag_of_words()
    models = [
        DiffResNet(30, 4, 3, 0.25, dropout=0.3, diffuse=diffuse).train(training) for _ in range(3)
    ]

    def seeded():
        for i, model in enumerate(models):
            model.zero_grad()
            model.conv.generator = torch.Generator().manual_seed(i)

    def gradients():
        return [p.grad.clone() for model in models for p in model.parameters()]

    seeded()
    out = DiffResNet.side_by_side(models, x, edge_index, weight.float())
    out.square().sum().backward()
    expected = gradients()
    seeded()
    alone = torch.stack([model(x, edge_index, weight.float()) for model in models])
    alone.square().sum().backward()
    torch.testing.assert_close(out, alone)
    torch.testing.assert_close(gradients(), expected)
    if training:  # each goes on with its own masks
        assert not torch.equal(DiffResNet.side_by_side(models, x, edge_index, weight.float()), out)


@pytest.mark.parametrize(
    "other, text",
    [
        (DiffResNet(30, 4, 2, 0.25), "'models' to differ in their weights alone.*'num_steps': 2"),
        (DiffResNet(30, 4, 3, 0.25, diffuse="logits"), "'diffuse': 'logits'"),
        (DiffResNet(30, 4, 3, 0.25).eval(), "'training': False"),
        (DiffResNet(30, 4, 3, 0.25, learn_step_size=True), "learns its step size"),
    ],
)
def test_what_cannot_go_side_by_side(other, text):
    edge_index, _ = random_graph(N, 60)
    with pytest.raises(ValueError, match=text):
        DiffResNet.side_by_side([DiffResNet(30, 4, 3, 0.25), other], bag_of_words(), edge_index)


def test_bad_arguments():
    with pytest.raises(ValueError, match=r"'diffuse' .*\(got 'edges'\)"):
        DiffResNet(30, 4, 3, 0.25, diffuse="edges")
    with pytest.raises(ValueError, match=r"'channels' .*\(got 0\)"):
        ResidualBlock(0)
    with pytest.raises(ValueError, match=r"'num_layers' .*\(got 3\)"):
        ResidualBlock(4, 3)


def test_sparse_features_are_constant() -> None:
    x = torch.eye(4).to_sparse_csr().requires_grad_()
    with pytest.raises(ValueError, match="constant 'input'"):
        ResidualBlock(4)(x)


def test_sparse_features_of_another_width_or_type_are_refused() -> None:
    with pytest.raises(ValueError, match="one row a column"):
        ResidualBlock(4)(torch.eye(4, 9).to_sparse_csr())
    with pytest.raises(TypeError, match="float64"):
        ResidualBlock(4)(torch.eye(4, dtype=torch.float64).to_sparse_csr())


@pytest.mark.parametrize("model", [DiffResNet(3, 2, 2, 0.1), RandomPropagation(3, 2)], ids=repr)
@pytest.mark.parametrize(
    "x", [torch.eye(3)[0], torch.tensor(1.0), torch.eye(2), torch.eye(3).long(), np.eye(3), None],
    ids=["row", "number", "narrow", "integers", "numpy", "none"],
)  # fmt: skip
def test_features_that_are_none_are_named(model, x) -> None:
    with pytest.raises((TypeError, ValueError), match="Expected 'x'"):
        model(x, torch.tensor([[0, 1], [1, 0]]))


def test_sparse_features_may_change_in_place() -> None:
    block = ResidualBlock(5)
    x = torch.rand(4, 5).to_sparse_csr()
    for _ in range(2):
        block.zero_grad()
        out = block(x)
        out.sum().backward()
        torch.testing.assert_close(out, block(x.to_dense()))
        gates = (x.to_dense() @ block.lin1.weight.t() + block.lin1.bias > 0).float()
        torch.testing.assert_close(block.lin1.weight.grad, gates.t() @ x.to_dense())
        x.values().mul_(-3)
    with torch.inference_mode():
        x = torch.rand(4, 5).to_sparse_csr()
        torch.testing.assert_close(block(x), block(x.to_dense()))


@pytest.mark.parametrize("diffuse", ["features", "logits", "probabilities"])
def test_the_logits_of_some_nodes_are_those_of_all(diffuse) -> None:
    edge_index, _ = random_graph(N, 60)
    nodes = torch.tensor([[4, 0, 4], [1, 2, 7]])
    models = [DiffResNet(30, 4, 3, 0.25, 0.4, diffuse) for _ in range(2)]

    def logits(nodes):
        for model in models:
            model.conv.generator = torch.Generator().manual_seed(3)
        alone = [m(bag_of_words(), edge_index, nodes=n) for m, n in zip(models, nodes, strict=True)]
        for model in models:
            model.conv.generator = torch.Generator().manual_seed(3)
        given = None if nodes[0] is None else nodes
        beside = DiffResNet.side_by_side(models, bag_of_words(), edge_index, nodes=given)
        torch.testing.assert_close(torch.stack(alone), beside)
        return beside

    everywhere = logits([None, None])
    some = logits(nodes)
    expected = torch.stack([z[n] for z, n in zip(everywhere, nodes, strict=True)])
    torch.testing.assert_close(some, expected)
