"""Measures of predicted classes beside accuracy."""

from collections.abc import Callable

from torch import Tensor

from benchmarks.common.training import accuracy

METRICS = ("accuracy", "roc_auc", "average_precision", "f1")


def measure(metric: str) -> Callable[[Tensor, Tensor, Tensor], float]:
    """A measure of logits [N, C] and classes [N] at some nodes.

    ``roc_auc`` and ``average_precision`` are those of the second class where there are two, else
    means over the classes, each against the others, of the classes that some but not all of the
    nodes have; ``f1`` is the mean over the classes (macro).

    Example:
        >>> logits, y = torch.tensor([[2.0, 0.0], [1.0, 0.0], [0.0, 1.0]]), torch.tensor([0, 1, 1])
        >>> round(measure("roc_auc")(logits, y, torch.arange(3)), 2)
        1.0
    """
    if metric == "accuracy":
        return accuracy
    from sklearn.metrics import average_precision_score, f1_score, roc_auc_score

    if metric == "f1":

        def f1(logits: Tensor, y: Tensor, nodes: Tensor) -> float:
            labels = logits[nodes].argmax(dim=1).cpu().numpy()
            return float(f1_score(y[nodes].cpu().numpy(), labels, average="macro"))

        return f1
    score = roc_auc_score if metric == "roc_auc" else average_precision_score

    def ranked(logits: Tensor, y: Tensor, nodes: Tensor) -> float:
        share = logits[nodes].float().softmax(dim=1).cpu().numpy()
        label = y[nodes].cpu().numpy()
        classes = range(share.shape[1]) if share.shape[1] != 2 else (1,)
        values = [
            float(score(label == c, share[:, c])) for c in classes if 0 < (label == c).mean() < 1
        ]
        if not values:
            raise ValueError(
                f"Expected nodes of two classes or more to measure '{metric}' (got one class)"
            )
        return sum(values) / len(values)

    return ranked
