"""The statistic that tells a leak from noise."""

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from loadtest.soak.trend import floors, trend

HOURS = np.linspace(0, 1, 2_000)


def memory(
    seed: int, *, leak_mb_per_hour: float = 0.0, step_mb: float = 0.0
) -> NDArray[np.float64]:
    """Return an hour of resident memory: requests in progress over a floor that may rise."""
    rng = np.random.default_rng(seed)
    in_progress = rng.exponential(3.0, len(HOURS))
    settled = step_mb * (HOURS > 0.1)
    return 200 + leak_mb_per_hour * HOURS + settled + in_progress


@pytest.mark.parametrize("seed", range(5))
def test_slope_and_interval_are_the_theil_sen_estimators(seed: int) -> None:
    rng = np.random.default_rng(seed)
    x, y = np.sort(rng.uniform(0, 9, 25)), rng.normal(size=25).cumsum()
    expected = stats.theilslopes(y, x, alpha=0.95)
    found = trend(x, y)
    assert (found.slope, found.low, found.high) == pytest.approx(
        (expected.slope, expected.low_slope, expected.high_slope)
    )


def test_a_flat_floor_under_bursts_is_no_leak() -> None:
    caught = 0
    for seed in range(100):
        found = trend(*floors(HOURS, memory(seed), blocks=20))
        assert found.high < 5
        caught += found.low > 0
    assert caught <= 5  # a 95 % interval


def test_a_leak_is_caught_and_measured() -> None:
    for seed in range(100):
        found = trend(*floors(HOURS, memory(seed, leak_mb_per_hour=6), blocks=20))
        assert found.low > 5
        assert found.slope == pytest.approx(6, abs=0.5)


def test_a_single_step_and_single_peaks_are_no_trend() -> None:
    stepped = memory(0, step_mb=30)
    stepped[::97] += 500
    found = trend(*floors(HOURS, stepped, blocks=20))
    assert abs(found.slope) < 1


def test_two_points_have_no_trend() -> None:
    with pytest.raises(ValueError, match="three"):
        trend([0, 1], [0, 1])
