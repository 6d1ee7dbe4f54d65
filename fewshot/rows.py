"""What the rows of ``fewshot.train`` say."""

import math
from typing import Any

import numpy as np


def mean_and_interval(accuracies: np.ndarray) -> tuple[float, float]:
    """Mean and half the 95 % interval, 1.96 std / sqrt(n), in percent."""
    half = 1.96 * accuracies.std() / math.sqrt(len(accuracies))
    return 100 * float(accuracies.mean()), 100 * float(half)


def each_task_once(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows of one setting by their first task, without those of tasks that others have."""
    told, rows = 0, sorted(rows, key=lambda row: (row["first"], -len(row["correct"])))
    found = []
    for row in rows:
        if row["first"] >= told:
            found.append(row)
            told = row["first"] + len(row["correct"])
    return found


def accuracies(rows: list[dict[str, Any]]) -> np.ndarray:
    """Accuracy of each task in the rows of one setting."""
    return np.concatenate([np.array(row["correct"]) / row["queries"] for row in rows])
