"""Measures of predicted classes beside accuracy."""

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

METRICS = ("accuracy", "roc_auc", "average_precision", "f1")


def measure(metric: str) -> "Callable[[Tensor, Tensor, Tensor], float]":
    """A measure of logits [N, C] and classes [N] or labels [N, C] at some nodes.

    ``roc_auc`` and ``average_precision`` are those of the second class where there are two, else
    means over the classes, each against the others, of the classes that some but not all of the
    nodes have; ``f1`` is the mean over the classes (macro), of several labels a node that of all
    labels together (micro).

    Example:
        >>> import torch
        >>> logits, y = torch.tensor([[2.0, 0.0], [1.0, 0.0], [0.0, 1.0]]), torch.tensor([0, 1, 1])
        >>> round(measure("roc_auc")(logits, y, torch.arange(3)), 2)
        1.0
    """
    if metric == "accuracy":
        from benchmarks.common.training import accuracy

        return accuracy
    import torch.nn.functional as F
    from sklearn.metrics import average_precision_score, f1_score, roc_auc_score

    if metric == "f1":

        def f1(logits: "Tensor", y: "Tensor", nodes: "Tensor") -> float:
            several = y.dim() == 2
            labels = logits[nodes] > 0 if several else logits[nodes].argmax(dim=1)
            average = "micro" if several else "macro"
            return float(f1_score(y[nodes].cpu().numpy(), labels.cpu().numpy(), average=average))

        return f1
    score = roc_auc_score if metric == "roc_auc" else average_precision_score

    def ranked(logits: "Tensor", y: "Tensor", nodes: "Tensor") -> float:
        share, label = logits[nodes].float(), y[nodes]
        if y.dim() == 1:
            share, label = share.softmax(dim=1), F.one_hot(label, logits.size(1))
        classes = (1,) if y.dim() == 1 and share.size(1) == 2 else range(share.size(1))
        pairs = ((label[:, c].cpu().numpy(), share[:, c].cpu().numpy()) for c in classes)
        values = [float(score(own, by)) for own, by in pairs if 0 < own.mean() < 1]
        if not values:
            raise ValueError(
                f"Expected nodes of two classes or more to measure '{metric}' (got one class)"
            )
        return sum(values) / len(values)

    return ranked
