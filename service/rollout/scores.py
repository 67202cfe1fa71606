"""The distribution of a model's scores, in bounded memory."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from service.contract.agreement import counts_distance, counts_stability
from service.contract.types import Float32s

_WHOLES = (4.0, 5.0, 6.0, 8.0, 10.0, 15.0, 20.0, 50.0)
EDGES = (*(-x for x in reversed(_WHOLES)), *(x / 4 for x in range(-12, 13)), *_WHOLES)
"""Upper bounds of the buckets, fine where standardised logits are; the last one is open."""

_EDGES: NDArray[np.float64] = np.array(EDGES)

RECENT = 20_000
"""Scores after which what was seen before counts half."""

ENOUGH = 500
"""Fewer recent scores say nothing of their distribution: two halves of one would differ, too."""


class ScoreHistogram:
    """How many scores fell into each bucket: since the start, and lately."""

    def __init__(self) -> None:
        self.counts = np.zeros(len(EDGES) + 1, dtype=np.int64)
        self.recent = np.zeros(len(EDGES) + 1)

    def add(self, scores: Float32s) -> None:
        """Count finite scores, [n]."""
        found = np.bincount(np.searchsorted(_EDGES, scores), minlength=len(self.counts))
        self.counts += found
        self.recent += found
        if self.recent.sum() > RECENT:
            self.recent /= 2


def drift(reference: ScoreHistogram, other: ScoreHistogram) -> tuple[float, float]:
    """Return the population stability index and the Kolmogorov-Smirnov distance of recent scores.

    Of buckets, not of scores: what differs within one is not seen. NaN where either has fewer than
    `ENOUGH`.
    """
    if min(reference.recent.sum(), other.recent.sum()) < ENOUGH:
        return float("nan"), float("nan")
    stability = counts_stability(reference.recent, other.recent)
    return stability, counts_distance(reference.recent, other.recent)
