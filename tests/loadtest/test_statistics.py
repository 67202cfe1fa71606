import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtest.statistics import median, median_ratio, percentile

VALUES = st.lists(st.floats(0, 1e6), min_size=1, max_size=50)


@given(VALUES, st.integers(0, 100))
def test_percentile_is_numpys_inverted_distribution(values: list[float], percent: int) -> None:
    assert percentile(values, percent) == np.percentile(values, percent, method="inverted_cdf")


@given(VALUES)
def test_median_is_numpys(values: list[float]) -> None:
    assert median(values) == pytest.approx(np.median(values))


def test_nothing_measured_is_nan() -> None:
    assert math.isnan(percentile([], 50))
    assert math.isnan(median([]))
    assert math.isnan(median_ratio([], []))


def test_ratio_is_taken_round_by_round() -> None:
    # The machine was three times as slow in the second round, for both.
    assert median_ratio([200, 66, 210], [100, 33, 100]) == 2.0
