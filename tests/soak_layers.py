"""Layers of random settings on random graphs beside dense float64 algebra, whatever is done: hooks,
changes in place, caches, copies, compilation, vmap, checkpoints, autocast, acceleration.

A part of ``tests/soak.py``.
"""

import copy
import io
import random
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch_geometric.nn as pyg
from dense import dense_step, dense_weight
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from torch_geometric_diff import accelerate, nn
from torch_geometric_diff.ops import (
    DiffusionOperator,
    Recurrence,
    SparseOperator,
    diffuse,
    propagate,
)
from torch_geometric_diff.ops._random import draw_seeds, dropout_scale, keep_mask

F, C = 5, 3
Parameters = dict[str, Tensor]


@dataclass
class Graph:
    """A graph with positive weights."""

    edge_index: Tensor
    weight: Tensor
    nodes: int

    def matrix(self, weight: Tensor) -> Tensor:
        """The weights as a dense matrix, rows being targets."""
        return dense_weight(self.edge_index, weight, self.nodes)

    def normalized(self, weight: Tensor) -> Tensor:
        """The matrix of ``gcn_norm``."""
        matrix = self.matrix(weight)
        matrix = matrix + torch.diag((matrix.diagonal() == 0).to(matrix))
        inverse = matrix.sum(1).rsqrt()
        return inverse[:, None] * matrix * inverse


@dataclass
class Subject:
    """A layer and the same in dense algebra, of features, weights and the layer's parameters."""

    layer: torch.nn.Module
    dense: Callable[[Tensor, Tensor, Parameters], Tensor]


def some_graph(draw: random.Random) -> Graph:
    nodes = draw.choice([1, 2, 6, 17, 40])
    edge_index = torch.randint(nodes, (2, draw.choice([1, nodes, 4 * nodes])))
    if draw.random() < 0.5:
        edge_index = torch.cat([edge_index, edge_index.flip(0)], 1)
    edge_index = edge_index.unique(dim=1).contiguous()
    weight = 0.1 + torch.rand(edge_index.size(1), dtype=torch.float64)
    return Graph(edge_index, weight.float().double(), nodes)


def powers(matrix: Tensor, x: Tensor, weights: Any) -> Tensor:
    """A weighted sum of the powers of a matrix times features."""
    total = weights[0] * x
    for weight in weights[1:]:
        x = matrix @ x
        total = total + weight * x
    return total


def linear(x: Tensor, p: Parameters) -> Tensor:
    return torch.nn.functional.linear(x, p["lin.weight"], p.get("lin.bias"))


def some_layer(draw: random.Random, graph: Graph, cached: bool = False) -> Subject:
    """A layer that is alike for every seed."""
    return draw.choice([diffusion, diffusion, adjacency, linear_layer])(draw, graph, cached)


def diffusion(draw: random.Random, graph: Graph, cached: bool) -> Subject:
    """Steps of diffusion, or heat."""
    norm, learned = draw.choice(["sym", "row", None]), draw.random() < 0.5
    own: dict[str, Any] = {"cached": cached, "normalization": norm}

    def step(w: Tensor, h: Any) -> Tensor:
        return dense_step(graph.matrix(w), h, norm)

    if draw.random() < 0.5:
        h, k = draw.choice([1e-6, 0.02, 0.1] if learned else [0.02, 0.1]), draw.choice([0, 1, 4])
        layer: Any = nn.DiffConv(k, h, learn_step_size=learned, **own)
        if learned:
            layer.step_size.data.fill_(0.05)

        def euler(x: Tensor, w: Tensor, p: Parameters) -> Tensor:
            return torch.linalg.matrix_power(step(w, p.get("step_size", h)), k) @ x

        return Subject(layer, euler)
    t = draw.choice([0.3, 1.0, 4.0])

    def heat(x: Tensor, w: Tensor, p: Parameters) -> Tensor:
        laplacian = (torch.eye(graph.nodes).to(w) - step(w, 0.25)) / 0.25
        time = p["log_t"].exp() if learned else t
        return torch.linalg.matrix_exp(-time * laplacian) @ x

    return Subject(nn.HeatConv(t, learn_t=learned, tol=1e-12, **own), heat)


def adjacency(draw: random.Random, graph: Graph, cached: bool) -> Subject:
    """Propagation with the normalized adjacency matrix."""
    k = draw.choice([0, 1, 2, 4])
    if draw.random() < 0.5:
        gpr = nn.GPRConv(k, cached=cached)
        return Subject(gpr, lambda x, w, p: powers(graph.normalized(w), x, p["gamma"]))

    def appnp(x: Tensor, w: Tensor, p: Parameters) -> Tensor:
        matrix, z = graph.normalized(w), x
        for _ in range(k):
            z = 0.8 * (matrix @ z) + 0.2 * x
        return z

    return Subject(nn.APPNP(k, 0.2, cached=cached), appnp)


def linear_layer(draw: random.Random, graph: Graph, cached: bool) -> Subject:
    """Propagation and a linear map."""
    k, sizes = draw.choice([0, 1, 2, 4]), draw.choice([(F, C), (F, 2 * F)])
    own: dict[str, Any] = {"bias": draw.random() < 0.5, "cached": cached}
    if draw.random() < 0.5:
        layer, weights = nn.SGConv(*sizes, k, **own), [0.0] * k + [1.0]
    else:
        layer, weights = nn.SSGConv(*sizes, 0.3, k, **own), [0.3, *[0.7 / max(k, 1)] * k]
    return Subject(layer, lambda x, w, p: linear(powers(graph.normalized(w), x, weights), p))


def check(found: Tensor, expected: Tensor, tolerance: float, what: str) -> None:
    assert found.shape == expected.shape, (what, found.shape, expected.shape)
    if not expected.numel():
        return
    scale = max(1.0, float(expected.detach().abs().max()))
    error = float((found.detach().double() - expected.detach().double()).abs().max())
    assert error <= tolerance * scale, f"{what}: error {error:.3g} beside {scale:.3g}"


def verify(
    subject: Subject,
    graph: Graph,
    x: Tensor,
    what: str,
    call: Callable[[Tensor, Tensor], Tensor] | None = None,
    dense: Callable[[Tensor, Tensor, Parameters], Tensor] | None = None,
    learns: bool = False,
    tolerance: float = 1e-9,
) -> None:
    """Values and gradients of a call, by default of the layer itself."""
    layer, dtype = subject.layer, x.dtype
    call = call or (lambda x, w: layer(x, graph.edge_index, w))
    parameters = dict(layer.named_parameters())
    own = [x.detach().clone().requires_grad_(), graph.weight.to(dtype).requires_grad_(learns)]
    exact = [t.detach().double().requires_grad_(t.requires_grad) for t in own]
    twins = {name: p.detach().double().requires_grad_() for name, p in parameters.items()}
    out, expected = call(*own), (dense or subject.dense)(*exact, twins)
    what = f"{what}, {layer}"
    check(out, expected, tolerance, what)
    upstream = torch.randn_like(expected)
    found = torch.autograd.grad(
        out, [*own[: 1 + learns], *parameters.values()], upstream.to(out.dtype), allow_unused=True
    )
    right = torch.autograd.grad(
        expected, [*exact[: 1 + learns], *twins.values()], upstream, allow_unused=True
    )
    for mine, other in zip(found, right, strict=True):
        if mine is None or other is None:
            mine, other = (torch.zeros(1) if t is None else t for t in (mine, other))
            check(mine.abs().sum(), other.abs().sum(), 20 * tolerance, f"gradient, {what}")
        else:
            check(mine, other, 20 * tolerance, f"gradient, {what}")


def features(graph: Graph, *batch: int) -> Tensor:
    return torch.randn(*batch, graph.nodes, F, dtype=torch.float64)


def plain(draw: random.Random) -> None:
    graph = some_graph(draw)
    subject = some_layer(draw, graph)
    dtype, tolerance = draw.choice([(torch.float64, 1e-9), (torch.float32, 2e-5)])
    subject.layer.to(dtype)
    x = features(graph, *draw.choice([(), (), (2,)])).to(dtype)
    learns = draw.random() < 0.5
    verify(subject, graph, x, "plain", learns=learns, tolerance=tolerance)


def cached(draw: random.Random) -> None:
    """A cache, and whatever may change between two calls."""
    graph = some_graph(draw)
    subject = some_layer(draw, graph, cached=True)
    layer, x, weight = subject.layer.double(), features(graph), graph.weight
    call = lambda own, _: layer(own, graph.edge_index, graph.weight)  # noqa: E731
    check(call(x, None), subject.dense(x, weight, dict(layer.named_parameters())), 1e-9, "cached")
    for _ in range(3):
        change = draw.choice(["features", "in place", "copy", "graph", "learned", "parameters"])
        if change == "features":
            x = features(graph)
        elif change == "in place":
            x.mul_(draw.choice([0.0, -2.0, 0.5]))
        elif change == "copy":
            graph = Graph(graph.edge_index.clone(), graph.weight.clone(), graph.nodes)
        elif change == "parameters":
            with torch.no_grad():
                for p in layer.parameters():
                    p.mul_(0.9)
        elif change == "learned":
            verify(subject, graph, x, "cached", call)
        else:
            other = graph.weight if draw.random() < 0.5 else graph.weight.clone()
            other.mul_(2.0)
            graph = Graph(graph.edge_index, other, graph.nodes)
            another_graph(subject, graph, x)
            kept = {name: p.detach().clone() for name, p in layer.named_parameters()}
            layer.reset_parameters()
            layer.load_state_dict(kept)
        expected = subject.dense(x, graph.weight, dict(layer.named_parameters()))
        check(call(x, None), expected, 1e-9, f"cached, {change}, {layer}")


def another_graph(subject: Subject, graph: Graph, x: Tensor) -> None:
    """It is noticed, but for graphs that are the same once they are normalized."""
    layer = subject.layer
    try:
        out = layer(x, graph.edge_index, graph.weight)
    except ValueError as error:
        if "another graph" not in str(error):
            raise
        return
    expected = subject.dense(x, graph.weight, dict(layer.named_parameters()))
    check(out, expected, 1e-9, f"cached, another graph, {layer}")


def of_messages(layer: Any, ran: list[int]) -> None:
    layer.register_message_forward_hook(lambda *_: ran.append(1))


def of_outputs(module: Any, ran: list[int]) -> None:
    module.register_forward_hook(lambda m, i, out: ran.append(1) or 2 * out)


def of_inputs(module: Any, ran: list[int]) -> None:
    module.register_forward_pre_hook(lambda m, i: ran.append(1) or (3 * i[0], *i[1:]))


def of_gradients(module: Any, ran: list[int]) -> None:
    module.register_full_backward_hook(lambda *_: ran.append(1) and None)


def patched(module: Any, ran: list[int]) -> None:
    before = module.forward
    module.forward = lambda x: ran.append(1) or -before(x)


def parametrized(module: Any, ran: list[int]) -> None:
    torch.nn.utils.parametrizations.weight_norm(module)
    ran.append(1)


def scaled_by(dense: Callable, inputs: float, outputs: float) -> Callable:
    return lambda x, w, p: outputs * dense(inputs * x, w, p)


def with_norms(dense: Callable) -> Callable:
    def changed(x: Tensor, w: Tensor, p: Parameters) -> Tensor:
        size, direction = (p[f"lin.parametrizations.weight.original{i}"] for i in (0, 1))
        weight = size * direction / direction.norm(dim=1, keepdim=True)
        return dense(x, w, {**p, "lin.weight": weight})

    return changed


# what is done to a module, and what that makes of the layer's function
HOOKS: list[tuple[Callable, Callable]] = [
    (of_outputs, lambda dense: scaled_by(dense, 1, 2)),
    (of_inputs, lambda dense: scaled_by(dense, 3, 1)),
    (of_gradients, lambda dense: dense),
]
OF_LAYERS = [(of_messages, lambda dense: dense), *HOOKS[:2]]
OF_LINEAR = [
    *HOOKS,
    (patched, lambda dense: scaled_by(dense, 1, -1)),
    (parametrized, with_norms),
]


def hooked(draw: random.Random) -> None:
    """Hooks on a layer, its messages or its linear map, and patches."""
    graph = some_graph(draw)
    subject = some_layer(draw, graph)
    layer, x, ran = subject.layer.double(), features(graph), list[int]()
    if draw.random() < 0.5:
        layer(x, graph.edge_index, graph.weight)
    of_linear = hasattr(layer, "lin") and draw.random() < 0.6
    act, change = draw.choice(OF_LINEAR if of_linear else OF_LAYERS)
    act(layer.lin if of_linear else layer, ran)
    learns, dense = draw.random() < 0.5, change(subject.dense)
    verify(subject, graph, x, act.__name__, dense=dense, learns=learns)
    k = getattr(layer, "K", getattr(layer, "num_steps", 1))
    has_messages = k > 0 and bool((graph.edge_index[0] != graph.edge_index[1]).any())
    assert ran or (act is of_messages and not has_messages), f"{act.__name__}: none ran, {layer}"


def copied(draw: random.Random) -> None:
    """Copies after a call, files, and state that another layer loads."""
    graph = some_graph(draw)
    subject = some_layer(draw, graph, draw.random() < 0.3)
    layer, x, ran = subject.layer.double(), features(graph), list[int]()
    layer(x, graph.edge_index, graph.weight)
    kind = draw.choice(["deepcopy", "file", "state"])
    subject.layer = loaded(layer) if kind == "file" else copy.deepcopy(layer)
    with torch.no_grad():
        for p in layer.parameters():
            p.mul_(0.7)
    if kind == "state":
        subject.layer.register_load_state_dict_pre_hook(lambda *_: ran.append(1) and None)
        subject.layer.load_state_dict(layer.state_dict())
        assert ran, "no hook ran"
    verify(subject, graph, x, kind)


def loaded(layer: torch.nn.Module) -> torch.nn.Module:
    file = io.BytesIO()
    torch.save(layer, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


def in_place(draw: random.Random) -> None:
    """Entries of an operator that change between calls."""
    graph = some_graph(draw)
    options = {"num_nodes": graph.nodes, "reorder": draw.random() < 0.3}
    if draw.random() < 0.5:
        operator: Any = SparseOperator(graph.edge_index, graph.weight, **options)
        matrix = graph.matrix(graph.weight)
    else:
        operator = DiffusionOperator(graph.edge_index, graph.weight, step_size=0.05, **options)
        matrix = dense_step(graph.matrix(graph.weight), 0.05)
    steps, x = draw.choice([1, 3]), features(graph)
    nodes = torch.randperm(graph.nodes)[: draw.randint(1, graph.nodes)]
    for _ in range(4):
        own, exact = x.clone().requires_grad_(), x.clone().requires_grad_()
        kind = draw.choice(["all", "nodes", "transpose", "scaled", "copy"])
        out, expected = own, torch.linalg.matrix_power(matrix, steps) @ exact
        if kind == "all":
            out = diffuse(own, operator, steps)
        elif kind == "nodes":
            for _ in range(3):  # what is asked for again is kept
                wide = torch.cat([own] * 4, 1)
                out = diffuse(wide, operator, steps, nodes=nodes)[:, :F]
            expected = expected[nodes]
        elif kind == "transpose":
            out = diffuse(own, operator.t(), steps)
            expected = torch.linalg.matrix_power(matrix.t(), steps) @ exact
        elif kind == "scaled":
            out = propagate(own, operator, Recurrence.ppr(steps, 0.3))
            z = exact
            for _ in range(steps):
                z = 0.7 * (matrix @ z) + 0.3 * exact
            expected = z
        else:
            out = diffuse(own, copy.deepcopy(operator), steps)
        check(out, expected, 1e-9, f"in place, {kind}")
        upstream = torch.randn_like(expected)
        grads = (torch.autograd.grad(y, s, upstream) for y, s in ((out, own), (expected, exact)))
        check(*(grad[0] for grad in grads), 1e-9, f"in place, gradient, {kind}")  # type: ignore[arg-type]
        factor = draw.choice([2.0, -0.5, 1.0])
        operator.value.mul_(factor)
        matrix = matrix * factor


def under_vmap(draw: random.Random) -> None:
    """Features, weights or both of each sample."""
    graph = some_graph(draw)
    subject = some_layer(draw, graph)
    layer, count = subject.layer.double(), 3
    xs, ws = features(graph, count), torch.stack([graph.weight * (1 + i) for i in range(count)])
    p = {name: value.detach() for name, value in layer.named_parameters()}

    def ours(x: Tensor, w: Tensor, p: Parameters) -> Tensor:
        return torch.func.functional_call(layer, p, (x, graph.edge_index, w))

    dims = draw.choice([(0, None), (0, 0), (None, 0)])
    inputs = [own if dim == 0 else own[0] for own, dim in zip((xs, ws), dims, strict=True)]
    transform = draw.choice(["value", "grad", "jacrev"])
    argument = 0 if isinstance(layer, nn.HeatConv) else draw.choice([0, 1])
    if transform == "jacrev" and graph.nodes > 6:
        transform = "grad"

    def prepared(function: Callable) -> Callable:
        if transform == "value":
            return function
        if transform == "jacrev":
            return torch.func.jacrev(function, argument)
        return torch.func.grad(lambda *a: function(*a).square().sum(), argument)

    found = torch.func.vmap(prepared(ours), in_dims=(*dims, None))(*inputs, p)
    expected = [
        prepared(subject.dense)(
            *(t[i] if d == 0 else t for t, d in zip(inputs, dims, strict=True)), p
        )
        for i in range(count)
    ]
    check(found, torch.stack(expected), 1e-8, f"vmap of {transform}, {dims}, {layer}")


def recomputed(draw: random.Random) -> None:
    """Checkpoints, with masks of torch's generator or the layer's own."""
    graph = some_graph(draw)
    own, k = draw.random() < 0.5, draw.choice([1, 3])
    generator = torch.Generator() if own else None
    layer = nn.DiffConv(k, 0.05, dropout=0.4, generator=generator).double()

    def ours(x: Tensor, w: Tensor) -> Tensor:
        (torch.manual_seed if generator is None else generator.manual_seed)(3)
        region = lambda x: layer(layer(x, graph.edge_index, w).sin(), graph.edge_index, w)  # noqa: E731
        return checkpoint(region, x, use_reentrant=False)

    def dense(x: Tensor, w: Tensor, p: Parameters) -> Tensor:
        seeded, threshold = torch.Generator().manual_seed(3), round(0.4 * 65536)
        matrix = dense_step(graph.matrix(w), 0.05)
        for last in (False, True):
            seed = int(draw_seeds(1, seeded))
            for step in range(k):
                mask = keep_mask(seed, step, *x.shape, threshold)
                x = matrix @ (x * mask * dropout_scale(threshold))
            x = x if last else x.sin()
        return x

    verify(Subject(layer, dense), graph, features(graph), "checkpoint", ours, learns=own)


def lowered(draw: random.Random) -> None:
    """bfloat16 autocast: the type of PyG's layer, and values as far as it tells them."""
    graph = some_graph(draw)
    sizes, k = draw.choice([(F, C), (F, 2 * F)]), draw.choice([1, 2])
    bias = draw.random() < 0.5
    pairs: list[tuple[Any, Any]] = [
        (nn.SGConv(*sizes, k, bias=bias), pyg.SGConv(*sizes, k, bias=bias)),
        (nn.SSGConv(*sizes, 0.2, k, bias=bias), pyg.SSGConv(*sizes, 0.2, k, bias=bias)),
        (nn.APPNP(k, 0.2), pyg.APPNP(k, 0.2)),
    ]
    ours, theirs = draw.choice(pairs)
    ours.load_state_dict(theirs.state_dict())
    x, weight = features(graph).float(), graph.weight.float()
    with torch.autocast("cpu", torch.bfloat16):
        outs = [layer(x, graph.edge_index, weight) for layer in (ours, theirs)]
        fast = copy.deepcopy(theirs)
        accelerate(fast)
        fast = fast(x, graph.edge_index, weight)
    exact = theirs.double()(x.double(), graph.edge_index, weight.double())
    for out in (outs[0], fast):
        assert out.dtype == outs[1].dtype, ("autocast", ours, out.dtype, outs[1].dtype)
        check(out, exact, 5e-2, f"autocast, {ours}")


PYG: list[Callable[[], Any]] = [
    lambda: pyg.GCNConv(F, F),
    lambda: pyg.GCNConv(F, F, cached=True),
    lambda: pyg.SGConv(F, F, 2),
    lambda: pyg.APPNP(2, 0.1),
    lambda: pyg.TAGConv(F, F, 2),
    lambda: pyg.GraphConv(F, F),
    lambda: pyg.LEConv(F, F),
    lambda: pyg.ChebConv(F, F, 2, normalization="rw"),
]


def accelerated_pair(draw: random.Random) -> list[Any]:
    """A model, accelerated, and the same as PyG runs it; one layer may have a hook."""
    conv, text = draw.choice(PYG), "x, edge_index, weight"
    parts = [(conv(), f"{text} -> x"), torch.nn.ReLU(), (conv(), f"{text} -> x")]
    theirs = pyg.Sequential(text, parts).double()
    models, hook = [copy.deepcopy(theirs), theirs], draw.choice(["none", "before", "after"])
    if hook == "after":
        accelerate(models[0])
    for model in models if hook != "none" else []:
        of_linear = hook == "after" and hasattr(model[0], "lin")
        of_outputs(model[0].lin if of_linear else model[0], [])
    if hook != "after":
        accelerate(models[0])
    return models


def accelerated(draw: random.Random) -> None:
    """A model of PyG's layers, accelerated, with changes between its calls."""
    graph, models = some_graph(draw), accelerated_pair(draw)
    weight, is_cached = graph.weight.clone(), getattr(models[1][0], "cached", False)
    for _ in range(3):
        x, outs = features(graph), []
        for model in models:
            own = x.clone().requires_grad_()
            out = model(own, graph.edge_index, weight)
            learned = [own, *model.parameters()]
            grads = torch.autograd.grad(out.sin().sum(), learned, allow_unused=True)
            outs.append([out, *(torch.zeros(1) if g is None else g for g in grads)])
        for a, b in zip(*outs, strict=True):
            check(a, b.detach(), 1e-8, f"accelerated, {models[1]}")
        if not is_cached and draw.random() < 0.5:
            weight.mul_(1.3)
        with torch.no_grad():
            for p in [*models[0].parameters(), *models[1].parameters()]:
                p.mul_(0.9)


def compiled(draw: random.Random) -> None:
    """Values and gradients, twice, with what changes between the calls."""
    graph = some_graph(draw)
    is_cached = draw.random() < 0.3
    subject = some_layer(draw, graph, is_cached)
    layer, x = subject.layer.double(), features(graph)
    whole = draw.random() < 0.5 and not isinstance(layer, nn.HeatConv)
    backend = draw.choice(["eager", "aot_eager"])
    torch._dynamo.reset()
    run = torch.compile(layer, backend=backend, fullgraph=whole, dynamic=draw.choice([None, True]))
    call = lambda x, w: run(x, graph.edge_index, w)  # noqa: E731
    learns = draw.random() < 0.5 and not is_cached
    for _ in range(2):
        verify(subject, graph, x, f"compiled, {backend}", call, learns=learns)
        x = features(graph)
        with torch.no_grad():
            for p in layer.parameters():
                p.mul_(0.9)
        if not is_cached:
            graph.weight = graph.weight * 1.2
    torch._dynamo.reset()


KINDS = (plain, cached, hooked, copied, in_place, under_vmap, recomputed, lowered, accelerated)


def one_case(draw: random.Random, with_compiler: bool) -> str:
    """Any of it; returns what it was."""
    kind = compiled if with_compiler else draw.choice(KINDS)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        kind(draw)
    return kind.__name__
