"""The canary's tests against scipy's, on whole samples."""

import numpy as np
import pytest
from scipy import stats

from service.rollout.observation import Histogram
from service.rollout.significance import (
    below_p,
    excess_p,
    later,
    lower_p,
    quantile_ratio,
)

BOUNDS = (0.25, 0.5, 0.75, 1.0)


def histogram(values: list[float], bounds: tuple[float, ...] = BOUNDS) -> Histogram:
    counts = np.bincount(np.searchsorted(bounds, values), minlength=len(bounds) + 1)
    return Histogram(bounds, tuple(counts.tolist()), float(np.sum(values)))


@pytest.mark.parametrize(
    ("hits", "trials", "others", "other_trials"),
    [(1, 500, 0, 49_500), (7, 500, 90, 49_500), (30, 1_000, 20, 1_000), (5, 5, 5, 5),
     (400, 1_000, 90_000, 99_000), (0, 10, 5, 10)],
)  # fmt: skip
@pytest.mark.parametrize("ratio", [1.0, 1.25])
def test_excess_is_the_binomial_test(
    hits: int, trials: int, others: int, other_trials: int, ratio: float
) -> None:
    share = ratio * trials / (ratio * trials + other_trials)
    expected = (
        stats.binomtest(hits, hits + others, share, alternative="greater").pvalue if hits else 1
    )
    found = excess_p(hits, trials, others, other_trials, ratio=ratio)
    assert found == pytest.approx(expected, rel=1e-8)


def test_later_is_the_mann_whitney_test_with_ties() -> None:
    rng = np.random.default_rng(1)
    for shift in (0.0, 0.1, 0.3):
        a = np.digitize(rng.random(300) + shift, BOUNDS)
        b = np.digitize(rng.random(900), BOUNDS)
        expected = stats.mannwhitneyu(a, b, alternative="greater", use_continuity=False)
        counts = [tuple(np.bincount(side, minlength=5).tolist()) for side in (a, b)]
        shares, p = later(Histogram(BOUNDS, counts[0]), Histogram(BOUNDS, counts[1]), margin=0)
        assert shares == pytest.approx(expected.statistic / 300 / 900)
        assert p == pytest.approx(expected.pvalue, rel=1e-9)


def test_a_quantile_lies_where_prometheus_puts_it() -> None:
    ten = Histogram((1.0, 2.0, 4.0), (5, 4, 1, 0))
    # The 9.9th of ten: nine tenths into the bucket from 2 to 4.
    ratio, _ = quantile_ratio(
        ten, Histogram((1.0, 2.0, 4.0), (100, 0, 0, 0)), 0.99, limit=1, seed=0
    )
    assert ratio == pytest.approx(3.8 / 0.99)


def test_the_ratio_of_quantiles_has_its_p_from_the_spread_of_samples() -> None:
    """Over many pairs of samples of one distribution, 5 % are below 0.05."""
    rng = np.random.default_rng(2)
    bounds = tuple(np.linspace(0.01, 1, 200))
    p = []
    for seed in range(300):
        sides = [histogram(rng.random(2_000).tolist(), bounds) for _ in range(2)]
        p.append(quantile_ratio(sides[0], sides[1], 0.9, limit=1, seed=seed)[1])
    assert np.mean(np.array(p) < 0.05) == pytest.approx(0.05, abs=0.03)
    slow = histogram((rng.random(2_000) * 1.3).tolist(), tuple(b * 1.3 for b in bounds))
    assert quantile_ratio(slow, sides[1], 0.9, limit=1.1, seed=1)[1] < 1e-6


def test_few_slow_requests_of_equal_lanes_are_no_alarm() -> None:
    """Where 0.9 % take long the p99 of few requests jumps from the fast ones to the slow ones."""
    rng, bounds = np.random.default_rng(4), (0.008, 0.01, 0.25, 0.5)
    shares = np.array([0.985, 0.006, 0.0, 0.009, 0.0])
    p = []
    for seed in range(2_000):
        canary, control = (
            Histogram(bounds, tuple(rng.multinomial(n, shares).tolist())) for n in (1_000, 99_000)
        )
        p.append(quantile_ratio(canary, control, 0.99, limit=1.2, seed=seed)[1])
    assert min(p) > 1e-4
    slow = Histogram(bounds, tuple(rng.multinomial(1_000, [0.94, 0, 0, 0.06, 0]).tolist()))
    assert quantile_ratio(slow, control, 0.99, limit=1.2, seed=1)[1] < 1e-9


def test_means_are_tested_with_no_less_than_their_spread() -> None:
    rng = np.random.default_rng(3)
    values, others = rng.beta(8, 2, 400).tolist(), rng.beta(8, 2, 600).tolist()
    exact = stats.norm.sf((0.82 - np.mean(values)) / (np.std(values) / 20))
    assert exact <= below_p(histogram(values), 0.82) < 0.5
    wide, exact_two = np.hypot(np.std(values) / 20, np.std(others) / 600**0.5), np.mean(others)
    exact = stats.norm.sf((exact_two + 0.05 - np.mean(values)) / wide)
    assert exact <= lower_p(histogram(values), histogram(others), margin=-0.05) < 0.5
    assert below_p(histogram([1.0] * 50), 0.9) > 0.99
    assert below_p(histogram([0.1] * 500), 0.9) < 1e-9


def test_nothing_is_told_of_nothing() -> None:
    none, some = Histogram(), histogram([0.5, 0.7])
    assert excess_p(0, 0, 3, 100, ratio=1) == 1
    for a, b in ((none, some), (some, none), (none, none)):
        assert later(a, b, margin=0)[1] == 1
        assert quantile_ratio(a, b, 0.99, limit=1, seed=0)[1] == 1
        assert lower_p(a, b, margin=0) == 1
    assert below_p(none, 0.5) == 1
