"""The interval of a mean."""

import math

import numpy as np
import pytest
from scipy import stats

from benchmarks.common import mean_and_interval


def test_interval_is_that_of_students_t() -> None:
    values = np.random.default_rng(0).normal(3, 2, 7)
    mean, half = mean_and_interval(values)
    low, high = stats.t.interval(0.95, 6, values.mean(), stats.sem(values))
    assert (mean - half, mean + half) == pytest.approx((low, high))


def test_too_few_values_have_no_interval() -> None:
    assert math.isnan(mean_and_interval([])[0])
    mean, half = mean_and_interval([2.0])
    assert mean == 2.0 and math.isnan(half)
