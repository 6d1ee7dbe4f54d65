"""Labels as scikit-learn people write them, with points that have none."""

import warnings
from numbers import Number
from typing import Any

import numpy as np
import scipy.sparse
from sklearn.utils import column_or_1d
from sklearn.utils.multiclass import check_classification_targets
from torch import Tensor

# what NumPy makes of -1 and NaN among texts: np.array(["a", -1]) holds the text '-1'
_LOST_IN_TEXT = ("-1", "-1.0", "nan")


def label_columns(y: Any) -> tuple[list[Any], bool]:
    """The columns of ``y``, and whether it has two dimensions."""
    if isinstance(y, Tensor):
        y = y.detach().cpu().numpy()
    if scipy.sparse.issparse(y):
        y = y.toarray()
    table = y if isinstance(y, np.ndarray) or y is None else np.asarray(y, dtype=object)
    if table is None or table.ndim != 2 or table.shape[1] < 2:
        return [y], False
    return [table[:, column] for column in range(table.shape[1])], True


def read_labels(y: Any) -> tuple[np.ndarray, np.ndarray]:
    """Which points have a label, and those labels.

    No label is a missing value (None, NaN, NaT, pandas' NA, a masked entry), or the number -1,
    unless -1 and 1 are all the numbers there are, the usual coding of two classes.

    Returns:
        A boolean array, an entry a point, and the labels where it is true.

    Raises:
        ValueError: If ``y`` is not one column, or its labels are infinite, continuous, mixed of
            texts and others, or absent.
    """
    if y is None:
        raise ValueError("Expected 'y': it requires y to be passed, but the target y is None")
    hidden = np.ma.getmaskarray(y).ravel() if isinstance(y, np.ma.MaskedArray) else False
    plain = isinstance(y, np.ndarray) and y.dtype != object
    # as objects, for NumPy turns [1, "a"] into texts and an integer column with gaps into floats
    values = np.ma.getdata(y) if plain else np.asarray(y, dtype=object)
    values = column_or_1d(values, warn=True)
    if plain:
        missing = values != values
        minus_one = values == -1 if values.dtype.kind in "if" else np.zeros(len(values), bool)
    else:
        missing = np.array([_is_missing(value) for value in values], dtype=bool)
        minus_one = np.array([_is_number(value) and value == -1 for value in values], dtype=bool)
    known = ~(missing | hidden)
    labels = _as_classes(values[known & ~minus_one])
    if set(labels[:1].tolist()) == {1} and (labels == 1).all() and (minus_one & known).any():
        return known, _as_classes(values[known])
    known &= ~minus_one
    if not known.any():
        raise ValueError(
            "Expected 'y' to hold a label (got only -1 or missing values, which stand for none)"
        )
    with warnings.catch_warnings():  # one label a class is no regression here
        warnings.filterwarnings("ignore", "The number of unique classes")
        check_classification_targets(labels)
    return known, labels


def read_targets(y: Any) -> tuple[np.ndarray, bool]:
    """Real targets, a column for each output and NaN where there is none, and whether ``y`` has two
    dimensions.

    Raises:
        ValueError: If they are no numbers, infinite, or absent.
    """
    if y is None:
        raise ValueError("Expected 'y': it requires y to be passed, but the target y is None")
    if isinstance(y, np.ma.MaskedArray):
        y = np.ma.filled(np.ma.asarray(y, dtype=np.float64), np.nan)
    columns, is_multi_output = label_columns(y)
    if not is_multi_output:
        columns = [column_or_1d(columns[0], warn=True)]
    try:
        table = np.array(
            [[np.nan if _is_missing(value) else value for value in column] for column in columns],
            dtype=np.float64,
        ).T
    except (TypeError, ValueError) as error:
        raise ValueError(f"Expected 'y' to hold numbers ({error})") from error
    if np.isinf(table).any():
        raise ValueError(
            "Expected 'y' to hold finite numbers: Input y contains infinity or a value too large "
            "for dtype('float64')"
        )
    if np.isnan(table).all(axis=0).any():
        raise ValueError("Expected 'y' to hold a target (got only missing values)")
    return table, is_multi_output


def _is_missing(value: Any) -> bool:
    return value is None or type(value).__name__ == "NAType" or bool(value != value)


def _is_number(value: Any) -> bool:
    return isinstance(value, Number) and not isinstance(value, (bool, np.bool_))


def _as_classes(labels: np.ndarray) -> np.ndarray:
    """The labels in the type NumPy would give them, if that loses nothing."""
    if labels.dtype == object:
        texts = sum(isinstance(label, str) for label in labels)
        if 0 < texts < len(labels):
            raise ValueError("Expected 'y' to hold either texts or numbers (got both)")
        labels = np.array(labels.tolist())
    if labels.dtype.kind == "f" and np.isinf(labels).any():
        raise ValueError(
            "Expected 'y' to hold classes: Input y contains infinity or a value too large for "
            "dtype('float64')"
        )
    lost = [text for text in _LOST_IN_TEXT if labels.dtype.kind == "U" and text in labels]
    if lost:
        raise ValueError(
            f"Expected 'y' to hold labels (got the text '{lost[0]}', into which NumPy turns a "
            "number among texts); points without a label are None or -1 in a list or in an array "
            "of dtype object"
        )
    return labels
