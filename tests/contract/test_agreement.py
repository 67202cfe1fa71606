from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import kendalltau, ks_2samp

from service.contract.agreement import (
    common_at_depths,
    counts_distance,
    counts_stability,
    kendall_tau_b,
    kolmogorov_smirnov,
    population_stability,
    rank_biased_overlap,
    top_overlap,
)


@pytest.mark.parametrize("levels", [2, 3, 10, 1_000_000])
def test_tau_b_is_scipys_with_many_and_with_few_ties(levels: int) -> None:
    draw = np.random.default_rng(levels)
    for n in (2, 3, 10, 48, 200):
        first = draw.integers(levels, size=n).astype(np.float32)
        second = np.where(draw.random(n) < 0.5, first, draw.integers(levels, size=n))
        expected = kendalltau(first, second, variant="b").statistic
        assert kendall_tau_b(first, second) == pytest.approx(expected, abs=1e-12, nan_ok=True)


def test_tau_b_by_hand() -> None:
    assert kendall_tau_b([1, 2, 3], [10, 20, 30]) == 1.0
    assert kendall_tau_b([1, 2, 3], [3, 2, 1]) == -1.0
    assert kendall_tau_b([1, 2, 3, 4], [1, 2, 4, 3]) == pytest.approx(4 / 6)
    # Five of six pairs untied on one side, all six on the other, all five in agreement.
    assert kendall_tau_b([1, 1, 2, 3], [1, 2, 3, 4]) == pytest.approx(5 / math.sqrt(5 * 6))


@pytest.mark.parametrize("constant", [[], [1.0], [2.0, 2.0, 2.0]])
def test_tau_b_of_a_constant_list_is_nan(constant: list[float]) -> None:
    varied = list(range(len(constant)))
    assert math.isnan(kendall_tau_b(constant, varied))
    assert math.isnan(kendall_tau_b(varied, constant))


RANKINGS = st.integers(1, 20).flatmap(
    lambda n: st.tuples(*[st.lists(st.integers(-5, 5), min_size=n, max_size=n)] * 2)
)


@given(RANKINGS, st.integers(1, 25))
def test_overlap_is_the_share_of_the_common_top(
    scores: tuple[list[int], list[int]], k: int
) -> None:
    first, second = (sorted(range(len(s)), key=lambda i: -s[i])[:k] for s in scores)
    expected = len(set(first) & set(second)) / min(k, len(first))
    assert top_overlap(*scores, k) == expected


def test_overlap_by_hand() -> None:
    assert top_overlap([4, 3, 2, 1], [1, 2, 3, 4], 2) == 0.0
    assert top_overlap([4, 3, 2, 1], [4, 1, 3, 2], 2) == 0.5
    assert top_overlap([4, 3, 2, 1], [1, 2, 3, 4], 10) == 1.0
    assert top_overlap([1, 1, 1], [3, 2, 1], 1) == 1.0  # ties by input order
    assert top_overlap([], [], 10) == 1.0


@pytest.mark.parametrize(("n", "m", "levels"), [(1, 1, 2), (30, 50, 4), (200, 77, 1_000_000)])
def test_kolmogorov_smirnov_is_scipys(n: int, m: int, levels: int) -> None:
    draw = np.random.default_rng(n)
    first, second = draw.integers(levels, size=n), draw.integers(levels // 2 + 1, size=m)
    expected = ks_2samp(first, second).statistic
    assert kolmogorov_smirnov(first, second) == pytest.approx(expected, abs=1e-12)


def test_stability_by_hand() -> None:
    # Halves at 2.5: expected (.5, .5), seen (.25, .75).
    expected = (0.25 - 0.5) * math.log(0.25 / 0.5) + (0.75 - 0.5) * math.log(0.75 / 0.5)
    assert population_stability([1, 2, 3, 4], [0, 3, 9, 3], bins=2) == pytest.approx(expected)
    # No score below 2.5: half a score of four stands in for it.
    empty = (0.125 - 0.5) * math.log(0.125 / 0.5) + (1 - 0.5) * math.log(1 / 0.5)
    assert population_stability([1, 2, 3, 4], [5, 6, 7, 8], bins=2) == pytest.approx(empty)


def test_the_same_distribution_is_stable() -> None:
    scores = np.random.default_rng(0).normal(size=1000)
    assert population_stability(scores, scores) == 0.0
    assert population_stability(scores, np.random.default_rng(1).normal(size=1000)) < 0.1
    assert population_stability(scores, scores + 1) > 0.25
    assert population_stability([1.0, 1.0, 1.0], [1.0, 1.0]) == 0.0


def test_no_scores_have_no_distribution() -> None:
    for statistic in (population_stability, kolmogorov_smirnov):
        assert math.isnan(statistic([], [1.0]))
        assert math.isnan(statistic([1.0], []))


def test_rank_biased_overlap_by_hand() -> None:
    assert rank_biased_overlap([3, 2, 1], [30, 20, 10]) == 1.0
    assert rank_biased_overlap([], []) == 1.0
    # Reversed: the top d share 0, 1, 3 of three; (1 - p)(0 + p / 2 + p²) + p³ at p = 1/2.
    assert rank_biased_overlap([3, 2, 1], [1, 2, 3], p=0.5) == 0.5 * (0.25 + 0.25) + 0.125
    # The first ten carry 86 % of the weight at p = 0.9 (Webber et al., section 4.3).
    shuffled = [*range(10), *range(1009, 9, -1)]
    last = rank_biased_overlap([-place for place in range(1010)], [-x for x in shuffled])
    assert 0.8555 < last < 1.0


def test_the_whole_lists_share_everything() -> None:
    draw = np.random.default_rng(3)
    first, second = draw.normal(size=20), draw.normal(size=20)
    common = common_at_depths(first, second)
    assert common[-1] == 20
    assert [top_overlap(first, second, k) for k in (1, 20, 50)] == [common[0], 1.0, 1.0]


def test_histograms_of_few_buckets_by_hand() -> None:
    # Three buckets, two bins: the first bucket holds the reference's first half.
    halves = (0.25 - 0.5) * math.log(0.25 / 0.5) + (0.75 - 0.5) * math.log(0.75 / 0.5)
    assert counts_stability([2, 1, 1], [1, 3, 0], bins=2) == pytest.approx(halves)
    assert counts_distance([2, 1, 1], [1, 3, 0]) == 0.25
    assert counts_distance([1, 0], [0, 5]) == 1.0
    for statistic in (counts_stability, counts_distance):
        assert math.isnan(statistic([0, 0], [1, 0]))
        assert math.isnan(statistic([1, 0], [0, 0]))
