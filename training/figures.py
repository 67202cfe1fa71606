"""Figures of a system over queries, kept by query so that they can be resampled and paired."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from service.contract.metrics import Gain, ndcg, pair_counts, reciprocal_rank
from service.contract.order import rank_order
from service.contract.types import RankingExample

Floats = NDArray[np.float64]

NDCG_5, NDCG_10, MRR_10 = "nDCG@5", "nDCG@10", "MRR@10"
PAIRWISE = "pairwise accuracy"

BOOTSTRAPS = 1000


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure over queries with its 95 % bootstrap interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.4f} [{self.low:.4f}, {self.high:.4f}]"


@dataclass(frozen=True, slots=True)
class JudgedScores:
    """One query's documents with their grades and a system's scores.

    Attributes:
        query_id: The query.
        documents: Ids in the system's input order, which breaks ties, [n].
        grades: Their grades, unjudged ones 0, [n].
        scores: The system's scores, finite, [n].
        ideal: Grades of every judged document, for the ideal ranking; None: `grades`.
    """

    query_id: str
    documents: tuple[str, ...]
    grades: Floats
    scores: Floats
    ideal: Floats | None = None

    @property
    def order(self) -> NDArray[np.intp]:
        """The documents' places from best to worst, [n]."""
        return rank_order(self.scores)

    @property
    def ranked(self) -> list[str]:
        """The ids from best to worst."""
        return [self.documents[place] for place in self.order]


@dataclass(frozen=True, slots=True)
class Pooled:
    """A figure Σ parts / Σ wholes over queries: a mean where the wholes are 1, else a ratio.

    Attributes:
        parts: Numerator of each query, [Q].
        wholes: Denominator of each query, [Q].
    """

    parts: Floats
    wholes: Floats

    @property
    def value(self) -> float:
        """The figure over all queries; NaN where the wholes are 0."""
        return float(ratio(self.parts.sum(), self.wholes.sum()))

    def resampled(self, picks: NDArray[np.int64]) -> Floats:
        """Return the figure over each row of picked queries, [R]; NaN without wholes."""
        return ratio(self.parts[picks].sum(axis=1), self.wholes[picks].sum(axis=1))

    def estimate(self, picks: NDArray[np.int64]) -> Estimate:
        """Return the figure with its percentile interval over resamples that have wholes."""
        low, high = interval(self.resampled(picks))
        return Estimate(self.value, low, high)


def query_figures(
    queries: Sequence[JudgedScores], *, gain: Gain = "linear", relevant_from: float = 1
) -> dict[str, Pooled]:
    """Return nDCG@5, nDCG@10, MRR@10 and pairwise accuracy, by name.

    Pairwise accuracy pools the concordant pairs of all queries over their concordant and
    discordant ones; it is PNR / (1 + PNR).

    Args:
        queries: At least one.
        gain: Of nDCG.
        relevant_from: Grade that counts as relevant for MRR.
    """
    rows = []
    for query in queries:
        grades, scores = query.grades, query.scores
        pairs = pair_counts(grades, scores)
        rows.append(
            (
                ndcg(grades, scores, 5, gain=gain, judged=query.ideal),
                ndcg(grades, scores, 10, gain=gain, judged=query.ideal),
                reciprocal_rank(grades, scores, 10, relevant_from=relevant_from),
                pairs.concordant,
                pairs.concordant + pairs.discordant,
            )
        )
    table = np.array(rows, dtype=np.float64)  # [Q, 5]
    ones = np.ones(len(rows))
    means = {
        name: Pooled(table[:, place], ones) for place, name in enumerate((NDCG_5, NDCG_10, MRR_10))
    }
    return {**means, PAIRWISE: Pooled(table[:, 3], table[:, 4])}


def judge(
    example: RankingExample,
    documents: Sequence[str],
    scores: Sequence[float] | NDArray[np.floating],
    judged: Mapping[str, float] | None = None,
) -> JudgedScores:
    """Return a system's scores of a query's documents with their grades.

    Args:
        example: The query, its candidates and their grades.
        documents: What the system ranked: the candidates (`document_ids`) or others.
        scores: One score a document.
        judged: All judgements of the query, where the candidates are a part of the judged.
    """
    grades = dict(judged or {})
    grades.update(zip(document_ids(example), example.grades or (), strict=False))
    return JudgedScores(
        example.query_id,
        tuple(documents),
        np.array([grades.get(name, 0.0) for name in documents], dtype=np.float64),
        np.asarray(scores, dtype=np.float64),
        np.array(list(grades.values()), dtype=np.float64),
    )


def document_ids(example: RankingExample) -> list[str]:
    """Return the candidates' ids; one without an id goes by its place, `#0` the first."""
    return [
        f"#{place}" if candidate.id is None else candidate.id
        for place, candidate in enumerate(example.candidates)
    ]


def resample(queries: int, *, seed: int, draws: int = BOOTSTRAPS) -> NDArray[np.int64]:
    """Return the bootstrap's picks: rows of as many queries, drawn with replacement, [R, Q]."""
    return np.random.default_rng(seed).integers(queries, size=(draws, queries))


def interval(values: Floats) -> tuple[float, float]:
    """Return the 2.5th and the 97.5th percentile of the values that are no NaN."""
    known = values[~np.isnan(values)]
    if not len(known):
        return float("nan"), float("nan")
    low, high = np.percentile(known, [2.5, 97.5])
    return float(low), float(high)


def ratio(parts: Floats, wholes: Floats) -> Floats:
    """Return parts / wholes; NaN where a whole is 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(wholes == 0, np.nan, np.divide(parts, wholes))
