"""The decoupled OGB model: its inputs, that no label leaks, and its correction."""

import pytest
import torch
import torch.nn.functional as F
from torch_geometric.data import Data
from torch_geometric.utils import to_dense_adj, to_undirected

from benchmarks.common import Trial
from benchmarks.ogb.decoupled import DiffusedMLPMethod

NODES, CLASSES = 60, 3


@pytest.fixture
def data() -> Data:
    generator = torch.Generator().manual_seed(0)
    edges = torch.randint(NODES, (2, 150), generator=generator)
    y = torch.arange(NODES) % CLASSES
    x = torch.randn(NODES, 5, generator=generator)
    edge_index = to_undirected(edges[:, edges[0] != edges[1]], num_nodes=NODES)
    return Data(x=x, edge_index=edge_index, y=y, num_classes=CLASSES)


def walk(data: Data) -> torch.Tensor:
    dense = to_dense_adj(data.edge_index, max_num_nodes=NODES)[0] + torch.eye(NODES)
    return dense / dense.sum(dim=1, keepdim=True)


def test_inputs_are_those_of_the_formula(data: Data) -> None:
    method = DiffusedMLPMethod(data, feature_steps=2, label_steps=2)
    p, known = walk(data), torch.tensor([3, 8, 20, 41])
    expected = torch.cat([data.x, p @ data.x, p @ p @ data.x], dim=1)
    expected = (expected - expected.mean(dim=0)) / expected.std(dim=0, unbiased=False)
    torch.testing.assert_close(method.x, expected)
    y = torch.zeros(NODES, CLASSES)
    y[known, data.y[known]] = 2.0  # as if eight were known
    torch.testing.assert_close(method.labels(known, 8), torch.cat([p @ y, p @ p @ y], dim=1))


def test_no_node_sees_its_own_label_in_training(
    data: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    method = DiffusedMLPMethod(data, batch_size=4, hidden=4)
    train, seen, labels = torch.arange(0, 40), [], method.labels
    asked: list[torch.Tensor] = []

    def watched(known: torch.Tensor, count: int) -> torch.Tensor:
        asked.append(known)
        return labels(known, count)

    monkeypatch.setattr(method, "labels", watched)
    monkeypatch.setattr(method, "rows", lambda nodes, _: seen.append(nodes) or nodes[:, None])
    for _ in range(3):
        list(method.epoch(train))
        known, trained = asked[-1], torch.cat(seen)
        assert len(known) == len(trained) == 20
        assert torch.cat([known, trained]).sort().values.tolist() == train.tolist()
        assert all(len(nodes) == 4 for nodes in seen)
        seen.clear()
    assert asked[0].tolist() != asked[1].tolist()


def test_labels_of_validation_and_test_are_not_read_in_training(data: Data) -> None:
    trial = Trial(0, 0, 0, 5, torch.arange(30), torch.arange(30, 45), torch.arange(45, 60))
    outs = []
    for shift in (0, 1):
        other = data.clone()
        other.y[45:] = (other.y[45:] + shift) % CLASSES
        method = DiffusedMLPMethod(other, hidden=8, batch_size=8)
        outs.append(method.run(trial, lr=0.01, weight_decay=0.0, max_epochs=4, patience=4).logits)
    assert torch.equal(*outs)


def test_smoothing_that_does_not_help_is_left_out(data: Data) -> None:
    ring = torch.stack([torch.arange(NODES), (torch.arange(NODES) + CLASSES) % NODES])
    data.edge_index = to_undirected(ring)  # inside a class
    method = DiffusedMLPMethod(data)
    trial = Trial(0, 0, 0, 0, torch.arange(20), torch.arange(20, 40), torch.arange(40, 60))
    logits = 9 * F.one_hot(data.y, CLASSES).float()
    assert torch.equal(method.smoothed(logits, trial), logits.softmax(dim=1))
    logits[20:] = 0  # of which smoothing makes something
    assert not torch.equal(method.smoothed(logits, trial), logits.softmax(dim=1))
    method.post_steps = 0
    assert method.smoothed(logits, trial) is logits
