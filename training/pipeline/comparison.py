"""Systems of several seeds compared on one set: figures, differences and paired tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from service.contract.metrics import Gain
from training.evaluate import odds
from training.figures import (
    MRR_10,
    NDCG_5,
    NDCG_10,
    PAIRWISE,
    Estimate,
    Floats,
    JudgedScores,
    Pooled,
    interval,
    query_figures,
    ratio,
    resample,
)
from training.pipeline.recipe import Figure
from training.significance import Tested, difference, holm, randomisation_test

Picks = NDArray[np.int64]

SEED = 0
"""Of bootstrap and randomisation: the report of the same scores is the same."""

POOLED: dict[Figure, str] = {
    "ndcg_at_5": NDCG_5,
    "ndcg_at_10": NDCG_10,
    "mrr_at_10": MRR_10,
    "pnr": PAIRWISE,
    "pairwise_accuracy": PAIRWISE,
}
"""What each figure is pooled as: PNR is the odds of the pairwise accuracy."""


@dataclass(frozen=True, slots=True)
class Measured:
    """A figure of a system: over its seeds together, and of each seed alone."""

    estimate: Estimate
    seeds: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Gap:
    """A system's figure beside the baseline's.

    `difference` is theirs, of PNR the ratio less 1; PNR's test is the pairwise accuracy's.
    """

    difference: Estimate
    tested: Tested
    p_holm: float


@dataclass(frozen=True, slots=True)
class Comparison:
    """All systems on one set.

    Attributes:
        measured: By system and figure.
        gaps: By system and figure, without the baseline; empty without a baseline.
        tests: The number of tests that Holm's correction counts.
    """

    measured: dict[str, dict[Figure, Measured]]
    gaps: dict[str, dict[Figure, Gap]]
    tests: int


def compare_arms(
    scored: Mapping[str, Sequence[Sequence[JudgedScores]]],
    figures: Sequence[Figure],
    *,
    baseline: str,
    gain: Gain,
    relevant_from: float,
) -> Comparison:
    """Return every system's figures and its differences to the baseline.

    A query's figure is its mean over the seeds, its pairs are those of all seeds together; the
    bootstrap draws queries, and the test swaps them, of these.

    Args:
        scored: Each run's scores of the same queries in the same order, by system.
        figures: Which figures.
        baseline: The system that the others are tested against.
        gain: Of nDCG.
        relevant_from: Grade that counts as relevant for MRR.
    """
    by_run = {
        name: [query_figures(run, gain=gain, relevant_from=relevant_from) for run in runs]
        for name, runs in scored.items()
    }
    pooled = {name: pool_seeds(runs) for name, runs in by_run.items()}
    queries = len(next(iter(pooled.values()))[PAIRWISE].parts)
    picks = resample(queries, seed=SEED)
    measured = {
        name: {
            figure: Measured(
                _estimate(figure, pooled[name], picks),
                tuple(_value(figure, run[POOLED[figure]].value) for run in runs),
            )
            for figure in figures
        }
        for name, runs in by_run.items()
    }
    if baseline not in pooled:
        return Comparison(measured, {}, 0)
    others = [name for name in pooled if name != baseline]
    base = pooled[baseline]
    kinds = list(dict.fromkeys(POOLED[figure] for figure in figures))
    tested = {
        (name, kind): randomisation_test(pooled[name][kind], base[kind], seed=SEED)
        for name in others
        for kind in kinds
    }
    adjusted = dict(zip(tested, holm([found.p for found in tested.values()]), strict=True))
    gaps = {
        name: {
            figure: Gap(
                _difference(figure, pooled[name], base, picks),
                tested[name, POOLED[figure]],
                adjusted[name, POOLED[figure]],
            )
            for figure in figures
        }
        for name in others
    }
    return Comparison(measured, gaps, len(tested))


def pool_seeds(runs: Sequence[Mapping[str, Pooled]]) -> dict[str, Pooled]:
    """Return each figure with every query's numerator and denominator averaged over runs."""
    return {
        name: Pooled(
            np.mean([run[name].parts for run in runs], axis=0),
            np.mean([run[name].wholes for run in runs], axis=0),
        )
        for name in runs[0]
    }


def _estimate(figure: Figure, pooled: Mapping[str, Pooled], picks: Picks) -> Estimate:
    found = pooled[POOLED[figure]].estimate(picks)
    return Estimate(*(_value(figure, part) for part in (found.value, found.low, found.high)))


def _value(figure: Figure, value: float) -> float:
    return odds(value) if figure == "pnr" else value


def _difference(
    figure: Figure, system: Mapping[str, Pooled], base: Mapping[str, Pooled], picks: Picks
) -> Estimate:
    first, second = system[POOLED[figure]], base[POOLED[figure]]
    if figure != "pnr":
        return difference(first, second, picks)
    value = _odds_share(np.array([first.value]), np.array([second.value]))
    low, high = interval(_odds_share(first.resampled(picks), second.resampled(picks)))
    return Estimate(*(odds(share) - 1 for share in (float(value[0]), low, high)))


def _odds_share(first: Floats, second: Floats) -> Floats:
    """Return r / (1 + r) of the ratio r of two accuracies' odds: finite where r is not."""
    won = first * (1 - second)
    return ratio(won, won + second * (1 - first))
