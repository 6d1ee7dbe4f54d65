"""Attention over edges: the kernel beside torch's operations and dense algebra."""

import pytest
import torch
from torch_geometric.nn import GATConv, GATv2Conv

from torch_geometric_diff.ops import EdgeList, attention, edge_attention

N, E = 40, 250
WIDTHS = [(1, 1, 1), (8, 8, 8), (3, 5, 7), (4, 16, 10), (20, 3, 33), (16, 9, 8)]

pytestmark = pytest.mark.usefixtures("one_thread")


def draw(score, heads, depth, columns, dtype=torch.float64, bias=True, value=True):
    edges = EdgeList(torch.randint(0, N - 1, (2, E)), N)  # equal edges, loops, a node alone
    shape = (N, heads) if score == "additive" else (N, heads, depth)
    parts = {
        "target": torch.randn(shape, dtype=dtype),
        "source": torch.randn(shape, dtype=dtype),
        "value": torch.randn(N, heads, columns, dtype=dtype) if value else None,
        "weight": torch.randn(heads, depth, dtype=dtype) if score == "joint" else None,
        "bias": torch.randn(E, heads, dtype=dtype) if bias else None,
    }
    return edges, {k: None if t is None else t.requires_grad_() for k, t in parts.items()}


def dense(edges, parts, score, factor):
    """Edge by edge and head by head, as the formula says."""
    out = torch.zeros(N, *parts["value"].shape[1:], dtype=torch.float64)
    lrelu = torch.nn.functional.leaky_relu
    for i in range(N):
        into = [e for e in range(E) if edges.target[e] == i]
        if not into:
            continue
        scores = []
        for e in into:
            s, t = parts["source"][edges.source[e]], parts["target"][i]
            if score == "additive":
                scores.append(lrelu(s + t + parts["bias"][e], factor))
            elif score == "dot":
                scores.append(factor * (s * t).sum(-1) + parts["bias"][e])
            else:
                joint = parts["weight"] * lrelu(s + t, factor)
                scores.append(joint.sum(-1) + parts["bias"][e])
        alpha = torch.stack(scores).softmax(dim=0)
        values = torch.stack([parts["value"][edges.source[e]] for e in into])
        out[i] = (alpha.unsqueeze(-1) * values).sum(0)
    return out


@pytest.mark.parametrize("score", attention.SCORES)
def test_is_the_formula(score):
    edges, parts = draw(score, 3, 5, 7)
    factor = 5**-0.5 if score == "dot" else 0.2
    out = edge_attention(edges=edges, score=score, **parts)
    torch.testing.assert_close(out, dense(edges, parts, score, factor))


@pytest.mark.parametrize("dropout", [0.0, 0.4])
@pytest.mark.parametrize("value", [True, False])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("heads, depth, columns", WIDTHS)
@pytest.mark.parametrize("score", attention.SCORES)
def test_kernel_and_torch_agree(score, heads, depth, columns, bias, value, dropout):
    for dtype, tolerance in ((torch.float64, 1e-12), (torch.float32, 2e-5)):
        edges, parts = draw(score, heads, depth, columns, dtype, bias, value)
        given = [part for part in parts.values() if part is not None]
        out = edge_attention(edges=edges, score=score, dropout=dropout, seed=7, **parts)
        factor = depth**-0.5 if score == "dot" else 0.2
        threshold = attention.dropout_threshold(dropout)
        plan = attention._Plan(edges, score, factor, threshold, 7)
        other = attention._composed([*parts.values()], plan)
        g = torch.randn_like(out)
        close = {"rtol": tolerance, "atol": tolerance}
        torch.testing.assert_close(out, other, **close)
        torch.testing.assert_close(
            torch.autograd.grad(out, given, g), torch.autograd.grad(other, given, g), **close
        )
        with torch.no_grad():
            again = edge_attention(edges=edges, score=score, dropout=dropout, seed=7, **parts)
        assert torch.equal(out, again)


@pytest.mark.parametrize("score", attention.SCORES)
def test_differentiates_twice(score):
    torch.manual_seed(1)
    edges = EdgeList(torch.tensor([[0, 1, 2, 2, 1], [1, 1, 1, 0, 0]]), 3)
    shape = (3, 2) if score == "additive" else (3, 2, 3)
    t, s = (torch.randn(shape, dtype=torch.float64, requires_grad=True) for _ in range(2))
    v = torch.randn(3, 2, 2, dtype=torch.float64, requires_grad=True)
    w = torch.randn(2, 3, dtype=torch.float64, requires_grad=True) if score == "joint" else None

    def run(t, s, v):
        return edge_attention(t, s, edges, v, score=score, weight=w)

    assert torch.autograd.gradcheck(run, (t, s, v))
    assert torch.autograd.gradgradcheck(run, (t, s, v))


@pytest.mark.parametrize("score", attention.SCORES)
def test_inputs_made_of_one_another(score):
    edges = EdgeList(torch.tensor([[0, 1, 2, 2, 1], [1, 1, 1, 0, 0]]), 3)
    w = torch.randn(2, 3, dtype=torch.float64, requires_grad=True) if score == "joint" else None
    mix = torch.randn(2, 3, dtype=torch.float64, requires_grad=True)

    def run(x, mix):
        source = x * mix
        target = source + x
        if score == "additive":
            target, source = target.sum(-1), source.sum(-1)
        return edge_attention(target, source, edges, x, score=score, weight=w)

    inputs = torch.randn(3, 2, 3, dtype=torch.float64, requires_grad=True), mix
    out = run(*inputs).sin().sum()
    torch.testing.assert_close(  # the first derivative, whether a second follows or not
        torch.autograd.grad(out, inputs, retain_graph=True),
        torch.autograd.grad(out, inputs, create_graph=True),
    )
    assert torch.autograd.gradgradcheck(run, inputs)
    jacobian = torch.autograd.functional.jacobian
    plain, vectorized = (jacobian(run, inputs, vectorize=v) for v in (False, True))
    torch.testing.assert_close(plain, vectorized)


@pytest.mark.parametrize("conv, score", [(GATConv, "additive"), (GATv2Conv, "joint")])
def test_is_pygs(conv, score):
    layer = conv(6, 8, heads=4, add_self_loops=False, bias=False).double()
    x, edges = torch.randn(N, 6, dtype=torch.float64), EdgeList(torch.randint(0, N, (2, E)), N)
    if score == "additive":
        h = layer.lin(x).view(N, 4, 8)
        target, source = (h * layer.att_dst).sum(-1), (h * layer.att_src).sum(-1)
        out = edge_attention(target, source, edges, h)
    else:
        source, target = layer.lin_l(x).view(N, 4, 8), layer.lin_r(x).view(N, 4, 8)
        weight = layer.att[0]
        out = edge_attention(target, source, edges, source, score="joint", weight=weight)
    torch.testing.assert_close(out.flatten(1), layer(x, edges.index()))


def test_threads_and_compilation_change_nothing():
    edges, parts = draw("dot", 8, 8, 8, torch.float32)
    many = {k: None if t is None else t.detach() for k, t in parts.items()}
    one = edge_attention(edges=edges, score="dot", **many)
    torch.set_num_threads(2)
    assert torch.equal(one, edge_attention(edges=edges, score="dot", **many))
    compiled = torch.compile(edge_attention, backend="eager")
    torch.testing.assert_close(compiled(edges=edges, score="dot", **many), one)


def test_extreme_scores():
    edges = EdgeList(torch.tensor([[0, 1, 2], [2, 2, 2]]), 3)
    for scores in ([1e30, 0.0, -1e30], [-torch.inf, 0.0, 0.0], [200.0, 100.0, 0.0]):
        source = torch.tensor(scores).unsqueeze(1)
        out = edge_attention(torch.zeros(3, 1), source, edges, factor=1.0)
        torch.testing.assert_close(out.flatten(), torch.tensor(scores).softmax(0))


def test_refusals():
    for index in (3, -1):
        with pytest.raises(ValueError, match="Expected the indices of 'edge_index' to lie in"):
            EdgeList(torch.tensor([[0, index], [1, 2]]), 3)
    edges, parts = draw("additive", 2, 1, 3)
    with pytest.raises(ValueError, match="Expected 'score' to be one of"):
        edge_attention(edges=edges, score="cosine", **parts)
    with pytest.raises(ValueError, match="Expected 'weight' for 'joint' scores and no others"):
        edge_attention(edges=edges, **(parts | {"weight": torch.ones(2, 1).double()}))
    with pytest.raises(ValueError, match=r"Expected 'value' of shape \[40, 2, 3\]"):
        edge_attention(edges=edges, **(parts | {"value": torch.ones(39, 2, 3).double()}))
    with pytest.raises(TypeError, match="Expected 'source' of the floating type of 'target'"):
        edge_attention(edges=edges, **(parts | {"source": parts["source"].float()}))
    with pytest.raises(ValueError, match="Expected 'target' of 40 rows and 2 dimensions"):
        edge_attention(edges=edges, **(parts | {"target": torch.ones(40).double()}))
