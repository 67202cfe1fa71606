"""Paired tests between two systems on the same queries."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.figures import Estimate, Floats, Pooled, interval, ratio

EXACT_QUERIES = 16
"""Up to so many queries that differ every assignment of signs is tried: 65,536."""

DRAWS = 20_000
CHUNK = 512


@dataclass(frozen=True, slots=True)
class Tested:
    """A two-sided p-value and how it came about; `draws` is 0 where it is exact."""

    p: float
    draws: int
    seed: int

    def __str__(self) -> str:
        return p_text(self.p)


def p_text(p: float) -> str:
    """Return a p-value as tables show it: never as 0, which no test can find."""
    return "< 0.0001" if p < 1e-4 else f"{p:.4f}"


def randomisation_test(first: Pooled, second: Pooled, *, seed: int, draws: int = DRAWS) -> Tested:
    """Return how often swapping the systems' results, query by query, parts them as far.

    Two-sided, of the difference of the pooled figures. Exact where at most 16 queries differ; else
    (hits + 1) / (draws + 1) over random swaps, which is never 0. 1.0 where no query differs; NaN
    where a figure is NaN.

    Args:
        first: One system's figure.
        second: The other's, over the same queries in the same order.
        seed: Of the random swaps.
        draws: Number of random swaps.

    Source:
        Fisher's randomisation test; Smucker, Allan and Carterette 2007. The estimate of p is
        Phipson and Smyth 2010.
    """
    differs = (first.parts != second.parts) | (first.wholes != second.wholes)
    count = int(differs.sum())
    if not count:
        return Tested(1.0, 0, seed)
    swaps = _Swaps(first, second, differs)
    observed = abs(float(swaps.difference(np.ones((1, count)))[0]))
    if math.isnan(observed):
        return Tested(float("nan"), 0, seed)
    least = observed * (1 - 1e-12) - 1e-12  # sums of the same terms in another order count too
    if count <= EXACT_QUERIES:
        hits = sum(_hits(swaps, signs, least) for signs in _every_sign(count))
        return Tested(hits / 2**count, 0, seed)
    rng = np.random.default_rng(seed)
    hits = sum(_hits(swaps, signs, least) for signs in _random_signs(rng, count, draws))
    return Tested((hits + 1) / (draws + 1), draws, seed)


def difference(first: Pooled, second: Pooled, picks: NDArray[np.int64]) -> Estimate:
    """Return first - second with its 95 % paired bootstrap interval over the picked queries."""
    low, high = interval(first.resampled(picks) - second.resampled(picks))
    return Estimate(first.value - second.value, low, high)


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values adjusted so that the chance of any false alarm among them keeps its bound.

    In their order; each at most 1, NaN stays NaN and is not counted among the tests.

    Source:
        Holm 1979: the i-th smallest of m times (m - i + 1), never below the one before.
    """
    order = sorted((p, place) for place, p in enumerate(p_values) if not math.isnan(p))
    adjusted = [float("nan")] * len(p_values)
    highest = 0.0
    for rank, (p, place) in enumerate(order):
        highest = max(highest, min(1.0, p * (len(order) - rank)))
        adjusted[place] = highest
    return adjusted


def sign_test(wins: int, losses: int) -> float:
    """Return the exact two-sided p of so many wins and losses under even odds; ties left out.

    1.0 without wins and losses.

    Source:
        Binomial test with p = 1/2: twice the smaller tail, at most 1.
    """
    n = wins + losses
    tail = sum(math.comb(n, k) for k in range(min(wins, losses) + 1))
    return min(1.0, 2 * tail / (1 << n))


class _Swaps:
    """The difference of two pooled figures when some queries' results are swapped."""

    def __init__(self, first: Pooled, second: Pooled, differs: NDArray[np.bool_]) -> None:
        self._parts = _halves(first.parts, second.parts, differs)
        self._wholes = _halves(first.wholes, second.wholes, differs)

    def difference(self, signs: Floats) -> Floats:
        parts, wholes = (
            (mean + signs @ half, mean - signs @ half) for mean, half in (self._parts, self._wholes)
        )  # each: (as the first, as the second), [R]
        return ratio(parts[0], wholes[0]) - ratio(parts[1], wholes[1])


def _halves(first: Floats, second: Floats, differs: NDArray[np.bool_]) -> tuple[float, Floats]:
    """Return what a swap leaves and what it turns round, the latter a query that differs."""
    return float((first + second).sum()) / 2, ((first - second) / 2)[differs]


def _hits(swaps: _Swaps, signs: Floats, least: float) -> int:
    # A swap that leaves a system without wholes (NaN) counts against the difference.
    return int((~(np.abs(swaps.difference(signs)) < least)).sum())


def _every_sign(count: int) -> Iterator[Floats]:
    for start in range(0, 2**count, CHUNK):
        codes = np.arange(start, min(start + CHUNK, 2**count))
        yield _signs(codes[:, None] >> np.arange(count) & 1)


def _random_signs(rng: np.random.Generator, count: int, draws: int) -> Iterator[Floats]:
    for start in range(0, draws, CHUNK):
        rows = min(CHUNK, draws - start)
        yield _signs(rng.integers(0, 2, size=(rows, count)))


def _signs(bits: NDArray[np.int64]) -> Floats:
    """Return +1 for 0 (as it is) and -1 for 1 (swapped)."""
    return (1 - 2 * bits).astype(np.float64)
