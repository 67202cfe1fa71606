"""Two models' scores of one request, side by side."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from service.contract.agreement import (
    common_at_depths,
    kendall_tau_b,
    overlap_of,
    rank_biased_overlap_of,
)
from service.contract.metrics import ndcg
from service.contract.types import Float32s

OVERLAP_DEPTHS = (1, 3, 10)
NDCG_DEPTH = 10

Guard = Literal["not_finite", "constant"]
"""What scores may be that rank nothing: some NaN or infinite, or all of them the same."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """How far another model agrees with the one that answered.

    Attributes:
        candidates: How many were scored by both.
        tau_b: Kendall's τ-b, in [-1, 1]; NaN where a side's scores are all the same.
        rbo: Rank-biased overlap, p = 0.9, in [0, 1].
        overlap_1: Share of the first's top 1 in the other's top 1.
        overlap_3: The same of the top 3.
        overlap_10: The same of the top 10.
        ndcg_10: nDCG@10 of the first, where the other's order is the truth: its best ten are worth
            10, 9, … 1, the rest nothing.
        largest_delta: Largest difference of a document's two raw scores.
    """

    candidates: int
    tau_b: float
    rbo: float
    overlap_1: float
    overlap_3: float
    overlap_10: float
    ndcg_10: float
    largest_delta: float

    @property
    def concordance(self) -> float:
        """τ-b as the share of pairs in the same order, in [0, 1]; NaN where there is no τ-b."""
        return (1 + self.tau_b) / 2


def compare(scores: Float32s, others: Float32s) -> Comparison:
    """Return how far others agree with the scores of the same candidates, each [n], n ≥ 1.

    Raises:
        ValueError: A score is not finite; see `guard`.
    """
    common = common_at_depths(scores, others)
    first, third, tenth = (overlap_of(common, depth) for depth in OVERLAP_DEPTHS)
    return Comparison(
        candidates=len(scores),
        tau_b=kendall_tau_b(scores, others),
        rbo=rank_biased_overlap_of(common),
        overlap_1=first,
        overlap_3=third,
        overlap_10=tenth,
        ndcg_10=ndcg(_worth(others), scores, NDCG_DEPTH),
        largest_delta=float(np.abs(scores.astype(np.float64) - others).max()),
    )


def guard(scores: Float32s) -> Guard | None:
    """Return why scores rank nothing, None where they do; one score alone is never constant."""
    if not np.isfinite(scores).all():
        return "not_finite"
    if len(scores) > 1 and (scores == scores[0]).all():
        return "constant"
    return None


def rounded(comparison: Comparison) -> dict[str, int | float | None]:
    """Return a comparison for JSON, which knows no NaN, to six digits."""
    fields = {name: getattr(comparison, name) for name in comparison.__slots__}
    return {
        name: None if math.isnan(value) else value if name == "candidates" else round(value, 6)
        for name, value in fields.items()
    }


def _worth(scores: Float32s) -> NDArray[np.float64]:
    """Return 10, 9, … 1 for the best ten documents and 0 for the others, [n]."""
    best = np.argsort(-scores, kind="stable")[:NDCG_DEPTH]
    worth = np.zeros(len(scores))
    worth[best] = np.arange(NDCG_DEPTH, NDCG_DEPTH - len(best), -1)
    return worth
