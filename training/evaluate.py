"""Ranking quality of a scorer on judged examples, with confidence intervals."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from service.contract.metrics import Gain, pnr
from service.contract.types import RankingExample
from training.figures import (
    MRR_10,
    NDCG_5,
    NDCG_10,
    PAIRWISE,
    Estimate,
    JudgedScores,
    query_figures,
    resample,
)

ScoreExample = Callable[[RankingExample], Sequence[float] | NDArray[np.float32]]


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What `evaluate` found on one set.

    `pairwise_accuracy` is PNR / (1 + PNR), interval and all: 1 without discordant pairs (PNR is inf
    there), NaN without any pair (as PNR is).
    """

    queries: int
    gain: Gain
    ndcg_at_5: Estimate
    ndcg_at_10: Estimate
    mrr_at_10: Estimate
    pnr: Estimate
    pairwise_accuracy: Estimate

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
                ("pairwise_accuracy", self.pairwise_accuracy),
            )
        }
        return {"queries": self.queries, "gain": self.gain, **figures}


def evaluate(
    examples: Sequence[RankingExample],
    score: ScoreExample,
    *,
    ideal: dict[str, list[float]] | None = None,
    relevant_from: float = 1,
    gain: Gain = "linear",
    seed: int = 0,
) -> Evaluation:
    """Return nDCG, MRR, PNR and pairwise accuracy over graded examples.

    Args:
        examples: Examples with grades, at least one.
        score: Scores of one example's candidates.
        ideal: Grades of all judged documents by query id, for the ideal ranking (see `ndcg`).
        relevant_from: Grade that counts as relevant for MRR.
        gain: Of nDCG.
        seed: Of the bootstrap over queries.
    """
    queries = []
    for example in examples:
        judged = None if ideal is None else ideal.get(example.query_id)
        queries.append(
            JudgedScores(
                example.query_id,
                (),
                np.asarray(example.grades, dtype=np.float64),
                np.asarray(score(example), dtype=np.float64),
                None if judged is None else np.asarray(judged, dtype=np.float64),
            )
        )
    return summarise(queries, relevant_from=relevant_from, gain=gain, seed=seed)


def summarise(
    queries: Sequence[JudgedScores],
    *,
    relevant_from: float = 1,
    gain: Gain = "linear",
    seed: int = 0,
) -> Evaluation:
    """Return the figures of a system's scores of judged documents, at least one query."""
    figures = query_figures(queries, gain=gain, relevant_from=relevant_from)
    picks = resample(len(queries), seed=seed)
    found = {name: figure.estimate(picks) for name, figure in figures.items()}
    accuracy = found[PAIRWISE]
    value = pnr((query.grades, query.scores) for query in queries)
    return Evaluation(
        len(queries),
        gain,
        found[NDCG_5],
        found[NDCG_10],
        found[MRR_10],
        Estimate(value, odds(accuracy.low), odds(accuracy.high)),
        accuracy,
    )


def odds(accuracy: float) -> float:
    """Return the PNR of a pairwise accuracy; the interval of one is that of the other."""
    return float("inf") if accuracy == 1 else accuracy / (1 - accuracy)


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
