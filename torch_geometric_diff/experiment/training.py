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
    """

    def __init__(self, patience: int) -> None:
        self.patience = patience
        self.waited = 0
        self.best_loss = math.inf
        self.best_acc = -math.inf

    def progress(self, loss: float, acc: float) -> bool:
        """Take in an epoch and say whether its state is to be kept."""
        better = loss <= self.best_loss or acc >= self.best_acc
        self.best_loss = min(self.best_loss, loss)
        self.best_acc = max(self.best_acc, acc)
        self.waited = 0 if better else self.waited + 1
        return better

    @property
    def stop(self) -> bool:
        """Whether patience has run out."""
        return self.waited >= self.patience


@dataclass(frozen=True)
class Fit:
    """What training ended with; the model holds the state of ``best_epoch`` (counted from 0)."""

    logits: Tensor  # [N, C], of the kept state
    best_epoch: int
    epochs: int


def accuracy(logits: Tensor, y: Tensor, nodes: Tensor) -> float:
    """Share of ``nodes`` whose largest logit is that of their class."""
    return (logits[nodes].argmax(dim=-1) == y[nodes]).float().mean().item()


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


def fit(
    model: Module,
    inputs: Sequence[Any],
    y: Tensor,
    train: Tensor,
    val: Tensor,
    *,
    lr: float = 0.01,
    weight_decay: float = 5e-4,
    max_epochs: int = 10_000,
    patience: int = 50,
) -> Fit:
    """Train ``model(*inputs)`` on the nodes ``train``, keeping the state that ``val`` likes best.

    Cross-entropy and Adam. A model may define ``parameter_groups(weight_decay)`` to decay only
    some of its parameters.

    Args:
        model (torch.nn.Module): Maps the inputs to logits of all nodes.
        inputs (sequence): Arguments of the model: features, adjacency.
        y (torch.Tensor): Class of every node.
        train (torch.Tensor): Indices of the training nodes.
        val (torch.Tensor): Indices of the validation nodes.
        lr (float, optional): Learning rate. (default: ``0.01``)
        weight_decay (float, optional): L2 penalty of Adam. (default: ``5e-4``)
        max_epochs (int, optional): Most epochs. (default: ``10_000``)
        patience (int, optional): See :class:`EarlyStopping`. (default: ``50``)

    Raises:
        ValueError: If an option is out of range, or the loss is no longer finite.
    """
    if max_epochs < 1 or patience < 1:
        raise ValueError(
            f"Expected 'max_epochs' and 'patience' to be positive (got {max_epochs} and {patience})"
        )
    groups = getattr(model, "parameter_groups", None)
    views = _MemoryOrder()
    optimizer = Adam(
        views.of_groups(groups(weight_decay) if groups else [{"params": model.parameters()}]),
        lr=lr,
        weight_decay=weight_decay,
        fused=y.device.type in ("cpu", "cuda", "mps"),
    )
    state = [*model.parameters(), *model.buffers()]
    kept = [tensor.detach().clone() for tensor in state]
    stopping = EarlyStopping(patience)
    best_epoch = 0
    epoch = -1

    for epoch in range(max_epochs):
        model.train()
        model.zero_grad()
        loss = F.cross_entropy(model(*inputs)[train], y[train])
        loss.backward()
        views.take_gradients()
        optimizer.step()

        model.eval()
        with torch.no_grad():
            logits = model(*inputs)[val]
            hits = (logits.argmax(dim=-1) == y[val]).float().mean()
            # One transfer an epoch, so that a GPU is waited for only once.
            measures = torch.stack([F.cross_entropy(logits, y[val]), hits, loss.detach()])
        val_loss, val_acc, train_loss = measures.tolist()
        if not (math.isfinite(val_loss) and math.isfinite(train_loss)):
            raise ValueError(
                f"The loss is not finite in epoch {epoch}: training {train_loss}, validation "
                f"{val_loss}; lower 'lr' (got {lr}) or the step size of the diffusion"
            )
        if stopping.progress(val_loss, val_acc):
            best_epoch = epoch
            torch._foreach_copy_(kept, [tensor.detach() for tensor in state])
        if stopping.stop:
            break

    with torch.no_grad():
        torch._foreach_copy_(state, kept)
        logits = model(*inputs)
    return Fit(logits, best_epoch, epoch + 1)
