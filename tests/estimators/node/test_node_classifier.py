"""Classes of all nodes from those of a few."""

import math
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor

from torch_geometric_diff import NodeClassifier, knn_graph
from torch_geometric_diff.estimators.node import candidates, node_classifier

N = 120
FEW = torch.tensor([0, 1, 2, 3, 4, 30, 31, 32, 33, 34, 80, 81, 82, 83, 84])
SMALL: dict[str, Any] = {"num_steps": 3, "candidates": "diffusion", "max_epochs": 5}


def blocks() -> tuple[Tensor, Tensor, Tensor]:
    """Three groups, the last as large as both others; edges inside, words that hint."""
    generator = torch.Generator().manual_seed(0)
    y = (torch.arange(N) * 4 // N).clamp(max=2)
    chance = torch.where(y[:, None] == y[None, :], 0.15, 0.01)
    edge_index = (torch.rand(N, N, generator=generator) < chance).triu(1).nonzero().t()
    words = torch.rand(N, 30, generator=generator)
    x = (words < torch.where(torch.arange(30)[None, :] // 10 == y[:, None], 0.4, 0.05)).float()
    return x, torch.cat([edge_index, edge_index.flip(0)], 1), y


def mixed(inside: float, across: float, separation: float) -> tuple[Tensor, Tensor, Tensor]:
    """Three classes, edges inside and across them by chance, features some way apart."""
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(240) % 3
    chance = torch.where(y[:, None] == y[None, :], inside, across)
    edges = (torch.rand(240, 240, generator=generator) < chance).triu(1).nonzero().t()
    x = torch.randn(240, 8, generator=generator)
    x[torch.arange(240), y] += separation
    return x, torch.cat([edges, edges.flip(0)], dim=1), y


def test_learns_from_a_few_labels() -> None:
    x, edge_index, y = blocks()
    model = NodeClassifier(**{**SMALL, "max_epochs": 40}).fit(x, edge_index, y, FEW)
    rest = torch.ones(N, dtype=torch.bool).index_fill(0, FEW, False)
    assert model.score(y, rest) > 0.9
    probabilities = model.predict_proba()
    torch.testing.assert_close(probabilities.sum(1), torch.ones(N))
    assert torch.equal(probabilities.argmax(1), model.predict())
    assert model.score(y, FEW) == float((model.predict() == y)[FEW].float().mean())


def test_reads_no_other_label_and_takes_any_class_numbers() -> None:
    x, edge_index, y = blocks()
    model = NodeClassifier(**SMALL)
    expected = model.fit(x, edge_index, y, FEW).logits_
    hidden = torch.full_like(y, -1)
    hidden[FEW] = y[FEW]
    assert torch.equal(model.fit(x, edge_index, hidden, FEW).logits_, expected)
    mask = torch.zeros(N, dtype=torch.bool).index_fill(0, FEW, True)
    model.fit(x, edge_index, 10 * y + 7, mask)
    assert torch.equal(model.logits_, expected)
    assert model.classes_.tolist() == [7, 17, 27]
    assert set(model.predict().tolist()) <= {7, 17, 27}
    assert NodeClassifier(**SMALL).fit(x, edge_index, y > 0, FEW).predict().dtype == torch.bool


def test_a_seed_repeats_and_leaves_torch_alone() -> None:
    x, edge_index, y = blocks()
    state, dtype = torch.get_rng_state(), torch.get_default_dtype()
    runs = [NodeClassifier(**SMALL).fit(x, edge_index, y, FEW, seed=s) for s in (1, 1, 2)]
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.get_default_dtype() == dtype
    assert torch.equal(runs[0].logits_, runs[1].logits_)
    assert not torch.equal(runs[0].logits_, runs[2].logits_)


def test_the_default_dtype_of_the_process_is_never_switched(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(dtype: torch.dtype) -> None:
        raise AssertionError("the default dtype belongs to the user")

    monkeypatch.setattr(torch, "set_default_dtype", refuse)
    NodeClassifier(**{**SMALL, "candidates": "auto"}).fit(*blocks(), FEW)


def test_a_refit_leaves_nothing_of_the_fit_before() -> None:
    x, edge_index, y = blocks()
    model = NodeClassifier(**SMALL).fit(x, edge_index, y, FEW)
    networks: Any = model.candidates_["diffusion"]
    assert networks.student is not None
    model.set_params(student=0.0).fit(x, edge_index, y, FEW)
    networks = model.candidates_["diffusion"]
    assert networks.student is None
    model.set_params(candidates="belief_propagation").fit(x, edge_index, y, FEW)
    assert [*model.candidates_] == [*model.weights_] == ["belief_propagation"]
    fresh = NodeClassifier(**model.get_params()).fit(x, edge_index, y, FEW)
    assert {*vars(fresh)} == {*vars(model)} and torch.equal(fresh.logits_, model.logits_)


def test_prior_correction_moves_the_logits_towards_the_larger_classes() -> None:
    x, edge_index, y = blocks()
    plain, moved = (
        NodeClassifier(**SMALL, student=0.0, prior_correction=r).fit(x, edge_index, y, FEW).logits_
        for r in (0.0, 1.0)
    )
    predicted = torch.bincount(plain.argmax(1), minlength=3) + 1.0
    expected = (predicted / predicted.sum() * 3).log()  # of labels, each class has a third
    expected *= 1 / (1 + 4 * 5**-1.5)  # trusted that far with five labels a class
    difference = moved - plain
    difference -= difference.logsumexp(1, keepdim=True) - (plain + expected).logsumexp(1)[:, None]
    torch.testing.assert_close(moved, (plain + expected).log_softmax(dim=1), rtol=1e-4, atol=1e-4)


def test_one_label_a_class_does_not_end_in_one_class() -> None:
    x, edge_index, y = blocks()
    model = NodeClassifier(num_steps=3).fit(x, edge_index, y, torch.tensor([0, 30, 80]))
    assert model.score(y) > 0.8


def test_networks_are_averaged_by_their_weights_and_the_student_is_mixed_in() -> None:
    x, edge_index, y = blocks()
    model = NodeClassifier(**SMALL, student=0.25).fit(x, edge_index, y, FEW)
    candidate: Any = model.candidates_["diffusion"]
    graph = model.prepare(x, edge_index)
    total = sum(candidate.weights.values())
    teacher = sum(
        candidate.weights[name]
        / total
        * network(graph.features, candidate.diffusions(graph)[name][0]).softmax(1)
        for name, network in candidate.models.items()
    )
    target = ((teacher.log() + candidate.correction) / candidates.TEACHER_TEMPERATURE).softmax(1)
    target[FEW] = torch.nn.functional.one_hot(y[FEW]).float()
    own = candidate.student(graph.features).softmax(1)
    torch.testing.assert_close(model.predict_proba(), 0.75 * target + 0.25 * own)


CASES = {
    "near": (0.1, 0.01, 2.0),
    "apart": (0.005, 0.08, 4.0),  # neighbors differ
    "chance": (0.05, 0.05, 4.0),  # edges tell nothing
    "alone": (0.15, 0.01, 0.0),  # features tell nothing
}


@pytest.mark.parametrize("case", CASES)
def test_labels_choose_the_candidates(case: str) -> None:
    x, edge_index, y = mixed(*CASES[case])
    train = torch.arange(36)
    model = NodeClassifier(max_epochs=40).fit(x, edge_index, y, train)
    assert model.score(y, torch.arange(36, 240)) > 0.85
    assert sum(model.weights_.values()) == pytest.approx(1.0)
    if case in ("apart", "chance"):
        assert model.weights_.get("diffusion", 0.0) < 0.25
    mixture = torch.zeros(240, 3)
    for name, weight in model.weights_.items():
        asked = NodeClassifier(max_epochs=40, candidates=name).fit(x, edge_index, y, train)
        mixture += weight * asked.predict_proba()
    torch.testing.assert_close(model.predict_proba(), mixture, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("period", [True, False])
def test_more_labels_than_are_judged_in_any_order(
    period: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(node_classifier, "MOST_JUDGED", 40)
    x, edge_index, y = mixed(*CASES["apart"])
    train = torch.arange(120)  # every third of one class
    if not period:
        train = train[torch.randperm(120, generator=torch.Generator().manual_seed(0))]
    model = NodeClassifier(max_epochs=10).fit(x, edge_index, y, train)
    assert model.weights_.get("diffusion", 0.0) < 0.25 and model.score(y) > 0.9


@pytest.mark.parametrize("name", ["auto", *node_classifier.CANDIDATES])
def test_the_same_graph_gets_the_same_answer(name: str) -> None:
    x, edge_index, y = blocks()
    model = NodeClassifier(**{**SMALL, "candidates": name}).fit(x, edge_index, y, FEW)
    expected = model.predict_proba()
    torch.testing.assert_close(model.predict_proba(x, edge_index), expected)
    torch.testing.assert_close(model.predict_proba(x.to_sparse(), edge_index), expected)
    copy = pickle.loads(pickle.dumps(model))
    torch.testing.assert_close(copy.predict_proba(x, edge_index), expected)
    order = torch.randperm(N, generator=torch.Generator().manual_seed(0))
    found = model.predict_proba(x[order], order.argsort()[edge_index], nodes=order)
    assert float((found.argmax(1) == expected[order].argmax(1)).float().mean()) > 0.95


@pytest.mark.parametrize("name", ["diffusion", "neighborhood", "belief_propagation"])
@pytest.mark.parametrize("separation", [2.0, 4.0])
def test_other_and_further_nodes(name: str, separation: float) -> None:
    x, edge_index, y = mixed(0.1, 0.01, separation)
    first = (edge_index < 150).all(dim=0)
    model = NodeClassifier(candidates=name, max_epochs=40)
    model.fit(x[:150], edge_index[:, first], y[:150], torch.arange(36))
    grown = model.predict(x, edge_index)  # 90 further nodes
    assert float((grown == y)[150:].float().mean()) > 0.85
    assert model.score(y, torch.arange(150, 240), x=x, edge_index=edge_index) > 0.85
    rest = (edge_index >= 150).all(dim=0)
    other = model.predict(x[150:], edge_index[:, rest] - 150)  # none of the nodes of fit
    assert float((other == y[150:]).float().mean()) > (0.6 if separation < 4 else 0.85)
    scaled = model.predict_proba(x[150:151], torch.empty(2, 0, dtype=torch.long))
    assert bool(scaled.isfinite().all())


def test_refuses_other_graphs_that_do_not_fit() -> None:
    x, edge_index, y = blocks()
    for ask in (NodeClassifier().predict, NodeClassifier().predict_proba):
        with pytest.raises(ValueError, match="a fitted NodeClassifier: call 'fit' first"):
            ask()
    model = NodeClassifier(**SMALL).fit(x, edge_index, y, FEW)
    with pytest.raises(ValueError, match="'x' beside 'edge_index'"):
        model.predict(edge_index=edge_index)
    with pytest.raises(ValueError, match=r"'x' of 30 features, as fitted \(got 29\)"):
        model.predict(x[:, 1:], edge_index)
    with pytest.raises(ValueError, match="'nodes' to be 120 integers"):
        model.predict(x, edge_index, nodes=torch.arange(5))
    with pytest.raises(ValueError, match=r"'nodes' to lie in \[-1, 119\]"):
        model.predict(x, edge_index, nodes=torch.arange(120) + 1)


@pytest.mark.parametrize("x", [torch.ones(40, 3), torch.zeros(40, 1), torch.eye(40)])
@pytest.mark.parametrize("labels", [1, 4])
def test_features_without_content_and_few_labels_are_no_harm(x: Tensor, labels: int) -> None:
    y = torch.arange(40) // 20
    ring = torch.stack([torch.arange(40), (torch.arange(40) + 1) % 20 + 20 * y])
    edges = torch.cat([ring, ring.flip(0), torch.tensor([[0], [20]])], dim=1)
    train = torch.cat([torch.arange(labels) * 5, 20 + torch.arange(labels) * 5])
    model = NodeClassifier(max_epochs=30).fit(x, edges, y, train)
    assert bool(model.logits_.isfinite().all()) and model.score(y) > (
        0.7 if x.size(1) < 40 else 0.6
    )


@pytest.mark.parametrize("nodes", [2, 3])
def test_graphs_of_a_few_nodes_and_no_edges(nodes: int) -> None:
    x, y = torch.tensor([[0.0, 1.0], [0.1, 1.0], [1.0, 0.0]]), torch.tensor([0, 0, 1])
    none = torch.empty(2, 0, dtype=torch.long)
    model = NodeClassifier(max_epochs=5).fit(
        x[-nodes:], none, y[-nodes:], torch.tensor([0, nodes - 1])
    )
    assert bool(model.logits_.isfinite().all())


@pytest.mark.parametrize("x", [torch.ones(120, 1), torch.zeros(120, 2)])
def test_structure_can_tell_the_class(x: Tensor) -> None:
    first = 6 * torch.arange(20)[:, None]
    star = torch.tensor([[0, 1], [0, 2], [0, 3], [0, 4], [0, 5], [1, 2]])  # with one triangle
    edges = (first[..., None] + star).view(-1, 2).t()
    chain = torch.stack([first[:-1, 0], first[1:, 0]])
    edges = torch.cat([edges, edges.flip(0), chain, chain.flip(0)], dim=1)
    y = torch.tensor([2, 1, 1, 0, 0, 0]).repeat(20)
    model = NodeClassifier().fit(x, edges, y, torch.arange(24))
    assert max(model.weights_, key=model.weights_.__getitem__) == "structural"
    assert model.score(y) > 0.95


def test_settings_are_those_of_scikit_learn_estimators() -> None:
    sklearn = pytest.importorskip("sklearn.base", reason="scikit-learn")
    model = NodeClassifier(num_steps=3, normalizations=["row"])
    copy = sklearn.clone(model)
    assert copy is not model and copy.get_params() == model.get_params()
    assert copy.set_params(lr=0.1).lr == 0.1 and model.lr != 0.1
    assert "num_steps=3" in repr(model)
    with pytest.raises(ValueError, match=r"no setting \['steps'\]; it has \['candidates'"):
        model.set_params(steps=2)


def test_a_bar_of_all_epochs(capsys: pytest.CaptureFixture[str]) -> None:
    model = NodeClassifier(**SMALL, normalizations=("row",), verbose=True)
    model.fit(*blocks(), FEW)
    assert "10/10" in capsys.readouterr().err.replace(" ", "") or model.max_epochs == 5
    NodeClassifier(**SMALL, verbose=False).fit(*blocks(), FEW)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"max_epochs": 0}, ValueError, "'max_epochs' to be at least 1"),
        ({"neighbors": -1}, ValueError, "'neighbors' to be at least 0"),
        ({"num_steps": 2.5}, TypeError, "'num_steps' to be an integer"),
        ({"temperature": 0.0}, ValueError, "'temperature' to be finite and positive"),
        ({"lr": math.nan}, ValueError, "'lr' to be finite and positive"),
        ({"consistency": math.inf}, ValueError, "'consistency' to be finite and at least 0"),
        ({"student": 1.5}, ValueError, r"'student' to lie in \[0, 1\]"),
        ({"node_dropout": 1.0}, ValueError, r"'node_dropout' to lie in \[0, 1\)"),
        ({"weight_decay": "small"}, TypeError, "'weight_decay' to be a number"),
        ({"candidates": "both"}, ValueError, "'candidates' to be 'auto' or among .*got 'both'"),
        ({"candidates": []}, ValueError, "'candidates' to be 'auto' or among"),
        ({"normalizations": "row"}, ValueError, "'normalizations' to be a sequence of"),
        ({"normalizations": ["rows"]}, ValueError, "'normalizations' to be a sequence of"),
        ({"verbose": 1}, TypeError, "'verbose' to be a bool or None"),
    ],
)
def test_settings_are_checked_by_fit(
    settings: dict[str, Any], error: type[Exception], message: str
) -> None:
    model = NodeClassifier(**settings)  # as scikit-learn wants it: nothing is checked yet
    with pytest.raises(error, match=message):
        model.fit(*blocks(), FEW)


UNKNOWN = torch.where(torch.arange(N) == 31, -1, blocks()[2])


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"x": [[1.0]]}, TypeError, "'x' to be a Tensor"),
        ({"x": torch.eye(120).to("meta")}, ValueError, "'x' to have values"),
        ({"x": torch.full((120, 2), torch.nan)}, ValueError, "'x' to be finite"),
        ({"x": torch.full((120, 2), torch.nan).to_sparse()}, ValueError, "'x' to be finite"),
        ({"x": torch.ones(120, 0)}, ValueError, "'x' of shape"),
        ({"x": torch.ones(120, 2, dtype=torch.cfloat)}, TypeError, "'x' to hold real numbers"),
        ({"edge_index": torch.tensor([[0], [120]])}, ValueError, "indices of 'edge_index'"),
        ({"edge_weight": torch.ones(3)}, ValueError, "'edge_weight' of shape"),
        ({"y": [0, 1]}, ValueError, "'y' to be a Tensor of shape"),
        ({"y": ["a"] * 120}, ValueError, r"'y' to be a Tensor of shape \[120\].*\(got list\)"),
        ({"y": torch.zeros(5)}, ValueError, r"'y' to be a Tensor of shape \[120\].*got \[5\]"),
        ({"y": torch.zeros(120, 2)}, ValueError, "both 0 and 1 in a column"),
        ({"y": torch.zeros(120, 2, 1)}, ValueError, r"'y' to be a Tensor of shape \[120\]"),
        ({"y": torch.full((120,), torch.nan)}, TypeError, "'y' to hold classes, .*torch.float32"),
        ({"y": torch.rand(120)}, TypeError, "'y' to hold classes, which are integers"),
        ({"y": torch.ones(120)}, TypeError, "'y' to hold classes, which are integers"),
        ({"y": UNKNOWN}, ValueError, "class of at least 0 for every node .*got -1 for node 31"),
        ({"y": torch.full((120,), 3)}, ValueError, r"at least two classes .*\(got \[3\]\)"),
        ({"train": [0, 1]}, TypeError, "'train' to be a mask or indices"),
        ({"train": FEW[:0]}, ValueError, "'train' to name at least one node"),
        ({"train": torch.tensor([0, 40, 0])}, ValueError, "'train' to name every node once"),
        ({"train": torch.tensor([120])}, ValueError, "indices 'train' to lie in"),
        ({"train": torch.ones(7, dtype=torch.bool)}, ValueError, "a mask 'train' of 120 nodes"),
        ({"seed": 0.5}, TypeError, "'seed' to be an integer"),
    ],
)
def test_names_what_it_refuses(change: dict, error: type[Exception], message: str) -> None:
    x, edge_index, y = blocks()
    given = {"x": x, "edge_index": edge_index, "y": y, "train": FEW, **change}
    with pytest.raises(error, match=message):
        NodeClassifier(**SMALL).fit(**given)


def test_several_labels_are_learned_one_by_one() -> None:
    y, x, edges, train = _many_labels()
    model = NodeClassifier(max_epochs=10).fit(x, edges, y, train, seed=3)
    for column in range(3):
        alone = NodeClassifier(max_epochs=10).fit(x, edges, y[:, column].long(), train, seed=3)
        torch.testing.assert_close(model.predict_proba()[:, column], alone.predict_proba()[:, 1])
    assert model.classes_.tolist() == [0, 1, 2, 3] and len(model.weights_) == 4
    assert torch.equal(model.predict(), (model.logits_ > 0).long())
    assert torch.equal(model.predict(x, edges), model.predict())
    odds = model.logits_[:, 3].exp()  # all 30 labels of the last column are 0
    torch.testing.assert_close(odds, torch.full_like(odds, 1 / 31))
    assert ((model.predict() == y).float().mean(dim=0) > 0.8).all()
    assert model.score(y) == float((model.predict() == y).all(dim=1).float().mean())


@pytest.mark.parametrize("dtype", [torch.bool, torch.int8, torch.float32])
def test_labels_of_two_dimensions_are_zeros_and_ones(dtype: torch.dtype) -> None:
    y, x, edges, train = _many_labels()
    model = NodeClassifier(max_epochs=2)
    expected = model.fit(x, edges, y, train).logits_
    assert torch.equal(model.fit(x, edges, y.to(dtype), train).logits_, expected)
    unread = y.float()
    unread[-1] = float("nan")  # not of 'train'
    assert torch.equal(model.fit(x, edges, unread, train).logits_, expected)
    unread[train[4], 1] = 0.5
    with pytest.raises(ValueError, match=f"0 or 1 .*got 0.5 for node {int(train[4])}"):
        model.fit(x, edges, unread, train)
    with pytest.raises(ValueError, match=r"'y' to be a Tensor of shape .*got \[60, 0\]"):
        model.fit(x[:60], edges[:, :0], y[:60, :0], train[:2])


def _many_labels() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    y = (torch.rand(120, 4, generator=generator) < 0.5).float()
    y[:, 3] = 0
    x = torch.randn(120, 6, generator=generator)
    x[:, :4] += 3 * y
    return y, x, knn_graph(x, k=5), torch.arange(30)
