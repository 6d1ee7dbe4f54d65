import copy
import io

import pytest
import torch
from dense import as_form, dense_step, dense_weight, random_graph
from torch_geometric.explain import DummyExplainer, Explainer, GNNExplainer
from torch_geometric.nn import Sequential, summary, to_hetero
from torch_geometric.testing import assert_module

from torch_geometric_diff import DiffusionOperator
from torch_geometric_diff.nn import DiffConv

N = 23


class Encoder(torch.nn.Module):
    def __init__(self, conv):
        super().__init__()
        self.conv = conv

    def forward(self, x, edge_index):
        return self.conv(x, edge_index)


def graph(undirected=False, dtype=torch.float64):
    edge_index, weight = random_graph(N, 60, undirected=undirected)
    return edge_index, weight.to(dtype)


@pytest.mark.parametrize("normalization", ["sym", "row", None])
@pytest.mark.parametrize("dtype, tolerance", [(torch.float64, 1e-10), (torch.float32, 1e-5)])
def test_equals_dense_for_every_form(kernel, form, normalization, dtype, tolerance):
    edge_index, weight = graph()
    x = torch.randn(N, 37, dtype=torch.float64)
    weights = torch.randn(N, 37, dtype=torch.float64)
    conv = DiffConv(5, step_size=0.05, normalization=normalization)
    ours = x.to(dtype, copy=True).requires_grad_()
    out = conv(ours, *as_form(form, edge_index, weight.to(dtype), N))
    (out * weights.to(dtype)).sum().backward()

    step = dense_step(dense_weight(edge_index, weight, N), 0.05, normalization)
    step = torch.linalg.matrix_power(step, 5)
    torch.testing.assert_close(out.double(), step @ x, atol=tolerance, rtol=tolerance)
    torch.testing.assert_close(
        ours.grad.double(), step.t() @ weights, atol=tolerance, rtol=tolerance
    )


@pytest.mark.parametrize("normalization", ["sym", "row", None])
def test_messages_equal_the_kernel(form, normalization):
    edge_index, weight = graph()
    x = torch.randn(N, 4, dtype=torch.float64)
    conv = DiffConv(3, step_size=0.05, normalization=normalization)
    arguments = as_form(form, edge_index, weight, N)
    expected = conv(x, *arguments)
    calls = []
    conv.register_propagate_forward_hook(lambda *call: calls.append(call))
    torch.testing.assert_close(conv(x, *arguments), expected)
    assert len(calls) == 3
    batch = torch.randn(2, N, 4, dtype=torch.float64)
    if form == "edge_index":
        torch.testing.assert_close(conv(batch, *arguments)[1], conv(batch[1], *arguments))


def test_pyg_contract():
    edge_index, _ = graph()
    conv = DiffConv(2)
    assert conv.propagate.__module__.endswith("DiffConv_propagate")
    assert_module(conv, torch.randn(N, 4), edge_index, expected_size=(N, 4))
    assert repr(conv) == "DiffConv(num_steps=2, step_size=0.25)"
    assert repr(DiffConv(2, learn_step_size=True)) == "DiffConv(num_steps=2, step_size=0.25)"


def test_node_permutation_equivariance():
    edge_index, weight = graph()
    x = torch.randn(N, 4, dtype=torch.float64)
    conv = DiffConv(4, step_size=0.1)
    perm = torch.randperm(N)
    place = torch.argsort(perm)
    out = conv(x[perm], place[edge_index], weight)
    torch.testing.assert_close(out, conv(x, edge_index, weight)[perm])


def test_flow():
    edge_index, weight = graph()
    x = torch.randn(N, 4, dtype=torch.float64)
    out = DiffConv(3)(x, edge_index, weight)
    reverse = DiffConv(3, flow="target_to_source")
    torch.testing.assert_close(reverse(x, edge_index.flip(0), weight), out)
    reverse.register_message_forward_hook(lambda *call: None)
    torch.testing.assert_close(reverse(x, edge_index.flip(0), weight), out)
    with pytest.raises(ValueError, match="Expected 'flow' to be 'source_to_target'"):
        reverse(x, as_form("csr", edge_index, weight, N)[0])


def test_self_loops_count_once():
    edge_index = torch.tensor([[0, 1, 0, 0], [1, 0, 0, 0]])  # a loop of weight 2 in two parts
    x = torch.tensor([[1.0], [0.0]])
    out = DiffConv(1, step_size=0.5)(x, edge_index)
    w = (3 * 2) ** -0.5  # degrees 1 + 2 and 1 + 1
    torch.testing.assert_close(out, torch.tensor([[1 - 0.5 * w], [0.5 * w]]))
    out = DiffConv(1, step_size=0.5, add_self_loops=False)(x, edge_index)
    torch.testing.assert_close(out[1], torch.tensor([0.5 * 3**-0.5]))


def test_mask_of_an_explainer_removes_an_edge():
    edge_index, weight = graph()
    x = torch.randn(N, 4, dtype=torch.float64)
    conv = DiffConv(3, step_size=0.05, normalization=None)
    mask = torch.ones(edge_index.size(1), dtype=torch.float64)
    mask[7] = 0
    conv.explain = True
    conv._edge_mask, conv._loop_mask, conv._apply_sigmoid = mask, mask > 1, False
    masked = conv(x, edge_index, weight)
    conv.explain = False
    kept = mask.bool()
    torch.testing.assert_close(masked, conv(x, edge_index[:, kept], weight[kept]))


@pytest.mark.parametrize("algorithm", [DummyExplainer(), GNNExplainer(epochs=3)])
def test_explainers(algorithm):
    edge_index, _ = graph()

    explainer = Explainer(
        Encoder(DiffConv(2)),
        algorithm,
        explanation_type="model",
        node_mask_type="attributes",
        edge_mask_type="object",
        model_config={
            "mode": "multiclass_classification",
            "task_level": "node",
            "return_type": "raw",
        },
    )
    explanation = explainer(torch.randn(N, 4), edge_index)
    assert explanation.edge_mask.shape == (edge_index.size(1),)
    assert explanation.edge_mask.max() > 0


def test_sequential_summary_and_hetero():
    edge_index, weight = graph(dtype=torch.float32)
    x = torch.randn(N, 4)
    model = Sequential(
        "x, edge_index, edge_weight",
        [(DiffConv(2), "x, edge_index, edge_weight -> x"), (torch.nn.Linear(4, 3), "x -> x")],
    )
    assert model(x, edge_index, weight).shape == (N, 3)
    assert "DiffConv" in summary(model, x, edge_index, weight)
    hetero = to_hetero(
        Encoder(DiffConv(2, add_self_loops=False)),
        (["a", "b"], [("a", "to", "b"), ("b", "to", "a")]),
    )
    features = {"a": x, "b": x}
    edges = {("a", "to", "b"): edge_index, ("b", "to", "a"): edge_index}
    with pytest.raises(ValueError, match="does not support bipartite message passing"):
        hetero(features, edges)


def test_cache(form):
    edge_index, weight = graph()
    x = torch.randn(N, 4, dtype=torch.float64)
    adj, edge_weight = as_form(form, edge_index, weight, N)
    conv = DiffConv(3, cached=True)
    expected = DiffConv(3)(x, adj, edge_weight)
    for _ in range(2):
        assert torch.equal(conv(x, adj, edge_weight), expected)
    operator = conv._cached.operator
    assert conv.operator(x, adj, edge_weight) is operator
    other, other_weight = as_form(form, edge_index[:, 1:], weight[1:], N)
    with pytest.raises(ValueError, match="another graph than the one in its cache"):
        conv(x, other, other_weight)
    other, other_weight = as_form(form, edge_index, weight * 2, N)
    with pytest.raises(ValueError, match="another graph than the one in its cache"):
        conv(x, other, other_weight)
    with pytest.raises(ValueError, match=f"to have {N} rows"):
        conv(x[1:], adj, edge_weight)
    conv.reset_parameters()
    assert torch.equal(conv(x, other, other_weight), DiffConv(3)(x, other, other_weight))


def test_cache_notices_a_change_in_place():
    edge_index, weight = graph()
    x = torch.randn(N, 4, dtype=torch.float64)
    conv = DiffConv(3, cached=True)
    conv(x, edge_index, weight)
    weight[0] += 1
    with pytest.raises(ValueError, match="another graph"):
        conv(x, edge_index, weight)
    with pytest.raises(ValueError, match="does not go with learned 'edge_weight'"):
        DiffConv(3, cached=True)(x, edge_index, weight.requires_grad_())


@pytest.mark.parametrize("cached", [False, True])
def test_learned_step_size(cached):
    edge_index, weight = graph()
    x = torch.randn(N, 4, dtype=torch.float64)
    conv = DiffConv(3, step_size=0.1, learn_step_size=True, cached=cached).double()
    torch.testing.assert_close(conv(x, edge_index, weight), DiffConv(3, 0.1)(x, edge_index, weight))
    conv(x, edge_index, weight).square().sum().backward()
    eps = 1e-6

    def loss(step):
        return DiffConv(3, step)(x, edge_index, weight).square().sum()

    expected = (loss(0.1 + eps) - loss(0.1 - eps)) / (2 * eps)
    torch.testing.assert_close(conv.step_size.grad, expected, rtol=1e-5, atol=0)
    with torch.no_grad():
        conv.step_size.fill_(0.2)
    torch.testing.assert_close(conv(x, edge_index, weight), DiffConv(3, 0.2)(x, edge_index, weight))
    conv.reset_parameters()
    torch.testing.assert_close(conv.step_size.item(), 0.1)


def test_prebuilt_operator():
    edge_index, weight = graph()
    x = torch.randn(N, 4, dtype=torch.float64)
    operator = DiffusionOperator(edge_index, weight, num_nodes=N)
    conv = DiffConv(3)
    torch.testing.assert_close(conv(x, operator), conv(x, edge_index, weight))
    with pytest.raises(ValueError, match="None beside a DiffusionOperator"):
        conv(x, operator, weight)
    conv.register_message_forward_hook(lambda *call: None)
    with pytest.raises(ValueError, match="need an 'edge_index'"):
        conv(x, operator)


def test_dropout_is_on_features_and_off_in_evaluation():
    edge_index, weight = graph()
    x = torch.ones(N, 2000, dtype=torch.float64)
    conv = DiffConv(1, dropout=0.5)
    out = conv(x, edge_index, weight)
    assert (out[-1] == 0).double().mean().sub(0.5).abs() < 0.06  # an isolated node: its own mask
    assert out[-1].unique().tolist() == [0.0, 2.0]
    assert abs(float(out.mean()) - 1) < 0.02
    conv.eval()
    torch.testing.assert_close(conv(x, edge_index, weight), x)


@pytest.mark.parametrize("shape", [(N, 4), (3, N, 4)])
def test_masks_from_a_generator_of_its_own(shape):
    edge_index, weight = graph()
    x = torch.ones(shape, dtype=torch.float64)
    outs = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        conv = DiffConv(2, dropout=0.5, generator=torch.Generator().manual_seed(7))
        before = torch.get_rng_state()
        outs.append([conv(x, edge_index, weight) for _ in range(2)])
        assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(outs[0][0], outs[1][0]) and torch.equal(outs[0][1], outs[1][1])
    assert not torch.equal(outs[0][0], outs[0][1])
    torch.manual_seed(7)  # torch's own generator in the same state draws the same
    assert torch.equal(DiffConv(2, dropout=0.5)(x, edge_index, weight), outs[0][0])
    state = conv.generator.get_state()
    conv.eval()(x, edge_index, weight)
    assert torch.equal(conv.generator.get_state(), state)


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_compile(dropout):
    edge_index, weight = graph(dtype=torch.float32)
    conv = DiffConv(3, dropout=dropout)
    compiled = torch.compile(conv, fullgraph=True, backend="aot_eager")
    leaves = [torch.randn(N, 4).requires_grad_() for _ in range(2)]
    leaves[1].data.copy_(leaves[0])
    outs = []
    for function, x in zip((conv, compiled), leaves, strict=True):
        torch.manual_seed(0)
        outs.append(function(x, edge_index, weight))
        outs[-1].square().sum().backward()
    if dropout == 0:
        torch.testing.assert_close(*outs)
        torch.testing.assert_close(leaves[0].grad, leaves[1].grad)
    assert outs[1].shape == (N, 4) and leaves[1].grad.abs().sum() > 0


def test_copies_and_devices():
    edge_index, weight = graph()
    x = torch.randn(N, 4, dtype=torch.float64)
    conv = DiffConv(3, cached=True, learn_step_size=True)
    expected = conv(x, edge_index, weight)
    assert torch.equal(copy.deepcopy(conv)(x, edge_index, weight), expected)
    file = io.BytesIO()
    torch.save(conv, file)
    file.seek(0)
    loaded = torch.load(file, weights_only=False)
    assert torch.equal(loaded(x, edge_index, weight), expected)
    if torch.cuda.is_available():
        moved = conv.to("cuda")
        moved.reset_parameters()
        out = moved(x.cuda(), edge_index.cuda(), weight.cuda())
        torch.testing.assert_close(out.cpu(), expected)


@pytest.mark.parametrize(
    "keywords, error, text",
    [
        ({"num_steps": -1}, ValueError, r"'num_steps' .* \(got -1\)"),
        ({"num_steps": 2.0}, TypeError, r"'num_steps' .* \(got 2.0\)"),
        ({"step_size": 0}, ValueError, r"'step_size' .* \(got 0\)"),
        ({"dropout": 1}, ValueError, r"'dropout' .* \(got 1\)"),
        ({"normalization": "both"}, ValueError, r"'normalization' .* \(got 'both'\)"),
        ({"aggr": "max"}, ValueError, r"'aggr' .* \(got 'max'\)"),
    ],
)
def test_bad_arguments(keywords, error, text):
    with pytest.raises(error, match=text):
        DiffConv(**{"num_steps": 2, **keywords})


def test_bad_input():
    edge_index, weight = graph()
    x = torch.randn(N, 4)
    with pytest.raises(ValueError, match="bipartite"):
        DiffConv(2)((x, x), edge_index)
    with pytest.raises(ValueError, match="beside a sparse 'edge_index'"):
        DiffConv(2)(x, as_form("coo", edge_index, weight, N)[0], weight)
    with pytest.raises(ValueError, match=r"\(got 22\)|lie in \[0, 9\]"):
        DiffConv(2)(x[:10], edge_index)


def test_learned_step_size_acts_on_a_ready_operator() -> None:
    edge_index, x = torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]]), torch.randn(3, 4)
    conv = DiffConv(3, step_size=0.1, learn_step_size=True)
    out = conv(x, DiffusionOperator(edge_index, num_nodes=3, step_size=0.2))
    assert torch.allclose(out, conv(x, edge_index), atol=1e-6)
    out.square().sum().backward()
    assert conv.step_size.grad.abs() > 0


@pytest.mark.parametrize("how", ["plain", "cached", "given", "messages", "compiled", "weights"])
@pytest.mark.parametrize("normalization", ["sym", "row", None])
@pytest.mark.parametrize("first", [1e-10, 1e-6, 1e-3])
def test_small_learned_step_that_grows(first: float, normalization: str | None, how: str) -> None:
    """A step of I - h L in float32 holds few digits of L, or none, if h is small."""
    edge_index, weight = graph()
    scale = 1e-4 if normalization is None else 1.0  # of weights, and one by that of steps
    weight, settings = scale * weight, {"normalization": normalization}
    x = torch.randn(N, 3, dtype=torch.float64)
    conv = DiffConv(8, first, learn_step_size=True, cached=how == "cached", **settings)
    with torch.no_grad():
        conv.step_size.fill_(0.1 / scale)
    own = weight.float().requires_grad_(how == "weights")
    if how == "given":
        given = DiffusionOperator(edge_index, own, num_nodes=N, step_size=first, **settings)
        out = conv(x.float(), given)
    elif how == "messages":
        conv.register_message_forward_hook(lambda *_: None)
        out = conv(x.float(), edge_index, own)
    elif how == "compiled":
        out = torch.compile(conv, backend="eager", fullgraph=True)(x.float(), edge_index, own)
        torch._dynamo.reset()
    else:
        for _ in range(2):
            out = conv(x.float(), edge_index, own)
    step = conv.step_size.detach().double().requires_grad_()
    exact = weight.requires_grad_(how == "weights")
    matrix = dense_step(dense_weight(edge_index, exact, N), step, normalization)
    expected = torch.linalg.matrix_power(matrix, 8) @ x.float().double()
    torch.testing.assert_close(out.double(), expected, rtol=2e-6, atol=2e-6)
    learned = (
        ([conv.step_size, own], [step, exact]) if how == "weights" else ([conv.step_size], [step])
    )
    for found, right in zip(
        torch.autograd.grad(out.square().sum(), learned[0]),
        torch.autograd.grad(expected.square().sum(), learned[1]),
        strict=True,
    ):
        size = float(right.abs().max())
        torch.testing.assert_close(found.double(), right, rtol=0, atol=2e-5 * size)
