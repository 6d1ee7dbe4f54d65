"""Belief propagation with a learned compatibility of classes."""

import itertools

import pytest
import torch
from torch import Tensor

from torch_geometric_diff import NodeClassifier
from torch_geometric_diff.estimators.node.belief_propagation import (
    FOLDS,
    Beliefs,
    Held,
    Pairs,
    components,
    regression,
    with_waves,
)
from torch_geometric_diff.ops import DiffusionOperator


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


def beliefs(x: Tensor, edge_index: Tensor) -> Beliefs:
    """The class on a graph."""
    walk = DiffusionOperator(edge_index, num_nodes=len(x), step_size=1.0, normalization="row")
    return Beliefs(x, edge_index, walk, walk, 2)


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
    model = beliefs(torch.randn(5, 2, generator=generator), edges)
    monkeypatch.setattr("torch_geometric_diff.estimators.node.belief_propagation.ROUNDS", 60)
    monkeypatch.setattr(Beliefs, "ratio", lambda *_: compatible.expand(1, 3, 3))
    labels, seen = torch.zeros(1, 5, 3, dtype=torch.float64), torch.zeros(1, 5)
    labels[0, 3, 2], seen[0, 3] = 1, 1  # the class of one node is known
    found = model.propagate(own[None], own[None].softmax(2), labels, seen, 1.0)[0].softmax(1)
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
    assert model.edges_ == "classes"
    rest = slice(36, None)
    assert (model.predict()[rest] == y[rest]).float().mean() > 0.95
    asked = NodeClassifier(edges="classes").fit(x, edge_index, y, train)
    assert (asked.predict()[rest] == y[rest]).float().mean() > 0.95 and asked.models_ == []


def test_features_without_content_start_from_labels() -> None:
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(200) % 2
    same = y[:, None] == y[None, :]
    drawn = torch.rand(200, 200, generator=generator) < torch.where(same, 0.06, 0.01)
    edges = drawn.triu(1).nonzero().t()
    edges = torch.cat([edges, edges.flip(0)], dim=1)
    logits, likelihood = beliefs(torch.zeros(200, 1), edges).fit(torch.arange(16), y[:16])
    assert (logits.argmax(1) == y).double().mean() > 0.9
    assert likelihood.shape == (16,) and float(likelihood.mean()) > -0.5


def test_regression_is_that_of_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch_geometric_diff.estimators.node.belief_propagation.RIDGES", (0.1,))
    monkeypatch.setattr("torch_geometric_diff.estimators.model_selection.SCALES", (1.0,))
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(12, 4, generator=generator, dtype=torch.float64)
    known = torch.arange(12) % 3
    held = Held.out(torch.arange(12), known)
    q = torch.rand(FOLDS + 1, 12, 3, generator=generator, dtype=torch.float64)
    weight = torch.rand(FOLDS + 1, 12, generator=generator, dtype=torch.float64)
    found = regression(x, q, weight, held)
    for k, i in ((0, 0), (3, 7), (FOLDS, 11)):
        w = weight[k].clone()
        unit = (w * x.square().sum(1)).sum() / w.sum()
        w[i] = 0
        ridge = 0.1 * unit * torch.eye(4, dtype=torch.float64)
        solved = torch.linalg.solve(x.t() @ (w[:, None] * x) + ridge, x.t() @ (w[:, None] * q[k]))
        torch.testing.assert_close(found[k, i], x[i] @ solved)


def test_labels_are_hidden_once_and_every_class_is_spread() -> None:
    train, known = torch.tensor([5, 2, 9, 0, 7, 4, 1]), torch.tensor([0, 0, 0, 0, 0, 0, 1])
    held = Held.out(train, known)
    assert held.fold.tolist() == [0, 1, 2, 3, 4, 0, 1]
    labels, seen = held.labels(10)
    assert labels.shape == (FOLDS + 1, 10, 2) and seen.shape == (FOLDS + 1, 10)
    assert seen[:, train].sum(dim=0).tolist() == [FOLDS] * 7
    assert float(labels[0, 5].sum()) == 0 and labels[-1, 1].tolist() == [0, 1]
    logits = torch.zeros(FOLDS + 1, 10, 2)
    logits[1, 1, 1] = 50.0  # where node 1 is hidden
    assert held.likelihood(logits)[-1] == pytest.approx(0.0, abs=0.01)


def test_too_many_edges_are_left_to_the_other_uses(monkeypatch: pytest.MonkeyPatch) -> None:
    x, edge_index, y = ring_of_classes(directed=False)
    assert Beliefs.possible(edge_index, 3) and not Beliefs.possible(edge_index[:, :0], 3)
    monkeypatch.setattr("torch_geometric_diff.estimators.node.belief_propagation.LARGEST", 1000)
    model = NodeClassifier(max_epochs=5).fit(x, edge_index, y, torch.arange(36))
    assert "classes" not in model.weights_


def test_pairs_and_features() -> None:
    edge_index = torch.tensor([[0, 1, 1, 2, 2, 0, 0], [1, 0, 2, 1, 2, 1, 1]])
    first, second, symmetric = Pairs.of(edge_index, 3)
    assert symmetric and torch.stack([first, second]).tolist() == [[0, 1], [1, 2]]
    first, second, symmetric = Pairs.of(edge_index[:, 1:4], 3)
    assert not symmetric and torch.stack([first, second]).tolist() == [[1, 1, 2], [0, 2, 1]]
    generator = torch.Generator().manual_seed(0)
    assert components(torch.randn(300, 500, generator=generator)).shape == (300, 128)
    waves = with_waves(torch.randn(50, 3, generator=generator))
    assert waves.shape == (50, 3 + 512) and bool(waves.isfinite().all())
    assert bool(with_waves(torch.zeros(4, 1)).isfinite().all())
