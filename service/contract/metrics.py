"""Ranking quality against relevance grades; the order is `rank_order`'s everywhere."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from service.contract.order import rank_order

Gain = Literal["linear", "exponential"]


def ndcg(
    grades: ArrayLike,
    scores: ArrayLike,
    k: int,
    *,
    gain: Gain = "linear",
    judged: ArrayLike | None = None,
) -> float:
    """Return nDCG@k of one query, in [0, 1]; 0.0 where no document has a positive grade.

    Args:
        grades: Relevance grades of the candidates, [n]; unjudged ones count as 0.
        scores: Their scores, [n].
        k: Depth of the cut.
        gain: "linear" (trec_eval, our default) or "exponential" (2^grade - 1).
        judged: Grades of every judged document, where the candidates are a part of them; the
            ideal ranking is drawn from these (trec_eval's way). Default: `grades`.

    Source:
        Järvelin and Kekäläinen 2002, with trec_eval's discount log2(rank + 1).
    """
    gains = _gains(grades, gain)[rank_order(scores)]
    ideal = np.sort(_gains(grades if judged is None else judged, gain))[::-1]
    best = _dcg(ideal[:k])
    return _dcg(gains[:k]) / best if best > 0 else 0.0


def reciprocal_rank(
    grades: ArrayLike, scores: ArrayLike, k: int = 10, *, relevant_from: float = 1
) -> float:
    """Return 1 / rank of the first relevant document among the top k, else 0.0.

    Averaged over queries this is MRR@k. A grade counts as relevant from `relevant_from` up.
    """
    relevant = np.asarray(grades)[rank_order(scores)][:k] >= relevant_from
    return float(1 / (1 + int(np.argmax(relevant)))) if relevant.any() else 0.0


@dataclass(frozen=True, slots=True)
class PairCounts:
    """Concordant and discordant pairs; counts of queries add up (`PairCounts` are pooled)."""

    concordant: int = 0
    discordant: int = 0

    def __add__(self, other: PairCounts) -> PairCounts:
        return PairCounts(self.concordant + other.concordant, self.discordant + other.discordant)

    @property
    def pnr(self) -> float:
        """Positive-negative ratio; inf without discordant pairs, NaN without any pair."""
        if self.discordant == 0:
            return float("inf") if self.concordant else float("nan")
        return self.concordant / self.discordant


def pair_counts(grades: ArrayLike, scores: ArrayLike) -> PairCounts:
    """Return how many of one query's pairs with different grades the scores order well or ill.

    Pairs with equal scores count as neither.
    """
    y = np.asarray(grades, dtype=np.float64)
    f = np.asarray(scores, dtype=np.float64)
    agreement = np.sign(y[:, None] - y[None, :]) * np.sign(f[:, None] - f[None, :])  # [n, n]
    return PairCounts(int((agreement > 0).sum()) // 2, int((agreement < 0).sum()) // 2)


def pnr(queries: Iterable[tuple[ArrayLike, ArrayLike]]) -> float:
    """Return the positive-negative ratio over (grades, scores) of each query, counts pooled.

    inf where no pair is discordant, NaN where there is no pair at all.

    Source:
        DisRanker section 4.1 (Ye et al. 2024), pairs within a query only.
    """
    return sum((pair_counts(y, f) for y, f in queries), PairCounts()).pnr


def _gains(grades: ArrayLike, gain: Gain) -> NDArray[np.float64]:
    values = np.maximum(np.asarray(grades, dtype=np.float64), 0.0)
    return values if gain == "linear" else np.exp2(values) - 1


def _dcg(gains: NDArray[np.float64]) -> float:
    return float((gains / np.log2(np.arange(2, len(gains) + 2))).sum())
