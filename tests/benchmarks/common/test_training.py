"""Early stopping and the training loop."""

import pytest
import torch
from torch import Tensor
from torch.nn import Linear, Module, Parameter

from benchmarks.common import accuracy, fit
from benchmarks.common.training import EarlyStopping


def test_either_measure_counts_as_progress() -> None:
    stopping = EarlyStopping(patience=2)
    steps = [  # loss, accuracy, kept, epochs waited
        (1.0, 0.5, True, 0),
        (1.0, 0.4, True, 0),  # an equal loss is progress
        (2.0, 0.5, True, 0),  # an equal accuracy is progress
        (2.0, 0.4, False, 1),
        (2.0, 0.6, True, 0),
        (0.9, 0.1, True, 0),
        (0.95, 0.59, False, 1),  # the bests are kept apart: 0.9 and 0.6
        (0.95, 0.59, False, 2),
    ]
    for loss, acc, kept, waited in steps:
        assert not stopping.stop
        assert stopping.progress(loss, acc) is kept
        assert stopping.waited == waited
    assert stopping.stop


def data() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(60) % 2
    x = torch.randn(60, 4, generator=generator) + 2 * y[:, None]
    return x, y, torch.arange(20), torch.arange(20, 40)


def test_learns_and_returns_the_kept_state() -> None:
    x, y, train, val = data()
    torch.manual_seed(0)
    model = Linear(4, 2)
    [result] = fit([model], (x,), y, train, val, lr=0.1, patience=5, max_epochs=200)
    assert accuracy(result.logits, y, torch.arange(40, 60)) > 0.8
    assert result.logits.equal(model(x)) and not result.logits.requires_grad
    assert result.best_epoch < result.epochs <= 200


class Schedule(Module):
    """Validation logits by epoch, whatever the parameter is."""

    def __init__(self, margins: list[float]) -> None:
        super().__init__()
        self.weight = Parameter(torch.zeros(()))
        self.margins = margins
        self.epoch: Tensor
        self.register_buffer("epoch", torch.zeros((), dtype=torch.long))

    def forward(self, y: Tensor) -> Tensor:
        if self.training:
            self.epoch += 1
        margin = self.margins[int(self.epoch) - 1]
        right = torch.nn.functional.one_hot(y, 2).float()
        return margin * right + self.weight


def test_stops_after_patience_and_restores_the_best_epoch() -> None:
    y = torch.arange(10) % 2
    model = Schedule([1.0, 2.0, 3.0, -1.0, -1.0, -1.0, 9.0])
    [result] = fit([model], (y,), y, torch.arange(5), torch.arange(5, 10), patience=3)
    assert (result.best_epoch, result.epochs) == (2, 6)  # the seventh epoch is never seen
    assert int(model.epoch) == 3 and accuracy(result.logits, y, torch.arange(10)) == 1


def test_max_epochs() -> None:
    x, y, train, val = data()
    assert fit([Linear(4, 2)], (x,), y, train, val, max_epochs=3)[0].epochs == 3


def test_parameter_groups_decide_what_decays() -> None:
    class Model(Linear):
        def parameter_groups(self, weight_decay: float) -> list[dict[str, object]]:
            return [
                {"params": [self.weight], "weight_decay": 0.0},
                {"params": [self.bias], "weight_decay": weight_decay},
            ]

    x, y, train, val = data()
    torch.manual_seed(0)
    model = Model(4, 2)
    fit([model], (x,), y, train, val, lr=0.1, weight_decay=100.0, patience=50, max_epochs=50)
    assert model.bias.abs().max() < 0.1 < 0.4 < model.weight.abs().max()


class Decaying(Linear):
    """A model with groups of parameters and a buffer that counts its training epochs."""

    def __init__(self, by_columns: bool) -> None:
        super().__init__(4, 2)
        self.epoch: Tensor
        self.register_buffer("epoch", torch.zeros((), dtype=torch.long))
        if by_columns:
            self.weight.data = self.weight.data.t().contiguous().t()

    def parameter_groups(self, weight_decay: float) -> list[dict[str, object]]:
        return [{"params": [self.weight], "weight_decay": 0.0}, {"params": [self.bias]}]

    def forward(self, x: Tensor) -> Tensor:
        self.epoch += self.training
        return super().forward(x)


@pytest.mark.parametrize("groups", [False, True])
def test_models_side_by_side_train_as_if_alone(groups: bool) -> None:
    x, y, _, _ = data()
    y[::6] = 1 - y[::6]  # noise, so that training overfits
    nodes = torch.stack(
        [torch.randperm(60, generator=torch.Generator().manual_seed(i)) for i in range(5)]
    )
    train, val = nodes[:, :10], nodes[:, 10:30]

    def models() -> list[Module]:
        torch.manual_seed(0)
        return [Decaying(i % 2 == 0) if groups else Linear(4, 2) for i in range(5)]

    options = {"lr": 0.3, "patience": 2, "max_epochs": 30}
    together, alone = models(), models()
    fits = fit(together, (x,), y, train, val, **options)
    assert len({result.epochs for result in fits}) > 2  # they leave at different times
    for i, (result, model) in enumerate(zip(fits, alone, strict=True)):
        [expected] = fit([model], (x,), y, train[i], val[i], **options)
        assert (result.best_epoch, result.epochs) == (expected.best_epoch, expected.epochs)
        torch.testing.assert_close(result.logits, expected.logits, rtol=0, atol=0)
        for name, value in model.state_dict().items():
            torch.testing.assert_close(together[i].state_dict()[name], value, rtol=0, atol=0)


def test_bad_options_and_divergence() -> None:
    x, y, train, val = data()
    with pytest.raises(ValueError, match="'patience'.*got 10 and 0"):
        fit([Linear(4, 2)], (x,), y, train, val, max_epochs=10, patience=0)
    with pytest.raises(ValueError, match="not finite in epoch 0"):
        fit([Linear(4, 2)], (x * float("inf"),), y, train, val)


def test_weights_kept_by_columns_train_alike() -> None:
    x, y, train, val = data()
    weights = []
    for by_columns in (False, True):
        torch.manual_seed(0)
        model = Linear(4, 2)
        if by_columns:
            model.weight.data = model.weight.data.t().contiguous().t()
        [result] = fit([model], (x,), y, train, val, max_epochs=30)
        assert result.epochs == 30
        weights.append(model.weight.detach())
    assert torch.allclose(*weights, atol=1e-6)
    torch.manual_seed(0)
    assert not torch.allclose(weights[0], Linear(4, 2).weight, atol=0.01)
