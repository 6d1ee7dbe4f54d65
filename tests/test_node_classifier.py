"""Classes of all nodes from those of a few."""

import pytest
import torch

from torch_geometric_diff import NodeClassifier


def blocks(num_nodes: int = 90, seed: int = 0) -> tuple[torch.Tensor, ...]:
    """Three groups, the last as large as the others together; edges inside, words that hint."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.arange(num_nodes) * 4 // num_nodes
    y = y.clamp(max=2)
    same = y[:, None] == y[None, :]
    chance = torch.where(same, 0.12, 0.02)
    edges = (torch.rand(num_nodes, num_nodes, generator=generator) < chance).triu(1)
    edge_index = edges.nonzero().t()
    words = torch.rand(num_nodes, 30, generator=generator)
    hint = torch.arange(30)[None, :] // 10 == y[:, None]
    x = (words < torch.where(hint, 0.25, 0.1)).float()
    return x, torch.cat([edge_index, edge_index.flip(0)], 1), y


FEW = torch.tensor([0, 1, 2, 3, 25, 26, 27, 28, 60, 61, 62, 63])


@pytest.mark.parametrize("hidden", [None, 8])
def test_learns_from_a_few_labels(hidden: int | None) -> None:
    x, edge_index, y = blocks()
    lr = {} if hidden is None else {"lr": 0.02}
    model = NodeClassifier(hidden_channels=hidden, max_epochs=60, warmup=30, **lr)
    model.fit(x, edge_index, y, FEW)
    rest = torch.ones(90, dtype=torch.bool)
    rest[FEW] = False
    assert (model.predict() == y)[rest].float().mean() > 0.9
    probabilities = model.predict_proba()
    torch.testing.assert_close(probabilities.sum(1), torch.ones(90))
    assert torch.equal(probabilities.argmax(1), model.predict())


def test_reads_no_other_label_and_takes_any_class_numbers() -> None:
    x, edge_index, y = blocks()
    model = NodeClassifier(max_epochs=5)
    expected = model.fit(x, edge_index, y, FEW).logits_
    hidden = torch.full_like(y, -1)
    hidden[FEW] = y[FEW]
    assert torch.equal(model.fit(x, edge_index, hidden, FEW).logits_, expected)
    mask = torch.zeros(90, dtype=torch.bool)
    mask[FEW] = True
    model.fit(x, edge_index, 10 * y + 7, mask)
    assert torch.equal(model.logits_, expected)
    assert model.classes_.tolist() == [7, 17, 27]
    assert set(model.predict().tolist()) <= {7, 17, 27}


def test_a_seed_repeats_and_leaves_torch_alone() -> None:
    x, edge_index, y = blocks()
    state = torch.get_rng_state()
    runs = [NodeClassifier(max_epochs=5).fit(x, edge_index, y, FEW, seed=s) for s in (1, 1, 2)]
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(runs[0].logits_, runs[1].logits_)
    assert not torch.equal(runs[0].logits_, runs[2].logits_)


def test_shares_move_the_logits_towards_the_larger_classes() -> None:
    x, edge_index, y = blocks()
    plain, moved = (
        NodeClassifier(max_epochs=20, shares=r).fit(x, edge_index, y, FEW).logits_
        for r in (0.0, 1.0)
    )
    found = torch.bincount(plain.argmax(1), minlength=3) + 1.0
    expected = (found / found.sum() * 3).log()  # of labels, each class has a third
    torch.testing.assert_close(moved - plain, expected.expand(90, 3), rtol=1e-4, atol=1e-4)


def test_dense_and_sparse_features_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    x, edge_index, y = blocks()
    results = []
    for share in (0.0, 1.0):
        monkeypatch.setattr("torch_geometric_diff.node_classifier.MOSTLY_ZERO", share)
        model = NodeClassifier(max_epochs=10).fit(x, edge_index, y, FEW)
        results.append(model.logits_)
    torch.testing.assert_close(*results, rtol=1e-3, atol=1e-4)


def test_refuses_what_does_not_fit() -> None:
    x, edge_index, y = blocks()
    with pytest.raises(ValueError, match=r"'y' of shape \[N\] \(got \[90, 30\] and \[5\]\)"):
        NodeClassifier().fit(x, edge_index, y[:5], FEW)
    with pytest.raises(ValueError, match="'train' to name at least one node"):
        NodeClassifier().fit(x, edge_index, y, FEW[:0])
    with pytest.raises(ValueError, match="'max_epochs' and 'warmup' >= 1"):
        NodeClassifier(max_epochs=0)
