"""Types, devices, tracing and recomputation: as PyG's layers, or a sentence."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
import torch_geometric.nn as pyg
from dense import random_graph
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from torch_geometric_diff import nn

N, F, C = 13, 6, 3
EDGES, WEIGHT = random_graph(N, 30)
WEIGHT = WEIGHT.float()
X = torch.rand(N, F, generator=torch.Generator().manual_seed(0))

LAYERS = {
    "APPNP": lambda p: p.APPNP(3, 0.1),
    "SGConv": lambda p: p.SGConv(F, C, 2),
    "SGConv, no bias": lambda p: p.SGConv(F, C, 2, bias=False),
    "SGConv, wider": lambda p: p.SGConv(F, 8, 2),
    "SSGConv": lambda p: p.SSGConv(F, C, 0.1, 2),
    "LabelPropagation": lambda p: p.LabelPropagation(3, 0.1),
}


def pair(name: str) -> list[torch.nn.Module]:
    ours, theirs = LAYERS[name](nn), LAYERS[name](pyg)
    theirs.load_state_dict(ours.state_dict())
    return [ours, theirs]


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("cached", [False, True])
def test_autocast(name: str, cached: bool) -> None:
    outs = []
    for layer in pair(name):
        setattr(layer, "cached", cached)  # noqa: B010
        with torch.autocast("cpu", dtype=torch.bfloat16):
            outs.append(layer(X, EDGES, edge_weight=WEIGHT))
    torch.testing.assert_close(*outs, atol=2e-2, rtol=2e-2)  # of one type


@pytest.mark.parametrize("name", ["APPNP", "LabelPropagation"])
@pytest.mark.parametrize(
    "kinds",
    [
        (torch.float32, torch.float64),
        (torch.float64, torch.float32),
        (torch.float16, torch.float32),
        (torch.bfloat16, torch.float32),
        (torch.bfloat16, torch.bfloat16),
    ],
)
def test_weights_of_another_type(name: str, kinds: tuple[torch.dtype, torch.dtype]) -> None:
    x, weight = X.to(kinds[0]), WEIGHT.to(kinds[1])
    outs = [layer(x, EDGES, edge_weight=weight) for layer in pair(name)]
    torch.testing.assert_close(*outs, atol=5e-2, rtol=5e-2)  # of one type
    assert nn.DiffConv(2)(x, EDGES, weight).dtype == torch.promote_types(*kinds)


def test_weights_of_another_type_in_correct_and_smooth() -> None:
    truth, mask = torch.tensor([0, 2]), torch.tensor([3, 5])
    outs = [
        package.CorrectAndSmooth(3, 0.5, 3, 0.5)(X.softmax(1), truth, mask, EDGES, WEIGHT.double())
        for package in (nn, pyg)
    ]
    assert outs[0].dtype == torch.float64
    torch.testing.assert_close(*outs)


def test_models_keep_their_type_beside_such_weights() -> None:
    for model in (nn.DiffResNet(F, C, 2, 0.25, dropout=0.5), nn.RandomPropagation(F, C)):
        for training in (True, False):
            assert model.train(training)(X, EDGES, WEIGHT.double()).dtype == torch.float32


@pytest.mark.parametrize(
    "layer",
    [nn.APPNP(2, 0.1), nn.SGConv(F, C), nn.DiffConv(2), nn.HeatConv(), nn.GPRConv(2)],
    ids=lambda layer: type(layer).__name__,
)
def test_tracing_is_refused(layer: torch.nn.Module) -> None:
    with pytest.raises(TypeError, match="cannot be traced.*'torch.compile' or 'torch.export'"):
        torch.jit.trace(layer, (X, EDGES))


def test_repr_on_the_device_meta() -> None:
    with torch.device("meta"):
        assert repr(nn.DiffConv(2, learn_step_size=True)) == "DiffConv(num_steps=2, step_size=?)"
        assert repr(nn.HeatConv(learn_t=True)) == "HeatConv(t=?, tol=1e-06)"
        repr(nn.DiffResNet(F, C, 2, 0.25, learn_step_size=True))


def region(model: torch.nn.ModuleDict, x: Tensor) -> Tensor:
    x = model["conv"](model["first"](x), EDGES)  # one layer twice, another once
    x = model["conv"](model["second"](x).relu(), EDGES)
    return model["third"](model["other"](x, EDGES))


def gradients(own: bool, how: str | None) -> list[Tensor]:
    torch.manual_seed(0)
    makers = [torch.Generator().manual_seed(i) if own else None for i in range(2)]
    conv, other = (nn.DiffConv(3, 0.2, 0.5, generator=generator) for generator in makers)
    linears = {name: torch.nn.Linear(F, F) for name in ("first", "second", "third")}
    model = torch.nn.ModuleDict({"conv": conv, "other": other, **linears})
    total = torch.zeros(())
    for scale in (1.0, 2.0):  # regions are recomputed in the other order
        x = (scale * X).requires_grad_()
        if how is None:
            out = region(model, x)
        elif how == "nested":
            inner = partial(checkpoint, region, use_reentrant=False)
            out = checkpoint(inner, model, x, use_reentrant=False)
        else:
            out = checkpoint(region, model, x, use_reentrant=how == "reentrant")
        total = total + out.square().sum()
    total.backward()
    return [p.grad for p in model.parameters()]


@pytest.mark.parametrize("how", ["plain", "nested"])
def test_recomputation_takes_the_same_masks(how: str) -> None:
    for own in (True, False):
        for a, b in zip(gradients(own, how), gradients(own, None), strict=True):
            assert torch.equal(a, b)


def test_recomputation_that_tells_nothing_is_refused() -> None:
    with pytest.raises(RuntimeError, match="'generator' would draw another mask"):
        gradients(True, "reentrant")
    for a, b in zip(gradients(False, "reentrant"), gradients(False, None), strict=True):
        assert torch.equal(a, b)


def first_run_and_again(function: Callable[[Callable, Tensor], Tensor]) -> tuple[Tensor, Tensor]:
    """A gradient as it is, and by a forward pass that is run again."""
    grads = []
    for run in (lambda f, x: f(x), partial(checkpoint, use_reentrant=False)):
        torch.manual_seed(0)
        x = X.clone().requires_grad_()
        grads.append(torch.autograd.grad(function(run, x).sum(), x)[0])
    return grads[0], grads[1]


@pytest.mark.parametrize("own", [True, False])
@pytest.mark.parametrize("randomness", ["same", "different"])
def test_recomputation_of_a_vmap(own: bool, randomness: str) -> None:
    over = partial(torch.func.vmap, randomness=randomness)

    def once(run: Callable, x: Tensor) -> Tensor:
        conv = nn.DiffConv(3, 0.2, 0.5, generator=torch.Generator() if own else None)
        return run(lambda z: over(lambda s: conv(z * s, EDGES).sin())(torch.arange(1.0, 4)), x)

    def nested(run: Callable, x: Tensor) -> Tensor:
        conv = nn.DiffConv(3, 0.2, 0.5, generator=torch.Generator() if own else None)

        def both(z: Tensor) -> Tensor:
            inner = over(lambda s, q: conv(z * s * q, EDGES).sin(), in_dims=(0, None))
            scales = torch.arange(1.0, 4)
            return over(inner, in_dims=(None, 0))(scales, scales) + conv(z, EDGES)

        return run(both, x)

    for function in (once, nested):
        assert torch.equal(*first_run_and_again(function))


@pytest.mark.parametrize("own", [True, False])
def test_recomputation_of_networks_side_by_side(own: bool) -> None:
    def function(run: Callable, x: Tensor) -> Tensor:
        makers = [torch.Generator().manual_seed(i) if own else None for i in range(2)]
        settings = {"diffuse": "features", "dropout": 0.5}
        torch.manual_seed(1)
        models = [nn.DiffResNet(F, C, 2, 0.2, **settings, generator=g) for g in makers]
        return run(lambda z: nn.DiffResNet.side_by_side(models, z, EDGES).sin(), x)

    assert torch.equal(*first_run_and_again(function))


GENERATOR = torch.Generator()
RANDOM: dict[str, Any] = {
    "DiffConv": nn.DiffConv(3, 0.2, 0.5, generator=GENERATOR),
    "DiffConv, observed": nn.DiffConv(3, 0.2, 0.5, generator=GENERATOR),
    "DiffConv, learned step": nn.DiffConv(3, 0.2, 0.5, learn_step_size=True, generator=GENERATOR),
    "DiffResNet": nn.DiffResNet(F, C, 2, 0.2, dropout=0.5, generator=GENERATOR),
}
RANDOM["DiffConv, observed"].register_message_forward_hook(lambda *_: None)


def alone(model: torch.nn.Module, xs: Tensor) -> list[Tensor]:
    """Elements of a batch one by one, each by the seed that comes next."""
    GENERATOR.manual_seed(5)
    return [model(x, EDGES) for x in xs]


@pytest.mark.parametrize("model", RANDOM.values(), ids=RANDOM)
def test_own_generator_under_vmap(model: torch.nn.Module) -> None:
    """Masks for each element, one for all, or torch's own refusal."""
    xs, call = torch.stack([X, X, X]), lambda x: model(x, EDGES)
    GENERATOR.manual_seed(5)
    with torch.no_grad():
        torch.testing.assert_close(
            torch.func.vmap(call, randomness="different")(xs), torch.stack(alone(model, xs))
        )
        GENERATOR.manual_seed(5)
        same = torch.func.vmap(call, randomness="same")(xs)
        first = alone(model, xs)[:1]
    torch.testing.assert_close(same, torch.stack(first * 3))
    with pytest.raises(RuntimeError, match="randomness error mode"):
        torch.func.vmap(call)(xs)


@pytest.mark.parametrize("randomness", ["same", "different"])
def test_own_generator_under_transforms(randomness: str) -> None:
    """jacrev of vmap, vmap of grad, nested vmap: as by the generator of torch."""
    scales = torch.arange(1.0, 4)
    outs = []
    for generator in (torch.Generator(), None):
        conv = nn.DiffConv(3, 0.2, 0.5, generator=generator)

        def each(s: Tensor, x: Tensor, conv: nn.DiffConv = conv) -> Tensor:
            return conv(x * s, EDGES, WEIGHT * s).sin()

        def total(x: Tensor, s: Tensor, each: Callable = each) -> Tensor:
            return each(s, x).sum()

        over = partial(torch.func.vmap, randomness=randomness)
        ways = [
            lambda over=over, each=each: torch.func.jacrev(
                lambda x: over(each, in_dims=(0, None))(scales, x)
            )(X[:, :2]),
            lambda over=over, total=total: over(torch.func.grad(total), in_dims=(None, 0))(
                X, scales
            ),
            lambda over=over, each=each: over(lambda s: over(lambda q: each(s * q, X))(scales))(
                scales
            ),
        ]
        own = []
        for way in ways:
            (torch.manual_seed if generator is None else generator.manual_seed)(3)
            own.append(way())
        outs.append(own)
    for a, b in zip(*outs, strict=True):
        torch.testing.assert_close(a, b)


def test_attention_has_one_mask_for_all() -> None:
    layer = nn.AttentionDiffusion(F, attention_dropout=0.5)
    call = partial(torch.func.vmap, lambda x: layer(x, EDGES))
    with pytest.raises(NotImplementedError, match="'edge_attention' has no masks for each"):
        call(randomness="different")(torch.stack([X, X]))
