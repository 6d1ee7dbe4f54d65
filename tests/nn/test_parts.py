"""Parts of layers and models that somebody hooks, patches or replaces: they are called as PyG calls
them, in the order that the documentation gives.
"""

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.utils.prune
import torch_geometric.nn as pyg
from dense import random_graph
from torch import Tensor
from torch.nn.utils import parametrizations, spectral_norm

from torch_geometric_diff import DiffusionOperator, nn

N, F, C = 13, 6, 3
EDGES, WEIGHT = random_graph(N, 30)
X = torch.randn(N, F, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


class LowRank(torch.nn.Module):
    """A linear map and something that is none, as adapters are."""

    def __init__(self, lin: torch.nn.Module) -> None:
        super().__init__()
        self.lin = lin
        self.down = torch.nn.Linear(F, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.lin(x) + self.down(x).relu().sum(1, keepdim=True)


class Rectified(torch.nn.Linear):
    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input.relu())


def rectified(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    return lambda *args, **settings: function(*args, **settings).relu()


def patched(module: torch.nn.Module) -> torch.nn.Module:
    forward = module.forward
    module.forward = lambda x, *rest: forward(x.relu(), *rest)  # type: ignore[method-assign]
    return module


def hooked(module: torch.nn.Module) -> torch.nn.Module:
    module.register_forward_hook(lambda module, args, out: out.relu())
    return module


def pre_hooked(module: torch.nn.Module) -> torch.nn.Module:
    module.register_forward_pre_hook(lambda module, args: (args[0].relu(), *args[1:]))
    return module


CHANGES: dict[str, Callable[[torch.nn.Module], torch.nn.Module]] = {
    "Sequential": lambda lin: torch.nn.Sequential(torch.nn.ReLU(), lin),
    "subclass": lambda lin: Rectified(F, C),
    "adapter": LowRank,
    "parametrization": lambda lin: parametrizations.weight_norm(lin),
    "spectral_norm": lambda lin: spectral_norm(lin),
    "prune": lambda lin: torch.nn.utils.prune.random_unstructured(lin, "weight", 0.5),
    "patch": patched,
    "hook": hooked,
    "pre-hook": pre_hooked,
    "other Linear": lambda lin: pyg.Linear(F, C),
}


def paper(model: nn.DiffResNet) -> Tensor:
    return model.classifier(model.conv(model.block(X), EDGES, WEIGHT))


@pytest.mark.parametrize("change", CHANGES)
def test_a_head_that_is_changed(change: str) -> None:
    model: Any = nn.DiffResNet(F, C, 4, 0.25)
    model.classifier = CHANGES[change](model.classifier)
    model.double().eval()
    torch.testing.assert_close(model(X, EDGES, WEIGHT), paper(model))


@pytest.mark.parametrize("change", [patched, hooked, pre_hooked])
def test_a_diffusion_that_is_changed(change: Callable) -> None:
    model = nn.DiffResNet(F, C, 4, 0.25).double().eval()
    change(model.conv)
    torch.testing.assert_close(model(X, EDGES, WEIGHT), paper(model))
    with pytest.raises(ValueError, match="'conv' is replaced, observed or learns"):
        other = nn.DiffResNet(F, C, 4, 0.25).double().eval()
        model.conv.register_message_forward_hook(lambda *call: None)
        nn.DiffResNet.side_by_side([other, model], X, EDGES, WEIGHT)


def test_messages_that_are_changed() -> None:
    for change in ("hook", "patch"):
        model = nn.DiffResNet(F, C, 4, 0.25).double().eval()
        if change == "hook":
            model.conv.register_message_forward_hook(lambda module, args, out: out.relu())
        else:
            model.conv.message = rectified(model.conv.message)
        torch.testing.assert_close(model(X, EDGES, WEIGHT), paper(model))
        plain = nn.DiffResNet(F, C, 4, 0.25).double().eval()
        plain.load_state_dict(model.state_dict())
        assert (plain(X, EDGES, WEIGHT) - model(X, EDGES, WEIGHT)).abs().max() > 1e-3


def test_the_bias_stays_out_of_an_operator_that_moves_constants() -> None:
    model = nn.DiffResNet(F, C, 4, 0.25).double().eval()
    operator = DiffusionOperator(EDGES, WEIGHT, num_nodes=N).t()
    expected = model.classifier(model.conv(model.block(X), operator))
    torch.testing.assert_close(model(X, operator), expected)


def test_global_hooks_and_patched_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    model = nn.DiffResNet(F, C, 4, 0.25).double().eval()

    def rectify(module: torch.nn.Module, args: object, out: Tensor) -> Tensor | None:
        return out.relu() if isinstance(module, torch.nn.Linear) else None

    handle = torch.nn.modules.module.register_module_forward_hook(rectify)
    torch.testing.assert_close(model(X, EDGES, WEIGHT), paper(model))
    handle.remove()
    forward = torch.nn.Linear.forward
    monkeypatch.setattr(torch.nn.Linear, "forward", lambda self, x: forward(self, x.relu()))
    torch.testing.assert_close(model(X, EDGES, WEIGHT), paper(model))


LAYERS = {"SGConv": {}, "SSGConv": {"alpha": 0.2}}


def pair(name: str, cached: bool) -> list[torch.nn.Module]:
    ours = getattr(nn, name)(F, C, K=3, cached=cached, **LAYERS[name])
    theirs = getattr(pyg, name)(F, C, K=3, cached=cached, **LAYERS[name])
    theirs.load_state_dict(ours.state_dict())
    return [ours.double(), theirs.double()]


@pytest.mark.parametrize("cached", [False, True])
@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("change", CHANGES)
def test_a_linear_map_that_is_changed(name: str, cached: bool, change: str) -> None:
    outs = []
    for layer in pair(name, cached):
        torch.manual_seed(0)
        layer.lin = CHANGES[change](layer.lin)
        outs.append(layer.double().eval()(X, EDGES, WEIGHT))
    torch.testing.assert_close(*outs)


@pytest.mark.parametrize("cached", [False, True])
@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("kind", ["full_backward_hook", "full_backward_pre_hook", "forward_hook"])
def test_hooks_of_a_linear_map_run(name: str, cached: bool, kind: str) -> None:
    counts = []
    for layer in pair(name, cached):
        seen: list[object] = []
        getattr(layer.lin, f"register_{kind}")(lambda *call, seen=seen: seen.append(call))
        x = X if cached else X.clone().requires_grad_()  # or the hook warns that nothing is asked
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Full backward hook is firing")
            layer(x, EDGES, WEIGHT).sum().backward()
        counts.append(len(seen))
    assert counts == [1, 1]


def test_a_block_leaves_what_its_parts_return() -> None:
    seen: list = []
    block: Any = nn.ResidualBlock(F)
    block.lin1.register_forward_hook(lambda module, args, out: seen.append((out, out.clone())))
    block(X.float())
    assert torch.equal(*seen[0])
    block.lin1, before = torch.nn.Identity(), X.clone()
    block(X)
    assert torch.equal(X, before)
    block = nn.ResidualBlock(F)
    block.lin1.register_full_backward_hook(lambda *call: None)
    block(X.float().requires_grad_()).sum().backward()


def double_first(layer: torch.nn.Module) -> None:
    layer.prop1.register_forward_hook(lambda module, args, out: 2 * out)


def patch_first(layer: torch.nn.Module) -> None:
    forward = layer.prop1.forward
    layer.prop1.forward = lambda *args, **settings: 2 * forward(*args, **settings)


def replace_second(layer: torch.nn.Module) -> None:
    layer.prop2 = pyg.LabelPropagation(2, 0.3)


def double_messages(layer: torch.nn.Module) -> None:
    layer.prop1.register_message_forward_hook(lambda module, args, out: 2 * out)


@pytest.mark.parametrize("autoscale", [True, False])
@pytest.mark.parametrize("change", [double_first, patch_first, replace_second, double_messages])
def test_parts_of_correct_and_smooth(change: Callable, autoscale: bool) -> None:
    outs = []
    for package in (nn, pyg):
        post = package.CorrectAndSmooth(3, 0.5, 3, 0.5, autoscale=autoscale)
        change(post)
        arguments = (torch.tensor([0, 2]), torch.tensor([3, 5]), EDGES, WEIGHT)
        outs.append(post(X[:, :C].softmax(1), *arguments))
    torch.testing.assert_close(*outs)


@pytest.mark.parametrize(
    "truth, text",
    [
        (torch.tensor([0.0, 1.0]), "'y_true' to hold classes.*torch.float32 of shape \\[2\\]"),
        (torch.tensor([[0.0], [1.0]]), "'y_true' to hold classes"),
        (torch.tensor([True, False]), "'y_true' to hold classes"),
        (torch.tensor([0, -1]), "'y_true' to lie in \\[0, 2\\] \\(got -1"),
        (torch.tensor([0, 3]), "'y_true' to lie in \\[0, 2\\]"),
        (torch.tensor([0, 1, 2]), "'y_true' to have 2 rows"),
    ],
)
def test_what_are_no_classes(truth: Tensor, text: str) -> None:
    post, mask = nn.CorrectAndSmooth(3, 0.5, 3, 0.5), torch.tensor([3, 5])
    with pytest.raises(ValueError, match=text):
        post(X[:, :C].softmax(1), truth, mask, EDGES, WEIGHT)


def test_classes_of_any_integer_type() -> None:
    post, mask = nn.CorrectAndSmooth(3, 0.5, 3, 0.5), torch.tensor([3, 5])
    soft, truth = X[:, :C].softmax(1), torch.tensor([2, 0])
    expected = post(soft, truth, mask, EDGES, WEIGHT)
    for other in (truth.int(), truth[:, None], torch.eye(C)[truth], torch.eye(C)[truth].long()):
        torch.testing.assert_close(post(soft, other, mask, EDGES, WEIGHT), expected)
