import copy
import io

import pytest
import torch
import torch_geometric.nn as pyg
from dense import as_form, random_graph
from torch.nn import Dropout, Linear, Module, ModuleDict, ModuleList, Parameter, ReLU, Sequential

import torch_geometric_diff
from torch_geometric_diff import accelerate, nn

N, F, C = 23, 6, 3
LAYERS = {
    "APPNP": lambda: pyg.APPNP(4, 0.2, add_self_loops=False),
    "APPNP, not normalized": lambda: pyg.APPNP(2, 0.2, normalize=False),
    "APPNP, cached": lambda: pyg.APPNP(4, 0.2, cached=True),
    "SGConv": lambda: pyg.SGConv(F, C, 3),
    "SGConv, cached": lambda: pyg.SGConv(F, 9, 2, cached=True, bias=False),
    "SGConv, lazy": lambda: pyg.SGConv(-1, C, 2),
    "SSGConv": lambda: pyg.SSGConv(F, C, 0.1, 3),
    "LabelPropagation": lambda: pyg.LabelPropagation(5, 0.9),
}


def graph(dtype=torch.float32):
    edge_index, weight = random_graph(N, 60)
    return edge_index, weight.to(dtype)


class Predict(Module):
    """The architecture of PPNP: an MLP whose predictions are propagated."""

    def __init__(self):
        super().__init__()
        self.encoder = Sequential(Linear(F, 8), ReLU(), Dropout(0.5), Linear(8, C))
        self.layers = ModuleDict({"prop": pyg.APPNP(10, 0.1), "gcn": pyg.GCNConv(C, C)})
        self.convs = ModuleList([pyg.SGConv(C, C, 2), pyg.SSGConv(C, C, 0.1, 2)])
        self.again = self.convs[0]

    def forward(self, x, edge_index, edge_weight):
        x = self.encoder(x)
        for layer in (*self.layers.values(), *self.convs, self.again):
            x = layer(x, edge_index, edge_weight)
        return x.log_softmax(-1)


def test_a_model():
    edge_index, weight = graph()
    x = torch.randn(N, F)
    model = Predict().eval()
    model.layers["prop"].train()
    expected = model(x, edge_index, weight)
    before, state = list(model.parameters()), copy.deepcopy(model.state_dict())
    generator = torch.get_rng_state()
    report = accelerate(model)
    assert torch.equal(generator, torch.get_rng_state())
    assert report.model is model
    assert [x.name for x in report.replaced] == ["layers.prop", "convs.0", "convs.1"]
    assert [(x.name, x.why) for x in report.left] == [("layers.gcn", "has no fast form here")]
    assert type(model.layers["prop"]) is nn.APPNP and model.again is model.convs[0]
    assert all(a is b for a, b in zip(model.parameters(), before, strict=True))
    assert list(model.state_dict()) == list(state)
    assert model.layers["prop"].training and not model.convs[1].training
    torch.testing.assert_close(model(x, edge_index, weight), expected, rtol=1e-5, atol=1e-6)
    again = accelerate(model)
    assert not again.replaced and len(again.left) == 1


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_alone(form, name):
    edge_index, weight = graph()
    x = torch.rand(N, F)
    layer = LAYERS[name]()
    given = as_form(form, edge_index, weight, N)
    known = as_form("csr" if form in ("coo", "csc") else form, edge_index, weight, N)
    key = {"edge_weight": known[1]} if known[1] is not None else {}
    expected = layer(x, known[0], **key)
    report = accelerate(layer)
    assert report.model is not layer and len(report.replaced) == 1
    assert repr(report.model) == repr(layer)
    for _ in range(2):
        torch.testing.assert_close(report.model(x, given[0], **key), expected, rtol=1e-5, atol=1e-6)
    assert getattr(report.model, "cached", False) == getattr(layer, "cached", False)


@pytest.mark.parametrize("autoscale", [True, False])
def test_correct_and_smooth(autoscale):
    edge_index, _ = graph()
    model = ModuleList([pyg.CorrectAndSmooth(5, 0.9, 5, 0.8, autoscale, 1.2)])
    mask = torch.arange(N) % 3 == 0
    arguments = (torch.rand(N, C).softmax(-1), torch.randint(C, (8,)), mask, edge_index)
    expected = model[0](*arguments)
    report = accelerate(model)
    assert [x.name for x in report.replaced] == ["0"]
    assert type(model[0].prop1) is nn.LabelPropagation
    torch.testing.assert_close(model[0](*arguments), expected, rtol=1e-5, atol=1e-6)


def test_hooks_attributes_and_training_go_on():
    edge_index, weight = graph()
    x = torch.randn(N, F)
    model = ModuleList([pyg.SGConv(F, C, 2)])
    seen = []
    whole = model[0].register_forward_hook(lambda *call: seen.append("forward"))
    messages = model[0].register_message_forward_hook(lambda *call: seen.append("message"))
    model[0].note = "kept"
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    accelerate(model)
    model[0](x, edge_index, weight).sum().backward()
    assert seen == ["message", "message", "forward"] and model[0].note == "kept"
    before = model[0].lin.weight.clone()
    optimizer.step()
    assert not torch.equal(before, model[0].lin.weight)
    whole.remove()
    messages.remove()
    model[0](x, edge_index, weight)
    assert len(seen) == 3
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    loaded = torch.load(file, weights_only=False)
    assert torch.equal(loaded[0](x, edge_index), copy.deepcopy(model)[0](x, edge_index))


def test_what_is_left():
    class Mine(pyg.APPNP):
        pass

    class Smooth(pyg.CorrectAndSmooth):
        pass

    patched = pyg.APPNP(2, 0.1)
    patched.message = lambda x_j: x_j
    learned = pyg.APPNP(2, 0.1)
    learned.alpha = Parameter(torch.ones(2))
    layers = {
        "subclass": Mine(2, 0.1),
        "parts": Smooth(2, 0.1, 2, 0.1),
        "patched": patched,
        "aggr": pyg.APPNP(2, 0.1, aggr="max"),
        "axis": pyg.SGConv(F, C, node_dim=0),
        "edges": pyg.APPNP(2, 0.1, dropout=0.5),
        "learned": learned,
        "gat": pyg.GATConv(F, C),
    }
    report = accelerate(ModuleDict(layers))
    assert [x.name for x in report.replaced] == ["parts.prop1", "parts.prop2"]
    why = {x.name: x.why for x in report.left}
    assert list(why) == list(layers)
    text = {
        "subclass": "subclass of APPNP",
        "parts": "subclass of CorrectAndSmooth",
        "patched": "'message' of its own",
        "aggr": "by 'max'",
        "axis": "'node_dim' 0",
        "edges": "drops edges",
        "learned": "'alpha'",
        "gat": "no fast form",
    }
    assert all(part in why[name] for name, part in text.items())
    lines = repr(report).splitlines()
    assert lines[0] == "2 layers replaced, 8 left" and len(lines) == 11
    assert lines[3].split() == [
        "subclass", "Mine(K=2,", "alpha=0.1)", "left:", "is", "a", "subclass", "of", "APPNP,",
        "which", "may", "compute", "something", "else",
    ]  # fmt: skip


def test_refusals():
    with pytest.raises(TypeError, match=r"'model' to be a torch.nn.Module \(got int\)"):
        accelerate(3)
    scripted = torch.jit.script(Linear(2, 2))
    with pytest.raises(ValueError, match="neither scripted nor compiled .*a scripted"):
        accelerate(scripted)
    with pytest.raises(ValueError, match="a scripted .* in '1'"):
        accelerate(ModuleList([pyg.APPNP(2, 0.1), scripted]))
    with pytest.raises(ValueError, match="a compiled"):
        accelerate(torch.compile(pyg.APPNP(2, 0.1)))
    inside = ModuleList([pyg.APPNP(2, 0.1)])
    inside[0].compile()
    with pytest.raises(ValueError, match="a compiled APPNP in '0'"):
        accelerate(inside)
    assert type(inside[0]) is pyg.APPNP


def test_public_name():
    assert torch_geometric_diff.accelerate is accelerate
    assert "0 layers replaced, 0 left" == repr(accelerate(Linear(2, 2)))
