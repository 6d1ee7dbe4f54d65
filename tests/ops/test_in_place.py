"""Everything that follows from the entries of an operator, after these were changed."""

import copy

import pytest
import torch
from dense import random_graph

from torch_geometric_diff.ops import (
    DiffusionOperator,
    Recurrence,
    SparseOperator,
    diffuse,
    propagate,
)
from torch_geometric_diff.ops import _matrix as matrix

N = 40
CHANGES = {
    "scaled": lambda op: op.value.mul_(2),
    "not symmetric any more": lambda op: op.value.add_(torch.linspace(0, 1, op.nnz).double()),
    "replaced": lambda op: setattr(op, "value", op.value.flip(0)),
    "in inference mode": lambda op: torch.inference_mode()(op.value.mul_)(3),
}


def some_operator(undirected, reordered, monkeypatch):
    edge_index, weight = random_graph(N, 90, undirected=undirected)
    if reordered:
        monkeypatch.setattr(matrix, "locality_order", lambda m: torch.randperm(m.shape[0]).numpy())
    return SparseOperator(edge_index, weight, num_nodes=N, reorder=reordered)


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("undirected", [True, False])
@pytest.mark.parametrize("reordered", [True, False])
def test_follows(change, undirected, reordered, monkeypatch):
    operator = some_operator(undirected, reordered, monkeypatch)
    x = torch.randn(N, 16, dtype=torch.float64, requires_grad=True)
    nodes = torch.tensor([3, 17])

    def check():
        dense = operator.to_dense().detach()
        expected = dense @ (dense @ x)
        for _ in range(3):  # the receptive field is looked for at the second call
            for rows in (None, nodes):
                out = diffuse(x, operator, 2, nodes=rows)
                right = expected if rows is None else expected[rows]
                torch.testing.assert_close(out, right)
                found = torch.autograd.grad(out.square().sum(), x)[0]
                wanted = torch.autograd.grad(right.square().sum(), x, retain_graph=True)[0]
                torch.testing.assert_close(found, wanted)
        assert torch.equal(operator.t().to_dense(), dense.t())
        torch.testing.assert_close(diffuse(x, operator.t(), 1), dense.t() @ x)
        assert operator.is_symmetric == torch.equal(dense, dense.t())
        fixed = propagate(x, operator, Recurrence.power(1), fixed=nodes)
        torch.testing.assert_close(fixed, (dense @ x).index_copy(0, nodes, x[nodes]))
        assert torch.equal(copy.deepcopy(operator).to_dense(), dense)
        assert torch.equal(operator.to(torch.float32).to_dense(), dense.float())

    check()
    CHANGES[change](operator)
    check()


def test_a_transpose_has_entries_of_its_own():
    edge_index, weight = random_graph(N, 90)
    operator = SparseOperator(edge_index, weight, num_nodes=N)
    x = torch.randn(N, 3, dtype=torch.float64, requires_grad=True)
    expected = torch.autograd.grad(diffuse(x, operator, 1).square().sum(), x)[0]
    operator.t().value.mul_(5)
    assert torch.equal(torch.autograd.grad(diffuse(x, operator, 1).square().sum(), x)[0], expected)


@pytest.mark.skipif(torch.__version__ < "2.9", reason="compiled by torch 2.9 or newer")
@pytest.mark.parametrize("undirected", [True, False])
def test_compiled_follows(undirected):
    edge_index, weight = random_graph(N, 90, undirected=undirected)
    operator = SparseOperator(edge_index, weight, num_nodes=N)
    x = torch.randn(N, 3, dtype=torch.float64, requires_grad=True)
    torch._dynamo.reset()
    compiled = torch.compile(lambda x: diffuse(x, operator, 2), backend="aot_eager", fullgraph=True)
    for change in (lambda op: None, *CHANGES.values()):
        change(operator)
        for _ in range(2):
            found = torch.autograd.grad(compiled(x).square().sum(), x)[0]
            expected = torch.autograd.grad(diffuse(x, operator, 2).square().sum(), x)[0]
            torch.testing.assert_close(found, expected)


def test_the_verdict_follows():
    edge_index = torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]])
    operator = DiffusionOperator(edge_index, normalization=None, step_size=0.5)
    assert operator.max_stable_step_size == pytest.approx(2 / 3, rel=1e-2)
    diagonal = operator.pattern.diagonal
    with torch.no_grad():  # twice the Laplacian
        operator.value.copy_(2 * operator.value - diagonal.float())
    assert operator.max_stable_step_size == pytest.approx(1 / 3, rel=1e-2)
    with pytest.warns(UserWarning, match="Diffusion diverges"):
        operator.with_step_size(0.6)


def test_a_recurrence_cannot_be_changed():
    numbers = [0.5, 0.25]
    recurrence = Recurrence(2, a=numbers)
    table = recurrence.table()
    numbers[0] = 7.0
    recurrence.table().fill_(3.0)
    assert torch.equal(recurrence.table(), table) and recurrence.a == (0.5, 0.25)
    for name in ("a", "w", "steps", "num_steps", "_constant", "other"):
        with pytest.raises(AttributeError, match="A recurrence cannot be changed"):
            setattr(Recurrence.power(5), name, 1)
        with pytest.raises(AttributeError, match="A recurrence cannot be changed"):
            delattr(recurrence, name)
    with pytest.raises(TypeError):
        recurrence.a[0] = 1.0
    other = copy.deepcopy(recurrence)
    assert torch.equal(other.table(), table)
    with pytest.raises(TypeError, match="num_steps"):
        Recurrence.power(True)  # though 1 is cached


def test_traced_is_refused():
    edge_index, _weight = random_graph(N, 90)
    x = torch.randn(N, 3)
    operator = DiffusionOperator(edge_index, num_nodes=N)
    for function in (
        lambda x: diffuse(x, operator, 2),
        lambda x: operator @ x,
    ):
        with pytest.raises(NotImplementedError, match="cannot be traced.*'torch.compile'"):
            torch.jit.trace(function, (x,))


def test_meta_can_be_shown():
    edge_index, _ = random_graph(N, 90)
    for kind in (SparseOperator, DiffusionOperator):
        operator = kind(edge_index, num_nodes=N).to("meta")
        assert f"nnz={operator.nnz}" in repr(operator)
