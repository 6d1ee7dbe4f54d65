"""Full-batch training with the early stopping of the paper."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn import Module
from torch.optim import Adam


class EarlyStopping:
    """Patience on two measures: loss and accuracy of the validation set.

    An epoch counts as progress when its loss is at most the best loss **or** its accuracy at least
    the best accuracy, both bests kept separately.

    Args:
        patience (int): Stop after so many epochs in a row without progress.

    Example:
        >>> stopping = EarlyStopping(patience=2)
        >>> for loss in (1.0, 0.5, 0.6, 0.7):
        ...     _ = stopping.progress(loss, acc=-loss)
        >>> stopping.best_epoch, stopping.stop
        (1, True)
    """

    def __init__(self, patience: int) -> None:
        self.patience = patience
        self.epochs = 0
        self.best_epoch = 0  # the latest that counted as progress
        self.waited = 0
        self.best_loss = math.inf
        self.best_acc = -math.inf

    def progress(self, loss: float, acc: float) -> bool:
        """Take in an epoch and say whether its state is to be kept."""
        better = loss <= self.best_loss or acc >= self.best_acc
        self.best_loss = min(self.best_loss, loss)
        self.best_acc = max(self.best_acc, acc)
        if better:
            self.best_epoch = self.epochs
        self.waited = self.epochs - self.best_epoch
        self.epochs += 1
        return better

    @property
    def stop(self) -> bool:
        """Whether patience has run out."""
        return self.waited >= self.patience


@dataclass(frozen=True)
class Fit:
    """What training ended with; the model holds the state of ``best_epoch`` (counted from 0).

    Example:
        >>> Fit(torch.zeros(3, 2), best_epoch=7, epochs=10).best_epoch
        7
    """

    logits: Tensor  # [N, C], of the kept state
    best_epoch: int
    epochs: int


def accuracy(logits: Tensor, y: Tensor, nodes: Tensor) -> float:
    """Share of ``nodes`` whose largest logit is that of their class, or share of the labels of
    ``y`` of two dimensions whose logit has the right sign.

    Example:
        >>> logits = torch.tensor([[2.0, 1.0], [0.0, 1.0], [3.0, 1.0]])
        >>> accuracy(logits, torch.tensor([0, 1, 1]), torch.tensor([0, 1]))
        1.0
    """
    return _hits(logits[nodes], y[nodes]).float().mean().item()


class _MemoryOrder:
    """Views of parameters in the order of their memory.

    Fused Adam copies whatever is not contiguous (parameter, gradient, both moments) in and out at
    every step, which for a weight kept by columns costs several times the step itself.
    """

    def __init__(self) -> None:
        self.pairs: list[tuple[Tensor, Tensor]] = []

    def of_groups(self, groups: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [{**group, "params": [*map(self.of, group["params"])]} for group in groups]

    def of(self, parameter: Tensor) -> Tensor:
        if parameter.is_contiguous() or not parameter.t().is_contiguous():
            return parameter
        view = parameter.detach().t()
        self.pairs.append((view, parameter))
        return view

    def take_gradients(self) -> None:
        for view, parameter in self.pairs:
            view.grad = None if parameter.grad is None else parameter.grad.t()


def _groups(models: Sequence[Any], weight_decay: float) -> list[dict[str, Any]]:
    if hasattr(models[0], "parameter_groups"):
        return [group for model in models for group in model.parameter_groups(weight_decay)]
    return [{"params": [p for model in models for p in model.parameters()]}]


def _logits(models: Sequence[Any], inputs: Sequence[Any], nodes: Tensor | None = None) -> Tensor:
    """The logits [B, N, C] of all models, or [B, n, C] at each model's own nodes [B, n]."""
    if hasattr(models[0], "side_by_side"):
        if len(models) > 1:
            return models[0].side_by_side(models, *inputs, nodes=nodes)
        own = None if nodes is None else nodes[0]
        return models[0](*inputs, nodes=own).unsqueeze(0)
    if len(models) == 1:
        logits = models[0](*inputs).unsqueeze(0)
    else:
        logits = torch.stack([model(*inputs) for model in models])
    if nodes is None:
        return logits
    return logits.gather(1, nodes.unsqueeze(-1).expand(-1, -1, logits.size(-1)))


def _hits(logits: Tensor, y: Tensor) -> Tensor:
    """Which classes [..., n] or labels [..., n, C] logits [..., n, C] tell rightly."""
    if y.dim() == logits.dim():
        return (logits > 0) == (y > 0)
    return logits.argmax(dim=-1) == y


def _losses(logits: Tensor, y: Tensor) -> Tensor:
    """The mean cross-entropy [B] of logits [B, n, C], binary for labels [B, n, C]."""
    if y.dim() == logits.dim():
        each = F.binary_cross_entropy_with_logits(logits, y.to(logits), reduction="none")
        return each.mean(dim=(1, 2))
    each = F.cross_entropy(logits.flatten(0, 1), y.flatten(), reduction="none")
    return each.view_as(y).mean(dim=1)


def _improved(
    active: Sequence[int],
    stopping: Sequence[EarlyStopping],
    measures: Sequence[Sequence[float]],
    epoch: int,
    lr: float,
) -> list[int]:
    """The models in training that are better than before, of validation loss and accuracy and
    training loss of each.
    """
    better = []
    for i, val_loss, val_acc, train_loss in zip(active, *measures, strict=True):
        if not (math.isfinite(val_loss) and math.isfinite(train_loss)):
            raise ValueError(
                f"The loss is not finite in epoch {epoch}: training {train_loss}, validation "
                f"{val_loss}; lower 'lr' (got {lr}) or the step size of the diffusion"
            )
        if stopping[i].progress(val_loss, val_acc):
            better.append(i)
    return better


def fit(
    models: Sequence[Module],
    inputs: Sequence[Any],
    y: Tensor,
    train: Tensor,
    val: Tensor,
    *,
    lr: float = 0.01,
    weight_decay: float = 5e-4,
    max_epochs: int = 10_000,
    patience: int = 50,
) -> list[Fit]:
    """Train each model on its nodes ``train``, keeping the state that its ``val`` likes best.

    Cross-entropy (binary for several labels a node) and Adam. Several models of one class train
    side by side, each as it would alone: one that stops early leaves the others. A model may define
    ``parameter_groups(weight_decay)`` to decay only some of its parameters, and
    ``side_by_side(models, *inputs, nodes)``, the logits :math:`(B, N, C)` of several models at
    once, or :math:`(B, n, C)` of each model's own ``nodes``; its ``forward`` then takes ``nodes``,
    too. Random numbers that models draw from a common generator depend on which models draw them,
    so dropout needs a generator of each model's own, as :class:`~torch_geometric_diff.nn.DiffConv`
    takes it.

    Args:
        models (sequence of torch.nn.Module): Each maps the inputs to logits of all nodes.
        inputs (sequence): Arguments of the models: features, adjacency.
        y (torch.Tensor): Class of every node, or several labels :math:`(N, C)`, each 0 or 1.
        train (torch.Tensor): Indices of the training nodes, of all models :math:`(n,)` or of each
            :math:`(B, n)`.
        val (torch.Tensor): Indices of the validation nodes, likewise.
        lr (float, optional): Learning rate. (default: ``0.01``)
        weight_decay (float, optional): L2 penalty of Adam. (default: ``5e-4``)
        max_epochs (int, optional): Most epochs. (default: ``10_000``)
        patience (int, optional): See :class:`EarlyStopping`. (default: ``50``)

    Raises:
        ValueError: If an option is out of range, or the loss is no longer finite.

    Example:
        >>> x, y = torch.eye(4), torch.tensor([0, 1, 0, 1])
        >>> model = torch.nn.Linear(4, 2)
        >>> (done,) = fit([model], [x], y, torch.arange(2), torch.arange(2, 4), max_epochs=20)
        >>> done.logits.shape
        torch.Size([4, 2])
    """
    if max_epochs < 1 or patience < 1:
        raise ValueError(
            f"Expected 'max_epochs' and 'patience' to be positive (got {max_epochs} and {patience})"
        )
    views = _MemoryOrder()
    optimizer = Adam(
        views.of_groups(_groups(models, weight_decay)),
        lr=lr,
        weight_decay=weight_decay,
        fused=y.device.type in ("cpu", "cuda", "mps"),
    )
    states = [[*model.parameters(), *model.buffers()] for model in models]
    best = [[tensor.detach().clone() for tensor in state] for state in states]
    stopping = [EarlyStopping(patience) for _ in models]
    train, val = train.expand(len(models), -1), val.expand(len(models), -1)
    active = list(range(len(models)))  # the models in training; train and val are theirs

    for epoch in range(max_epochs):
        training = [models[i] for i in active]
        for model in models:
            model.zero_grad()  # Adam leaves alone what has no gradient: models that have stopped
        for model in training:
            model.train()
        losses = _losses(_logits(training, inputs, train), y[train])
        losses.sum().backward()
        views.take_gradients()
        optimizer.step()

        for model in training:
            model.eval()
        with torch.no_grad():
            logits = _logits(training, inputs, val)
            hits = _hits(logits, y[val]).float().flatten(1).mean(dim=1)
            # One transfer an epoch, so that a GPU is waited for only once.
            measures = torch.stack([_losses(logits, y[val]), hits, losses.detach()]).tolist()
        better = _improved(active, stopping, measures, epoch, lr)
        if better:
            torch._foreach_copy_(
                [tensor for i in better for tensor in best[i]],
                [tensor.detach() for i in better for tensor in states[i]],
            )
        going = [position for position, i in enumerate(active) if not stopping[i].stop]
        if len(going) < len(active):
            active, train, val = [active[p] for p in going], train[going], val[going]
        if not active:
            break

    with torch.no_grad():
        for state, saved in zip(states, best, strict=True):
            torch._foreach_copy_(state, saved)
        logits = _logits(models, inputs)
    return [
        Fit(own, stop.best_epoch, stop.epochs) for own, stop in zip(logits, stopping, strict=True)
    ]
