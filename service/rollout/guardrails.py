"""What a canary is held to: each guardrail looks at one way of being worse."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from service.contract.agreement import counts_stability
from service.rollout.observation import Agreement, Arm, Histogram, Observation
from service.rollout.scores import ENOUGH
from service.rollout.significance import below_p, excess_p, later, lower_p, quantile_ratio

EXCESS = 1.25
"""How many times the control's share of failures, of degraded answers or of garbage is let pass."""

LATER = 0.05
"""How far beyond one half a canary's request may take longer than the control's: about what +10 %
do to latencies that spread over a factor of e."""

P99_RATIO = 1.2

TAUGHT_LESS = 0.03
"""How far below the stable model's agreement with a teacher the canary's may lie."""

DOUBT = 0.05
"""A p-value below it is no pass, though no alarm either: more requests will tell."""

State = Literal["good", "bad", "open"]
Name = Literal[
    "errors", "degraded", "garbage", "p99", "latency", "concordance", "overlap_10", "stability"
]
GUARDRAILS: tuple[Name, ...] = (
    *("errors", "degraded", "garbage", "p99", "latency"),
    *("concordance", "overlap_10", "stability"),
)

SAMPLED = ("garbage", "concordance", "overlap_10", "stability")
FEWEST: dict[Name, int] = {
    **{"latency": 100, "p99": 500},
    **{"concordance": 30, "overlap_10": 30, "stability": 30},
}
"""Requests below which nothing is tested: the normal approximation says nothing of so few."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """What agreement with the stable model is enough, as known offline.

    Attributes:
        tau_b: Least mean of Kendall's τ-b.
        overlap_10: Least mean overlap at 10.
        stability: Largest population stability index of the scores.
    """

    tau_b: float = 0.3
    overlap_10: float = 0.4
    stability: float = 0.5


@dataclass(frozen=True, slots=True)
class Needs:
    """How much there must be to say that nothing is wrong.

    Attributes:
        requests: Of each lane.
        sampled: Requests scored by both lanes, or by a teacher.
    """

    requests: int = 500
    sampled: int = 100


@dataclass(frozen=True, slots=True)
class Finding:
    """What a guardrail found.

    Attributes:
        name: The guardrail.
        state: Whether the canary is good or bad by it; open where nothing can be said yet.
        value: The canary's figure; None where there is none.
        control: The control's, or 1 and one half for ratios that are of both.
        limit: What the figure is held to.
        p: How likely so bad a figure is, were the canary within the limit; None for the stability
            index, which is held to its bound without a test.
        n: Requests it is made of.
    """

    name: Name
    state: State
    value: float | None
    control: float | None
    limit: float
    p: float | None
    n: int


def judge(
    seen: Observation, bounds: Bounds, needs: Needs, *, alpha: float, at_once: bool = True
) -> tuple[Finding, ...]:
    """Return what each guardrail finds.

    Args:
        seen: The canary and its control.
        bounds: What agreement is enough.
        needs: How much there must be to pass.
        alpha: Largest p-value that is bad; 0 for a look that must not alarm.
        at_once: Whether both served at the same time; latencies are compared only then.
    """
    state = _state_of(needs, alpha)
    canary, control = seen.canary, seen.control
    found = [*_shares(canary.arm, control.arm, state)]
    if at_once:
        found += _durations(canary.arm.durations, control.arm.durations, state)
    if canary.paired.compared or not canary.taught.compared:
        found += _paired(canary.paired, control.paired, bounds, state)
    else:
        found += _taught(canary.taught, control.taught, state)
    return tuple(found)


Judge = Callable[[Name, float, int], State]


def _state_of(needs: Needs, alpha: float) -> Judge:
    def state(name: Name, p: float, n: int) -> State:
        if n < FEWEST.get(name, 0):
            return "open"
        if p < alpha:
            return "bad"
        enough = n >= (needs.sampled if name in SAMPLED else needs.requests)
        return "good" if enough and p > DOUBT else "open"

    return state


def _shares(canary: Arm, control: Arm, state: Judge) -> Iterator[Finding]:
    counts: tuple[tuple[Name, int, int], ...] = (
        ("errors", canary.failures, control.failures),
        ("degraded", canary.degraded, control.degraded),
    )
    n = min(canary.requests, control.requests)
    for name, hits, others in counts:
        p = excess_p(hits, canary.requests, others, control.requests, ratio=EXCESS)
        value, base = _share(hits, canary.requests), _share(others, control.requests)
        yield Finding(name, state(name, p, n), value, base, EXCESS * (base or 0), p, n)


def _durations(canary: Histogram, control: Histogram, state: Judge) -> Iterator[Finding]:
    n = min(canary.n, control.n)
    ratio, p = quantile_ratio(canary, control, 0.99, limit=P99_RATIO, seed=n)
    yield Finding("p99", state("p99", p, n), _known(ratio), 1.0, P99_RATIO, p, n)
    shares, p = later(canary, control, margin=LATER)
    yield Finding("latency", state("latency", p, n), _known(shares), 0.5, 0.5 + LATER, p, n)


def _paired(
    canary: Agreement, control: Agreement, bounds: Bounds, state: Judge
) -> Iterator[Finding]:
    yield _garbage(canary, control, state)
    least: tuple[tuple[Name, Histogram, float], ...] = (
        ("concordance", canary.concordance, (1 + bounds.tau_b) / 2),
        ("overlap_10", canary.overlap_10, bounds.overlap_10),
    )
    for name, values, limit in least:
        p = below_p(values, limit)
        found = state(name, p, values.n)
        yield Finding(name, found, _known(values.mean), None, limit, p, values.n)
    n = canary.compared
    stability = counts_stability(control.scores.counts, canary.scores.counts)
    # Both sides scored the same documents, so that equal models have no difference at all; few
    # scores differ in distribution by themselves, and the index is NaN where there are none.
    known = canary.scores.n >= ENOUGH and not math.isnan(stability)
    within = float(stability <= bounds.stability)
    found = state("stability", within, n) if known else "open"
    yield Finding("stability", found, _known(stability), None, bounds.stability, None, n)


def _taught(canary: Agreement, control: Agreement, state: Judge) -> Iterator[Finding]:
    yield _garbage(canary, control, state)
    pairs: tuple[tuple[Name, Histogram, Histogram], ...] = (
        ("concordance", canary.concordance, control.concordance),
        ("overlap_10", canary.overlap_10, control.overlap_10),
    )
    for name, values, others in pairs:
        p, n = lower_p(values, others, margin=TAUGHT_LESS), min(values.n, others.n)
        limit = _known(others.mean - TAUGHT_LESS) or 0.0
        found = state(name, p, n)
        yield Finding(name, found, _known(values.mean), _known(others.mean), limit, p, n)


def _garbage(canary: Agreement, control: Agreement, state: Judge) -> Finding:
    n, m = canary.compared, control.compared
    p = excess_p(canary.garbage, n, control.garbage, m, ratio=EXCESS)
    value, base = _share(canary.garbage, n), _share(control.garbage, m)
    return Finding("garbage", state("garbage", p, n), value, base, EXCESS * (base or 0), p, n)


def _share(hits: int, trials: int) -> float | None:
    return hits / trials if trials else None


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value
