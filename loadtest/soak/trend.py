"""Whether a noisy series rises: a slope with its interval."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Z95 = 1.959964
"""Of the standard normal distribution, 97.5 % lie below."""


@dataclass(frozen=True, slots=True)
class Trend:
    """A slope, and the 95 % interval it lies in.

    Attributes:
        slope: Of y per unit of x.
        low: Lower end of the interval.
        high: Upper end of the interval.
    """

    slope: float
    low: float
    high: float


def trend(x: ArrayLike, y: ArrayLike) -> Trend:
    """Return the Theil–Sen slope: the median of the slopes between all pairs of points.

    A few outliers, such as a peak of memory in use, do not move it. Ties in y widen nothing: they
    count as slopes of zero.

    Args:
        x: Distinct places, [n], n >= 3.
        y: Values, [n].

    Raises:
        ValueError: Fewer than three points.

    Source:
        Sen 1968, J. Am. Stat. Assoc. 63, section 6, with the variance of Kendall's S without ties.
    """
    xs, ys = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    n = len(xs)
    if n < 3:
        raise ValueError(f"{n} points have no trend; three are needed")
    i, j = np.triu_indices(n, k=1)
    slopes = np.sort((ys[j] - ys[i]) / (xs[j] - xs[i]))  # [n (n - 1) / 2]
    margin = Z95 * math.sqrt(n * (n - 1) * (2 * n + 5) / 18)
    low = max(0, round((len(slopes) - margin) / 2) - 1)
    high = min(len(slopes) - 1, round((len(slopes) + margin) / 2))
    return Trend(float(np.median(slopes)), float(slopes[low]), float(slopes[high]))


def floors(x: ArrayLike, y: ArrayLike, *, blocks: int) -> tuple[NDArray[np.float64], ...]:
    """Return each block's mean x and smallest y, [blocks] each.

    What a process holds for requests in progress comes and goes above a floor; a leak lifts the
    floor. Blocks also make neighbouring points nearly independent.
    """
    xs = np.array_split(np.asarray(x, dtype=np.float64), blocks)
    ys = np.array_split(np.asarray(y, dtype=np.float64), blocks)
    return np.array([part.mean() for part in xs]), np.array([part.min() for part in ys])
