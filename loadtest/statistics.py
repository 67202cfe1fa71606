"""Percentiles, rates and ratios of what was measured."""

from __future__ import annotations

import statistics
from collections.abc import Sequence


def percentile(values: Sequence[float], percent: float) -> float:
    """Return the smallest value that is at least as large as so many percent of all.

    A value that was measured, never one between two; NaN for no values.
    """
    if not values:
        return float("nan")
    ranked = sorted(values)
    place = -(-len(ranked) * percent // 100)  # the ceiling
    return ranked[max(0, int(place) - 1)]


def median(values: Sequence[float]) -> float:
    """Return the median; NaN for no values."""
    return statistics.median(values) if values else float("nan")


def median_ratio(values: Sequence[float], others: Sequence[float]) -> float:
    """Return the median of the rounds' ratios: the machine's changes from round to round cancel.

    NaN without a round in which both were measured.
    """
    rounds = zip(values, others, strict=False)
    return median([value / other for value, other in rounds if value == value and other])
