"""Belief propagation with a learned compatibility of classes."""

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor

from torch_geometric_diff import NodeClassifier
from torch_geometric_diff.estimators.node import belief_propagation
from torch_geometric_diff.estimators.node.belief_propagation import (
    FOLDS,
    BeliefPropagation,
    Edges,
    Folds,
    compatibility,
    propagate,
    regress,
)
from torch_geometric_diff.estimators.node.candidates import Labeled
from torch_geometric_diff.estimators.node.inputs import GraphInputs


def ring_of_classes(directed: bool, nodes: int = 300) -> tuple[Tensor, Tensor, Tensor]:
    """Edges lead from each of three classes to the next one; features hint at the class."""
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(nodes) % 3
    source = torch.randint(nodes, (4 * nodes,), generator=generator)
    target = torch.randint(nodes // 3, (4 * nodes,), generator=generator) * 3
    target += (y[source] + 1) % 3
    x = torch.randn(nodes, 6, generator=generator)
    x[torch.arange(nodes), y] += 1.5
    edge_index = torch.stack([source, target])
    if not directed:
        edge_index = torch.cat([edge_index, edge_index.flip(0)], dim=1)
    return x, edge_index, y


@pytest.mark.parametrize("symmetric", [True, False])
def test_beliefs_of_a_tree_are_the_marginals(
    symmetric: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = torch.Generator().manual_seed(1)
    own = torch.randn(5, 3, generator=generator, dtype=torch.float64)
    compatible = torch.rand(3, 3, generator=generator) + 0.1
    if symmetric:
        compatible = compatible + compatible.t()
    arcs = torch.tensor([[0, 2, 2, 4], [1, 1, 3, 2]])
    edges = torch.cat([arcs, arcs.flip(0)], dim=1) if symmetric else arcs
    monkeypatch.setattr(belief_propagation, "ROUNDS", 60)
    labeled = Labeled(torch.tensor([3]), torch.tensor([2]), 3)  # the class of one node is known
    folds = Folds.of(labeled, 5, folds=0)
    start = own[None].softmax(2)
    logits, ratio = propagate(Edges.of(edges, 5), own[None], start, folds, 1.0, compatible[None])
    found = logits[0].softmax(1)
    assert ratio is not None and torch.equal(ratio[0], compatible)
    expected = torch.zeros(5, 3, dtype=torch.float64)
    for classes in itertools.product(range(3), repeat=5):
        if classes[3] != 2:
            continue
        weight = own[range(5), classes].sum().exp()
        for a, b in arcs.t().tolist():
            weight = weight * compatible[classes[a], classes[b]]
        expected[range(5), classes] += weight
    expected /= expected.sum(dim=1, keepdim=True)
    others = [0, 1, 2, 4]
    torch.testing.assert_close(found[others], expected[others], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("directed", [True, False])
def test_learns_which_classes_edges_join(directed: bool) -> None:
    x, edge_index, y = ring_of_classes(directed)
    train = torch.arange(36)
    model = NodeClassifier().fit(x, edge_index, y, train)
    assert max(model.weights_, key=model.weights_.__getitem__) == "belief_propagation"
    assert model.score(y, torch.arange(36, 300)) > 0.95
    candidate: Any = model.candidates_["belief_propagation"]
    ratio = candidate.ratio[0]
    assert bool((ratio.diagonal() < 0.1).all())
    if directed:
        assert ratio.argmax(1).tolist() == [1, 2, 0]  # of each class the next


def test_features_without_content_leave_the_labels_to_decide() -> None:
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(200) % 2
    same = y[:, None] == y[None, :]
    drawn = torch.rand(200, 200, generator=generator) < torch.where(same, 0.06, 0.01)
    edges = drawn.triu(1).nonzero().t()
    graph = GraphInputs(torch.zeros(200, 1), torch.cat([edges, edges.flip(0)], dim=1))
    labeled = Labeled(torch.arange(16), y[:16], 2)
    model = BeliefPropagation(NodeClassifier())
    likelihood = model.judge(graph, labeled, torch.arange(16))
    logits = model.logits(graph, labeled)
    assert (logits.argmax(1) == y).double().mean() > 0.9
    assert likelihood.shape == (16,) and float(likelihood.mean()) > -0.5


def test_scores_of_every_node_are_those_of_a_regression_on_the_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("torch_geometric_diff.estimators.model_selection.PENALTIES", (0.1,))
    monkeypatch.setattr("torch_geometric_diff.estimators.model_selection.SCALES", (1.0,))
    x = torch.randn(12, 4, dtype=torch.float64)
    folds = Folds.of(Labeled(torch.arange(12), torch.arange(12) % 3, 3), 12)
    q = torch.rand(FOLDS + 1, 12, 3, dtype=torch.float64)
    weight = torch.rand(FOLDS + 1, 12, dtype=torch.float64)
    logits, coefficients = regress(x, q, weight, folds)

    def solved(k: int, w: Tensor) -> Tensor:
        unit = (weight[k] * x.square().sum(1)).sum() / weight[k].sum()
        ridge = 0.1 * unit * torch.eye(4, dtype=torch.float64)
        return torch.linalg.solve(x.t() @ (w[:, None] * x) + ridge, x.t() @ (w[:, None] * q[k]))

    for k in range(FOLDS + 1):
        for i in range(12):
            others = weight[k].clone()
            others[i] = 0
            torch.testing.assert_close(logits[k, i], x[i] @ solved(k, others))
    torch.testing.assert_close(coefficients, solved(FOLDS, weight[FOLDS]))


def test_no_fold_sees_the_labels_that_it_hides() -> None:
    nodes, labels = torch.tensor([5, 2, 9, 0, 7, 4, 1]), torch.tensor([0, 0, 0, 0, 0, 0, 1])
    folds = Folds.of(Labeled(nodes, labels, 2), 10)
    assert folds.hidden_in[:6].bincount(minlength=FOLDS).tolist().count(0) == 0  # spread over all
    for i, node in enumerate(nodes.tolist()):
        for fold in range(FOLDS + 1):
            seen = fold != int(folds.hidden_in[i])
            assert bool(folds.visible[fold, node]) == seen
            expected = [float(seen and labels[i] == c) for c in range(2)]
            assert folds.target[fold, node].tolist() == expected
    assert float(folds.visible.sum()) == 7 * FOLDS
    logits = torch.zeros(FOLDS + 1, 10, 2)
    logits[folds.hidden_in[6], 1, 1] = 50.0  # where node 1 is hidden
    assert folds.log_likelihood(logits)[-1] == pytest.approx(0.0, abs=0.01)


def test_a_hidden_label_has_no_part_in_how_it_is_judged() -> None:
    x, edge_index, y = ring_of_classes(directed=False)
    graph, nodes = GraphInputs(x, edge_index), torch.arange(36)
    folds = Folds.of(Labeled(nodes, y[:36], 3), 300)
    first = int(folds.hidden_in[0])
    swapped = y[:36].clone()
    swapped[0] = (swapped[0] + 1) % 3
    own = torch.zeros(FOLDS + 1, 300, 3, dtype=torch.float64)
    edges = Edges.of(graph.edges[0], 300)
    before, _ = propagate(edges, own, own.softmax(2), folds, 1.0)
    target = folds.target.clone()
    target[:, 0] = folds.visible[:, :1] * torch.nn.functional.one_hot(swapped[:1], 3)
    after, _ = propagate(edges, own, own.softmax(2), folds._replace(target=target), 1.0)
    assert torch.equal(before[first], after[first]) and not torch.equal(before[-1], after[-1])


def test_compatibility_is_one_where_edges_join_by_chance() -> None:
    counts = torch.tensor([[[40.0, 60.0], [60.0, 90.0]]])
    torch.testing.assert_close(compatibility(counts, symmetric=True), torch.ones(1, 2, 2))
    apart = compatibility(torch.tensor([[[0.0, 1e6], [1e6, 0.0]]]), symmetric=False)
    assert float(apart[0, 0, 0]) < 0.01 and float(apart[0, 0, 1]) == pytest.approx(2.0, rel=1e-3)


def test_too_many_edges_are_left_to_the_other_candidates(monkeypatch: pytest.MonkeyPatch) -> None:
    x, edge_index, y = ring_of_classes(directed=False)
    model = BeliefPropagation(NodeClassifier())
    assert model.is_feasible(GraphInputs(x, edge_index), 3)
    assert not model.is_feasible(GraphInputs(x, edge_index[:, :0]), 3)
    monkeypatch.setattr(belief_propagation, "MOST_MESSAGES", 1000)
    fitted = NodeClassifier(max_epochs=5).fit(x, edge_index, y, torch.arange(36))
    assert "belief_propagation" not in fitted.weights_


def test_edges_of_an_undirected_graph_are_taken_once() -> None:
    edge_index = torch.tensor([[0, 1, 1, 2, 2, 0, 0], [1, 0, 2, 1, 2, 1, 1]])
    first, second, symmetric = Edges.of(edge_index, 3)
    assert symmetric and torch.stack([first, second]).tolist() == [[0, 1], [1, 2]]
    first, second, symmetric = Edges.of(edge_index[:, 1:4], 3)
    assert not symmetric and torch.stack([first, second]).tolist() == [[1, 1, 2], [0, 2, 1]]
