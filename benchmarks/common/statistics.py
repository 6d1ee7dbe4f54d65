"""What a sample says of its mean."""

import math
from collections.abc import Sequence

import numpy as np


def mean_and_interval(values: Sequence[float] | np.ndarray) -> tuple[float, float]:
    """The mean and half the width of its 95 % interval by Student's t.

    Args:
        values (sequence of float): Independent measurements; differences of pairs, where two
            things were measured on the same occasions.

    Returns:
        The mean, NaN of no values, and the half width, NaN of fewer than two.

    Example:
        >>> mean, half = mean_and_interval([1.0, 2.0, 3.0])
        >>> f"{mean:.2f} ± {half:.2f}"
        '2.00 ± 2.48'
    """
    data = np.asarray(values, dtype=float)
    mean = float(data.mean()) if data.size else math.nan
    if data.size < 2:
        return mean, math.nan
    from scipy.special import stdtrit

    return mean, float(stdtrit(data.size - 1, 0.975) * data.std(ddof=1) / math.sqrt(data.size))
