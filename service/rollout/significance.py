"""Whether a canary is worse than chance explains, from what Prometheus keeps: counts in buckets."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from service.rollout.observation import Histogram

BOOTSTRAP_DRAWS = 200


def excess_p(hits: int, trials: int, others: int, other_trials: int, *, ratio: float) -> float:
    """Return how likely so many hits are, or more, were the rate at most `ratio` of the others'.

    Exact for rates, and too high rather than too low for shares; 1.0 without hits or trials.

    Args:
        hits: Events, of the canary.
        trials: What they happened in.
        others: Events of the control.
        other_trials: What those happened in.
        ratio: How much more often is still let pass.

    Source:
        Przyborowski and Wilenski 1940: given the sum of two Poisson counts, one is binomial.
    """
    if not hits or not trials:
        return 1.0
    share = ratio * trials / (ratio * trials + other_trials)
    return _binomial_tail(hits, hits + others, share)


def later(durations: Histogram, others: Histogram, *, margin: float) -> tuple[float, float]:
    """Return how likely a request takes longer than one of the control, and its p-value.

    The first is the Mann-Whitney statistic over n · m, 0.5 where both are alike; two requests in
    one bucket count half, so what differs within a bucket is not seen. The second is of its being
    at most 0.5 + margin, one-sided, by the normal approximation with ties. (NaN, 1.0) where either
    is empty.

    Source:
        Mann and Whitney 1947; the variance with ties is Lehmann 1975, eq. 1.35.
    """
    a, b = _floats(durations.counts), _floats(others.counts)  # [B]
    n, m = float(a.sum()), float(b.sum())
    if not n or not m:
        return math.nan, 1.0
    shares = float((a * (np.cumsum(b) - b / 2)).sum() / (n * m))
    size, ties = n + m, a + b
    spread = size + 1 - float((ties**3 - ties).sum()) / (size * (size - 1))
    error = math.sqrt(max(spread, 0.0) / (12 * n * m))
    return shares, _above(shares - 0.5 - margin, error)


def quantile_ratio(
    durations: Histogram, others: Histogram, q: float, *, limit: float, seed: int
) -> tuple[float, float]:
    """Return the ratio of both sides' quantiles, and the p-value of its being at most the limit.

    The larger of two. One takes the spread of the ratio's logarithm from bootstrap samples: the
    buckets' counts drawn anew, of each side. It is too small where few requests are slow and the
    others are not: the quantile then jumps from these to those, and no sample that caught enough
    of them knows. So the requests beyond the limit, which is `limit` times the control's quantile,
    must be too many by the exact test of two rates as well. (NaN, 1.0) where either is empty.

    Args:
        durations: The canary's.
        others: The control's.
        q: The quantile, 0.99 for one.
        limit: Ratio that is let pass.
        seed: Of the bootstrap.

    Source:
        Efron 1979. The quantile lies in its bucket as `histogram_quantile` of Prometheus has it.
    """
    if not durations.n or not others.n:
        return math.nan, 1.0
    rng = np.random.default_rng(seed)
    sides = []
    for side in (durations, others):
        counts = _floats(side.counts)
        draws = rng.multinomial(side.n, counts / counts.sum(), size=BOOTSTRAP_DRAWS)
        sides.append(np.log(_quantiles(np.vstack([counts, draws]), side.bounds, q)))
    ratios = sides[0] - sides[1]  # [1 + draws]: as seen, then as it might have been
    error = float(ratios[1:].std(ddof=1))
    p = _above(float(ratios[0]) - math.log(limit), error)
    slow = float(np.exp(sides[1][0]))
    hits, allowed = _beyond(durations, limit * slow), _beyond(others, slow)
    exact = excess_p(math.floor(hits), durations.n, math.ceil(allowed), others.n, ratio=1.0)
    return float(math.exp(ratios[0])), max(p, exact)


def below_p(values: Histogram, least: float) -> float:
    """Return the p-value of a mean's being at least so much, one-sided; 1.0 for no values."""
    return _above(least - values.mean, _error(values)) if values.n else 1.0


def lower_p(values: Histogram, others: Histogram, *, margin: float) -> float:
    """Return the p-value of a mean's being at least another's less a margin; 1.0 for none."""
    if not values.n or not others.n:
        return 1.0
    error = math.hypot(_error(values), _error(others))
    return _above(others.mean - margin - values.mean, error)


def _error(values: Histogram) -> float:
    """Return at most the standard error of a mean of values from 0 up, as wide as buckets let."""
    highs = [*values.bounds, values.bounds[-1]]
    lows = [0.0, *values.bounds]
    squares = sum(
        count * max(values.mean - low, high - values.mean) ** 2
        for count, low, high in zip(values.counts, lows, highs, strict=True)
    )
    return math.sqrt(squares) / values.n


def _above(excess: float, error: float) -> float:
    """Return how likely chance alone exceeds so much, given its standard error."""
    if error > 0:
        return math.erfc(excess / error / math.sqrt(2)) / 2
    return 0.0 if excess > 0 else 1.0


def _binomial_tail(least: int, n: int, p: float) -> float:
    """Return P(X ≥ least) of a binomial X, summed from its largest term's side."""
    if least <= 0 or p >= 1:
        return 1.0
    odds = math.log(p) - math.log1p(-p)
    log_term = (
        math.lgamma(n + 1)
        - math.lgamma(least + 1)
        - math.lgamma(n - least + 1)
        + least * math.log(p)
        + (n - least) * math.log1p(-p)
    )
    k = np.arange(least, n, dtype=np.float64)
    steps = np.cumsum(np.log(n - k) - np.log(k + 1) + odds)
    terms = log_term + np.concatenate([[0.0], steps])
    return min(1.0, float(np.exp(terms).sum()))


def _quantiles(
    counts: NDArray[np.float64], bounds: tuple[float, ...], q: float
) -> NDArray[np.float64]:
    """Return a quantile of each row of counts, [R]; what lies in the open bucket is its bound."""
    below = np.cumsum(counts, axis=1)  # [R, B]
    rank = q * below[:, -1]
    place = np.minimum((below < rank[:, None]).sum(axis=1), len(bounds))  # [R]
    lows, highs = np.array([0.0, *bounds]), np.array([*bounds, bounds[-1]])
    rows = np.arange(len(counts))
    inside = np.maximum(counts[rows, place], 1e-12)
    part = np.clip((rank - (below[rows, place] - counts[rows, place])) / inside, 0.0, 1.0)
    found: NDArray[np.float64] = lows[place] + part * (highs[place] - lows[place])
    return np.maximum(found, 1e-9)


def _beyond(values: Histogram, x: float) -> float:
    """Return how many values are larger, each bucket's lying evenly in it."""
    below = np.interp(x, [0.0, *values.bounds], [0, *np.cumsum(values.counts[:-1])])
    return values.n - float(below)


def _floats(counts: tuple[int, ...]) -> NDArray[np.float64]:
    return np.array(counts, dtype=np.float64)
