"""What edges are used for, chosen by the labels."""

import pytest
import torch
from torch import Tensor

from torch_geometric_diff import NodeClassifier
from torch_geometric_diff.estimators.node.candidates import (
    Surroundings,
    place,
    rows,
    standardized,
)

NUM_NODES, TRAIN = 240, torch.arange(36)


def graph(inside: float, across: float, separation: float) -> tuple[Tensor, Tensor, Tensor]:
    """Three classes, edges inside and across them by chance, features some way apart."""
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(NUM_NODES) % 3
    chance = torch.where(y[:, None] == y[None, :], inside, across)
    drawn = torch.rand(NUM_NODES, NUM_NODES, generator=generator) < chance
    edges = drawn.triu(1).nonzero().t()
    x = torch.randn(NUM_NODES, 8, generator=generator)
    x[torch.arange(NUM_NODES), y] += separation
    return x, torch.cat([edges, edges.flip(0)], dim=1), y


CASES = {
    "near": (0.1, 0.01, 2.0),
    "apart": (0.005, 0.08, 4.0),  # neighbors differ
    "chance": (0.05, 0.05, 4.0),  # edges tell nothing
    "alone": (0.15, 0.01, 0.0),  # features tell nothing
}


@pytest.mark.parametrize("case", CASES)
def test_labels_decide_what_edges_are_for(case: str) -> None:
    x, edge_index, y = graph(*CASES[case])
    model = NodeClassifier(max_epochs=30, warmup=20).fit(x, edge_index, y, TRAIN)
    rest = slice(len(TRAIN), None)
    assert (model.predict()[rest] == y[rest]).float().mean() > 0.9
    assert model.weights_[model.edges_] == max(model.weights_.values())
    assert sum(model.weights_.values()) == pytest.approx(1.0)
    if case in ("apart", "chance"):
        assert model.edges_ != "joined" and model.weights_.get("joined", 0.0) < 0.25
    mixture = torch.zeros(NUM_NODES, 3)
    for use, weight in model.weights_.items():
        asked = NodeClassifier(max_epochs=30, warmup=20, edges=use).fit(x, edge_index, y, TRAIN)
        mixture += weight * asked.predict_proba()
    torch.testing.assert_close(model.predict_proba(), mixture)


@pytest.mark.parametrize(
    ("case", "use"),
    [("near", "joined"), ("apart", "features"), ("apart", "near"), ("alone", "alone")],
)
def test_every_use_has_its_graphs(case: str, use: str) -> None:
    x, edge_index, y = graph(*CASES[case])
    model = NodeClassifier(max_epochs=30, warmup=20, edges=use).fit(x, edge_index, y, TRAIN)
    assert model.weights_ == {use: 1.0} and model.edges_ == use
    assert (model.predict() == y).float().mean() > 0.85


@pytest.mark.parametrize("x", [torch.ones(40, 3), torch.zeros(40, 1), torch.eye(40)])
@pytest.mark.parametrize("labels", [1, 4])
def test_features_without_content_and_few_labels_are_no_harm(x: Tensor, labels: int) -> None:
    y = torch.arange(40) // 20
    ring = torch.stack([torch.arange(40), (torch.arange(40) + 1) % 20 + 20 * y])
    edges = torch.cat([ring, ring.flip(0), torch.tensor([[0], [20]])], dim=1)
    train = torch.cat([torch.arange(labels) * 5, 20 + torch.arange(labels) * 5])
    model = NodeClassifier(max_epochs=30, warmup=20).fit(x, edges, y, train)
    assert bool(model.logits_.isfinite().all())
    assert (model.predict() == y).float().mean() > 0.7
    assert model.edges_ == "alone" or x.size(1) == 40


def test_graphs_of_a_few_nodes_or_no_edges() -> None:
    x, y = torch.tensor([[0.0, 1.0], [0.1, 1.0], [1.0, 0.0]]), torch.tensor([0, 0, 1])
    none = torch.empty(2, 0, dtype=torch.long)
    for nodes in (2, 3):
        train = torch.tensor([0, nodes - 1])
        y = torch.tensor([0, 0, 1])[-nodes:]
        model = NodeClassifier(max_epochs=5).fit(x[-nodes:], none, y, train)
        assert bool(model.logits_.isfinite().all())


@pytest.mark.parametrize("x", [torch.ones(120, 1), torch.zeros(120, 2)])
def test_a_place_in_the_graph_can_tell_the_class(x: Tensor) -> None:
    first = 6 * torch.arange(20)[:, None]
    star = torch.tensor([[0, 1], [0, 2], [0, 3], [0, 4], [0, 5], [1, 2]])  # with one triangle
    edges = (first[..., None] + star).view(-1, 2).t()
    chain = torch.stack([first[:-1, 0], first[1:, 0]])
    edges = torch.cat([edges, edges.flip(0), chain, chain.flip(0)], dim=1)
    y = torch.tensor([2, 1, 1, 0, 0, 0]).repeat(20)
    model = NodeClassifier().fit(x, edges, y, torch.arange(24))
    assert model.edges_ == "roles"
    assert (model.predict() == y).float().mean() > 0.95


def test_places_are_edges_and_triangles() -> None:
    generator = torch.Generator().manual_seed(0)
    dense = (torch.rand(20, 20, generator=generator) < 0.2).double()
    edges = dense.nonzero().t()
    both = ((dense + dense.t()) > 0).double().fill_diagonal_(0)
    expected = torch.stack([dense.sum(0), dense.sum(1), (both @ both @ both).diagonal()], dim=1)
    torch.testing.assert_close(place(edges, 20), expected.log1p().float())


def test_columns_count_what_diffusion_leaves_of_them() -> None:
    generator = torch.Generator().manual_seed(0)
    ring = torch.arange(60)
    edges = torch.stack([ring, ring // 30 * 30 + (ring + 1) % 30])
    x = torch.randn(60, 2, generator=generator)
    x[:, 0] = 100 * (ring < 30) + 7
    both = torch.cat([edges, edges.flip(0)], dim=1)
    points = Surroundings(x, both, None, [6], [4], [0.75], 0.5, "row").points
    deviation = points.square().mean(dim=0).sqrt()
    assert deviation[0] == pytest.approx(1.0) and 0.1 < deviation[1] < 0.6


def test_parts() -> None:
    x = torch.tensor([[1.0, 5.0], [3.0, 5.0]])
    torch.testing.assert_close(standardized(x), torch.tensor([[-1.0, 0.0], [1.0, 0.0]]))
    assert rows(torch.eye(8)).layout == torch.sparse_csr


def test_refuses_unknown_uses_and_features_that_are_no_numbers() -> None:
    with pytest.raises(ValueError, match="'edges' to be one of .*got 'both'"):
        NodeClassifier(edges="both")
    x, edge_index, y = graph(0.1, 0.01, 1.0)
    x[3, 2] = torch.nan
    with pytest.raises(ValueError, match="'x' to be finite .got NaN or infinity in row 3"):
        NodeClassifier().fit(x, edge_index, y, TRAIN)
