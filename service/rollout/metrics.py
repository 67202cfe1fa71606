"""What comparisons add up to, as Prometheus instruments."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from service.rollout.compare import Comparison, Guard
from service.rollout.scores import EDGES, ScoreHistogram, drift

MEASURES = ("concordance", "rbo", "overlap_1", "overlap_3", "overlap_10", "ndcg_10")
AGREEMENT_BUCKETS = (0.1, 0.2, 0.4, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 0.98, 0.99, 1)
DELTA_BUCKETS = (1e-4, 1e-3, 0.01, 0.03, 0.1, 0.2, 0.35, 0.5, 0.75, 1, 1.5, 2, 3, 5, 10, 20)

PAIR_LABELS = ("model", "version", "variant", "against", "against_version")
SCORE_LABELS = (*PAIR_LABELS, "side")


@dataclass(frozen=True, slots=True)
class Contestants:
    """Whose scores are compared; the fields are labels, so none may come from a request.

    Attributes:
        model: Name of the bundle that answered.
        version: Its version.
        variant: The lane it answered from.
        against: Name of the model it is compared with.
        against_version: That model's version.
    """

    model: str
    version: str
    variant: str
    against: str
    against_version: str

    @property
    def labels(self) -> tuple[str, str, str, str, str]:
        """The values of `PAIR_LABELS`."""
        return self.model, self.version, self.variant, self.against, self.against_version


@dataclass(frozen=True, slots=True)
class _Sides:
    """Distributions of the scores of compared requests, of both models."""

    answered: ScoreHistogram = field(default_factory=ScoreHistogram)
    against: ScoreHistogram = field(default_factory=ScoreHistogram)


class ComparisonMetrics:
    """Counts comparisons, a set of series for each pair of models that met."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._agreement = Histogram(
            "disranker_agreement",
            "Agreement of one request's two rankings, 0 to 1. Concordance is (1 + τ-b) / 2: what "
            "Prometheus sums must not be negative.",
            (*PAIR_LABELS, "measure"),
            buckets=AGREEMENT_BUCKETS,
            registry=registry,
        )
        self._delta = Histogram(
            "disranker_score_delta",
            "Largest difference of a document's two raw scores in a compared request.",
            PAIR_LABELS,
            buckets=DELTA_BUCKETS,
            registry=registry,
        )
        self._guards = Counter(
            "disranker_comparison_guards_total",
            "Scores that rank nothing: not_finite or constant; side tells whose.",
            (*PAIR_LABELS, "side", "guard"),
            registry=registry,
        )
        self._children: dict[Contestants, tuple[dict[str, Histogram], Histogram]] = {}
        self._sides: dict[Contestants, _Sides] = {}
        registry.register(_ScoreCollector(self._sides))

    def observe(self, pair: Contestants, comparison: Comparison) -> None:
        """Count a comparison; what it could not tell is left out."""
        agreement, delta = self._of(pair)
        for measure, child in agreement.items():
            value = getattr(comparison, measure)
            if not math.isnan(value):
                child.observe(value)
        delta.observe(comparison.largest_delta)

    def observe_guard(self, pair: Contestants, side: str, guard: Guard) -> None:
        """Count scores that rank nothing."""
        self._guards.labels(*pair.labels, side, guard).inc()

    def scores_of(self, pair: Contestants) -> _Sides:
        """Return the distributions that a pair's scores are added to."""
        return self._sides.setdefault(pair, _Sides())

    def _of(self, pair: Contestants) -> tuple[dict[str, Histogram], Histogram]:
        found = self._children.get(pair)
        if found is None:
            agreement = {name: self._agreement.labels(*pair.labels, name) for name in MEASURES}
            found = self._children[pair] = agreement, self._delta.labels(*pair.labels)
        return found


class _ScoreCollector(Collector):
    """Turns score histograms into metrics; `Histogram` takes 3 µs a score, 48 of them a request."""

    def __init__(self, sides: dict[Contestants, _Sides]) -> None:
        self._sides = sides

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics of all pairs."""
        scores = HistogramMetricFamily(
            "disranker_scores",
            "Raw scores of compared requests, of the model that answered and of the other.",
            labels=SCORE_LABELS,
        )
        stability = GaugeMetricFamily(
            "disranker_score_stability",
            "Population stability index of the recent scores, those that were answered with being "
            "the reference: below 0.1 stable, above 0.25 a shift; NaN for too few.",
            labels=PAIR_LABELS,
        )
        distance = GaugeMetricFamily(
            "disranker_score_distance",
            "Kolmogorov-Smirnov distance of the recent scores, 0 to 1; NaN for too few.",
            labels=PAIR_LABELS,
        )
        for pair, sides in [*self._sides.items()]:
            psi, ks = drift(sides.answered, sides.against)
            stability.add_metric(pair.labels, psi)
            distance.add_metric(pair.labels, ks)
            for side, histogram in (("answered", sides.answered), ("against", sides.against)):
                scores.add_metric((*pair.labels, side), _buckets(histogram), None)
        yield from (scores, stability, distance)


def _buckets(histogram: ScoreHistogram) -> list[tuple[str, float]]:
    counts = histogram.counts.cumsum().tolist()
    edges = [*map(str, EDGES), "+Inf"]
    return [*zip(edges, map(float, counts), strict=True)]
