import math
import warnings

import pytest
import torch
from dense import as_form, dense_step, dense_weight, random_graph
from torch_geometric import EdgeIndex
from torch_geometric.nn.conv.gcn_conv import gcn_norm

from torch_geometric_diff import DiffusionOperator
from torch_geometric_diff.ops import SparseOperator

N = 23


@pytest.mark.parametrize("normalization", ["sym", "row", None])
@pytest.mark.parametrize("add_self_loops", [True, False])
@pytest.mark.parametrize("undirected", [True, False])
def test_equals_dense(form, normalization, add_self_loops, undirected):
    edge_index, weight = random_graph(N, 60, undirected=undirected)
    adj, edge_weight = as_form(form, edge_index, weight, N)
    operator = DiffusionOperator(
        adj,
        edge_weight,
        num_nodes=N,
        step_size=0.05,
        normalization=normalization,
        add_self_loops=add_self_loops,
    )
    expected = dense_step(dense_weight(edge_index, weight, N), 0.05, normalization, add_self_loops)
    torch.testing.assert_close(operator.to_dense(), expected, atol=1e-12, rtol=0)
    torch.testing.assert_close(operator.t().to_dense(), expected.t(), atol=1e-12, rtol=0)
    torch.testing.assert_close(operator.t().t().to_dense(), expected, atol=1e-12, rtol=0)
    torch.testing.assert_close(expected.sum(1), torch.ones(N, dtype=torch.float64))
    assert operator.is_symmetric == (undirected and normalization != "row")
    assert (operator.t() is operator) == operator.is_symmetric
    assert operator.rowptr.dtype == operator.col.dtype == torch.int32


def test_rows_are_sorted_and_duplicates_summed():
    edge_index = torch.tensor([[2, 0, 0, 2], [1, 1, 1, 1]])
    operator = DiffusionOperator(edge_index, num_nodes=3, step_size=0.1, normalization=None)
    assert operator.rowptr.tolist() == [0, 1, 4, 5]
    assert operator.col.tolist() == [0, 0, 1, 2, 2]
    torch.testing.assert_close(operator.value, torch.tensor([1.0, 0.2, 0.6, 0.2, 1.0]))


def test_ones_are_the_default_weights_and_size_is_inferred():
    edge_index = torch.tensor([[0, 1, 1, 4], [1, 0, 4, 1]])
    assert DiffusionOperator(edge_index).num_nodes == 5
    assert DiffusionOperator(EdgeIndex(edge_index, sparse_size=(7, 7))).num_nodes == 7
    ones = DiffusionOperator(edge_index, torch.ones(4, dtype=torch.long))
    torch.testing.assert_close(ones.to_dense(), DiffusionOperator(edge_index).to_dense())


def test_with_step_size_and_to():
    edge_index, weight = random_graph(N, 60)
    first = DiffusionOperator(edge_index, weight, num_nodes=N, step_size=0.1)
    second = DiffusionOperator(edge_index, weight, num_nodes=N, step_size=0.03)
    torch.testing.assert_close(first.with_step_size(0.03).to_dense(), second.to_dense())
    torch.testing.assert_close(first.with_step_size(0.03).t().to_dense(), second.to_dense().t())
    half = first.to(torch.float32)
    assert half.dtype == torch.float32 and half.t().dtype == torch.float32
    assert first.to(torch.float64) is first
    with pytest.raises(TypeError, match="'dtype' to be floating"):
        first.to(torch.int64)


@pytest.mark.parametrize("num_nodes", [5, 60])
def test_stability_bounds_of_a_complete_graph(num_nodes):
    # L = n I - 1 1^T has the eigenvalues 0 and n
    adj = torch.ones(num_nodes, num_nodes) - torch.eye(num_nodes)
    edge_index = adj.nonzero().t()
    step_size = 1.9 / num_nodes
    operator = DiffusionOperator(edge_index, step_size=step_size, normalization=None)
    assert math.isclose(operator.max_stable_step_size, 2 / num_nodes, rel_tol=1e-2)
    assert math.isclose(operator.gershgorin_step_size, 1 / (num_nodes - 1), rel_tol=1e-5)
    with pytest.warns(UserWarning, match=rf"'step_size' is 1, .* is {2 / num_nodes:.3g}") as caught:
        DiffusionOperator(edge_index, step_size=1.0, normalization=None)
    assert len(caught) == 1


def test_stability_bound_is_sharp():
    edge_index, weight = random_graph(40, 200, undirected=True)
    bound = DiffusionOperator(edge_index, weight, step_size=1e-3).max_stable_step_size
    x = torch.randn(37, 3, dtype=torch.float64)
    below = DiffusionOperator(edge_index, weight, step_size=0.98 * bound)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        above = DiffusionOperator(edge_index, weight, step_size=1.05 * bound)
    power = torch.linalg.matrix_power
    assert (power(below.to_dense(), 2000) @ x).norm() <= x.norm()
    assert (power(above.to_dense(), 2000) @ x).norm() > 1e3 * x.norm()


def test_directed_cycle_uses_the_complex_eigenvalue():
    num_nodes = 50  # eigenvalues 1 - exp(i t): |1 - h z| <= 1 exactly up to h = 1
    nodes = torch.arange(num_nodes)
    edge_index = torch.stack([nodes, (nodes + 1) % num_nodes])
    operator = DiffusionOperator(edge_index, step_size=0.5, normalization=None)
    assert math.isclose(operator.max_stable_step_size, 1.0, rel_tol=1e-2)


@pytest.mark.parametrize("num_nodes", [10, 40])
def test_directed_bound_is_not_that_of_the_largest_eigenvalue(num_nodes):
    # a complete graph has the larger eigenvalue n, a directed triangle of weight w the two
    # w (1 - exp(+-2 pi i / 3)) of modulus sqrt(3) w < n, which grow earlier: past 1 / w < 2 / n
    weight = 0.55 * num_nodes
    complete = (torch.ones(num_nodes, num_nodes) - torch.eye(num_nodes)).nonzero().t()
    triangle = num_nodes + torch.tensor([[0, 1, 2], [1, 2, 0]])
    edge_index = torch.cat([complete, triangle], dim=1)
    edge_weight = torch.cat([torch.ones(complete.size(1)), torch.full((3,), weight)])
    keywords = {"normalization": None, "num_nodes": num_nodes + 3}
    operator = DiffusionOperator(edge_index, edge_weight, step_size=0.5 / weight, **keywords)
    assert math.isclose(operator.max_stable_step_size, 1 / weight, rel_tol=1e-2)
    with pytest.warns(UserWarning, match="Diffusion diverges"):
        DiffusionOperator(edge_index, edge_weight, step_size=1.05 / weight, **keywords)


@pytest.mark.parametrize("num_nodes", [0, 1, 4])
def test_no_edges(num_nodes):
    operator = DiffusionOperator(torch.empty(2, 0, dtype=torch.long), num_nodes=num_nodes)
    assert operator.max_stable_step_size == operator.gershgorin_step_size == float("inf")
    torch.testing.assert_close(operator.to_dense(), torch.eye(num_nodes))


EDGE = torch.tensor([[0, 1], [1, 0]])


@pytest.mark.parametrize(
    "arguments, keywords, error, text",
    [
        ((EDGE, torch.tensor([1.0, -2.0])), {}, ValueError, r"not negative \(got -2.0\)"),
        ((EDGE, torch.tensor([1.0, float("nan")])), {}, ValueError, r"finite .*\(got nan\)"),
        ((EDGE, torch.tensor([1.0, float("inf")])), {}, ValueError, r"finite .*\(got inf\)"),
        ((EDGE, torch.ones(3)), {}, ValueError, r"'edge_weight' of shape \[2\].*\(got \[3\]\)"),
        ((EDGE, [1.0, 1.0]), {}, TypeError, r"'edge_weight' to be a Tensor \(got list\)"),
        ((EDGE,), {"num_nodes": 1}, ValueError, r"lie in \[0, 0\].*\(got 1\)"),
        ((EDGE - 1,), {"num_nodes": 2}, ValueError, r"lie in \[0, 1\].*\(got -1\)"),
        ((EDGE.float(),), {}, ValueError, r"hold integers \(got torch.float32\)"),
        ((EDGE[0],), {}, ValueError, r"shape \[2, E\] \(got \[2\]\)"),
        (("graph",), {}, TypeError, r"\(got str\)"),
        ((torch.ones(2, 3).to_sparse(),), {}, ValueError, r"square .*\(got 2 x 3\)"),
        ((torch.eye(2).to_sparse(),), {"num_nodes": 3}, ValueError, r"3 x 3.*\(got 2 x 2\)"),
        ((torch.eye(2).to_sparse(), torch.ones(2)), {}, ValueError, "beside a sparse 'edge_index'"),
        ((EDGE,), {"step_size": 0.0}, ValueError, r"'step_size' to be positive .*\(got 0.0\)"),
        ((EDGE,), {"step_size": -1}, ValueError, r"\(got -1\)"),
        ((EDGE,), {"step_size": float("nan")}, ValueError, r"\(got nan\)"),
        ((EDGE,), {"step_size": torch.ones(2)}, ValueError, r"one number \(got shape \[2\]\)"),
        ((EDGE,), {"normalization": "l2"}, ValueError, r"'sym', 'row' or None \(got 'l2'\)"),
    ],
)
def test_bad_input(arguments, keywords, error, text):
    with pytest.raises(error, match=text):
        DiffusionOperator(*arguments, **keywords)


def test_repr():
    assert repr(DiffusionOperator(EDGE, step_size=0.5)) == (
        "DiffusionOperator(num_nodes=2, nnz=4, step_size=0.5, symmetric=True)"
    )


def test_any_square_matrix():
    edge_index, weight = random_graph(N, 60)
    weight = weight - 0.5
    operator = SparseOperator(edge_index, weight, num_nodes=N)
    dense = dense_weight(edge_index, weight, N)
    assert torch.equal(operator.to_dense(), dense) and torch.equal(
        operator.t().to_dense(), dense.t()
    )
    assert torch.equal(torch.from_numpy(operator.to_scipy().toarray()), dense)
    x = torch.randn(N, 3, dtype=torch.float64)
    torch.testing.assert_close(operator @ x, dense @ x)
    assert repr(operator) == f"SparseOperator(num_nodes={N}, nnz={operator.nnz}, symmetric=False)"
    with pytest.raises(ValueError, match=r"finite \(got -inf\)"):
        SparseOperator(EDGE, torch.tensor([1.0, -math.inf]))


@pytest.mark.parametrize("form", ["edge_index", "coo", "csr", "SparseTensor"])
@pytest.mark.parametrize("keywords", [{}, {"improved": True}, {"add_self_loops": False}])
def test_gcn_norm_is_that_of_pyg(form, keywords):
    edge_index, weight = random_graph(N, 60)
    adj, edge_weight = as_form(form, edge_index, weight, N)
    operator = SparseOperator.gcn_norm(adj, edge_weight, num_nodes=N, **keywords)
    expected = gcn_norm(adj, edge_weight, num_nodes=N, **keywords)
    if form == "SparseTensor":
        expected = expected.to_dense()
    elif form == "edge_index":
        expected = dense_weight(*expected, N)
    else:
        expected = expected[0].to_dense()
    torch.testing.assert_close(operator.to_dense(), expected, atol=1e-15, rtol=1e-14)
