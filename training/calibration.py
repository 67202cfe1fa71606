"""How well probabilities of relevance agree with grades."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.evaluate import fit_relevance
from training.figures import Floats
from training.hashing import stable_hash

BINS = 10


@dataclass(frozen=True, slots=True)
class ReliabilityBin:
    """Pairs whose probability lies in one tenth of [0, 1]."""

    low: float
    high: float
    pairs: int
    mean_probability: float
    relevant_share: float


@dataclass(frozen=True, slots=True)
class Reliability:
    """The bins that hold a pair, and the expected calibration error."""

    bins: tuple[ReliabilityBin, ...]
    ece: float


def reliability(probabilities: Floats, relevant: NDArray[np.bool_]) -> Reliability:
    """Return the reliability table of P(relevant) in ten equal bins; 1.0 is in the last.

    ECE is the mean over pairs of |mean probability - share of relevant ones| of their bins; NaN
    without pairs.

    Source:
        Naeini, Cooper and Hauskrecht 2015, on the positive class.
    """
    places = np.minimum((probabilities * BINS).astype(np.int64), BINS - 1)
    bins = tuple(
        ReliabilityBin(
            place / BINS,
            (place + 1) / BINS,
            int(inside.sum()),
            float(probabilities[inside].mean()),
            float(relevant[inside].mean()),
        )
        for place in range(BINS)
        if (inside := places == place).any()
    )
    gaps = sum(part.pairs * abs(part.mean_probability - part.relevant_share) for part in bins)
    return Reliability(bins, gaps / len(relevant) if len(relevant) else float("nan"))


def cross_fitted(scores: Floats, relevant: NDArray[np.bool_], queries: Sequence[str]) -> Floats:
    """Return P(relevant) by Platt scaling that never saw the pair's own query, [N].

    Queries are halved by hash, and each half is calibrated on the other.

    Args:
        scores: Raw scores, [N].
        relevant: Whether each pair is relevant, [N].
        queries: Each pair's query text.
    """
    half = np.array([stable_hash(query) % 2 for query in queries], dtype=np.int64)
    found = np.empty(len(scores))
    for side in (0, 1):
        fit, use = half != side, half == side
        scale, offset = fit_relevance(scores[fit].tolist(), relevant[fit].tolist())
        found[use] = sigmoid(scale * scores[use] + offset)
    return found


def sigmoid(logits: Floats) -> Floats:
    """Return 1 / (1 + e^-x) without overflow."""
    return np.exp(-np.logaddexp(0, -logits))
