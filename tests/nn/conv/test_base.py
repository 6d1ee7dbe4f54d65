"""The layers that have PyG's names, held against PyG's."""

import copy
import io

import pytest
import torch
import torch_geometric.nn as pyg
from dense import as_form, dense_weight, random_graph
from torch_geometric.testing import assert_module

from torch_geometric_diff import kernels, nn
from torch_geometric_diff.ops import SparseOperator

N, F, C = 23, 6, 3
LAYERS = {
    "APPNP": lambda m: m.APPNP(4, 0.2),
    "APPNP without loops": lambda m: m.APPNP(4, 0.2, add_self_loops=False),
    "APPNP not normalized": lambda m: m.APPNP(2, 0.2, normalize=False),
    "APPNP of no step": lambda m: m.APPNP(0, 0.2),
    "SGConv": lambda m: m.SGConv(F, C, 3),
    "SGConv that widens": lambda m: m.SGConv(F, 9, 2, add_self_loops=False, bias=False),
    "SSGConv": lambda m: m.SSGConv(F, C, 0.1, 3),
    "SSGConv that widens": lambda m: m.SSGConv(F, 9, 0.1, 2, bias=False),
    "SSGConv of no step": lambda m: m.SSGConv(F, C, 0.1, 0),
}
OURS = {
    **{name: lambda make=make: make(nn) for name, make in LAYERS.items()},
    "GPRConv": lambda: nn.GPRConv(4, init=[0.5, -0.3, 0.2, 0.1, -0.4]),
    "HeatConv": lambda: nn.HeatConv(2.0),
    "HeatConv, learned": lambda: nn.HeatConv(0.7, learn_t=True, normalization="row"),
    "DiffConv": lambda: nn.DiffConv(3, 0.1),
}


def graph(dtype=torch.float64):
    edge_index, weight = random_graph(N, 60)
    return edge_index, weight.to(dtype)


def pair(name, dtype=torch.float64):
    """Our layer and PyG's with the same weights."""
    theirs, ours = LAYERS[name](pyg), LAYERS[name](nn)
    assert ours.load_state_dict(theirs.state_dict()) is not None
    assert list(ours.state_dict()) == list(theirs.state_dict())
    assert repr(ours) == repr(theirs)
    return ours.to(dtype), theirs.to(dtype)


def with_gradients(layer, x, *graph):
    x = x.clone().requires_grad_()
    out = layer(x, *graph)
    factor = torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view_as(out)
    leaves = [x, *layer.parameters()]
    return [out.detach(), *torch.autograd.grad((out * factor).sum(), leaves)]


def dense_gcn(edge_index, weight, add_self_loops=True):
    """D^-1/2 (A + I) D^-1/2 as PyG has it: loops that are there keep their weight."""
    matrix = dense_weight(edge_index, weight, N)
    if add_self_loops:
        matrix = matrix + torch.diag((matrix.diagonal() == 0).double())
    degree = matrix.sum(1)
    scale = torch.where(degree > 0, degree.clamp(min=1e-30).rsqrt(), 0)
    return scale[:, None] * matrix * scale


@pytest.mark.parametrize("name", LAYERS)
def test_equals_pyg_for_every_form(form, name):
    for dtype, tolerance in ((torch.float64, 1e-12), (torch.float32, 1e-5)):
        edge_index, weight = graph(dtype=dtype)
        x = torch.randn(N, F, dtype=dtype)
        given = [as_form(form, edge_index, weight, N)]
        # PyG has no csc, and warns of coo
        known = [as_form("csr" if form in ("coo", "csc") else form, edge_index, weight, N)]
        if form in ("edge_index", "EdgeIndex"):
            given, known = ([*forms, (forms[0][0], None)] for forms in (given, known))
        ours, theirs = pair(name, dtype)
        for arguments, others in zip(given, known, strict=True):
            found = with_gradients(ours, x, *arguments)
            expected = with_gradients(theirs, x, *others)
            for a, b in zip(found, expected, strict=True):
                torch.testing.assert_close(a, b, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("loops", [True, False])
def test_equals_dense(kernel, loops):
    edge_index, weight = graph()
    x = torch.randn(N, F, dtype=torch.float64)
    p = dense_gcn(edge_index, weight, loops)
    powers = torch.stack([torch.linalg.matrix_power(p, k) @ x for k in range(6)])
    settings = {"add_self_loops": loops}
    gamma = torch.randn(6, dtype=torch.float64)
    sg, ssg = nn.SGConv(F, C, 5, **settings).double(), nn.SSGConv(F, C, 0.3, 5, **settings).double()
    expected = {
        nn.APPNP(5, 0.2, **settings): 0.8**5 * powers[5]
        + sum(0.2 * 0.8**k * powers[k] for k in range(5)),
        sg: sg.lin(powers[5]),
        ssg: ssg.lin(0.3 * x + 0.7 / 5 * powers[1:].sum(0)),
        nn.GPRConv(5, init=gamma, **settings).double(): torch.einsum("k,knf->nf", gamma, powers),
    }
    for layer, wanted in expected.items():
        if hasattr(layer, "gamma"):
            layer.gamma.data.copy_(gamma)
        torch.testing.assert_close(layer(x, edge_index, weight), wanted, atol=1e-12, rtol=1e-10)


@pytest.mark.parametrize("name", [name for name in LAYERS if "no step" not in name])
def test_learned_edge_weights(name):
    edge_index, weight = graph()
    x = torch.randn(N, F, dtype=torch.float64)
    found = []
    for layer in pair(name):
        learned = weight.clone().requires_grad_()
        layer(x, edge_index, learned).square().sum().backward()
        found.append(learned.grad)
    torch.testing.assert_close(*found)


@pytest.mark.parametrize("name", OURS)
def test_messages_equal_the_kernel(form, name):
    edge_index, weight = graph()
    x = torch.randn(N, F, dtype=torch.float64)
    layer = OURS[name]().double()
    arguments = as_form(form, edge_index, weight, N)
    expected = with_gradients(layer, x, *arguments)
    calls = []
    layer.register_propagate_forward_hook(lambda *call: calls.append(call))
    for a, b in zip(with_gradients(layer, x, *arguments), expected, strict=True):
        torch.testing.assert_close(a, b, atol=1e-12, rtol=1e-10)
    assert calls or getattr(layer, "K", 1) == 0


@pytest.mark.parametrize("name", OURS)
def test_contract_of_pyg(name):
    edge_index, weight = graph(dtype=torch.float32)
    layer = OURS[name]()
    assert layer.propagate.__module__.endswith(f"{type(layer).__name__}_propagate")
    x = torch.randn(N, F)
    size = (N, getattr(layer, "out_channels", F))
    no_loops = edge_index[:, edge_index[0] != edge_index[1]]  # gcn_norm treats them by the form
    assert_module(layer, x, no_loops, expected_size=size, atol=1e-4)
    batch = torch.stack([x, 2 * x])
    torch.testing.assert_close(layer(batch, edge_index, weight)[0], layer(x, edge_index, weight))
    layer.register_message_forward_hook(lambda *call: None)
    torch.testing.assert_close(layer(batch, edge_index, weight)[0], layer(x, edge_index, weight))


@pytest.mark.parametrize("name", LAYERS)
def test_flow(name):
    edge_index, weight = graph()
    x = torch.randn(N, F, dtype=torch.float64)
    ours, theirs = pair(name)
    ours.flow = theirs.flow = "target_to_source"
    torch.testing.assert_close(ours(x, edge_index, weight), theirs(x, edge_index, weight))
    ours.register_message_forward_hook(lambda *call: None)
    torch.testing.assert_close(ours(x, edge_index, weight), theirs(x, edge_index, weight))
    with pytest.raises(ValueError, match="Expected 'flow' to be 'source_to_target'"):
        ours(x, as_form("csr", edge_index, weight, N)[0])


@pytest.mark.parametrize("name", OURS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(name, dtype):
    edge_index, weight = graph(dtype=torch.float32)
    layer, x = OURS[name](), torch.randn(N, F)
    expected = layer(x, edge_index, weight)
    half = layer.to(dtype) if list(layer.parameters()) else layer
    out = half(x.to(dtype), edge_index, weight.to(dtype))
    assert out.dtype == dtype
    tolerance = 16 * torch.finfo(dtype).eps * float(expected.detach().abs().max())
    assert float((out.float() - expected).detach().abs().max()) < tolerance


@pytest.mark.parametrize("name", OURS)
def test_cache(form, name):
    edge_index, weight = graph()
    x = torch.randn(N, F, dtype=torch.float64)
    adj, edge_weight = as_form(form, edge_index, weight, N)
    layer = OURS[name]().double()
    expected, doubled = layer(x, adj, edge_weight), layer(2 * x, adj, edge_weight)
    layer.cached = True
    with torch.inference_mode():
        assert torch.equal(layer(x, adj, edge_weight), layer(x, adj, edge_weight))
    torch.testing.assert_close(layer(x, adj, edge_weight), expected)
    torch.testing.assert_close(layer(x.clone(), adj, edge_weight), expected)
    torch.testing.assert_close(layer(2 * x, adj, edge_weight), doubled)
    with_gradients(layer, x, adj, edge_weight)
    other, other_weight = as_form(form, edge_index[:, 1:], weight[1:], N)
    with pytest.raises(ValueError, match="another graph than the one in its cache"):
        layer(x, other, other_weight)
    layer.reset_parameters()
    layer(x, other, other_weight)
    other, other_weight = as_form(form, edge_index[:, 1:], weight[1:].float(), N)
    layer.to(torch.float32)(x.float(), other, other_weight)  # built anew, not rounded


def test_cached_features_notice_a_change_in_place():
    edge_index, weight = graph()
    x = torch.randn(N, F, dtype=torch.float64)
    layer = nn.SGConv(F, C, 3, cached=True).double()
    layer(x, edge_index, weight)
    kept = layer._propagated
    layer(x, edge_index, weight)
    assert layer._propagated is kept
    x[0] += 1
    torch.testing.assert_close(
        layer(x, edge_index, weight), fresh_copy(layer)(x, edge_index, weight)
    )
    layer.K = 1
    torch.testing.assert_close(
        layer(x, edge_index, weight), fresh_copy(layer)(x, edge_index, weight)
    )


def fresh_copy(layer):
    fresh = pyg.SGConv(F, C, layer.K).double()
    fresh.load_state_dict(layer.state_dict())
    return fresh


def test_ready_operator():
    edge_index, weight = graph()
    x = torch.randn(N, F, dtype=torch.float64)
    operator = SparseOperator.gcn_norm(edge_index, weight, num_nodes=N)
    layer = nn.APPNP(3, 0.1)
    torch.testing.assert_close(layer(x, operator), layer(x, edge_index, weight))
    with pytest.raises(ValueError, match="None beside a SparseOperator"):
        layer(x, operator, weight)
    with pytest.raises(TypeError, match="Expected a DiffusionOperator"):
        nn.DiffConv(2)(x, operator)
    layer.explain = True
    with pytest.raises(ValueError, match="need an 'edge_index'"):
        layer(x, operator)


def test_lazy_input_and_hooks_of_the_linear_layer():
    edge_index, weight = graph(dtype=torch.float32)
    x = torch.randn(N, F)
    layer = nn.SGConv(-1, C, 2)
    out = layer(x, edge_index, weight)
    seen = []
    layer.lin.register_forward_hook(lambda *call: seen.append(call))
    torch.testing.assert_close(layer(x, edge_index, weight), out)
    assert len(seen) == 1


@pytest.mark.parametrize("name", ["APPNP", "SGConv", "SSGConv"])
def test_mask_of_an_explainer(name):
    edge_index, weight = graph()
    x = torch.randn(N, F, dtype=torch.float64)
    layers = pair(name)
    for layer in layers:
        layer.explain = True
        layer._edge_mask = torch.linspace(0, 1, edge_index.size(1), dtype=torch.float64)
        layer._loop_mask, layer._apply_sigmoid = edge_index[0] != edge_index[1], False
    ours, theirs = (layer(x, edge_index, weight) for layer in layers)
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("name", ["APPNP", "SSGConv"])
def test_learned_alpha(name):
    edge_index, weight = graph()
    x = torch.randn(N, F, dtype=torch.float64)
    ours, theirs = pair(name)
    for layer in (ours, theirs):
        layer.alpha = torch.nn.Parameter(torch.tensor(0.3, dtype=torch.float64))
    for a, b in zip(
        with_gradients(ours, x, edge_index, weight),
        with_gradients(theirs, x, edge_index, weight),
        strict=True,
    ):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("name", OURS)
def test_copies(name):
    edge_index, weight = graph(dtype=torch.float32)
    x, layer = torch.randn(N, F), OURS[name]()
    layer.cached = True
    expected = layer(x, edge_index, weight)
    assert torch.equal(copy.deepcopy(layer)(x, edge_index, weight), expected)
    file = io.BytesIO()
    torch.save(layer, file)
    file.seek(0)
    assert torch.equal(torch.load(file, weights_only=False)(x, edge_index, weight), expected)


@pytest.mark.skipif(torch.__version__ < "2.9", reason="compiled and exported by torch 2.9 or newer")
@pytest.mark.parametrize("name", ["APPNP", "SGConv", "SSGConv", "DiffConv"])
def test_first_call_of_a_cached_layer_compiled(name):
    edge_index, weight = graph(dtype=torch.float32)
    layer, x = OURS[name](), torch.randn(N, F)
    expected = layer(x, edge_index, weight)
    layer.cached = True
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    for _ in range(2):
        torch.testing.assert_close(compiled(x, edge_index, weight), expected)


@pytest.mark.skipif(torch.__version__ < "2.9", reason="compiled and exported by torch 2.9 or newer")
@pytest.mark.parametrize("name", ["APPNP", "SGConv", "SSGConv", "GPRConv"])
def test_compile(name):
    if name == "GPRConv" and kernels()["cpu"] is not None:
        pytest.skip("learned coefficients are compiled with the C++ kernel alone")
    edge_index, weight = graph(dtype=torch.float32)
    layer = OURS[name]()
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    for a, b in zip(
        with_gradients(layer, torch.ones(N, F), edge_index, weight),
        with_gradients_of(compiled, layer, torch.ones(N, F), edge_index, weight),
        strict=True,
    ):
        torch.testing.assert_close(a, b)


def with_gradients_of(function, layer, x, *graph):
    x = x.clone().requires_grad_()
    out = function(x, *graph)
    factor = torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view_as(out)
    return [out.detach(), *torch.autograd.grad((out * factor).sum(), [x, *layer.parameters()])]


@pytest.mark.parametrize("init", ["ppr", "random", [0.5, 0.25, 0.25]])
def test_first_weights_are_made_on_the_cpu(init):
    torch.manual_seed(0)
    expected = nn.GPRConv(2, init=init).gamma
    torch.manual_seed(0)
    with torch.device("meta"):
        layer = nn.GPRConv(2, init=init)
    layer.to_empty(device="cpu").reset_parameters()
    torch.manual_seed(0)
    layer.reset_parameters()
    assert torch.equal(layer.gamma, expected)
