"""From the service's metrics to what a canary and its control did."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise

from service.rollout.observation import Agreement, Arm, Histogram, Observation, Side

REQUESTS = "disranker_request_duration_seconds"
AGREEMENT = "disranker_agreement"
SCORES = "disranker_scores"
GUARDS = "disranker_comparison_guards_total"
ROUTED = "disranker_routed_requests_total"
COUNTERS = (
    *(f"{REQUESTS}_bucket", f"{REQUESTS}_sum", f"{AGREEMENT}_bucket", f"{AGREEMENT}_sum"),
    *(f"{SCORES}_bucket", GUARDS, ROUTED),
)
WEIGHT, GENERATION = "disranker_lane_weight", "disranker_split_generation"

LABELS = (
    *("variant", "version", "against_version", "outcome", "reason", "measure", "side", "guard"),
    "le",
)
"""All that tells anything; what a scrape adds (instance, pod) is summed over."""

RANKED = ("ok", "degraded")
FAILED = ("error", "expired", "not_ready", "rejected")


@dataclass(frozen=True, slots=True)
class Sample:
    """A number of a metric.

    Attributes:
        name: The metric's, with what its kind adds: `_bucket`, `_sum`, `_total`.
        labels: Its labels.
        value: The number.
    """

    name: str
    labels: Mapping[str, str]
    value: float


def tally(samples: Iterable[Sample], *, stable: str, canary: str) -> Observation:
    """Return what a canary of a version and its control did."""
    found = [*samples]
    fallbacks = _count(found, ROUTED, variant="stable", version=stable, reason="fallback")
    return Observation(
        canary=_side(found, "canary", canary, stable, unanswered=fallbacks),
        control=_side(found, "stable", stable, canary),
    )


def versions(samples: Iterable[Sample], variant: str) -> tuple[str, ...]:
    """Return the versions that a lane has somewhere, each once."""
    weights = (sample.labels for sample in samples if sample.name == WEIGHT)
    return tuple(sorted({found["version"] for found in weights if found["variant"] == variant}))


def generation(samples: Iterable[Sample]) -> int:
    """Return the latest generation that a replica has."""
    return max((int(found.value) for found in samples if found.name == GENERATION), default=0)


def _side(
    samples: list[Sample], variant: str, version: str, other: str, *, unanswered: int = 0
) -> Side:
    lane = {"variant": variant, "version": version}
    durations = [_histogram(samples, REQUESTS, **lane, outcome=outcome) for outcome in RANKED]
    failures = sum(_histogram(samples, REQUESTS, **lane, outcome=outcome).n for outcome in FAILED)
    ranked = durations[0] + durations[1]
    arm = Arm(
        requests=ranked.n + failures + unanswered,
        failures=failures + unanswered,
        degraded=durations[1].n,
        durations=ranked,
    )
    counterpart = {
        "variant": "stable" if variant == "canary" else "canary",
        "version": other,
        "against_version": version,
    }
    paired = _agreement(
        samples, ({**lane, "against_version": other}, "answered"), (counterpart, "against")
    )
    teachers = {
        found.labels["against_version"]
        for found in samples
        if "against_version" in found.labels and found.labels["version"] == version
    } - {version, other}
    taught = _agreement(
        samples, *(({**lane, "against_version": teacher}, "answered") for teacher in teachers)
    )
    return Side(arm, paired, taught)


def _agreement(samples: list[Sample], *places: tuple[Mapping[str, str], str]) -> Agreement:
    """Return what several series of comparisons add up to, and on which side of each."""
    concordance = overlap = scores = Histogram()
    garbage = lost = 0
    for labels, side in places:
        concordance += _histogram(samples, AGREEMENT, **labels, measure="concordance")
        overlap += _histogram(samples, AGREEMENT, **labels, measure="overlap_10")
        scores += _histogram(samples, SCORES, **labels, side=side)
        not_finite = _count(samples, GUARDS, **labels, side=side, guard="not_finite")
        garbage += not_finite + _count(samples, GUARDS, **labels, side=side, guard="constant")
        lost += _count(samples, GUARDS, **labels, guard="not_finite")
    return Agreement(overlap.n + lost, garbage, concordance, overlap, scores)


def _histogram(samples: list[Sample], name: str, **labels: str) -> Histogram:
    below: Counter[float] = Counter()
    total = 0.0
    for sample in samples:
        if sample.name == f"{name}_bucket" and _fits(sample, labels):
            below[float(sample.labels["le"])] += sample.value  # type: ignore[assignment]
        elif sample.name == f"{name}_sum" and _fits(sample, labels):
            total += sample.value
    bounds = sorted(below)
    cumulated = [0.0, *(below[bound] for bound in bounds)]
    # Rates that Prometheus extrapolated are no whole numbers, and may not quite rise.
    counts = [max(0, round(b) - round(a)) for a, b in pairwise(cumulated)]
    if not any(counts):
        return Histogram()
    return Histogram(tuple(bounds[:-1]), tuple(counts), total)


def _count(samples: list[Sample], name: str, **labels: str) -> int:
    return round(sum(s.value for s in samples if s.name == name and _fits(s, labels)))


def _fits(sample: Sample, labels: Mapping[str, str]) -> bool:
    return all(sample.labels.get(name) == value for name, value in labels.items())
