import pytest
import torch
import torch_geometric.nn as pyg
from dense import as_form, random_graph

from torch_geometric_diff import nn
from torch_geometric_diff.ops import SparseOperator

N, C = 23, 3


def graph():
    edge_index, weight = random_graph(N, 60)
    return edge_index, weight


def labels(kind):
    torch.manual_seed(0)
    if kind == "classes":
        return torch.randint(C, (N,))
    if kind == "column of classes":
        return torch.randint(C, (N, 1))
    if kind == "counts":
        return torch.randint(2, (N, C))
    return torch.randn(N, C, dtype=torch.float64)


MASKS = {
    "none": None,
    "mask": torch.arange(N) % 3 == 0,
    "indices": torch.tensor([4, 0, 7, 4]),
}


def pair(*arguments):
    ours, theirs = nn.LabelPropagation(*arguments), pyg.LabelPropagation(*arguments)
    assert repr(ours) == repr(theirs)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    return ours, theirs


@pytest.mark.parametrize("kind", ["classes", "column of classes", "counts", "scores"])
@pytest.mark.parametrize("which", MASKS)
@pytest.mark.parametrize("weighted", [True, False])
def test_equals_pyg(kind, which, weighted):
    edge_index, weight = graph()
    y, mask = labels(kind), MASKS[which]
    weight = 3 * weight.to(y.dtype if y.is_floating_point() else torch.float32)
    arguments = (y, edge_index, mask, weight if weighted else None)
    ours, theirs = (layer(*arguments) for layer in pair(7, 0.9))
    torch.testing.assert_close(ours, theirs, check_dtype=True, atol=1e-6, rtol=1e-5)
    before = y.clone()
    nn.LabelPropagation(2, 0.5)(*arguments).add_(1)
    assert torch.equal(y, before)


@pytest.mark.parametrize("num_layers", [0, 1, 5])
def test_equals_pyg_for_every_form(form, num_layers):
    edge_index, weight = graph()
    y = labels("scores")
    given = as_form(form, edge_index, weight, N)
    known = as_form("csr" if form in ("coo", "csc") else form, edge_index, weight, N)
    ours, theirs = pair(num_layers, 0.7)
    expected = theirs(y, known[0], edge_weight=known[1])
    torch.testing.assert_close(ours(y, given[0], edge_weight=given[1]), expected)
    calls = []
    ours.register_propagate_forward_hook(lambda *call: calls.append(call))
    torch.testing.assert_close(ours(y, given[0], edge_weight=given[1]), expected)
    assert len(calls) == num_layers
    if form == "SparseTensor":
        adj = given[0].set_value(None)
        torch.testing.assert_close(ours(y, adj), theirs(y, adj), check_dtype=False)


def test_post_step():
    edge_index, weight = graph()
    y = labels("scores").float()
    ours, theirs = pair(6, 0.8)

    def hold(out):
        out[:4] = y[:4]
        return out

    for step in (hold, lambda out: out.tanh(), lambda out: out):
        arguments = {"mask": MASKS["mask"], "edge_weight": weight.float(), "post_step": step}
        torch.testing.assert_close(
            ours(y, edge_index, **arguments), theirs(y, edge_index, **arguments)
        )


def test_cache_and_ready_operator():
    edge_index, weight = graph()
    y = labels("scores")
    layer = nn.LabelPropagation(5, 0.9, cached=True)
    expected = nn.LabelPropagation(5, 0.9)(y, edge_index)
    assert torch.equal(layer(y, edge_index), expected)
    assert torch.equal(layer(y, edge_index), expected)
    with pytest.raises(ValueError, match="another graph"):
        layer(y, edge_index, edge_weight=weight.float())
    operator = SparseOperator.gcn_norm(edge_index, num_nodes=N, add_self_loops=False)
    torch.testing.assert_close(layer(y, operator), expected, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("autoscale", [True, False])
@pytest.mark.parametrize("which", ["mask", "indices"])
@pytest.mark.parametrize("weighted", [True, False])
def test_correct_and_smooth_equals_pyg(autoscale, which, weighted):
    edge_index, weight = graph()
    soft = labels("scores").softmax(-1)
    mask = MASKS[which] if which == "mask" else torch.tensor([4, 0, 7])
    truth = labels("classes")[mask]
    settings = (6, 0.9, 5, 0.7, autoscale, 1.3)
    ours, theirs = nn.CorrectAndSmooth(*settings), pyg.CorrectAndSmooth(*settings)
    assert repr(ours) == repr(theirs)
    arguments = (truth, mask, edge_index, weight if weighted else None)
    rows = (torch.nn.functional.one_hot(truth, C).double(), *arguments[1:])
    close = {"atol": 1e-6, "rtol": 1e-4}  # PyG's matrix is float32 where there are no weights
    for given in (arguments, rows):
        torch.testing.assert_close(ours(soft, *given), theirs(soft, *given), **close)
        torch.testing.assert_close(
            ours.correct(soft, *given), theirs.correct(soft, *given), **close
        )
        torch.testing.assert_close(ours.smooth(soft, *given), theirs.smooth(soft, *given), **close)
    found = []
    for model in (ours, theirs):
        leaf = soft.clone().requires_grad_()
        model.correct(leaf, *arguments).square().sum().backward()
        found.append(leaf.grad)
    assert bool(found[0].isfinite().all())
    known = found[1].isfinite()  # PyG's is NaN at training nodes if no error reaches some node
    torch.testing.assert_close(found[0][known], found[1][known], **close)
    ours.prop1.register_message_forward_hook(lambda *call: None)
    torch.testing.assert_close(ours(soft, *arguments), theirs(soft, *arguments), **close)


def test_no_error_to_correct():
    edge_index, _ = graph()
    truth, mask = labels("classes"), torch.arange(N)
    soft = torch.nn.functional.one_hot(truth, C).float()
    assert torch.equal(
        nn.CorrectAndSmooth(3, 0.5, 3, 0.5).correct(soft, truth, mask, edge_index), soft
    )


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32])
def test_classes_of_any_integers(dtype):
    (edge_index, _), layer, y = graph(), nn.LabelPropagation(3, 0.5), labels("classes")
    assert torch.equal(layer(y.to(dtype), edge_index), layer(y, edge_index))


def test_bad_input():
    edge_index, weight = graph()
    layer, y = nn.LabelPropagation(3, 0.5), labels("scores")
    with pytest.raises(ValueError, match=r"'num_layers' .* \(got -1\)"):
        nn.LabelPropagation(-1, 0.5)
    with pytest.raises(ValueError, match=r"'alpha' .* \(got nan\)"):
        nn.LabelPropagation(2, float("nan"))
    with pytest.raises(ValueError, match="beside a sparse 'edge_index'"):
        layer(y, as_form("csr", edge_index, weight, N)[0], edge_weight=weight)
    with pytest.raises(ValueError, match="'edge_weight' to be finite"):
        layer(y, edge_index, edge_weight=weight / 0)
    with pytest.raises(ValueError, match=rf"the indices 'mask' to lie in \[0, {N - 1}\]"):
        layer(y, edge_index, torch.tensor([N]))
    with pytest.raises(ValueError, match=rf"a mask 'mask' of {N} nodes \(got 5\)"):
        layer(y, edge_index, torch.ones(5, dtype=torch.bool))
    with pytest.raises(ValueError, match=r"'y' to hold classes, .* \(got torch.float32 of shape"):
        layer(torch.rand(N), edge_index)
    some = labels("classes").clone()
    some[0] = -1  # stands for no label, but the mask says that there is one
    with pytest.raises(ValueError, match=r"'y' to hold classes of at least 0 .* \(got -1\)"):
        layer(some, edge_index, torch.tensor([0, 1]))
    assert layer(some, edge_index, torch.tensor([1, 2])).shape == (N, int(some.max()) + 1)
    model, soft = nn.CorrectAndSmooth(3, 0.5, 3, 0.5), y.softmax(-1)
    with pytest.raises(ValueError, match="'y_true' to have 8 rows"):
        model(soft, labels("classes"), MASKS["mask"], edge_index)
    with pytest.raises(ValueError, match=rf"a mask 'mask' of {N} nodes \(got 3\)"):
        model(soft, labels("classes")[:3], torch.ones(3, dtype=torch.bool), edge_index)
