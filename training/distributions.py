"""Distributions of several scorers' scores on the same pairs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from service.contract.agreement import (
    kendall_tau_b,
    kolmogorov_smirnov,
    population_stability,
    top_overlap,
)
from training.figures import Floats, JudgedScores
from training.recipe import RecipeError

QUANTILES = (0.0, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 1.0)


@dataclass(frozen=True, slots=True)
class ScoredPairs:
    """Pairs that every scorer has scored.

    Attributes:
        scores: Raw scores by scorer, each [N].
        grades: The pairs' grades, [N].
        queries: Where each query's pairs begin and end.
        left_out: Pairs that a scorer has no score for.
    """

    scores: dict[str, Floats]
    grades: Floats
    queries: tuple[slice, ...]
    left_out: int

    @property
    def standardised(self) -> dict[str, Floats]:
        """Each scorer's scores less their mean, over their deviation; 0 where all are alike."""
        return {
            name: (values - values.mean()) / (values.std() or 1.0)
            for name, values in self.scores.items()
        }


@dataclass(frozen=True, slots=True)
class Likeness:
    """How alike two scorers are; PSI and KS of raw and of standardised scores.

    `tau_b` and `top_10` are means over queries, without those where one scorer is constant.
    """

    first: str
    second: str
    psi: float
    ks: float
    psi_standardised: float
    ks_standardised: float
    tau_b: float
    top_10: float


def common_pairs(scored: Mapping[str, Sequence[JudgedScores]]) -> ScoredPairs:
    """Return the pairs that all scorers have scores for.

    Args:
        scored: Each scorer's scores of the same queries in the same order.

    Raises:
        RecipeError: There is no such pair.
    """
    columns: dict[str, list[float]] = {name: [] for name in scored}
    grades: list[float] = []
    queries, left_out = [], 0
    for row in zip(*scored.values(), strict=True):
        known = [dict(zip(one.documents, one.scores, strict=True)) for one in row]
        every = {name: grade for one in row for name, grade in _grades(one)}
        common = [name for name in every if all(name in scores for scores in known)]
        left_out += len(every) - len(common)
        queries.append(slice(len(grades), len(grades) + len(common)))
        grades.extend(every[name] for name in common)
        for column, scores in zip(columns.values(), known, strict=True):
            column.extend(scores[name] for name in common)
    if not grades:
        raise RecipeError(f"{', '.join(scored)}: no pair is scored by all of them")
    arrays = {name: np.array(column) for name, column in columns.items()}
    return ScoredPairs(arrays, np.array(grades), tuple(queries), left_out)


def quantiles(scores: Floats) -> Floats:
    """Return the scores' `QUANTILES`."""
    found: Floats = np.quantile(scores, QUANTILES)
    return found


def likenesses(pairs: ScoredPairs) -> list[Likeness]:
    """Return how alike each two scorers are; the first named is PSI's reference."""
    standard = pairs.standardised
    found = []
    for first, second in combinations(pairs.scores, 2):
        raw = pairs.scores[first], pairs.scores[second]
        scaled = standard[first], standard[second]
        found.append(
            Likeness(
                first,
                second,
                population_stability(*raw),
                kolmogorov_smirnov(*raw),
                population_stability(*scaled),
                kolmogorov_smirnov(*scaled),
                _mean([kendall_tau_b(raw[0][q], raw[1][q]) for q in pairs.queries]),
                _mean([top_overlap(raw[0][q], raw[1][q], 10) for q in _filled(pairs)]),
            )
        )
    return found


def _grades(query: JudgedScores) -> list[tuple[str, float]]:
    return list(zip(query.documents, query.grades.tolist(), strict=True))


def _filled(pairs: ScoredPairs) -> list[slice]:
    return [query for query in pairs.queries if query.stop > query.start]


def _mean(values: Sequence[float]) -> float:
    known: NDArray[np.float64] = np.array([value for value in values if value == value])
    return float(known.mean()) if len(known) else float("nan")
