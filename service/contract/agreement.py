"""How far two scorers agree: on the ranking of one query, and in the distribution of scores."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from service.contract.order import rank_order


def kendall_tau_b(first: ArrayLike, second: ArrayLike) -> float:
    """Return Kendall's τ-b of two score lists, in [-1, 1]; NaN where either is constant.

    Source:
        Kendall 1945; ties lower the denominator of the side they are on.
    """
    a = np.asarray(first, dtype=np.float64)
    b = np.asarray(second, dtype=np.float64)
    sign_a = np.sign(a[:, None] - a[None, :])  # [n, n]
    sign_b = np.sign(b[:, None] - b[None, :])  # [n, n]
    untied = np.sqrt(float((sign_a != 0).sum()) * float((sign_b != 0).sum()))
    return float((sign_a * sign_b).sum() / untied) if untied else float("nan")


def top_overlap(first: ArrayLike, second: ArrayLike, k: int) -> float:
    """Return the share of the first list's top k that is in the second's top k, in [0, 1].

    With fewer than k documents, k is their number. 1.0 for empty lists.
    """
    top_a = rank_order(first)[:k]
    top_b = rank_order(second)[:k]
    return len(np.intersect1d(top_a, top_b)) / len(top_a) if len(top_a) else 1.0


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
        return float("nan")
    edges = np.unique(np.quantile(e, np.arange(1, bins) / bins))
    counts_e, counts_a = _counts(e, edges), _counts(a, edges)  # [B], [B]
    used = (counts_e > 0) | (counts_a > 0)
    shares_e = np.maximum(counts_e[used], 0.5) / len(e)
    shares_a = np.maximum(counts_a[used], 0.5) / len(a)
    return float(((shares_a - shares_e) * np.log(shares_a / shares_e)).sum())


def kolmogorov_smirnov(first: ArrayLike, second: ArrayLike) -> float:
    """Return the greatest distance of two samples' distribution functions, in [0, 1].

    NaN where either is empty.
    """
    a = np.sort(np.asarray(first, dtype=np.float64))
    b = np.sort(np.asarray(second, dtype=np.float64))
    if not len(a) or not len(b):
        return float("nan")
    both = np.concatenate([a, b])
    below_a = np.searchsorted(a, both, side="right") / len(a)  # [n + m]
    below_b = np.searchsorted(b, both, side="right") / len(b)
    return float(np.abs(below_a - below_b).max())


def _counts(values: NDArray[np.float64], edges: NDArray[np.float64]) -> NDArray[np.intp]:
    return np.bincount(np.searchsorted(edges, values, side="left"), minlength=len(edges) + 1)
