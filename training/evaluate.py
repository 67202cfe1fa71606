"""Ranking quality of a scorer on judged examples, with confidence intervals."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from service.contract.metrics import PairCounts, ndcg, pair_counts, reciprocal_rank
from service.contract.types import RankingExample

ScoreExample = Callable[[RankingExample], Sequence[float] | NDArray[np.float32]]

BOOTSTRAPS = 1000


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean over queries with its 95 % bootstrap interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.4f} [{self.low:.4f}, {self.high:.4f}]"


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What `evaluate` found on one set."""

    queries: int
    ndcg_at_5: Estimate
    ndcg_at_10: Estimate
    mrr_at_10: Estimate
    pnr: Estimate

    def as_dict(self) -> dict[str, object]:
        """Return plain values for JSON: each figure as [value, low, high].

        None stands for what JSON cannot say: a PNR without discordant pairs, or without any.
        """
        figures = {
            name: [
                round(part, 4) if np.isfinite(part) else None
                for part in (figure.value, figure.low, figure.high)
            ]
            for name, figure in (
                ("ndcg_at_5", self.ndcg_at_5),
                ("ndcg_at_10", self.ndcg_at_10),
                ("mrr_at_10", self.mrr_at_10),
                ("pnr", self.pnr),
            )
        }
        return {"queries": self.queries, **figures}


def evaluate(
    examples: Sequence[RankingExample],
    score: ScoreExample,
    *,
    ideal: dict[str, list[float]] | None = None,
    relevant_from: float = 1,
    seed: int = 0,
) -> Evaluation:
    """Return nDCG (linear gain), MRR and PNR over graded examples.

    Args:
        examples: Examples with grades, at least one.
        score: Scores of one example's candidates.
        ideal: Grades of all judged documents by query id, for the ideal ranking (see `ndcg`).
        relevant_from: Grade that counts as relevant for MRR.
        seed: Of the bootstrap over queries.
    """
    rows: list[tuple[float, float, float]] = []
    counts: list[PairCounts] = []
    for example in examples:
        grades = np.asarray(example.grades, dtype=np.float64)
        scores = np.asarray(score(example), dtype=np.float64)
        judged = None if ideal is None else ideal.get(example.query_id)
        rows.append(
            (
                ndcg(grades, scores, 5, judged=judged),
                ndcg(grades, scores, 10, judged=judged),
                reciprocal_rank(grades, scores, 10, relevant_from=relevant_from),
            )
        )
        counts.append(pair_counts(grades, scores))
    table = np.array(rows)  # [Q, 3]
    picks = np.random.default_rng(seed).integers(len(rows), size=(BOOTSTRAPS, len(rows)))
    means = [_mean_estimate(table[:, column], picks) for column in range(3)]
    return Evaluation(len(rows), means[0], means[1], means[2], _pnr_estimate(counts, picks))


def _mean_estimate(values: NDArray[np.float64], picks: NDArray[np.int64]) -> Estimate:
    low, high = np.percentile(values[picks].mean(axis=1), [2.5, 97.5])
    return Estimate(float(values.mean()), float(low), float(high))


def _pnr_estimate(counts: list[PairCounts], picks: NDArray[np.int64]) -> Estimate:
    table = np.array([(count.concordant, count.discordant) for count in counts], dtype=np.float64)
    sums = table[picks].sum(axis=1)  # [BOOTSTRAPS, 2]
    with np.errstate(divide="ignore", invalid="ignore"):
        low, high = np.percentile(sums[:, 0] / sums[:, 1], [2.5, 97.5])
    return Estimate(sum(counts, PairCounts()).pnr, float(low), float(high))


def fit_relevance(scores: Sequence[float], relevant: Sequence[bool]) -> tuple[float, float]:
    """Return Platt's (scale, offset) so that sigmoid(scale · score + offset) ≈ P(relevant).

    (1.0, 0.0), the plain sigmoid, where the labels or the scores are all alike, or the fit would
    turn the order round (scale ≤ 0).

    Source:
        Platt 1999, with his smoothed targets; Newton's method with backtracking, Lin, Lin and
        Weng 2007.
    """
    x = np.asarray(scores, dtype=np.float64)
    y = np.asarray(relevant, dtype=bool)
    positives, negatives = int(y.sum()), int((~y).sum())
    if not positives or not negatives or x.min() == x.max():
        return 1.0, 0.0
    target = np.where(y, (positives + 1) / (positives + 2), 1 / (negatives + 2))
    mean, std = float(x.mean()), float(x.std())
    start = np.array([0.0, np.log((positives + 1) / (negatives + 1))])
    slope, level = _logistic(np.stack([(x - mean) / std, np.ones_like(x)], axis=1), target, start)
    scale = slope / std
    return (scale, level - scale * mean) if scale > 0 else (1.0, 0.0)


def _logistic(
    design: NDArray[np.float64],
    target: NDArray[np.float64],
    weights: NDArray[np.float64],
    *,
    steps: int = 100,
) -> tuple[float, float]:
    """Return the two weights of least cross-entropy; whole Newton steps alone can diverge."""

    def loss(candidate: NDArray[np.float64]) -> float:
        z = design @ candidate
        return float((np.logaddexp(0, z) - target * z).sum())

    for _ in range(steps):
        p = np.exp(-np.logaddexp(0, -(design @ weights)))
        gradient = design.T @ (p - target)
        hessian = (design * (p * (1 - p))[:, None]).T @ design + 1e-9 * np.eye(2)
        step = np.linalg.solve(hessian, gradient)
        while loss(weights - step) > loss(weights) and float(np.abs(step).max()) > 1e-12:
            step /= 2
        weights = weights - step
        if float(np.abs(step).max()) < 1e-9:
            break
    return float(weights[0]), float(weights[1])
