"""Schedules are what they say, and equal for equal seeds."""

import itertools
import statistics

from loadtest.arrivals import burst, constant, merged, poisson


def test_poisson_arrivals_are_independent_at_the_asked_rate() -> None:
    due = poisson(50, 400, seed=3)
    gaps = [after - before for before, after in itertools.pairwise(due)]
    assert abs(len(due) / 400 - 50) < 1.5  # standard deviation 0.35
    assert abs(statistics.mean(gaps) * 50 - 1) < 0.03
    assert abs(statistics.stdev(gaps) * 50 - 1) < 0.05  # exponential: deviation equals mean
    assert all(0 <= moment < 400 for moment in due)


def test_equal_seeds_make_equal_schedules() -> None:
    assert poisson(10, 5, seed=1) == poisson(10, 5, seed=1) != poisson(10, 5, seed=2)


def test_constant_arrivals_keep_their_gap() -> None:
    assert constant(4, 1, start_s=2) == (2, 2.25, 2.5, 2.75)


def test_schedules_are_merged_in_order() -> None:
    assert merged(constant(1, 3), burst(2, at_s=1.5)) == (0, 1, 1.5, 1.5, 2)


def test_later_start_moves_the_same_arrivals() -> None:
    early, late = poisson(10, 5, seed=1), poisson(10, 5, seed=1, start_s=100)
    assert late == tuple(100 + moment for moment in early)
