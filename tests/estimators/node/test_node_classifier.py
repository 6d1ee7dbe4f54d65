"""Classes of all nodes from those of a few."""

import pytest
import torch

from torch_geometric_diff import NodeClassifier


def blocks(num_nodes: int = 120) -> tuple[torch.Tensor, ...]:
    """Three groups, the last as large as both others; edges inside, words that hint."""
    generator = torch.Generator().manual_seed(0)
    y = (torch.arange(num_nodes) * 4 // num_nodes).clamp(max=2)
    same = y[:, None] == y[None, :]
    chance = torch.where(same, 0.15, 0.01)
    edges = (torch.rand(num_nodes, num_nodes, generator=generator) < chance).triu(1)
    edge_index = edges.nonzero().t()
    words = torch.rand(num_nodes, 30, generator=generator)
    hint = torch.arange(30)[None, :] // 10 == y[:, None]
    x = (words < torch.where(hint, 0.4, 0.05)).float()
    return x, torch.cat([edge_index, edge_index.flip(0)], 1), y


FEW = torch.tensor([0, 1, 2, 3, 4, 30, 31, 32, 33, 34, 80, 81, 82, 83, 84])
SMALL = {"num_steps": 3, "neighbors": (4, 0), "mix": 0.5, "edges": "joined", "max_epochs": 5}


@pytest.mark.parametrize("hidden", [None, 8])
def test_learns_from_a_few_labels(hidden: int | None) -> None:
    x, edge_index, y = blocks()
    lr = 0.2 if hidden is None else 0.05
    settings = {**SMALL, "max_epochs": 25, "warmup": 20, "lr": lr}
    model = NodeClassifier(hidden_channels=hidden, **settings).fit(x, edge_index, y, FEW)
    rest = torch.ones(120, dtype=torch.bool)
    rest[FEW] = False
    assert (model.predict() == y)[rest].float().mean() > 0.9
    probabilities = model.predict_proba()
    torch.testing.assert_close(probabilities.sum(1), torch.ones(120))
    assert torch.equal(probabilities.argmax(1), model.predict())


def test_reads_no_other_label_and_takes_any_class_numbers() -> None:
    x, edge_index, y = blocks()
    model = NodeClassifier(**SMALL)
    expected = model.fit(x, edge_index, y, FEW).logits_
    hidden = torch.full_like(y, -1)
    hidden[FEW] = y[FEW]
    assert torch.equal(model.fit(x, edge_index, hidden, FEW).logits_, expected)
    mask = torch.zeros(120, dtype=torch.bool)
    mask[FEW] = True
    model.fit(x, edge_index, 10 * y + 7, mask)
    assert torch.equal(model.logits_, expected)
    assert model.classes_.tolist() == [7, 17, 27]
    assert set(model.predict().tolist()) <= {7, 17, 27}


def test_a_seed_repeats_and_leaves_torch_alone() -> None:
    x, edge_index, y = blocks()
    state = torch.get_rng_state()
    runs = [NodeClassifier(**SMALL).fit(x, edge_index, y, FEW, seed=s) for s in (1, 1, 2)]
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(runs[0].logits_, runs[1].logits_)
    assert not torch.equal(runs[0].logits_, runs[2].logits_)


def test_shares_move_the_logits_towards_the_larger_classes() -> None:
    x, edge_index, y = blocks()
    plain, moved = (
        NodeClassifier(**SMALL, student=0, shares=r).fit(x, edge_index, y, FEW).logits_
        for r in (0.0, 1.0)
    )
    found = torch.bincount(plain.argmax(1), minlength=3) + 1.0
    expected = (found / found.sum() * 3).log()  # of labels, each class has a third
    expected *= 15 / (15 + 3 * 3)  # five labels a class, and three for the assumption
    torch.testing.assert_close(moved - plain, expected.expand(120, 3), rtol=1e-4, atol=1e-4)


def test_one_label_a_class_does_not_end_in_one_class() -> None:
    x, edge_index, y = blocks()
    one = torch.tensor([0, 30, 80])
    model = NodeClassifier(num_steps=3).fit(x, edge_index, y, one)
    assert (model.predict() == y).float().mean() > 0.8


def test_networks_of_several_graphs_are_averaged() -> None:
    x, edge_index, y = blocks()
    model = NodeClassifier(**SMALL, shares=0, student=0).fit(x, edge_index, y, FEW)
    inputs, operators = model.prepare(x, edge_index).joined
    assert [operator.nnz for operator in operators] != [operators[0].nnz] * 2
    pairs = zip(model.models_, operators, strict=True)
    each = [network(inputs, operator).softmax(1) for network, operator in pairs]
    torch.testing.assert_close(model.predict_proba(), sum(each) / 2)


def test_the_student_reads_its_own_features_and_is_mixed_in() -> None:
    x, edge_index, y = blocks()
    teacher, both, student = (
        NodeClassifier(**SMALL, student=part).fit(x, edge_index, y, FEW) for part in (0, 0.25, 1)
    )
    target = (teacher.logits_ / 0.5).softmax(1)
    target[FEW] = torch.nn.functional.one_hot(y[FEW]).float()
    inputs, _ = both.prepare(x, edge_index).joined
    own = both.student_(inputs).softmax(1)
    torch.testing.assert_close(both.predict_proba(), 0.75 * target + 0.25 * own)
    torch.testing.assert_close(student.predict_proba(), own)


def test_dense_and_sparse_features_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    x, edge_index, y = blocks()
    results = []
    for share in (0.0, 1.0):
        monkeypatch.setattr("torch_geometric_diff.estimators.node.candidates.MOSTLY_ZERO", share)
        model = NodeClassifier(**SMALL, student=0).fit(x, edge_index, y, FEW)
        results.append(model.logits_)
    torch.testing.assert_close(*results, rtol=1e-3, atol=1e-4)


def test_refuses_what_does_not_fit() -> None:
    x, edge_index, y = blocks()
    with pytest.raises(ValueError, match=r"'y' to be a Tensor of shape \[120\].*\(got \[5\]\)"):
        NodeClassifier().fit(x, edge_index, y[:5], FEW)
    with pytest.raises(ValueError, match="'train' to name at least one node"):
        NodeClassifier().fit(x, edge_index, y, FEW[:0])
    with pytest.raises(ValueError, match="'max_epochs' to be at least 1"):
        NodeClassifier(max_epochs=0)
    with pytest.raises(ValueError, match="one for each graph, as many of all"):
        NodeClassifier(num_steps=(1, 2), mix=(0.5, 0.5, 0.5))
    with pytest.raises(ValueError, match="'neighbors' to be at least 0"):
        NodeClassifier(neighbors=(4, -1), num_steps=2, mix=0.5)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"x": [[1.0]]}, TypeError, "'x' to be a Tensor"),
        ({"x": torch.eye(120).to("meta")}, ValueError, "'x' to have values"),
        ({"x": torch.full((120, 2), torch.nan)}, ValueError, "'x' to be finite"),
        ({"x": torch.ones(120, 0)}, ValueError, "'x' of shape"),
        ({"edge_index": torch.tensor([[0], [120]])}, ValueError, "indices of 'edge_index'"),
        ({"edge_weight": torch.ones(3)}, ValueError, "'edge_weight' of shape"),
        ({"y": [0, 1]}, ValueError, "'y' to be a Tensor of shape"),
        ({"y": torch.full((120,), torch.nan)}, ValueError, "'y' to hold the classes .* NaN"),
        ({"train": [0, 1]}, TypeError, "'train' to be a mask or indices"),
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
