"""Traffic of two lanes, made up: what a service's metrics would have counted of it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.rollout.compare import compare, guard
from service.rollout.metrics import AGREEMENT_BUCKETS
from service.rollout.observation import Agreement, Arm, Histogram, Observation
from service.rollout.scores import EDGES, ScoreHistogram
from service.rollout.source import Reading
from service.telemetry import BUCKETS_S

Scores = NDArray[np.float32]
Model = Callable[[Scores, np.random.Generator], Scores]
"""From what documents are worth to what a model thinks of them."""

DOCUMENTS = 48


def student(noise: float) -> Model:
    """A model that errs by so much, where documents differ by about 1."""

    def score(worth: Scores, rng: np.random.Generator) -> Scores:
        return (worth + rng.normal(0, noise, worth.shape)).astype(np.float32)

    return score


def shuffled(worth: Scores, rng: np.random.Generator) -> Scores:
    return rng.permutation(worth)


def constant(worth: Scores, rng: np.random.Generator) -> Scores:
    return np.full_like(worth, 0.25)


def not_finite(worth: Scores, rng: np.random.Generator) -> Scores:
    return np.full_like(worth, np.nan)


GOOD = student(0.5)


@dataclass(frozen=True, slots=True)
class Lane:
    """How a lane behaves.

    Attributes:
        model: Scores documents.
        median_s: Of its latencies, which are lognormal.
        spread: Of their logarithm.
        failures: Share of its requests.
        degraded: Share of its requests.
    """

    model: Model = GOOD
    median_s: float = 0.006
    spread: float = 0.5
    failures: float = 0.002
    degraded: float = 0.01


@dataclass(slots=True)
class Traffic:
    """A service's lanes under load, as a source for a controller.

    Attributes:
        stable: The lane of the stable model.
        canary: The candidate's.
        per_reading: Requests between two readings.
        sample: Share of them that the other lane scores, too; or a teacher.
        teacher: Whether a third model scores the sampled ones instead.
        weight: The canary's part.
        seen: All so far.
    """

    stable: Lane
    canary: Lane
    rng: np.random.Generator
    per_reading: int = 5_000
    sample: float = 0.02
    teacher: Model | None = None
    weight: float = 0.0
    generation: int = 0
    seen: Observation = field(default_factory=Observation)

    def read(self, window_s: float) -> Reading:  # noqa: ARG002 - it counts from the start
        self.flow()
        return Reading(("s",), ("c",), self.generation, self.seen, cumulative=True)

    def flow(self) -> None:
        """Let some requests come."""
        n = int(self.rng.poisson(self.per_reading))
        to_canary = int(self.rng.binomial(n, self.weight))
        sampled = int(self.rng.binomial(n, self.sample))
        old = self.seen
        canary_arm = old.canary.arm + self._arm(self.canary, to_canary)
        control_arm = old.control.arm + self._arm(self.stable, n - to_canary)
        canary, control = replace(old.canary, arm=canary_arm), replace(old.control, arm=control_arm)
        if self.teacher is None:
            a, b = compared(self.rng, self.canary.model, self.stable.model, sampled)
            canary = replace(canary, paired=canary.paired + a)
            control = replace(control, paired=control.paired + b)
        else:
            by_canary = int(self.rng.binomial(sampled, self.weight))
            a, _ = compared(self.rng, self.canary.model, self.teacher, by_canary)
            b, _ = compared(self.rng, self.stable.model, self.teacher, sampled - by_canary)
            canary = replace(canary, taught=canary.taught + a)
            control = replace(control, taught=control.taught + b)
        self.seen = Observation(canary, control)

    def _arm(self, lane: Lane, n: int) -> Arm:
        failures = int(self.rng.binomial(n, lane.failures))
        degraded = int(self.rng.binomial(n - failures, lane.degraded))
        shares = bucket_shares(lane.median_s, lane.spread)
        counts = self.rng.multinomial(n - failures, shares)
        return Arm(n, failures, degraded, Histogram(BUCKETS_S, tuple(counts.tolist())))


@lru_cache
def bucket_shares(median_s: float, spread: float) -> tuple[float, ...]:
    """Return the share of a lognormal in each bucket of the service's histogram."""
    below = [
        0.0,
        *((1 + math.erf(math.log(s / median_s) / spread / math.sqrt(2))) / 2 for s in BUCKETS_S),
        1.0,
    ]
    return tuple(np.diff(below).tolist())


@dataclass(frozen=True, slots=True)
class Pool:
    """Comparisons of two models, to draw from: computing each anew would take most of a test.

    Attributes:
        garbage: Whether each side's scores rank nothing, [P, 2].
        lost: Whether they could not be compared, [P].
        concordance: NaN where there is none, [P].
        overlap_10: [P].
        scores: Each side's in the buckets of the service's histogram, [P, 2, B].
    """

    garbage: NDArray[np.bool_]
    lost: NDArray[np.bool_]
    concordance: NDArray[np.float64]
    overlap_10: NDArray[np.float64]
    scores: NDArray[np.int64]


@lru_cache
def pool(model: Model, other: Model, size: int = 400) -> Pool:
    """Return comparisons of two models."""
    rng = np.random.default_rng(size)
    made = [one(rng, model, other) for _ in range(size)]
    garbage, concordance, overlap, scores = zip(*made, strict=True)
    lost = np.isnan(overlap)
    return Pool(np.array(garbage), lost, np.array(concordance), np.array(overlap), np.array(scores))


def one(rng: np.random.Generator, model: Model, other: Model) -> tuple[Any, ...]:
    """Return what the service would keep of one request scored by both."""
    worth = rng.normal(0, 1, DOCUMENTS).astype(np.float32)
    sides = model(worth, rng), other(worth, rng)
    guards = [guard(side) for side in sides]
    histograms = ScoreHistogram(), ScoreHistogram()
    found = None if "not_finite" in guards else compare(*sides)
    if found is not None:
        for histogram, side in zip(histograms, sides, strict=True):
            histogram.add(side)
    return (
        [reason is not None for reason in guards],
        found.concordance if found else math.nan,
        found.overlap_10 if found else math.nan,
        [histogram.counts for histogram in histograms],
    )


def compared(
    rng: np.random.Generator, model: Model, other: Model, n: int
) -> tuple[Agreement, Agreement]:
    """Return what comparing both models' scores of n requests adds up to, for each."""
    all_of = pool(model, other)
    picks = rng.integers(0, len(all_of.lost), n)
    kept = picks[~all_of.lost[picks]]
    scores = all_of.scores[kept].sum(axis=0)  # [2, B]
    a, b = (
        Agreement(
            n,
            int(all_of.garbage[picks, side].sum()),
            bucketed(all_of.concordance[kept]),
            bucketed(all_of.overlap_10[kept]),
            Histogram(EDGES, tuple(scores[side].tolist())),
        )
        for side in (0, 1)
    )
    return a, b


def bucketed(values: NDArray[np.float64]) -> Histogram:
    """Return values in the buckets of the service's agreement histogram."""
    known = values[~np.isnan(values)]
    places = np.searchsorted(AGREEMENT_BUCKETS, known)
    counts = np.bincount(places, minlength=len(AGREEMENT_BUCKETS) + 1)
    return Histogram(AGREEMENT_BUCKETS, tuple(counts.tolist()), float(known.sum()))
