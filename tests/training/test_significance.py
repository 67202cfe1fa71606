"""Paired tests against scipy and against values computed by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import binomtest, permutation_test

from training.figures import Floats, Pooled, resample
from training.significance import difference, holm, p_text, randomisation_test, sign_test


def means(values: Floats) -> Pooled:
    return Pooled(values, np.ones(len(values)))


def scipys(first: Floats, second: Floats) -> float:
    """Return scipy's p of every swap within pairs."""
    found = permutation_test(
        (first, second),
        lambda x, y, axis: np.mean(x - y, axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=np.inf,
    )
    return float(found.pvalue)


@pytest.mark.parametrize("count", [2, 5, 10, 13])
@pytest.mark.parametrize("levels", [3, 1000])
def test_few_queries_are_tested_exactly_as_scipy_does(count: int, levels: int) -> None:
    rng = np.random.default_rng(count + levels)
    first = rng.integers(0, levels, count) / levels
    second = rng.integers(0, levels, count) / levels
    found = randomisation_test(means(first), means(second), seed=0)
    assert found.draws == 0
    assert found.p == pytest.approx(scipys(first, second), abs=1e-12)


def test_queries_without_a_difference_do_not_stand_in_the_way_of_exactness() -> None:
    first = np.concatenate([np.full(200, 0.5), [0.1, 0.9, 0.8, 0.3, 0.4]])
    second = np.concatenate([np.full(200, 0.5), [0.2, 0.4, 0.5, 0.1, 0.3]])
    found = randomisation_test(means(first), means(second), seed=0)
    assert found.draws == 0
    assert found.p == pytest.approx(scipys(first[200:], second[200:]), abs=1e-12)


def test_many_queries_are_drawn_near_the_exact_p_and_alike_for_one_seed() -> None:
    rng = np.random.default_rng(4)
    first, second = rng.random(17) + 0.15, rng.random(17)
    found = randomisation_test(means(first), means(second), seed=7)
    assert (found.draws, found.seed) == (20_000, 7)
    expected = scipys(first, second)
    assert found.p == pytest.approx(expected, abs=4 * math.sqrt(expected / 20_000))
    assert found == randomisation_test(means(first), means(second), seed=7)
    assert found.p != randomisation_test(means(first), means(second), seed=8).p


def test_a_figure_that_is_no_number_is_not_tested() -> None:
    none = Pooled(np.zeros(3), np.zeros(3))
    some = Pooled(np.ones(3), np.ones(3))
    assert math.isnan(randomisation_test(none, some, seed=0).p)


def test_equal_systems_are_not_told_apart() -> None:
    values = np.array([0.1, 0.5, 0.9])
    assert randomisation_test(means(values), means(values), seed=0).p == 1.0


def test_a_drawn_p_is_never_zero() -> None:
    first, second = np.ones(200), np.zeros(200)
    assert randomisation_test(means(first), means(second), seed=0, draws=999).p == 1 / 1000


def test_a_pooled_ratio_is_tested_by_swapping_parts_and_wholes_together() -> None:
    rng = np.random.default_rng(1)
    wholes = rng.integers(1, 20, (2, 8)).astype(float)
    parts = np.floor(wholes * rng.random((2, 8)))

    def pooled_difference(swapped: int) -> float:
        order = [(1, 0) if swapped >> query & 1 else (0, 1) for query in range(8)]
        sums = [
            sum(parts[pair[side], query] for query, pair in enumerate(order))
            / sum(wholes[pair[side], query] for query, pair in enumerate(order))
            for side in (0, 1)
        ]
        return float(abs(sums[0] - sums[1]))

    observed = pooled_difference(0)
    hits = sum(pooled_difference(swapped) >= observed - 1e-12 for swapped in range(2**8))
    found = randomisation_test(Pooled(parts[0], wholes[0]), Pooled(parts[1], wholes[1]), seed=0)
    assert found.p == pytest.approx(hits / 2**8)


def test_the_interval_of_a_difference_is_narrower_than_those_of_unpaired_systems() -> None:
    rng = np.random.default_rng(0)
    hardness = rng.random(200)
    first, second = means(hardness + 0.05), means(hardness + 0.02 * rng.random(200))
    picks = resample(200, seed=0)
    found = difference(first, second, picks)
    assert found.value == pytest.approx(float((first.parts - second.parts).mean()))
    deviation = float(np.std(first.parts - second.parts)) / math.sqrt(200)
    assert found.low == pytest.approx(found.value - 1.96 * deviation, abs=0.3 * deviation)
    assert found.high == pytest.approx(found.value + 1.96 * deviation, abs=0.3 * deviation)
    alone = first.estimate(picks)
    assert found.high - found.low < 0.2 * (alone.high - alone.low)


def test_holm_by_hand() -> None:
    # Sorted: .005, .01, .03, .04; times 4, 3, 2, 1: .02, .03, .06, .04; the last is held up by .06.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([]) == []


def test_holm_leaves_out_what_could_not_be_tested() -> None:
    found = holm([0.02, math.nan, 0.01])
    assert found[0] == pytest.approx(0.02)
    assert math.isnan(found[1])
    assert found[2] == pytest.approx(0.02)


@pytest.mark.parametrize(("wins", "losses"), [(54, 30), (30, 54), (0, 5), (7, 7), (1, 0), (300, 1)])
def test_the_sign_test_is_scipys_binomial_test(wins: int, losses: int) -> None:
    expected = binomtest(wins, wins + losses, 0.5).pvalue
    assert sign_test(wins, losses) == pytest.approx(expected, rel=1e-9)


def test_the_sign_test_without_wins_and_losses_is_one() -> None:
    assert sign_test(0, 0) == 1.0


def test_a_p_value_is_never_shown_as_zero() -> None:
    assert [p_text(p) for p in (5e-5, 1e-4, 0.0204, 1.0)] == [
        "< 0.0001",
        "0.0001",
        "0.0204",
        "1.0000",
    ]
