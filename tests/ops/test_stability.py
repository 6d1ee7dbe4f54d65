import math
import warnings

import numpy as np
import pytest
import torch
from dense import random_graph

from torch_geometric_diff import DiffusionOperator
from torch_geometric_diff.nn import DiffConv
from torch_geometric_diff.ops import _stability as stability


def path(num_nodes: int) -> torch.Tensor:
    nodes = torch.arange(num_nodes)
    return torch.stack([nodes[:-1], nodes[1:]])


def graphs(num_nodes: int):
    """Edges of directed graphs whose matrices are far from normal, and of others."""
    generator = torch.Generator().manual_seed(num_nodes)
    edges = torch.randint(num_nodes, (2, 3 * num_nodes), generator=generator)
    acyclic = edges.sort(0).values
    child = torch.arange(1, num_nodes)
    tree = torch.stack([(child - 1) // 2, child])
    yield "path", path(num_nodes)
    yield "cycle", torch.cat([path(num_nodes), torch.tensor([[num_nodes - 1], [0]])], 1)
    yield "directed", edges
    yield "acyclic", acyclic
    yield "few edges back", torch.cat([acyclic, acyclic[:, :3].flip(0)], 1)
    yield "tree", tree
    yield "tree, edges back", torch.cat([tree, torch.tensor([[num_nodes - 1, 5], [0, 0]])], 1)
    yield "undirected", torch.cat([edges, edges.flip(0)], 1)


def dense_limit(operator: DiffusionOperator) -> float:
    """From all eigenvalues of every strongly connected component, by powers of a dense matrix."""
    dense = (torch.eye(operator.num_nodes) - operator.to_dense()) / operator.step_size
    off = dense - torch.diag(dense.diagonal())
    laplacian = off - torch.diag(off.sum(1))
    reach = (torch.eye(len(off)) + off.abs() > 0).double()
    for _ in range(8):
        reach = (reach @ reach > 0).double()
    together = reach * reach.t() > 0
    values = []
    for nodes in {tuple(row.nonzero().flatten().tolist()) for row in together}:
        block = laplacian[list(nodes)][:, list(nodes)]
        values.append(np.linalg.eigvals(block.numpy()))
    found = np.concatenate(values)
    found = found[np.abs(found) > 1e-9]
    return (2 * found.real / np.abs(found) ** 2).min()


@pytest.mark.parametrize("dense_nodes", [300, 20])
@pytest.mark.parametrize("num_nodes", [33, 50])
def test_limit_of_directed_graphs(num_nodes, dense_nodes, monkeypatch):
    monkeypatch.setattr(stability, "DENSE_NODES", dense_nodes)
    for name, edge_index in graphs(num_nodes):
        for normalization in ("sym", "row", None):
            operator = DiffusionOperator(
                edge_index,
                num_nodes=num_nodes,
                step_size=1e-3,
                normalization=normalization,
                add_self_loops=False,
                dtype=torch.float64,
            )
            found, expected = operator.max_stable_step_size, dense_limit(operator)
            assert operator.gershgorin_step_size <= found * (1 + 1e-9)
            if math.isnan(operator._limit()):  # a large component that no scaling makes symmetric
                assert dense_nodes < num_nodes and found == operator.gershgorin_step_size
                continue
            assert math.isclose(found, expected, rel_tol=1e-2), (name, normalization)
            assert math.isclose(operator.t().max_stable_step_size, expected, rel_tol=1e-2)


def test_a_large_directed_graph_keeps_the_bound_that_is_sure_and_says_nothing():
    edge_index, _ = random_graph(400, 1600)
    operator = DiffusionOperator(edge_index, num_nodes=400, step_size=1.9)
    assert operator.max_stable_step_size == operator.gershgorin_step_size


def test_verdicts_of_weights_that_are_gone_are_not_anothers():
    edge_index = torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]])
    for scale in (1.0, 0.01) * 20:  # the memory, and so the id, of one weight serves the next
        operator = DiffusionOperator(
            edge_index, torch.full((4,), scale), normalization=None, step_size=0.6
        )
        assert math.isclose(operator.max_stable_step_size, 2 / 3 / scale, rel_tol=1e-2)


@pytest.mark.parametrize("scale", [1e-310, 1e-160, 1e150])
def test_limit_of_tiny_and_huge_weights(scale):
    generator = torch.Generator().manual_seed(0)
    for num_nodes in (20, 400):
        edge_index, weight = random_graph(num_nodes, 4 * num_nodes)
        for edges in (edge_index, torch.cat([edge_index, edge_index.flip(0)], 1)):
            weight = torch.rand(edges.size(1), generator=generator, dtype=torch.float64) + 0.1
            one, other = (
                DiffusionOperator(edges, w * weight, step_size=h, normalization=None)
                for w, h in ((1, 1e-3), (scale, min(1e-3, 1e-3 / scale)))
            )
            ratio = other.max_stable_step_size * scale / one.max_stable_step_size
            assert other.max_stable_step_size == math.inf or abs(ratio - 1) < 0.02


def test_edge_bound_lies_between():
    edge_index, weight = random_graph(60, 200, undirected=True)
    operator = DiffusionOperator(edge_index, weight, num_nodes=60, step_size=1e-3)
    bound = stability.edge_bound(operator._scipy_laplacian())
    assert operator.gershgorin_step_size <= bound <= operator.max_stable_step_size


def test_no_estimate_where_bounds_tell(monkeypatch):
    def refuse(*args):
        raise AssertionError("an estimate")

    monkeypatch.setattr("torch_geometric_diff.ops.operator.largest_stable_step", refuse)
    star = torch.stack([torch.zeros(400, dtype=torch.long), torch.arange(1, 401)])
    star = torch.cat([star, star.flip(0)], 1)
    bound = 2 / 401  # the largest eigenvalue of a star is its number of nodes
    DiffusionOperator(star, step_size=0.99 * bound, normalization=None)
    with pytest.warns(UserWarning, match="is at most 0.0049"):
        DiffusionOperator(star, step_size=1.1 * bound, normalization=None)


def test_an_estimate_once_a_graph(monkeypatch):
    calls = []
    estimate = stability.largest_stable_step
    monkeypatch.setattr(
        "torch_geometric_diff.ops.operator.largest_stable_step",
        lambda *args: calls.append(0) or estimate(*args),
    )
    edge_index, weight = random_graph(40, 200)  # directed: no bound from above
    operator = DiffusionOperator(edge_index, weight, num_nodes=40, step_size=1e-3)
    low, high = operator.gershgorin_step_size, operator.max_stable_step_size
    calls.clear()
    for share in (0.2, 0.4, 0.6):
        step_size = (1 - share) * low + share * high
        operator = DiffusionOperator(edge_index, weight, num_nodes=40, step_size=step_size)
        operator.with_step_size(0.9 * high)
    assert len(calls) == 1
    conv = DiffConv(1, step_size=0.9 * high)
    learned = weight.clone().requires_grad_()
    for _ in range(3):
        conv(torch.randn(40, 2, dtype=torch.float64), edge_index, learned)
    assert len(calls) == 2
    weight.mul_(1)  # another graph, for all anybody knows
    DiffusionOperator(edge_index, weight, num_nodes=40, step_size=0.9 * high)
    assert len(calls) == 3


@pytest.mark.parametrize("learned", [None, "weight", "step"])
def test_warning_points_here_once_a_graph(learned):
    edge_index = torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]])
    weight = torch.ones(4, requires_grad=learned == "weight")
    conv = DiffConv(1, 3.0, normalization=None, learn_step_size=learned == "step")
    x = torch.randn(3, 2)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(3):
            conv(x, edge_index, weight)
    assert len(caught) == 1 and "Diffusion diverges" in str(caught[0].message)
    assert caught[0].filename == __file__
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        first = DiffusionOperator(edge_index, step_size=0.1, normalization=None)
        step_size = torch.tensor(3.0, requires_grad=learned == "step")
        for _ in range(3):
            first.with_step_size(step_size)
    assert len(caught) == 1 and caught[0].filename == __file__
