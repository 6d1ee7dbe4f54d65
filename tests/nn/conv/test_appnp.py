"""What our propagation layers have beyond PyG's: dropout by a rule, learned weights, heat."""

import pytest
import torch
import torch_geometric.nn as pyg
from dense import as_form, dense_step, dense_weight, random_graph

from torch_geometric_diff import nn

N, F = 23, 6


def graph(undirected=False):
    return random_graph(N, 60, undirected=undirected)


def test_dropout_of_edges_draws_anew_from_all_edges():
    """On a path of loops, the mean over many draws is what there is without dropout."""
    loops = torch.arange(2000).expand(2, -1)
    x = torch.ones(2000, 1)
    layer = nn.APPNP(4, 0.1, dropout=0.5, normalize=False)
    assert abs(float(layer(x, loops).mean()) - 1) < 0.2  # of x = 1, with a standard error of .05
    theirs = pyg.APPNP(4, 0.1, dropout=0.5, normalize=False)
    doubled = theirs(x, loops, torch.ones(2000))  # kept in all steps so far: times 2, 4, 8, 16
    assert float(doubled.max()) > 100 > float(layer(x, loops).max())


def test_dropout_of_all_edges_leaves_the_teleport(form):
    edge_index, weight = graph()
    x = torch.randn(N, F, dtype=torch.float64)
    arguments = as_form(form, edge_index, weight, N)
    layer = nn.APPNP(4, 0.3, dropout=1.0)
    torch.testing.assert_close(layer(x, *arguments), 0.3 * x)
    layer.register_message_forward_hook(lambda *call: None)
    torch.testing.assert_close(layer(x, *arguments), 0.3 * x)


def test_dropout_of_edges_equals_its_messages():
    edge_index, weight = graph()
    x = torch.randn(N, F, dtype=torch.float64, requires_grad=True)
    learned = weight.clone().requires_grad_()
    layer = nn.APPNP(3, 0.3, dropout=0.4, add_self_loops=False, normalize=False)
    order = torch.argsort(edge_index[1] * N + edge_index[0])  # as the operator keeps them
    torch.manual_seed(0)
    out = layer(x, edge_index[:, order], learned[order])
    found = torch.autograd.grad(out.square().sum(), [x, learned])
    layer.register_message_forward_hook(lambda *call: None)
    torch.manual_seed(0)
    again = layer(x, edge_index[:, order], learned[order])
    torch.testing.assert_close(again, out)
    for a, b in zip(torch.autograd.grad(again.square().sum(), [x, learned]), found, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("make", [nn.APPNP, nn.GPRConv])
def test_dropout_of_features(make):
    edge_index, weight = graph()
    x = torch.ones(N, 2000)
    layer = make(1, 0.25, feature_dropout=0.5)
    out = layer(x, edge_index, weight.float())
    assert sorted(set(out[-1].detach().mul(4).round().int().tolist())) == [1, 7]  # an isolated node
    torch.manual_seed(3)
    first = layer(x, edge_index, weight.float())
    layer.register_message_forward_hook(lambda *call: None)
    torch.manual_seed(3)
    torch.testing.assert_close(layer(x, edge_index, weight.float()), first)
    layer.eval()
    torch.testing.assert_close(layer(x, edge_index, weight.float())[-1], x[-1])


def test_attributes_act():
    edge_index, weight = graph()
    x = torch.randn(N, F, dtype=torch.float64)
    layer = nn.APPNP(2, 0.5)
    layer.K, layer.alpha, layer.add_self_loops = 4, 0.1, False
    expected = pyg.APPNP(4, 0.1, add_self_loops=False)(x, edge_index, weight)
    torch.testing.assert_close(layer(x, edge_index, weight), expected)
    layer.cached = True
    layer(x, edge_index, weight)
    layer.normalize = False  # another operator than the cached one
    expected = pyg.APPNP(4, 0.1, normalize=False)(x, edge_index, weight)
    torch.testing.assert_close(layer(x, edge_index, weight), expected)
    heat = nn.HeatConv(1.0)
    heat.t = 3.0
    torch.testing.assert_close(heat(x, edge_index, weight), nn.HeatConv(3.0)(x, edge_index, weight))


def test_messages_of_a_subclass_are_used():
    class Squared(nn.APPNP):
        def message(self, x_j, edge_weight):
            return edge_weight.view(-1, 1) ** 2 * x_j

    edge_index, weight = graph()
    x = torch.randn(N, F, dtype=torch.float64)
    out = Squared(2, 0.1, normalize=False)(x, edge_index, weight)
    torch.testing.assert_close(out, nn.APPNP(2, 0.1, normalize=False)(x, edge_index, weight**2))


@pytest.mark.parametrize("init", ["ppr", "nppr", "sgc", "random", [0.5, 0.25, -0.25, 0.0]])
def test_gpr_starts(init):
    layer = nn.GPRConv(3, 0.2, init)
    expected = {
        "ppr": [0.2, 0.16, 0.128, 0.512],
        "nppr": [1 / 1.248, 0.2 / 1.248, 0.04 / 1.248, 0.008 / 1.248],
        "sgc": [0.0, 0.0, 0.0, 1.0],
    }
    if init == "random":
        torch.testing.assert_close(layer.gamma.abs().sum().item(), 1.0, atol=1e-6, rtol=0)
    else:
        wanted = expected[init] if isinstance(init, str) else init
        torch.testing.assert_close(layer.gamma.detach(), torch.tensor(wanted))
    edge_index, weight = graph()
    x = torch.randn(N, F, dtype=torch.float64)
    if init == "ppr":
        expected = nn.APPNP(3, 0.2)(x, edge_index, weight)
        torch.testing.assert_close(
            layer.double()(x, edge_index, weight), expected, rtol=1e-5, atol=1e-6
        )
    with torch.no_grad():
        layer.gamma.zero_()
    layer.reset_parameters()
    assert layer.gamma.abs().sum() > 0


@pytest.mark.parametrize("normalization", ["sym", "row", None])
@pytest.mark.parametrize("undirected", [True, False])
def test_heat_equals_the_matrix_exponential(form, normalization, undirected):
    edge_index, weight = graph(undirected)
    x = torch.randn(N, F, dtype=torch.float64)
    laplacian = torch.eye(N, dtype=torch.float64) - dense_step(
        dense_weight(edge_index, weight, N), 1.0, normalization
    )
    for t in (0.0, 0.3, 20.0):
        layer = nn.HeatConv(t, tol=1e-10, normalization=normalization)
        expected = torch.linalg.matrix_exp(-t * laplacian) @ x
        out = layer(x, *as_form(form, edge_index, weight, N))
        torch.testing.assert_close(out, expected, atol=1e-8, rtol=0)


@pytest.mark.parametrize("cached", [False, True])
def test_learned_time(cached):
    edge_index, weight = graph(undirected=True)
    x = torch.randn(N, F, dtype=torch.float64)
    laplacian = torch.eye(N, dtype=torch.float64) - dense_step(
        dense_weight(edge_index, weight, N), 1.0
    )
    layer = nn.HeatConv(1.5, learn_t=True, tol=1e-10, cached=cached).double()
    assert [name for name, _ in layer.named_parameters()] == ["log_t"]
    assert repr(layer) == "HeatConv(t=1.5, tol=1e-10)"
    layer(x, edge_index, weight).square().sum().backward()
    log_t = torch.tensor(1.5, dtype=torch.float64).log().requires_grad_()
    out = torch.linalg.matrix_exp(-log_t.exp() * laplacian) @ x
    out.square().sum().backward()
    torch.testing.assert_close(layer.log_t.grad, log_t.grad, atol=1e-7, rtol=1e-7)
    layer.t = 0.2
    torch.testing.assert_close(layer.t.item(), 0.2)
    layer.reset_parameters()
    torch.testing.assert_close(layer.t.item(), 1.5)


def test_heat_has_no_bound_of_the_step_size():
    hub = torch.stack([torch.arange(1, 200), torch.zeros(199, dtype=torch.long)])
    edge_index = torch.cat([hub, hub.flip(0)], 1)
    x = torch.rand(200, 1, dtype=torch.float64)
    out = nn.HeatConv(1e4, normalization=None)(x, edge_index)  # and no warning
    torch.testing.assert_close(out, x.mean().expand(200, 1), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    "make, error, text",
    [
        (lambda: nn.APPNP(-1, 0.1), ValueError, r"'K' .* \(got -1\)"),
        (lambda: nn.APPNP(True, 0.1), TypeError, r"'K' .* \(got True\)"),
        (lambda: nn.APPNP(2, float("inf")), ValueError, r"'alpha' .* \(got inf\)"),
        (lambda: nn.APPNP(2, torch.ones(2)), ValueError, r"'alpha' .* \(got shape \[2\]\)"),
        (lambda: nn.APPNP(2, 0.1, dropout=1.5), ValueError, r"'dropout' .* \(got 1.5\)"),
        (lambda: nn.APPNP(2, 0.1, feature_dropout=1), ValueError, r"'feature_dropout' .*\(got 1\)"),
        (lambda: nn.APPNP(2, 0.1, aggr="max"), ValueError, r"'aggr' .* \(got 'max'\)"),
        (lambda: nn.APPNP(2, 0.1, node_dim=0), ValueError, r"'node_dim' .* \(got 0\)"),
        (lambda: nn.SGConv(3, 2, K=1.5), TypeError, r"'K' .* \(got 1.5\)"),
        (lambda: nn.SSGConv(3, 2, "a"), TypeError, r"'alpha' .* \(got 'a'\)"),
        (lambda: nn.GPRConv(2, 1.5), ValueError, r"'alpha' .* \(got 1.5\)"),
        (lambda: nn.GPRConv(2, init="ws"), ValueError, r"'init' .* \(got 'ws'\)"),
        (lambda: nn.GPRConv(2, init=[1.0]), ValueError, r"'init' to be 3 finite numbers"),
        (lambda: nn.HeatConv(-1.0), ValueError, r"'t' .* \(got -1.0\)"),
        (lambda: nn.HeatConv(0.0, learn_t=True), ValueError, r"'t' to be positive .* \(got 0.0\)"),
        (lambda: nn.HeatConv(1.0, tol=0.0), ValueError, r"'tol' .* \(got 0.0\)"),
        (lambda: nn.HeatConv(1.0, tol=1.0), ValueError, r"'tol' .* \(got 1.0\)"),
        (lambda: nn.HeatConv(1.0, normalization="l"), ValueError, r"'normalization' .*\(got 'l'\)"),
    ],
)
def test_bad_arguments(make, error, text):
    with pytest.raises(error, match=text):
        make()


@pytest.mark.parametrize("make", [lambda: nn.APPNP(2, 0.1), lambda: nn.SGConv(F, 2, 2)])
def test_bad_input(make):
    edge_index, weight = graph()
    x = torch.randn(N, F)
    with pytest.raises(ValueError, match="does not support bipartite"):
        make()((x, x), edge_index)
    with pytest.raises((TypeError, ValueError), match="'x'"):
        make()(x[:, 0], edge_index)
    with pytest.raises(TypeError, match="'x'"):
        make()(x.long(), edge_index)
    with pytest.raises(ValueError, match="beside a sparse 'edge_index'"):
        make()(x, as_form("coo", edge_index, weight, N)[0], weight)
    with pytest.raises(ValueError, match="not negative"):
        make()(x, edge_index, -weight)
    with pytest.raises(ValueError, match=r"lie in \[0, 9\]"):
        make()(x[:10], edge_index)
    with pytest.raises(ValueError, match="does not go with learned 'edge_weight'"):
        layer = make()
        layer.cached = True
        layer(x, edge_index, weight.requires_grad_())
