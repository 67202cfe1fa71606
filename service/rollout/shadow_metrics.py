"""What became of requests that were offered to a shadow, as Prometheus instruments."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from service.rollout.breaker import State

Outcome = Literal["compared", "skipped", "dropped", "failed"]

REASONS: dict[Outcome, tuple[str, ...]] = {
    "compared": ("", "constant"),
    "skipped": ("sample", "single", "partial"),
    "dropped": ("full", "busy", "budget", "breaker", "stale"),
    "failed": (
        *("late", "unavailable", "overloaded", "refused"),
        *("garbage", "error", "internal"),
    ),
}
BUCKETS_S = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)
STATES: dict[State, float] = {"closed": 0.0, "half_open": 0.5, "open": 1.0}


class ShadowMetrics:
    """Counts outcomes; every series exists from the start, so that a rate is 0 and not absent."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry
        requests = Counter(
            "disranker_shadow_requests_total",
            "Answered requests offered to the shadow: compared; skipped, as not sampled or nothing "
            "to compare; dropped, to spare the primary, a budget or the shadow; or failed there.",
            ("outcome", "reason"),
            registry=registry,
        )
        self._requests = {
            (outcome, reason): requests.labels(outcome, reason)
            for outcome, reasons in REASONS.items()
            for reason in reasons
        }
        self._duration = Histogram(
            "disranker_shadow_duration_seconds",
            "Seconds the shadow took to score a request.",
            buckets=BUCKETS_S,
            registry=registry,
        )

    def count(self, outcome: str, reason: str) -> None:
        """Count what became of a request."""
        self._requests[outcome, reason].inc()  # type: ignore[index]

    def observe(self, seconds: float) -> None:
        """Count how long the shadow took."""
        self._duration.observe(seconds)

    def watch(
        self,
        *,
        waiting: Callable[[], int],
        breaker: Callable[[], State],
        sample: Callable[[], float],
    ) -> None:
        """Read the shadow's state at each scrape."""
        for name, text, value in (
            ("waiting_requests", "Answered requests that wait for the shadow.", waiting),
            (
                "breaker_open",
                "1 while the shadow failed too often to be asked, 0.5 while it is tried again.",
                lambda: STATES[breaker()],
            ),
            ("sample_ratio", "Share of the requests that the shadow is offered.", sample),
        ):
            gauge = Gauge(f"disranker_shadow_{name}", text, registry=self._registry)
            gauge.set_function(value)
