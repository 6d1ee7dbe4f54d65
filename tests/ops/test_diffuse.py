import pytest
import torch
from dense import as_form, dense_step, dense_weight, random_graph
from hypothesis import given, settings
from hypothesis import strategies as st

from torch_geometric_diff import DiffusionOperator, diffuse
from torch_geometric_diff.ops import Recurrence
from torch_geometric_diff.ops._random import dropout_scale, keep_mask

N = 23


def dense_diffuse(x, step, num_steps, dropout=0.0, seed=0):
    threshold = round(dropout * 65536)
    for k in range(num_steps):
        if threshold:
            keep = keep_mask(seed, k, x.size(0), x.size(1), threshold)
            x = x * keep * dropout_scale(threshold)
        x = step @ x
    return x


@pytest.mark.parametrize("undirected", [True, False])
@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("dtype, tolerance", [(torch.float64, 1e-10), (torch.float32, 1e-5)])
def test_values_and_gradients(kernel, form, undirected, dropout, dtype, tolerance):
    edge_index, weight = random_graph(N, 60, undirected=undirected)
    adj, edge_weight = as_form(form, edge_index, weight.to(dtype), N)
    operator = DiffusionOperator(adj, edge_weight, num_nodes=N, step_size=0.2)
    step = dense_step(dense_weight(edge_index, weight, N), 0.2, "sym", True)
    torch.manual_seed(1)
    x = torch.randn(N, 37, dtype=torch.float64)
    weights = torch.randn(N, 37, dtype=torch.float64)

    ours = x.to(dtype, copy=True).requires_grad_()
    out = diffuse(ours, operator, 6, dropout, seed=3)
    (out * weights.to(dtype)).sum().backward()
    theirs = x.clone().requires_grad_()
    expected = dense_diffuse(theirs, step, 6, dropout, seed=3)
    (expected * weights).sum().backward()

    scale = max(1.0, float(expected.detach().abs().max()))
    torch.testing.assert_close(out.double(), expected, atol=tolerance * scale, rtol=0)
    scale = max(1.0, float(theirs.grad.abs().max()))
    torch.testing.assert_close(ours.grad.double(), theirs.grad, atol=tolerance * scale, rtol=0)


@pytest.mark.parametrize("dropout", [0.0, 0.4])
def test_gradients_of_weights_and_step_size(kernel, dropout):
    edge_index, weight = random_graph(9, 15)
    x = torch.randn(9, 3, dtype=torch.float64, requires_grad=True)
    weight.requires_grad_()
    step_size = torch.tensor(0.1, dtype=torch.float64, requires_grad=True)

    def function(x, weight, step_size):
        operator = DiffusionOperator(
            edge_index, weight, num_nodes=9, step_size=step_size, add_self_loops=True
        )
        return diffuse(x, operator, 3, dropout, seed=5)

    assert torch.autograd.gradcheck(function, (x, weight, step_size))


@pytest.mark.parametrize("form", ["coo", "csr", "csc", "SparseTensor"])
def test_gradients_of_the_values_of_a_sparse_matrix(form):
    edge_index, weight = random_graph(9, 15)
    x = torch.randn(9, 3, dtype=torch.float64)

    def gradient(form):
        leaf = weight.clone().requires_grad_()
        adj, edge_weight = as_form(form, edge_index, leaf, 9)
        diffuse(x, DiffusionOperator(adj, edge_weight, num_nodes=9), 3).square().sum().backward()
        return leaf.grad

    torch.testing.assert_close(gradient(form), gradient("edge_index"))


def test_forward_mode_and_second_derivatives(kernel):
    edge_index, weight = random_graph(9, 15)
    operator = DiffusionOperator(edge_index, weight, num_nodes=9)
    x = torch.randn(9, 3, dtype=torch.float64, requires_grad=True)

    def function(x):
        return diffuse(x, operator, 3, 0.4, seed=5)

    assert torch.autograd.gradcheck(function, (x,), check_forward_ad=True)
    assert torch.autograd.gradgradcheck(function, (x,), check_fwd_over_rev=True)


@settings(max_examples=30, deadline=None)
@given(
    num_nodes=st.integers(1, 40),
    num_edges=st.integers(0, 120),
    channels=st.integers(1, 70),
    num_steps=st.integers(0, 5),
    dropout=st.sampled_from([0.0, 0.01, 0.5, 0.99]),
    seed=st.integers(0, 2**63 - 1),
)
def test_any_graph(num_nodes, num_edges, channels, num_steps, dropout, seed):
    edge_index, weight = random_graph(num_nodes, num_edges, seed=seed)
    operator = DiffusionOperator(edge_index, weight, num_nodes=num_nodes, step_size=0.1)
    x = torch.randn(num_nodes, channels, dtype=torch.float64)
    out = diffuse(x, operator, num_steps, dropout, seed=seed)
    expected = dense_diffuse(x, operator.to_dense(), num_steps, dropout, seed)
    torch.testing.assert_close(out, expected, atol=1e-9 * (1 + float(x.abs().max())), rtol=1e-9)


def test_closed_forms(kernel):
    # two nodes: the difference shrinks by 1 - 2 h a step, the mean stays
    pair = DiffusionOperator(torch.tensor([[0, 1], [1, 0]]), step_size=0.2, normalization=None)
    out = diffuse(torch.tensor([[1.0], [0.0]]), pair, 4)
    torch.testing.assert_close(out[0] - out[1], torch.tensor([0.6**4]))
    torch.testing.assert_close(out.sum(), torch.tensor(1.0))
    # complete graph: everything but the mean shrinks by 1 - n h
    edge_index = (1 - torch.eye(5)).nonzero().t()
    operator = DiffusionOperator(edge_index, step_size=0.1, normalization=None)
    x = torch.randn(5, 3)
    torch.testing.assert_close(diffuse(x, operator, 3), x.mean(0) + 0.5**3 * (x - x.mean(0)))
    # cycle: cosines are eigenvectors
    nodes = torch.arange(12)
    edge_index = torch.stack([nodes, (nodes + 1) % 12])
    edge_index = torch.cat([edge_index, edge_index.flip(0)], 1)
    operator = DiffusionOperator(edge_index, step_size=0.3, normalization=None)
    wave = torch.cos(2 * torch.pi * 2 * nodes / 12).unsqueeze(1)
    factor = 1 - 0.3 * (2 - 2 * torch.cos(torch.tensor(2 * torch.pi * 2 / 12)))
    torch.testing.assert_close(diffuse(wave, operator, 5), factor**5 * wave)
    # small steps converge to the heat kernel
    laplacian = (torch.eye(12) - operator.to_dense()) / 0.3
    fine = operator.with_step_size(0.5 / 4000)
    x = torch.randn(12, 2)
    heat = torch.linalg.matrix_exp(-0.5 * laplacian) @ x
    torch.testing.assert_close(diffuse(x, fine, 4000), heat, atol=2e-3, rtol=0)


def test_maximum_principle_and_constants(kernel):
    edge_index, weight = random_graph(N, 60)
    operator = DiffusionOperator(edge_index, weight, num_nodes=N, step_size=0.01)
    operator = operator.with_step_size(operator.gershgorin_step_size)
    x = torch.rand(N, 4, dtype=torch.float64)
    out = diffuse(x, operator, 50)
    assert (out <= x.max(0).values + 1e-12).all() and (out >= x.min(0).values - 1e-12).all()
    constant = torch.full((N, 3), 2.5, dtype=torch.float64)
    torch.testing.assert_close(diffuse(constant, operator, 50), constant)


def test_batched_and_non_contiguous(kernel):
    edge_index, weight = random_graph(N, 60)
    operator = DiffusionOperator(edge_index, weight.float(), num_nodes=N)
    x = torch.randn(4, N, 5)
    out = diffuse(x, operator, 3)
    for batch in range(4):
        torch.testing.assert_close(out[batch], diffuse(x[batch], operator, 3))
    wide = torch.randn(5, N).t()
    torch.testing.assert_close(diffuse(wide, operator, 3), diffuse(wide.contiguous(), operator, 3))
    every = torch.randn(N, 10)[:, ::2]
    torch.testing.assert_close(diffuse(every, operator, 3), diffuse(every.clone(), operator, 3))


@pytest.mark.parametrize("undirected", [True, False])
@pytest.mark.parametrize("learned", [True, False])
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_elements_of_a_batch_are_as_if_alone(kernel, undirected, learned, dropout):
    edge_index, weight = random_graph(N, 60, undirected=undirected)
    step_size = torch.tensor(0.2, requires_grad=learned)
    operator = DiffusionOperator(edge_index, weight.float(), num_nodes=N, step_size=step_size)
    leaves = [torch.randn(4, N, 37).requires_grad_() for _ in range(2)]
    leaves[1].data.copy_(leaves[0])
    seeds = [7, 2**63 - 1, 0, 7]
    out = diffuse(leaves[0], operator, 3, dropout, seed=seeds)
    alone = [
        diffuse(x, operator, 3, dropout, seed=seed)
        for x, seed in zip(leaves[1], seeds, strict=True)
    ]
    assert torch.equal(out, torch.stack(alone))
    gradients = []
    for y in (out, torch.stack(alone)):
        step_size.grad = None
        y.square().sum().backward(retain_graph=True)
        gradients.append(step_size.grad)
    assert torch.equal(leaves[0].grad, leaves[1].grad)
    if learned:
        torch.testing.assert_close(*gradients)


def test_seeds_of_a_batch(kernel):
    operator = DiffusionOperator(torch.empty(2, 0, dtype=torch.long), num_nodes=N)
    x = torch.ones(3, N, 5)

    def masks(seed=None):
        return diffuse(x, operator, 1, 0.5, seed=seed)

    assert torch.equal(masks(2**63 - 2), masks([2**63 - 2, 2**63 - 1, 0]))
    assert not torch.equal(masks(4)[0], masks(4)[1])
    torch.manual_seed(0)
    batch = masks()
    torch.manual_seed(0)
    for element in batch:
        assert torch.equal(diffuse(x[0], operator, 1, 0.5), element)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_accumulates_in_float32(kernel, dtype):
    edge_index, weight = random_graph(N, 60)
    operator = DiffusionOperator(edge_index, weight.float(), num_nodes=N)
    x = torch.randn(N, 5).to(dtype).requires_grad_()
    out = diffuse(x, operator, 10)
    assert out.dtype == dtype
    torch.testing.assert_close(out, diffuse(x.float(), operator, 10).to(dtype), atol=0, rtol=0)
    out.sum().backward()
    assert x.grad.dtype == dtype
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = diffuse(x.float(), operator, 10)
    torch.testing.assert_close(inside, diffuse(x.float(), operator, 10), atol=0, rtol=0)


def test_no_steps_and_no_training_are_exact(kernel):
    edge_index, weight = random_graph(N, 60)
    operator = DiffusionOperator(edge_index, weight, num_nodes=N)
    x = torch.randn(N, 5, dtype=torch.float64)
    out = diffuse(x, operator, 0, dropout=0.5)
    assert torch.equal(out, x) and out.data_ptr() != x.data_ptr()
    first = diffuse(x, operator, 4, dropout=0.5, training=False)
    assert torch.equal(first, diffuse(x, operator, 4))


@pytest.mark.parametrize("shape", [(N, 0), (0, 3)])
def test_empty(kernel, shape):
    operator = DiffusionOperator(torch.empty(2, 0, dtype=torch.long), num_nodes=shape[0])
    assert diffuse(torch.zeros(shape), operator, 3, dropout=0.5).shape == shape


def test_seed():
    edge_index, weight = random_graph(N, 60)
    operator = DiffusionOperator(edge_index, weight.float(), num_nodes=N)
    x = torch.ones(N, 5)
    again = [diffuse(x, operator, 2, 0.5, seed=7) for _ in range(2)]
    assert torch.equal(*again)
    assert not torch.equal(again[0], diffuse(x, operator, 2, 0.5, seed=8))
    drawn = []
    for _ in range(2):
        torch.manual_seed(0)
        drawn += [diffuse(x, operator, 2, 0.5), diffuse(x, operator, 2, 0.5)]
    assert torch.equal(drawn[0], drawn[2]) and torch.equal(drawn[1], drawn[3])
    assert not torch.equal(drawn[0], drawn[1])


def test_nothing_is_saved_per_step():
    edge_index, weight = random_graph(N, 60)
    operator = DiffusionOperator(edge_index, weight.float(), num_nodes=N)
    saved = []

    def pack(tensor):
        saved.append(tensor)
        return tensor

    x = torch.randn(N, 5, requires_grad=True)
    counts = []
    for num_steps in (2, 200):
        saved.clear()
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            diffuse(x, operator, num_steps, 0.5)
        counts.append(sum(tensor.numel() for tensor in saved))
    assert counts[0] == counts[1]


def test_opcheck(kernel):
    edge_index, weight = random_graph(N, 60)
    operator = DiffusionOperator(edge_index, weight.float(), num_nodes=N)
    x = torch.randn(1, 2, N, 5, requires_grad=True)
    csr, layout = operator.csr(), operator.pattern.transposition
    table, seeds = Recurrence.power(4).table(), torch.tensor([3, 4])
    rest = (None, table, seeds, 1000, False, None, None)
    arguments = (x, csr.value, csr.rowptr, csr.col, None, *layout, *rest)
    torch.library.opcheck(torch.ops.torch_geometric_diff.propagate.default, arguments)


@pytest.mark.skipif(torch.__version__ < "2.5", reason="torch 2.4 exports no Tensors of a closure")
def test_export_sees_one_node():
    edge_index, weight = random_graph(N, 60)
    operator = DiffusionOperator(edge_index, weight.float(), num_nodes=N)

    class Model(torch.nn.Module):
        def forward(self, x):
            return diffuse(x, operator, 20)

    for shape in ((N, 5), (3, N, 5)):
        program = torch.export.export(Model(), (torch.randn(shape),))
        nodes = [node for node in program.graph.nodes if "propagate" in str(node.target)]
        assert len(nodes) == 1


@pytest.mark.parametrize("seed", [None, 3, [3, 5]])
def test_compile_of_a_batch(seed):
    edge_index, weight = random_graph(N, 60)
    operator = DiffusionOperator(edge_index, weight.float(), num_nodes=N)
    compiled = torch.compile(
        lambda x: diffuse(x, operator, 3, 0.5, seed), backend="aot_eager", fullgraph=True
    )
    x = torch.randn(2, N, 5, requires_grad=True)
    outs = []
    for function in (compiled, lambda x: diffuse(x, operator, 3, 0.5, seed)):
        torch.manual_seed(0)
        out = function(x)
        outs.append(torch.cat([out, *torch.autograd.grad(out.square().sum(), x)]))
    torch.testing.assert_close(*outs)


@pytest.mark.parametrize(
    "x, keywords, error, text",
    [
        (torch.ones(N - 1, 2), {}, ValueError, rf"shape \[{N}, F\].*\(got \[{N - 1}, 2\]\)"),
        (torch.ones(N), {}, ValueError, rf"\(got \[{N}\]\)"),
        (torch.ones(N, 2, dtype=torch.long), {}, TypeError, r"floating Tensor \(got torch.int64\)"),
        ([1.0], {}, TypeError, r"floating Tensor \(got list\)"),
        (torch.ones(N, 2), {"num_steps": -1}, ValueError, r"at least 0 \(got -1\)"),
        (torch.ones(N, 2), {"num_steps": 1.5}, TypeError, r"an integer \(got 1.5\)"),
        (torch.ones(N, 2), {"dropout": 1.0}, ValueError, r"in \[0, 1\) \(got 1.0\)"),
        (torch.ones(N, 2), {"dropout": -0.1}, ValueError, r"in \[0, 1\) \(got -0.1\)"),
        (torch.ones(N, 2), {"dropout": float("nan")}, ValueError, r"\(got nan\)"),
        (torch.ones(N, 2), {"seed": -1}, ValueError, r"'seed' .*\(got -1\)"),
        (torch.ones(3, N, 2), {"seed": [1, 2**63, 2]}, ValueError, r"'seed' .*\(got 9223"),
        (torch.ones(3, N, 2), {"seed": [1, 2]}, ValueError, r"'seed' .* 3, .*\(got 2\)"),
    ],
)
def test_bad_input(x, keywords, error, text):
    edge_index, weight = random_graph(N, 60)
    operator = DiffusionOperator(edge_index, weight.float(), num_nodes=N)
    with pytest.raises(error, match=text):
        diffuse(x, operator, **{"num_steps": 2, **keywords})
    with pytest.raises(TypeError, match=r"a SparseOperator \(got Tensor\)"):
        diffuse(torch.ones(N, 2), edge_index, 2)


@pytest.mark.parametrize("undirected", [True, False])
def test_reordering_changes_nothing(undirected, monkeypatch):
    monkeypatch.setattr("torch_geometric_diff.ops._reorder.MIN_NODES", 1)
    # a path whose nodes come in random order
    nodes = torch.randperm(400, generator=torch.Generator().manual_seed(0))
    edge_index = torch.stack([nodes[:-1], nodes[1:]])
    if undirected:
        edge_index = torch.cat([edge_index, edge_index.flip(0)], 1)
    weight = 1 + torch.arange(edge_index.size(1)).remainder(399) / 399
    given = DiffusionOperator(edge_index, weight, step_size=0.1)
    ordered = DiffusionOperator(edge_index, weight, step_size=0.1, reorder=True)
    assert ordered.is_reordered and not given.is_reordered
    assert torch.equal(ordered.to_dense(), given.to_dense())
    leaves = [torch.randn(400, 20).requires_grad_() for _ in range(2)]
    leaves[1].data.copy_(leaves[0])
    outs = [
        diffuse(x, operator, 5, 0.3, seed=4)
        for x, operator in zip(leaves, (given, ordered), strict=True)
    ]
    torch.testing.assert_close(*outs)
    for out in outs:
        out.square().sum().backward()
    torch.testing.assert_close(leaves[0].grad, leaves[1].grad)
    halved = ordered.with_step_size(0.05)
    expected = given.with_step_size(0.05)
    x = leaves[0].detach()
    torch.testing.assert_close(diffuse(x, halved, 5), diffuse(x, expected, 5))
    torch.testing.assert_close(diffuse(x, ordered.t(), 5), diffuse(x, given.t(), 5))


def test_reordering_is_left_where_it_does_not_pay(monkeypatch):
    nodes = torch.arange(400)
    path = torch.stack([nodes[:-1], nodes[1:]])
    shuffled = torch.randperm(400)[path]
    assert not DiffusionOperator(shuffled, reorder=True).is_reordered  # small
    monkeypatch.setattr("torch_geometric_diff.ops._reorder.MIN_NODES", 1)
    assert not DiffusionOperator(path, reorder=True).is_reordered  # in good order
    assert DiffusionOperator(shuffled, reorder=True).is_reordered


def test_second_derivatives_of_learned_weights() -> None:
    edge_index, weight = torch.tensor([[0, 1], [1, 2]]), torch.tensor([0.5, 0.7]).double()
    x, weight = torch.ones(3, 1).double().requires_grad_(), weight.requires_grad_()
    out = diffuse(x, DiffusionOperator(edge_index, weight, normalization=None), 1)
    (grad,) = torch.autograd.grad(out.sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(out.square().sum() + grad.square().sum(), weight)
    torch.testing.assert_close(second, torch.tensor([0.0375, 0.1125]).double())


def test_nested_forward_mode() -> None:
    operator = DiffusionOperator(torch.tensor([[0, 1], [1, 0]]), dtype=torch.float64)
    hessian = torch.func.jacfwd(torch.func.jacfwd(lambda z: diffuse(z, operator, 1).square().sum()))
    found = hessian(torch.randn(2, 1, dtype=torch.float64)).flatten()
    torch.testing.assert_close(found, torch.tensor([1.5625, 0.4375, 0.4375, 1.5625]).double())
