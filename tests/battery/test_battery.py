"""Every public function under every transform: the right value, or a refusal that names itself.

``python -m battery.table`` runs the columns and writes the table of the docs from what happened.
"""

import copy
import io
import pickle
import warnings
from contextlib import nullcontext
from functools import partial
from typing import Any

import pytest
import torch
from battery.cases import CASES, EDGES, LAYERS, WEIGHT, Case, N, X
from dense import as_form
from torch.func import grad, hessian, jacfwd, jacrev, jvp, vjp, vmap
from torch.utils.checkpoint import checkpoint

from torch_geometric_diff.nn import AttentionDiffusion, CorrectAndSmooth, LabelPropagation
from torch_geometric_diff.ops import SparseOperator, diffuse

LOOSE = {"float32": 1e-4, "float16": 2e-2, "bfloat16": 1e-1, "autocast": 1e-1}


def scalar(function: Any) -> Any:
    """A function of all inputs with derivatives of every order."""
    return lambda *inputs: (function(*inputs).double().square() + function(*inputs).double()).sum()


def everything(case: Case) -> tuple[int, ...]:
    return tuple(range(len(case.inputs)))


def compare(found: Any, expected: Any, tolerance: float = 1e-8) -> None:
    found, expected = map(torch.utils._pytree.tree_leaves, (found, expected))

    for one, other in zip(found, expected, strict=True):
        scale = max(1.0, float(other.detach().abs().max())) if other.numel() else 1.0
        torch.testing.assert_close(
            one.detach().double(), other.detach().double(), atol=tolerance * scale, rtol=0
        )


def values(case: Case) -> tuple[Any, Any]:
    return case.function(*case.inputs), case.dense(*case.inputs)


def leaves(case: Case) -> tuple[torch.Tensor, ...]:
    return tuple(t.clone().requires_grad_() for t in case.inputs)


def backward(case: Case) -> tuple[Any, Any]:
    outs = []
    for function in (case.function, case.dense):
        inputs = leaves(case)
        scalar(function)(*inputs).backward()
        outs.append([t.grad for t in inputs])
    return outs[0], outs[1]


def backward_twice(case: Case) -> tuple[Any, Any]:
    outs = []
    for function in (case.function, case.dense):
        inputs = leaves(case)
        first = torch.autograd.grad(scalar(function)(*inputs), inputs, create_graph=True)
        total = sum(t.square().sum() for t in first)
        outs.append(torch.autograd.grad(total, inputs))
    return outs[0], outs[1]


def by(transform: Any) -> Any:
    def column(case: Case) -> tuple[Any, Any]:
        return tuple(
            transform(scalar(function), case)(*case.inputs)
            for function in (case.function, case.dense)
        )

    return column


def of_values(transform: Any) -> Any:
    def column(case: Case) -> tuple[Any, Any]:
        return tuple(
            transform(function, case)(*case.inputs) for function in (case.function, case.dense)
        )

    return column


def forward(function: Any, case: Case) -> Any:
    return lambda *inputs: jvp(function, inputs, tuple(torch.cos(t) for t in inputs))


def pulled(function: Any, case: Case) -> Any:
    def apply(*inputs: torch.Tensor) -> Any:
        out, pull = vjp(function, *inputs)
        return pull(torch.cos(out))

    return apply


def batched(function: Any, case: Case, which: int | None) -> Any:
    """vmap over one input, or over all."""

    def apply(*inputs: torch.Tensor) -> Any:
        dims = tuple(0 if which in (None, i) else None for i in range(len(inputs)))
        many = [
            torch.stack([t, 0.5 * t, 0.75 * t]) if dim == 0 else t
            for t, dim in zip(inputs, dims, strict=True)
        ]
        return vmap(function, in_dims=dims)(*many)

    return apply


def dtype(kind: torch.dtype) -> Any:
    def column(case: Case) -> tuple[Any, Any]:
        out = case.function(*(t.to(kind) for t in case.inputs))
        assert out.dtype == kind
        return out, case.dense(*(t.to(kind).double() for t in case.inputs))

    return column


def compiled(fullgraph: bool) -> Any:
    """Values and gradients, of a second call too, which may find what the first left."""

    def column(case: Case) -> tuple[Any, Any]:
        torch._dynamo.reset()
        # what Dynamo looks at, and traces, when it takes a graph up again behind a break
        for own in ("The .grad attribute of a Tensor", "Dynamo does not know how to trace"):
            warnings.filterwarnings("ignore", own)
        function = torch.compile(case.function, backend="aot_eager", fullgraph=fullgraph)
        outs: list[Any] = []
        for run in (function, function, case.dense):
            inputs = case.inputs if case.constant else leaves(case)
            out = run(*inputs)
            grads = () if case.constant else torch.autograd.grad(out.square().sum(), inputs)
            outs.append((out, grads))
        compare(outs[0], outs[2])
        return outs[1], outs[2]

    return column


def vectorized(case: Case) -> tuple[Any, Any]:
    """By batches of gradients, in both modes of ``torch.autograd.functional.jacobian``."""
    outs = []
    for function in (case.function, case.dense):
        jacobian = torch.autograd.functional.jacobian
        inputs = leaves(case)
        outs.append([jacobian(function, inputs, vectorize=True)])
        out = function(*inputs)
        if out.requires_grad:
            many = torch.stack([out, 2 * out.detach()]).detach()
            outs[-1].append(torch.autograd.grad(out, inputs, many, is_grads_batched=True))
    return outs[0], outs[1]


def exported(case: Case) -> tuple[Any, Any]:
    class Model(torch.nn.Module):
        def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
            return case.function(*inputs)

    program = torch.export.export(Model(), case.inputs)
    return program.module()(*case.inputs), case.dense(*case.inputs)


def inference_first(case: Case) -> tuple[Any, Any]:
    with torch.inference_mode():
        case.function(*case.inputs)
    return backward(case)


def elsewhere(case: Case) -> tuple[Any, Any]:
    torch.set_default_device("meta")
    try:
        out = case.function(*case.inputs)
    finally:
        torch.set_default_device(None)
    return out, case.dense(*case.inputs)


def followed(case: Case) -> tuple[Any, Any]:
    """The same bits, whether a gradient follows or not."""
    out = case.function(*leaves(case))
    assert torch.equal(out.detach(), case.function(*case.inputs))
    with torch.no_grad():
        assert torch.equal(out.detach(), case.function(*leaves(case)))
    return out, case.dense(*case.inputs)


def by_threads(case: Case) -> tuple[Any, Any]:
    """The same bits, whatever the number of threads."""
    before, outs = torch.get_num_threads(), []
    for threads in (1, 3):
        torch.set_num_threads(threads)
        outs.append(case.function(*case.inputs))
    torch.set_num_threads(before)
    assert torch.equal(*outs)
    return outs[1], case.dense(*case.inputs)


def checkpointed(case: Case) -> tuple[Any, Any]:
    """Values and gradients of a forward pass that is run again, and of saved Tensors that are
    packed.
    """
    outs: list[Any] = []
    again = partial(checkpoint, case.function, use_reentrant=False)
    hooks = torch.autograd.graph.saved_tensors_hooks(
        lambda t: t.detach().clone(), lambda t: t.clone()
    )
    for run in (again, again, case.dense):
        inputs = case.inputs if case.constant else leaves(case)
        with nullcontext() if run is case.dense or outs else hooks:
            out = run(*inputs)
        grads = () if case.constant else torch.autograd.grad(out.square().sum(), inputs)
        outs.append((out, grads))
    compare(outs[0], outs[2])
    return outs[1], outs[2]


def autocast(case: Case) -> tuple[Any, Any]:
    """The type of PyG's layers, and values as far as it tells them."""
    with torch.autocast("cpu", torch.bfloat16):
        out = case.function(*(t.float() for t in case.inputs))
    assert out.dtype == case.autocast, out.dtype
    return out, case.dense(*(t.float().double() for t in case.inputs))


def changed_in_place(case: Case) -> tuple[Any, Any]:
    """Inputs that change between calls: no cache lags behind."""
    inputs = tuple(t.clone() for t in case.inputs)
    for factor in (0.5, 0.8):
        out, expected = case.function(*inputs), case.dense(*inputs)
        compare(out, expected)
        for t in inputs:
            t.mul_(factor)
    return case.function(*inputs), case.dense(*inputs)


def hooked(case: Case) -> tuple[Any, Any]:
    """Hooks on a module run, and what they return counts; those on messages see them."""
    assert case.module is not None and case.call is not None
    module = copy.deepcopy(case.module)
    function, ran = case.call(module), []
    layers = list(module) if isinstance(module, torch.nn.ModuleList) else [module]
    for layer in layers:
        layer.register_forward_hook(lambda m, i, out: ran.append("forward") or 2 * out)
        layer.register_forward_pre_hook(lambda m, i: ran.append("pre") and None)
        if not case.constant:
            layer.register_full_backward_hook(lambda *_: ran.append("backward") and None)
        if hasattr(layer, "register_message_forward_hook") and not isinstance(
            layer, LabelPropagation
        ):
            layer.register_message_forward_hook(lambda *_: ran.append("message") and None)
    inputs = case.inputs if case.constant else leaves(case)
    out, exact = function(*inputs), leaves(case)
    expected = 2 * case.dense(*exact)
    if case.constant:
        assert set(ran) >= {"forward", "pre"}
        return out, expected
    grads = torch.autograd.grad(out.square().sum(), inputs)
    assert set(ran) >= {"forward", "pre", "backward"}
    return (out, grads), (expected, torch.autograd.grad(expected.square().sum(), exact))


def copied(case: Case) -> tuple[Any, Any]:
    """Copies and files after a call give the same bits."""
    assert case.module is not None and case.call is not None
    expected = case.function(*case.inputs)
    ways = (copy.deepcopy, pickled, lambda module: pickle.loads(pickle.dumps(module)))
    for way in ways:
        out = case.call(way(case.module))(*case.inputs)
        assert torch.equal(out, expected)
    return out, case.dense(*case.inputs)


COLUMNS = {
    "value": values,
    "backward": backward,
    "backward twice": backward_twice,
    "func.grad": by(lambda f, case: grad(f, everything(case))),
    "vjp": of_values(pulled),
    "jvp": of_values(forward),
    "jacrev": of_values(lambda f, case: jacrev(f, everything(case))),
    "jacfwd": of_values(lambda f, case: jacfwd(f, everything(case))),
    "hessian": by(lambda f, case: hessian(f, everything(case))),
    "jacfwd twice": by(lambda f, case: jacfwd(jacfwd(f, everything(case)), everything(case))),
    "jacrev twice": by(lambda f, case: jacrev(jacrev(f, everything(case)), everything(case))),
    "vmap": of_values(lambda f, case: batched(f, case, 0)),
    "vmap, all": of_values(lambda f, case: batched(f, case, None)),
    "vmap of grad": by(lambda f, case: batched(grad(f, everything(case)), case, None)),
    "compile": compiled(False),
    "compile, one graph": compiled(True),
    "export": exported,
    "jacobian, vectorized": vectorized,
    "float32": dtype(torch.float32),
    "float16": dtype(torch.float16),
    "bfloat16": dtype(torch.bfloat16),
    "inference first": inference_first,
    "other default device": elsewhere,
    "requires_grad": followed,
    "threads": by_threads,
    "checkpoint": checkpointed,
    "autocast": autocast,
    "inputs changed in place": changed_in_place,
    "hooks": hooked,
    "copies": copied,
}


# what torch 2.4 does too
ALWAYS = {"value", "backward", "backward twice", "float32", "bfloat16", "inference first"}
ALWAYS |= {"requires_grad", "threads"}


OF_MODULES, NO_MODULE = ("hooks", "copies"), "a function, which has no hooks and no state"
CONSTANT = ("backward", "backward twice", "inference first", "jacobian, vectorized")


def outcome(case: Case, column: str) -> str:
    """What happens in a cell: *yes*, the right value; *no*, the package's own refusal; *constant*,
    the right value, and no gradient passes; or why it does not apply. Anything else raises.

    It is tried once a process: the table asks for what the tests have seen.
    """
    if column not in case.outcomes:
        case.outcomes[column] = tried(case, column)
    return case.outcomes[column]


def tried(case: Case, column: str) -> str:
    if column in case.beside:
        return case.beside[column]
    if column in OF_MODULES and case.module is None:
        return NO_MODULE
    if column in case.refuses:
        with pytest.raises(Exception, match=case.refuses[column]):
            COLUMNS[column](case)
        return "no"
    if case.constant and column in CONSTANT:
        if column == "inference first":
            with torch.inference_mode():
                case.function(*case.inputs)
        inputs = leaves(case)
        out = case.function(*inputs)
        assert not out.requires_grad
        compare(out, case.dense(*inputs))
        return "constant"
    compare(*COLUMNS[column](case), LOOSE.get(column, 1e-8))
    return "yes"


@pytest.mark.parametrize("column", COLUMNS)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_battery(case: Case, column: str) -> None:
    if column not in ALWAYS and torch.__version__ < "2.9":
        pytest.skip("torch.func, torch.compile, torch.export and float16 want torch 2.9 or newer")
    outcome(case, column)


@pytest.mark.parametrize("randomness", ["same", "different", "error"])
@pytest.mark.parametrize("what", ["features", "weights", "neither"])
@pytest.mark.parametrize("gradient", [False, True])
def test_randomness_of_vmap(randomness: str, what: str, gradient: bool) -> None:
    """Masks of each element as its seed alone would draw them, one for all, or a refusal."""
    x, weight = torch.ones(N, 2, dtype=torch.float64), WEIGHT

    def function(scale: torch.Tensor) -> torch.Tensor:
        features = x * scale if what == "features" else x
        weights = weight * scale if what == "weights" else weight
        out = diffuse(features, SparseOperator(EDGES, weights, num_nodes=N), 1, 0.5)
        return out + 0 * scale

    if gradient:
        function = torch.func.jacrev(function)
    ones = torch.ones(4, dtype=torch.float64)
    if randomness == "error":
        with pytest.raises(RuntimeError, match="randomness error mode"):
            vmap(function, randomness=randomness)(ones)
        return
    out = vmap(function, randomness=randomness)(ones)
    if gradient and what == "neither":
        return
    same = [torch.equal(out[0], other) for other in out[1:]]
    assert all(same) if randomness == "same" else not any(same)


def call(layer: torch.nn.Module, form: str = "edge_index") -> torch.Tensor:
    """A layer on a graph without loops, in training, from the same random numbers."""
    rest = next(rest for other, rest in LAYERS.values() if repr(other) == repr(layer))
    torch.manual_seed(0)
    x = X.float().sigmoid()
    others = EDGES[0] != EDGES[1]
    graph, weight = as_form(form, EDGES[:, others], WEIGHT[others].float(), N)
    if isinstance(layer, CorrectAndSmooth):
        return layer(x, *rest.values(), graph, weight)
    weights = {} if isinstance(layer, AttentionDiffusion) else {"edge_weight": weight}
    return layer(x, graph, **weights, **rest)


@pytest.mark.parametrize("name", LAYERS)
def test_copies_and_pickles(name: str) -> None:
    layer, _ = LAYERS[name]
    expected = call(layer)  # copies are made after a call
    for other in (copy.deepcopy(layer), pickled(layer), pickle.loads(pickle.dumps(layer))):
        assert torch.equal(call(other), expected)


def pickled(module: torch.nn.Module) -> torch.nn.Module:
    file = io.BytesIO()
    torch.save(module, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


@pytest.mark.parametrize("name", LAYERS)
def test_forms_of_a_graph(name: str, form: str) -> None:
    if name in ("LabelPropagation", "CorrectAndSmooth") and form in ("coo", "csr", "csc"):
        pytest.skip("as in PyG, a torch.sparse matrix is normalized and weights are not")
    layer, _ = LAYERS[name]
    torch.testing.assert_close(call(layer, form), call(layer))


@pytest.mark.parametrize("name", LAYERS)
def test_script_is_refused(name: str) -> None:
    with pytest.raises(TypeError, match="cannot be scripted.*'torch.compile'"):
        torch.jit.script(LAYERS[name][0])
