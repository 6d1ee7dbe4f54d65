import copy
import gc
import importlib.util
import io
import pickle

import pytest
import torch
import torch.nn.functional as F
import torch_geometric.nn as pyg
from dense import as_form, random_graph
from torch.nn import Dropout, Linear, Module, ModuleDict, ModuleList, Parameter, ReLU, Sequential
from torch_geometric.nn import MessagePassing
from torch_geometric.nn.conv.gcn_conv import gcn_norm

import torch_geometric_diff
from torch_geometric_diff import accelerate
from torch_geometric_diff.acceleration import _graphs

N, C = 61, 3
CHANNELS = 6
# matrices that are not square are products in C++ alone
COMPILED = torch_geometric_diff.kernels()["cpu"] is None


class Own(MessagePassing):
    """A propagation as in published code."""

    def __init__(self, **kwargs):
        super().__init__(aggr="add", **kwargs)
        self.temp = Parameter(torch.tensor([0.5, 0.3, 0.2]))

    def forward(self, x, edge_index, edge_weight=None):
        edge_index, norm = gcn_norm(edge_index, edge_weight, x.size(0), dtype=x.dtype)
        hidden = x * self.temp[0]
        for k in range(2):
            x = self.propagate(edge_index, x=x, norm=norm)
            hidden = hidden + self.temp[k + 1] * x
        return hidden

    def message(self, x_j, norm):
        return norm.view(-1, 1) * x_j


class Halves(Own):
    def message(self, x_j, norm):
        return torch.mul(0.5 * x_j, norm.unsqueeze(-1)) * 2

    def update(self, aggr_out):
        return aggr_out


LAYERS = {
    "GCNConv": lambda: pyg.GCNConv(CHANNELS, C),
    "GCNConv, improved": lambda: pyg.GCNConv(CHANNELS, C, improved=True),
    "GCNConv, backwards": lambda: pyg.GCNConv(CHANNELS, C, flow="target_to_source"),
    "GCNConv, plain": lambda: pyg.GCNConv(CHANNELS, C, normalize=False),
    "GCNConv, lazy": lambda: pyg.GCNConv(-1, C),
    "GraphConv": lambda: pyg.GraphConv(CHANNELS, C),
    "GraphConv, mean": lambda: pyg.GraphConv(CHANNELS, C, aggr="mean"),
    "LGConv": lambda: pyg.LGConv(),
    "SimpleConv": lambda: pyg.SimpleConv(combine_root="self_loop"),
    "SimpleConv, mean": lambda: pyg.SimpleConv("mean", combine_root="cat"),
    "TAGConv": lambda: pyg.TAGConv(CHANNELS, C),
    "ChebConv": lambda: pyg.ChebConv(CHANNELS, C, 4),
    "ARMAConv": lambda: pyg.ARMAConv(CHANNELS, C, 2, 2),
    "MixHopConv": lambda: pyg.MixHopConv(CHANNELS, C),
    "APPNP": lambda: pyg.APPNP(4, 0.2, add_self_loops=False),
    "APPNP, not normalized": lambda: pyg.APPNP(2, 0.2, normalize=False),
    "SGConv": lambda: pyg.SGConv(CHANNELS, C, 3),
    "SGConv, wider": lambda: pyg.SGConv(CHANNELS, 9, 2, bias=False),
    "SGConv, lazy": lambda: pyg.SGConv(-1, C, 2),
    "SSGConv": lambda: pyg.SSGConv(CHANNELS, C, 0.1, 3),
    "own": Own,
    "own, in halves": Halves,
}
NO_WEIGHTS = {
    "SAGEConv": lambda: pyg.SAGEConv(CHANNELS, C),
    "SAGEConv, sum": lambda: pyg.SAGEConv(CHANNELS, C, aggr="sum", project=True),
    "GINConv": lambda: pyg.GINConv(Linear(CHANNELS, C), train_eps=True),
    "ClusterGCNConv": lambda: pyg.ClusterGCNConv(CHANNELS, C, diag_lambda=0.3),
    "SignedConv": lambda: pyg.SimpleConv("mean"),
}


@pytest.fixture(autouse=True)
def at_once(monkeypatch):
    """Small graphs too are worth a matrix, and at their first sight."""
    monkeypatch.setattr(_graphs, "TINY", 0)
    monkeypatch.setattr(_graphs, "PAYS", 1)


@pytest.fixture
def products(monkeypatch):
    """The number of products so far."""
    calls = []
    graphs = _graphs.Graph
    plain = graphs.matrix
    monkeypatch.setattr(graphs, "matrix", lambda *each: calls.append(1) or plain(*each))
    return calls


def graph(dtype=torch.float32, seed=0):
    edge_index, weight = random_graph(N, 300, seed)
    return edge_index, weight.to(dtype)


def results(layer, x, edge_index, *weights):
    """The outputs and the gradients of everything that has one."""
    x = x.detach().requires_grad_()
    out = layer(x, edge_index, *weights)
    learned = [x, *layer.parameters(), *(w for w in weights if w is not None and w.requires_grad)]
    scale = torch.linspace(-1, 2, out.numel(), dtype=out.dtype).view_as(out)
    return [out, *torch.autograd.grad((out * scale).sum(), learned)]


def assert_same(found, expected):
    for one, other in zip(found, expected, strict=True):
        assert one.dtype == other.dtype
        tolerance = 1e-5 if one.dtype == torch.float32 else 1e-12
        size = float(other.detach().abs().max()) if other.numel() else 0
        torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance * size)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("weights", ["none", "constant", "learned"])
@pytest.mark.parametrize("name", [*LAYERS, *NO_WEIGHTS])
def test_values_and_gradients(name, weights, dtype, products):
    if name in NO_WEIGHTS and weights != "none":
        pytest.skip("takes no weights")
    torch.manual_seed(0)
    edge_index, weight = graph(dtype)
    given = [] if weights == "none" else [weight.requires_grad_(weights == "learned")]
    x = torch.rand(N, CHANNELS, dtype=dtype)
    layer = {**LAYERS, **NO_WEIGHTS}[name]().to(dtype)
    layer(x, edge_index)  # a lazy one draws its weights
    expected = results(layer, x, edge_index, *given)
    assert accelerate(layer).model is layer
    for _ in range(2):
        assert_same(results(layer, x, edge_index, *given), expected)
    assert products


def test_gcn2(products):
    edge_index, _ = graph()
    layer = pyg.GCN2Conv(CHANNELS, 0.1, 0.5, 1)
    x, first = torch.rand(2, N, CHANNELS).requires_grad_()
    expected = layer(x, first, edge_index)
    accelerate(layer)
    assert_same([layer(x, first, edge_index)], [expected])
    assert products


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_types(dtype):
    edge_index, _ = graph()
    x = torch.rand(N, CHANNELS).to(dtype)
    layer = pyg.SimpleConv()
    expected = layer(x.double(), edge_index)
    accelerate(layer)
    found = layer(x, edge_index)
    assert found.dtype == dtype
    torch.testing.assert_close(found.double(), expected, rtol=1e-2, atol=1e-2)


def test_types_are_promoted_as_in_pyg():
    edge_index, weight = graph()
    for x_type in (torch.float32, torch.float64, torch.bfloat16):
        for other in (torch.float32, torch.float64, torch.long, torch.bfloat16):
            layer, x = pyg.SimpleConv(), torch.rand(N, 2).to(x_type)
            given = (weight * 3).to(other)
            expected = layer(x, edge_index, given)
            accelerate(layer)
            assert layer(x, edge_index, given).dtype == expected.dtype


@pytest.mark.parametrize("aggr", ["mean", "sum"])
def test_both_ends(aggr, products):
    torch.manual_seed(0)
    edge_index = torch.stack([torch.randint(20, (90,)), torch.randint(9, (90,))])
    edge_index = torch.cat([edge_index, edge_index[:, :5]], 1)  # some edges twice
    x = torch.rand(20, CHANNELS), torch.rand(9, CHANNELS)
    for sizes in ((20, 9), (9, 20)):
        edges = edge_index if sizes == (20, 9) else edge_index.flip(0)
        ends = x if sizes == (20, 9) else x[::-1]
        for given, size in ((ends, None), ((ends[0], None), sizes)):
            layer = pyg.GraphConv(CHANNELS, C, aggr=aggr)
            weight = torch.rand(edges.size(1), requires_grad=True)
            first = given[0].clone().requires_grad_()
            arguments = (first, given[1]), edges, weight, size

            def run(layer, arguments=arguments, first=first, weight=weight):
                out = layer(*arguments)
                return [out, *torch.autograd.grad(out.square().sum(), [first, weight])]

            expected = run(layer)
            accelerate(layer)
            assert_same(run(layer), expected)
    assert products or not COMPILED


def test_batches_and_empty_graphs():
    edge_index, weight = graph()
    for x in (torch.rand(4, N, 2), torch.rand(N, 0), torch.rand(1, N, 2)):
        layer = pyg.SimpleConv()
        expected = layer(x, edge_index, weight)
        accelerate(layer)
        assert_same([layer(x, edge_index, weight)], [expected])
    layer = pyg.SAGEConv(2, 2)
    none, x = torch.empty(2, 0, dtype=torch.long), torch.rand(5, 2)
    expected = layer(x, none)
    accelerate(layer)
    assert_same([layer(x, none)], [expected])


def test_not_a_number_stays_where_its_messages_go():
    edge_index = torch.tensor([[0, 1, 2, 2], [1, 2, 3, 3]])
    x = torch.tensor([[1.0], [float("nan")], [float("inf")], [2.0]])
    layer = pyg.SimpleConv()
    expected = layer(x, edge_index)
    accelerate(layer)
    torch.testing.assert_close(layer(x, edge_index), expected, equal_nan=True)


def test_indices_out_of_range_are_refused_as_in_pyg():
    layer, x = pyg.SimpleConv(), torch.rand(3, 2)
    accelerate(layer)
    for bad in (3, -1):
        with pytest.raises(IndexError, match="edge_index"):
            layer(x, torch.tensor([[0, bad], [1, 1]]))


class Predict(Module):
    """Layers of many kinds, one of them in two places and in a plain list."""

    def __init__(self):
        super().__init__()
        self.encoder = Sequential(Linear(CHANNELS, 8), ReLU(), Dropout(0.5), Linear(8, C))
        self.layers = ModuleDict({"prop": pyg.APPNP(10, 0.1), "gcn": pyg.GCNConv(C, C)})
        self.convs = ModuleList([pyg.SGConv(C, C, 2), pyg.SSGConv(C, C, 0.1, 2)])
        self.again = self.convs[0]
        self.listed = [*self.layers.values(), *self.convs]

    def forward(self, x, edge_index, edge_weight):
        x = self.encoder(x)
        for layer in (*self.listed, self.again):
            x = layer(x, edge_index, edge_weight)
        return x.log_softmax(-1)


def test_a_model(products):
    edge_index, weight = graph()
    x = torch.randn(N, CHANNELS)
    model = Predict().eval()
    model.layers["prop"].train()
    expected = model(x, edge_index, weight)
    before, state = list(model.parameters()), copy.deepcopy(model.state_dict())
    modules, generator = list(model.modules()), torch.get_rng_state()
    report = accelerate(model)
    assert torch.equal(generator, torch.get_rng_state())
    assert report.model is model and not report.left
    assert [x.name for x in report.replaced] == ["layers.prop", "layers.gcn", "convs.0", "convs.1"]
    assert all(a is b for a, b in zip(model.modules(), modules, strict=True))
    assert all(a is b for a, b in zip(model.parameters(), before, strict=True))
    assert isinstance(model.layers["gcn"], pyg.GCNConv)
    assert repr(model) == repr(Predict())
    assert list(model.state_dict()) == list(state)
    assert model.layers["prop"].training and not model.convs[1].training
    assert_same([model(x, edge_index, weight)], [expected])
    assert len(products) == 5
    other = Predict().eval()
    other.load_state_dict(model.state_dict())
    model.load_state_dict(other.state_dict())
    assert_same([other(x, edge_index, weight)], [expected])
    again = accelerate(model)
    assert not again.replaced and not again.left


@pytest.mark.parametrize("autoscale", [True, False])
def test_correct_and_smooth(autoscale, products):
    edge_index, _ = graph()
    model = ModuleList([pyg.CorrectAndSmooth(5, 0.9, 5, 0.8, autoscale, 1.2)])
    mask = torch.arange(N) % 3 == 0
    arguments = (torch.rand(N, C).softmax(-1), torch.randint(C, (21,)), mask, edge_index)
    expected = model[0](*arguments)
    report = accelerate(model)
    assert [x.name for x in report.replaced] == ["0.prop1", "0.prop2"]
    assert_same([model[0](*arguments)], [expected])
    assert len(products) == 6  # the first five are clamped otherwise, one by one


def test_steps_after_which_something_is_done():
    edge_index, _ = graph()
    y = torch.randint(C, (N,))
    layer = pyg.LabelPropagation(4, 0.9)
    expected = layer(y, edge_index, None, None, lambda y: y - 0.1)
    assert_same([accelerate(layer).model(y, edge_index, None, None, lambda y: y - 0.1)], [expected])


def test_edge_dropout_is_pyg_s_in_training(products):
    edge_index, _ = graph()
    x, layer = torch.rand(N, 2), pyg.APPNP(3, 0.1, dropout=0.5)
    torch.manual_seed(0)
    expected = layer(x, edge_index)
    evaluated = layer.eval()(x, edge_index)
    accelerate(layer)
    assert_same([layer(x, edge_index)], [evaluated])
    assert len(products) == 1
    torch.manual_seed(0)
    assert_same([layer.train()(x, edge_index)], [expected])


# Graphs that change. #############################################################################


@pytest.mark.parametrize("name", ["GCNConv", "APPNP", "SGConv", "ChebConv", "own", "LGConv"])
def test_a_graph_that_changes_is_noticed(name):
    torch.manual_seed(0)
    edge_index, weight = graph()
    x = torch.rand(N, CHANNELS)
    layer = LAYERS[name]()
    plain = copy.deepcopy(layer)
    accelerate(layer)
    for step in range(6):
        assert_same([layer(x, edge_index, weight)], [plain(x, edge_index, weight)])
        assert_same([layer(x, edge_index)], [plain(x, edge_index)])
        if step == 0:
            edge_index[1, 7] = (edge_index[1, 7] + 1) % N
        if step == 1:
            weight.mul_(1.5)
        if step == 2:
            edge_index, weight = graph(seed=1)
        if step == 3:
            weight = weight.clone().requires_grad_()
        if step == 4:
            with torch.no_grad():
                weight[3] += 1


def test_weights_of_an_optimizer_are_noticed():
    edge_index, weight = graph()
    weight = Parameter(weight)
    x, layer = torch.rand(N, 2), pyg.SimpleConv()
    plain = copy.deepcopy(layer)
    accelerate(layer)
    optimizer = torch.optim.SGD([weight], 0.1)
    for _ in range(3):
        optimizer.zero_grad()
        layer(x, edge_index, weight).square().sum().backward()
        optimizer.step()
        with torch.no_grad():
            assert_same([layer(x, edge_index, weight)], [plain(x, edge_index, weight)])


def test_what_is_made_ends_with_its_graph():
    layer = accelerate(pyg.GCNConv(2, 2)).model
    gc.collect()
    before = len(_graphs._STATES)
    for seed in range(5):
        edge_index, weight = graph(seed=seed)
        layer(torch.rand(N, 2), edge_index, weight).sum().backward()
        layer(torch.rand(N, 2), edge_index).sum().backward()
        del edge_index, weight
    gc.collect()
    assert len(_graphs._STATES) <= before


def test_a_result_changed_by_somebody_is_made_anew():
    class Scales(Own):
        def forward(self, x, edge_index, edge_weight=None):
            edge_index, norm = gcn_norm(edge_index, edge_weight, x.size(0))
            norm *= 2
            return self.propagate(edge_index, x=x, norm=norm)

    edge_index, _ = graph()
    x, layers = torch.rand(N, 2), ModuleList([Scales(), Own()])
    expected = [layer(x, edge_index) for layer in layers]
    accelerate(layers)
    for _ in range(2):
        assert_same([layer(x, edge_index) for layer in layers], expected)
    pure = _graphs.memoized(gcn_norm)
    first = pure(edge_index, None, N)
    assert pure(edge_index, None, N)[1] is first[1]
    first[1].zero_()
    assert_same(pure(edge_index, None, N), gcn_norm(edge_index, None, N))
    assert pure(edge_index, None, N)[0].size(1) != pure(edge_index, None, N, False, False)[0].size(
        1
    )


def test_inference_first_and_training_after():
    edge_index, _ = graph()
    x, layer = torch.rand(N, CHANNELS), pyg.GCNConv(CHANNELS, C)
    expected = results(layer, x, edge_index)
    accelerate(layer)
    with torch.inference_mode():
        layer(x, edge_index)
        layer(x.clone(), edge_index.clone())
    assert_same(results(layer, x, edge_index), expected)


# Hooks, copies, transforms. ######################################################################


def test_hooks_and_patches():
    edge_index, _ = graph()
    x, seen = torch.randn(N, CHANNELS), []
    model = ModuleList([pyg.SGConv(CHANNELS, C, 2)])
    layer = model[0]
    model.register_load_state_dict_pre_hook(lambda *_: seen.append("load"))
    layer.register_load_state_dict_pre_hook(lambda *_: seen.append("load"))
    whole = layer.register_forward_hook(lambda *_: seen.append("forward"))
    messages = layer.register_message_forward_hook(lambda *_: seen.append("message"))
    layer.note = "kept"
    accelerate(model)
    model.load_state_dict(model.state_dict())
    layer(x, edge_index).sum().backward()
    assert seen == ["load", "load", "message", "message", "forward"] and layer.note == "kept"
    whole.remove()
    messages.remove()
    expected = layer(x, edge_index)
    seen.clear()
    parts = [
        layer.lin.register_full_backward_hook(lambda *_: seen.append("backward")),
        layer.lin.register_full_backward_pre_hook(lambda *_: seen.append("before")),
        layer.lin.register_forward_pre_hook(lambda *_: seen.append("into")),
    ]
    assert_same([layer(x, edge_index)], [expected])
    layer(x.requires_grad_(), edge_index).sum().backward()
    assert sorted(seen) == ["backward", "before", "into", "into"]
    for part in parts:
        part.remove()
    layer.lin.forward = lambda x: F.linear(x, layer.lin.weight) * 3
    torch.testing.assert_close(layer(x, edge_index), 3 * (expected - layer.lin.bias))


@pytest.mark.parametrize(
    "kind", ["propagate_forward", "propagate_forward_pre", "aggregate_forward"]
)
def test_every_hook_on_messages(kind):
    edge_index, _ = graph()
    layer, seen = accelerate(pyg.GCNConv(CHANNELS, C)).model, []
    getattr(layer, f"register_{kind}_hook")(lambda *_: seen.append(kind))
    layer(torch.randn(N, CHANNELS), edge_index)
    assert seen == [kind]


def test_patches_of_a_layer_after_it_was_accelerated():
    edge_index, _ = graph()
    x, layer = torch.rand(N, 2), accelerate(pyg.SimpleConv()).model
    once = layer(x, edge_index)
    layer.message = lambda x_j, edge_weight: 2 * x_j
    assert_same([layer(x, edge_index)], [2 * once])
    del layer.message
    layer.aggr_module.register_forward_hook(lambda *call: 3 * call[-1])
    assert_same([layer(x, edge_index)], [3 * once])


@pytest.mark.parametrize("name", ["GCNConv", "APPNP", "SGConv", "own"])
def test_explanations(name):
    edge_index, _ = graph()
    x, layer = torch.rand(N, CHANNELS), LAYERS[name]()

    def explained(layer):
        mask = torch.linspace(-1, 1, edge_index.size(1)).requires_grad_()
        layer.explain, layer._apply_sigmoid = True, True
        layer._edge_mask, layer._loop_mask = mask, edge_index[0] != edge_index[1]
        out = layer(x, edge_index)
        (grad,) = torch.autograd.grad(out.sum(), mask)
        layer.explain, layer._edge_mask, layer._loop_mask = None, None, None
        return out, grad

    plain, expected = layer(x, edge_index), explained(layer)
    report = accelerate(layer)  # of a layer that was explained once
    assert len(report.replaced) == 1
    for _ in range(2):
        assert_same(explained(layer), expected)
        assert_same([layer(x, edge_index)], [plain])
    assert type(layer).propagate is not layer._plain_class.propagate


def test_products_go_on_after_an_explanation(products):
    edge_index, _ = graph()
    layer = accelerate(pyg.GCNConv(CHANNELS, C)).model
    layer.explain = True
    layer.explain = None
    layer(torch.rand(N, CHANNELS), edge_index)
    assert len(products) == 1
    copy.deepcopy(layer)(torch.rand(N, CHANNELS), edge_index)
    assert len(products) == 2


def test_copies_and_pickles(products):
    edge_index, weight = graph()
    x, model = torch.rand(N, CHANNELS), Predict().eval()
    expected = model(x, edge_index, weight)
    accelerate(model)
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    loaded = torch.load(file, weights_only=False)
    for other in (copy.deepcopy(model), loaded, pickle.loads(pickle.dumps(model))):
        products.clear()
        assert_same([other(x, edge_index, weight)], [expected])
        assert len(products) == 5
        assert other.layers["gcn"].lin.weight is not model.layers["gcn"].lin.weight
    shallow = copy.copy(model.layers["gcn"])
    shallow.flow = "target_to_source"  # of the copy alone
    assert not torch.equal(shallow(x[:, :C], edge_index), model.layers["gcn"](x[:, :C], edge_index))


def test_transforms_of_torch():
    edge_index, weight = graph(torch.float64)
    x, layer = torch.rand(N, 2, dtype=torch.float64), pyg.SimpleConv()
    vector = torch.rand(N, 2, dtype=torch.float64)

    def values(layer):
        def call(x, weight=weight):
            return layer(x, edge_index, weight).square().sum()

        yield torch.func.grad(call)(x)
        yield torch.func.jvp(call, (x,), (vector,))[1]
        yield torch.vmap(lambda x: layer(x, edge_index, weight))(torch.stack([x, vector]))
        yield torch.func.hessian(call)(x[:5].new_zeros(N, 1))
        one = x.clone().requires_grad_()
        (first,) = torch.autograd.grad(call(one), one, create_graph=True)
        yield torch.autograd.grad((first * vector).sum(), one)[0]
        with torch.autograd.forward_ad.dual_level():
            dual = torch.autograd.forward_ad.make_dual(x, vector)
            yield torch.autograd.forward_ad.unpack_dual(layer(dual, edge_index)).tangent

    expected = list(values(layer))
    accelerate(layer)
    assert_same(list(values(layer)), expected)
    assert torch.autograd.gradcheck(lambda x: layer(x, edge_index), x.requires_grad_())


@pytest.mark.parametrize("device_type", ["cpu"])
def test_autocast_has_the_types_of_pyg(device_type):
    edge_index, weight = graph()
    x = torch.rand(N, CHANNELS)
    for name, make in LAYERS.items():
        layer = make()
        layer(x, edge_index)
        plain = copy.deepcopy(layer)
        accelerate(layer)
        with torch.autocast(device_type, dtype=torch.bfloat16):
            found, expected = layer(x, edge_index, weight), plain(x, edge_index, weight)
        assert found.dtype == expected.dtype, name
        torch.testing.assert_close(found.float(), expected.float(), rtol=0.05, atol=0.05)


def test_traced_scripted_and_compiled():
    edge_index, _ = graph()
    x, layer = torch.rand(N, CHANNELS), pyg.GCNConv(CHANNELS, C)
    expected = layer(x, edge_index)
    accelerate(layer)
    scripted = torch.jit.script(layer)
    assert_same([scripted(x, edge_index)], [expected])
    compiled = torch.compile(layer, backend="eager")
    assert_same([compiled(x, edge_index)], [expected])
    torch._dynamo.reset()


def test_heterogeneous_graphs(products):
    class Net(Module):
        def __init__(self):
            super().__init__()
            self.conv = pyg.SAGEConv((-1, -1), C)
            self.conv2 = pyg.GraphConv((-1, -1), C)

        def forward(self, x, edge_index):
            return self.conv2(self.conv(x, edge_index).relu(), edge_index)

    torch.manual_seed(0)
    x = {"a": torch.rand(20, 4), "b": torch.rand(9, 5)}
    edges = {
        ("a", "to", "b"): torch.stack([torch.randint(20, (40,)), torch.randint(9, (40,))]),
        ("b", "to", "a"): torch.stack([torch.randint(9, (40,)), torch.randint(20, (40,))]),
    }
    metadata = list(x), list(edges)
    late = pyg.to_hetero(Net(), metadata)
    expected = late(x, edges)
    state = copy.deepcopy(late.state_dict())
    accelerate(late)
    early = pyg.to_hetero(accelerate(Net()).model, metadata)
    early(x, edges)
    early.load_state_dict(state)
    for model in (late, early):
        products.clear()
        for kind, out in model(x, edges).items():
            assert_same([out], [expected[kind]])
        assert len(products) == 4 or not COMPILED


@pytest.mark.filterwarnings("ignore:Using 'NeighborSampler' without")
def test_ready_models_and_mini_batches(products):
    from torch_geometric.data import Data
    from torch_geometric.loader import NeighborLoader

    edge_index, _weight = graph()
    data = Data(x=torch.rand(N, CHANNELS), edge_index=edge_index)
    for make in (pyg.GCN, pyg.GraphSAGE, pyg.GIN):
        torch.manual_seed(0)
        plain = make(CHANNELS, 8, 2, C).eval()
        model = copy.deepcopy(plain)
        assert len(accelerate(model).replaced) == 2
        assert_same(results(model, data.x, edge_index), results(plain, data.x, edge_index))
        if importlib.util.find_spec("torch_sparse") is not None:
            for batch in NeighborLoader(data, [3, 3], batch_size=7):
                found, expected = (m(batch.x, batch.edge_index) for m in (model, plain))
                assert_same([found], [expected])
    plain = pyg.LightGCN(N, 4, 3)
    model = copy.deepcopy(plain)
    assert len(accelerate(model).replaced) == 3
    assert_same([model.get_embedding(edge_index)], [plain.get_embedding(edge_index)])
    assert products


# The report, and what is left. ###################################################################


def test_forms_of_a_graph(form):
    edge_index, weight = graph()
    x = torch.rand(N, CHANNELS)
    for name in ("GCNConv", "GraphConv", "APPNP", "SGConv"):
        layer = LAYERS[name]()
        given = as_form("csr" if form in ("coo", "csc") else form, edge_index, weight, N)
        expected = layer(x, *given)
        accelerate(layer)
        assert_same([layer(x, *given)], [expected])


def test_parts_that_are_scripted_or_compiled():
    with pytest.raises(TypeError, match=r"'model' to be a torch.nn.Module \(got int\)"):
        accelerate(3)
    for part in (torch.jit.script(Linear(2, 2)), torch.compile(Linear(2, 2))):
        assert len(accelerate(ModuleList([pyg.APPNP(2, 0.1), part])).replaced) == 1
    with pytest.raises(ValueError, match="neither scripted nor compiled .*a scripted .* in '1'"):
        accelerate(ModuleList([Linear(2, 2), torch.jit.script(pyg.GCNConv(2, 2))]))
    with pytest.raises(ValueError, match="a compiled"):
        accelerate(torch.compile(pyg.APPNP(2, 0.1)))
    inside = ModuleList([pyg.APPNP(2, 0.1)])
    inside[0].compile()
    with pytest.raises(ValueError, match="a compiled APPNP in '0'"):
        accelerate(inside)


def test_the_report():
    report = accelerate(ModuleList([Linear(500, 4), pyg.APPNP(2, 0.1), pyg.TransformerConv(2, 2)]))
    lines = repr(report).splitlines()
    assert lines[0] == "1 layers replaced, 1 left"
    assert lines[1].split() == ["1", "APPNP(K=2,", "alpha=0.1)", "replaced"]
    assert "left: " in lines[2] and "from_dense" in lines[3]
    assert repr(accelerate(Linear(2, 2))) == "0 layers replaced, 0 left"
    assert torch_geometric_diff.accelerate is accelerate


# Sums of steps in one recurrence. ################################################################


class Steps(Own):
    """What layers may do with a state beside adding it up."""

    def __init__(self, use=0):
        super().__init__()
        self.use = use

    def forward(self, x, edge_index, edge_weight=None):
        first = x
        edge_index, norm = gcn_norm(edge_index, edge_weight, x.size(0), dtype=x.dtype)
        x = self.propagate(edge_index, x=x, norm=norm)
        y = self.propagate(edge_index, x=x, norm=norm)
        if self.use == 0:
            return x, [first + y, 2 * x]
        if self.use == 1:
            return torch.stack([first, x, y], dim=1).sum(1)
        if self.use == 2:
            return (x - y).relu() + x[0] + y.size(0) - 0.5 * y / 3
        if self.use == 3:
            return self.propagate(edge_index, x=0.5 * x + first, norm=norm) + y
        if self.use == 4:
            return x.mean(0) * y if bool((x > 0.1).any()) else y
        if self.use == 5:
            return self.propagate(edge_index, x=y, norm=2 * norm) * self.temp[:1] + self.temp.sum()
        if self.use == 6:
            return torch.where(x > y, x, y) @ y.t()
        if self.use == 7:
            return first * self.temp[0] + x * self.temp[1] + self.temp[1] * y + self.temp[2] * y
        return torch.nn.functional.dropout(x, 0.0) + y


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("use", range(9))
def test_states(use, dtype, monkeypatch):
    edge_index, weight = graph(dtype)
    layer = Steps(use).to(dtype)
    plain, x = copy.deepcopy(layer), torch.rand(N, 4, dtype=dtype)
    accelerate(layer)

    def flat(layer, x, edge_index, *weights):
        out = layer(x, edge_index, *weights)
        parts = [out[0], *out[1]] if isinstance(out, tuple) else [out]
        assert all(type(part) is torch.Tensor for part in parts)
        return torch.cat([part.reshape(-1) for part in parts]) + 0 * layer.temp.sum()

    plain.__dict__["call"], layer.__dict__["call"] = flat, flat
    for given in ([], [weight.requires_grad_()]):
        found, expected = [], []
        for out, each in ((found, layer), (expected, plain)):
            one = x.clone().requires_grad_()
            y = flat(each, one, edge_index, *given)
            scale = torch.linspace(-1, 2, y.numel(), dtype=dtype)
            out += [y, *torch.autograd.grad((y * scale).sum(), [one, each.temp, *given])]
        assert_same(found, expected)


def test_a_sum_of_steps_is_one_recurrence(monkeypatch):
    from torch_geometric_diff.acceleration import _states

    calls, plain = [], _states.propagate
    monkeypatch.setattr(_states, "propagate", lambda *each: calls.append(1) or plain(*each))
    edge_index, _ = graph()
    layer = accelerate(Own()).model
    layer(torch.rand(N, 3), edge_index)
    assert len(calls) == 1
