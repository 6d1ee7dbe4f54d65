import numpy as np
import pytest
import torch

pytest.importorskip("sklearn", reason="metrics need scikit-learn")

from sklearn.metrics import average_precision_score, f1_score, roc_auc_score

from benchmarks.common.metrics import METRICS, measure


@pytest.mark.parametrize("classes", [2, 4])
def test_metrics_are_those_of_scikit_learn(classes):
    generator = torch.Generator().manual_seed(classes)
    logits = torch.randn(80, classes, generator=generator)
    y = torch.randint(classes, (80,), generator=generator)
    nodes = torch.arange(10, 70)
    share, label = logits[nodes].softmax(1).numpy(), y[nodes].numpy()
    one_hot = np.eye(classes)[label]
    if classes == 2:
        share, one_hot = share[:, 1:], one_hot[:, 1:]
    expected = {
        "accuracy": (logits[nodes].argmax(1).numpy() == label).mean(),
        "roc_auc": roc_auc_score(one_hot, share),
        "average_precision": average_precision_score(one_hot, share),
        "f1": f1_score(label, logits[nodes].argmax(1).numpy(), average="macro"),
    }
    for metric in METRICS:
        assert measure(metric)(logits, y, nodes) == pytest.approx(expected[metric], rel=1e-5)


@pytest.mark.parametrize("metric", ["roc_auc", "average_precision"])
def test_one_class_cannot_be_ranked(metric):
    with pytest.raises(ValueError, match=f"two classes or more to measure '{metric}'"):
        measure(metric)(torch.randn(5, 3), torch.zeros(5).long(), torch.arange(5))
