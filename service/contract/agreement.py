"""How far two scorers agree: on the ranking of one query, and in the distribution of scores."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from service.contract.order import rank_order


def kendall_tau_b(first: ArrayLike, second: ArrayLike) -> float:
    """Return Kendall's τ-b of two score lists, in [-1, 1]; NaN where either is constant.

    Source:
        Kendall 1945; ties lower the denominator of the side they are on.
    """
    sign_a, sign_b = _signs(first), _signs(second)  # [n, n]
    untied = math.sqrt(float(np.count_nonzero(sign_a)) * float(np.count_nonzero(sign_b)))
    return float((sign_a * sign_b).sum(dtype=np.int64) / untied) if untied else math.nan


def common_at_depths(first: ArrayLike, second: ArrayLike) -> NDArray[np.intp]:
    """Return how many documents the top d of both lists share, d = 1 … n, [n]."""
    place_a, place_b = _places(first), _places(second)  # [n], [n]
    entered = np.bincount(np.maximum(place_a, place_b), minlength=len(place_a))
    return np.cumsum(entered)


def top_overlap(first: ArrayLike, second: ArrayLike, k: int) -> float:
    """Return the share of the first list's top k that is in the second's top k, in [0, 1].

    With fewer than k documents, k is their number. 1.0 for empty lists.
    """
    return overlap_of(common_at_depths(first, second), k)


def overlap_of(common: NDArray[np.intp], k: int) -> float:
    """Return `top_overlap`, given what `common_at_depths` found."""
    depth = min(k, len(common))
    return float(common[depth - 1] / depth) if depth else 1.0


def rank_biased_overlap(first: ArrayLike, second: ArrayLike, *, p: float = 0.9) -> float:
    """Return the rank-biased overlap of two orders of the same documents, in [0, 1].

    1.0 for the same order and for empty lists. It never reaches 0 for the same documents: below
    the last one both lists are taken to go on in agreement.

    Args:
        first: Scores of the documents, [n].
        second: Other scores of them, [n].
        p: How likely a reader goes on to the next document; 0.9 puts 86 % of the weight on the
            first ten.

    Source:
        RBO_EXT, Webber, Moffat and Zobel 2010, eq. 30.
    """
    return rank_biased_overlap_of(common_at_depths(first, second), p=p)


def rank_biased_overlap_of(common: NDArray[np.intp], *, p: float = 0.9) -> float:
    """Return `rank_biased_overlap`, given what `common_at_depths` found."""
    n = len(common)
    depths = np.arange(1, n + 1)
    seen = (1 - p) * float((common / depths * p ** (depths - 1)).sum())
    return min(1.0, seen + p**n)


def population_stability(reference: ArrayLike, other: ArrayLike, *, bins: int = 10) -> float:
    """Return the population stability index of other scores against reference ones, from 0 up.

    By custom, below 0.1 is stable and above 0.25 a shift. Bins end at the reference's quantiles and
    the outer ones are open; equal quantiles make one bin. A bin where one side alone has scores
    counts half a score for the other, which keeps the index finite. NaN where either is empty.

    Source:
        Σ (a - e) ln(a / e) over the shares of bins, Lewis 1994.
    """
    e = np.asarray(reference, dtype=np.float64)
    a = np.asarray(other, dtype=np.float64)
    if not len(e) or not len(a):
        return math.nan
    edges = np.unique(np.quantile(e, np.arange(1, bins) / bins))
    counts_e, counts_a = _counts(e, edges), _counts(a, edges)  # [B], [B]
    return _stability(counts_e, counts_a)


def counts_stability(reference: ArrayLike, other: ArrayLike, *, bins: int = 10) -> float:
    """Return the population stability index of two histograms with the same buckets.

    As `population_stability`, with bins that end where a bucket does: each is made of the buckets
    that begin in one tenth (of `bins`) of the reference. NaN where either is empty.

    Args:
        reference: Scores in each bucket, [B].
        other: The same of the other scores, [B].
        bins: Most bins.
    """
    e, a = np.asarray(reference, dtype=np.float64), np.asarray(other, dtype=np.float64)
    if not e.sum() or not a.sum():
        return math.nan
    before = (np.cumsum(e) - e) / e.sum()  # [B], the share below each bucket
    places = np.minimum((before * bins).astype(np.intp), bins - 1)
    return _stability(np.bincount(places, e), np.bincount(places, a))


def kolmogorov_smirnov(first: ArrayLike, second: ArrayLike) -> float:
    """Return the greatest distance of two samples' distribution functions, in [0, 1].

    NaN where either is empty.
    """
    a = np.sort(np.asarray(first, dtype=np.float64))
    b = np.sort(np.asarray(second, dtype=np.float64))
    if not len(a) or not len(b):
        return math.nan
    both = np.concatenate([a, b])
    below_a = np.searchsorted(a, both, side="right") / len(a)  # [n + m]
    below_b = np.searchsorted(b, both, side="right") / len(b)
    return float(np.abs(below_a - below_b).max())


def counts_distance(first: ArrayLike, second: ArrayLike) -> float:
    """Return the Kolmogorov-Smirnov distance of two histograms with the same buckets, in [0, 1].

    What differs within a bucket is not seen. NaN where either is empty.
    """
    a, b = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if not a.sum() or not b.sum():
        return math.nan
    return float(np.abs(np.cumsum(a) / a.sum() - np.cumsum(b) / b.sum()).max())


def _signs(scores: ArrayLike) -> NDArray[np.int8]:
    """Return the sign of each pair's difference; bytes, since 1,000 scores make a million pairs."""
    values = np.asarray(scores, dtype=np.float64)
    above = values[:, None] > values[None, :]  # [n, n]
    return above.view(np.int8) - above.T.view(np.int8)


def _places(scores: ArrayLike) -> NDArray[np.intp]:
    """Return each document's place in the ranking, from 0, [n]."""
    order = rank_order(scores)
    places = np.empty_like(order)
    places[order] = np.arange(len(order))
    return places


def _stability(counts_e: NDArray[Any], counts_a: NDArray[Any]) -> float:
    used = (counts_e > 0) | (counts_a > 0)
    shares_e = np.maximum(counts_e[used], 0.5) / counts_e.sum()
    shares_a = np.maximum(counts_a[used], 0.5) / counts_a.sum()
    return float(((shares_a - shares_e) * np.log(shares_a / shares_e)).sum())


def _counts(values: NDArray[np.float64], edges: NDArray[np.float64]) -> NDArray[np.intp]:
    return np.bincount(np.searchsorted(edges, values, side="left"), minlength=len(edges) + 1)
