"""What the service counts of itself, for Prometheus."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector

from service.api.keys import Keys
from service.engines.engine import RemoteEngine
from service.ranking.caches import CacheStats
from service.rollout.lanes import REASONS, Labels, Lanes, Reason

BUCKETS_MS = (0.5, 1, 2, 3, 4, 5, 6, 8, 10, 12, 15, 20, 30, 50, 100, 250, 500)
SLOW_BUCKETS_MS = (1000, 2500, 5000, 10000)  # a CPU's pace
OUTCOMES = (
    "ok",
    "degraded",
    "client_error",
    "rejected",
    "not_ready",
    "expired",
    "cancelled",
    "error",
)
STAGES = ("tokenise", "queue", "infer", "order")
BUCKETS_S = tuple(ms / 1000 for ms in (*BUCKETS_MS, *SLOW_BUCKETS_MS))
LABELS = ("model", "version", "variant")
"""Of a model in a lane; see `Labels`. What all lanes share has none of them."""


class LaneMetrics:
    """The instruments of one model in one lane; every label set is there from the start."""

    def __init__(self, instruments: Instruments, labels: Labels, *, budget_s: float) -> None:
        """Look all label sets up, which costs as much as counting."""
        self._budget_s = budget_s
        self._durations = {name: instruments.duration.labels(*labels, name) for name in OUTCOMES}
        self._stages = {name: instruments.stage.labels(*labels, name) for name in STAGES}
        self._pairs = instruments.pairs.labels(*labels)
        self._real, self._padded = (
            instruments.tokens.labels(*labels, kind) for kind in ("real", "padded")
        )
        self._misses = instruments.misses.labels(*labels)
        self._routed = {name: instruments.routed.labels(*labels, name) for name in REASONS}

    def observe_route(self, reason: Reason) -> None:
        """Count a request that was sent to this lane."""
        self._routed[reason].inc()

    def observe_request(self, outcome: str, seconds: float) -> None:
        """Count a request to rank, whatever became of it.

        One that was ranked later than the budget, or that we failed, misses it. One that its
        client spoilt or left, or that was refused at once, does not.
        """
        self._durations[outcome].observe(seconds)
        late = outcome in ("ok", "degraded") and seconds > self._budget_s
        if late or outcome in ("expired", "error"):
            self._misses.inc()

    def observe_ranking(
        self,
        *,
        pairs: int,
        real_tokens: int,
        padded_tokens: int,
        stages_s: Mapping[str, float],
    ) -> None:
        """Count a ranked request."""
        for stage, stage_s in stages_s.items():
            self._stages[stage].observe(stage_s)
        self._pairs.inc(pairs)
        self._real.inc(real_tokens)
        self._padded.inc(padded_tokens)


class Instruments:
    """What is counted, each under the labels of a model in a lane."""

    def __init__(self, registry: CollectorRegistry) -> None:
        """Register all."""
        histogram = partial(Histogram, buckets=BUCKETS_S, registry=registry)
        counter = partial(Counter, registry=registry)
        self.duration = histogram(
            "disranker_request_duration_seconds",
            "Seconds from request to response.",
            (*LABELS, "outcome"),
        )
        self.stage = histogram(
            "disranker_stage_duration_seconds",
            "Seconds of a ranked request's stages.",
            (*LABELS, "stage"),
        )
        self.pairs = counter("disranker_pairs_total", "Query-document pairs ranked.", LABELS)
        self.tokens = counter(
            "disranker_tokens_total",
            "Tokens of ranked pairs: real, and padded as run (none for a cached score).",
            (*LABELS, "kind"),
        )
        self.misses = counter(
            "disranker_budget_misses_total",
            "Requests to rank not answered within the latency budget, failed ones included.",
            LABELS,
        )
        self.routed = counter(
            "disranker_routed_requests_total",
            "Requests sent to a lane: by their key (split), by their own wish (override), or since "
            "the canary that they were for may not rank (fallback).",
            (*LABELS, "reason"),
        )


class Telemetry:
    """The instruments of one app, in a registry of their own.

    Every label set exists from the start, so that a rate over it is 0 and not absent. What a model
    that is gone has counted stays.
    """

    def __init__(self, lanes: Lanes, *, budget_s: float) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # a `_created` twin for each series is of no use here
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._lanes = lanes
        self._budget_s = budget_s
        self._instruments = Instruments(self.registry)
        self._metrics: dict[Labels, LaneMetrics] = {}
        self.registry.register(_LaneCollector(lanes))

    def of(self, labels: Labels) -> LaneMetrics:
        """Return the instruments of a model in a lane."""
        if (found := self._metrics.get(labels)) is None:
            found = LaneMetrics(self._instruments, labels, budget_s=self._budget_s)
            self._metrics[labels] = found
        return found

    def watch_caches(self, stats: Mapping[str, Callable[[], CacheStats]]) -> None:
        """Read what the named caches did and hold at each scrape."""
        self.registry.register(_CacheCollector(stats))

    def watch_keys(self, keys: Keys) -> None:
        """Read what the keys spent and how often they were refused at each scrape."""
        self.registry.register(_KeyCollector(keys))

    def exposition(self) -> bytes:
        """Return all metrics in Prometheus' text format."""
        for served in self._lanes:
            self.of(served.labels)
        return generate_latest(self.registry)


class _LaneCollector(Collector):
    """Turns what models know of themselves into metrics, as long as they are served."""

    def __init__(self, lanes: Lanes) -> None:
        self._lanes = lanes

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics of all lanes."""
        gauge = partial(GaugeMetricFamily, labels=LABELS)
        ready = gauge("disranker_ready", "1 when ready for traffic.")
        lane_ready = gauge("disranker_lane_ready", "1 when the lane's model may rank.")
        weight = gauge("disranker_lane_weight", "Part of the routing keys that go to the lane.")
        generation = GaugeMetricFamily(
            "disranker_split_generation", "Of the decision that set the lanes' weights."
        )
        generation.add_metric((), self._lanes.split.weight.generation)
        speed = gauge(
            "disranker_engine_tokens_per_second", "Speed of the latest launches, all cores."
        )
        depths = {
            unit: gauge(f"disranker_queue_{unit}", f"Waiting {unit}, not yet launched.")
            for unit in ("requests", "pairs", "tokens")
        }
        triton = gauge(
            "disranker_triton_model_version",
            "Triton's number of the model that answered last; NaN before the first answer.",
        )
        wasted = CounterMetricFamily(
            "disranker_wasted_tokens",
            "Tokens the model was run on for requests that expired, failed or were abandoned.",
            labels=LABELS,
        )
        info = GaugeMetricFamily(
            "disranker_model_info",
            "The model served; always 1.",
            labels=(*LABELS, "precision", "engine", "bundle_version"),
        )
        ready.add_metric(self._lanes.stable.labels, self._lanes.readiness.reason is None)
        for served in self._lanes:
            labels, model, runner = served.labels, served.model, served.model.runner
            lane_ready.add_metric(labels, model.trust.fault is None)
            weight.add_metric(labels, self._lanes.weight_of(served.variant))
            speed.add_metric(labels, model.pace.tokens_per_s)
            depth = model.depth
            for unit, family in depths.items():
                family.add_metric(labels, getattr(depth, unit))
            wasted.add_metric(labels, model.wasted_tokens)
            if isinstance(runner.engine, RemoteEngine):
                triton.add_metric(labels, runner.engine.served_version)
            version = model.bundle.manifest.version
            info.add_metric((*labels, runner.precision, runner.name, version), 1)
        yield from (ready, lane_ready, weight, generation, speed, *depths.values(), wasted, info)
        if triton.samples:
            yield triton


class _CacheCollector(Collector):
    """Turns caches' own counts into metrics."""

    def __init__(self, stats: Mapping[str, Callable[[], CacheStats]]) -> None:
        self._stats = stats

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics of all caches."""
        lookups = CounterMetricFamily(
            "disranker_cache_lookups",
            "Candidates looked up: found (hit), computed (miss), or answered by the same work as "
            "another candidate (shared).",
            labels=("cache", "result"),
        )
        gauge = partial(GaugeMetricFamily, labels=("cache",))
        size = gauge("disranker_cache_bytes", "Memory the cache takes.")
        entries = gauge("disranker_cache_entries", "What the cache holds.")
        for cache, stats_of in self._stats.items():
            stats = stats_of()
            lookups.add_metric((cache, "hit"), stats.hits)
            lookups.add_metric((cache, "miss"), stats.misses)
            lookups.add_metric((cache, "shared"), stats.shared)
            size.add_metric((cache,), stats.size_bytes)
            entries.add_metric((cache,), stats.entries)
        yield from (lookups, size, entries)


class _KeyCollector(Collector):
    """Turns the keys' own counts into metrics; a name is the operator's, never a request's."""

    def __init__(self, keys: Keys) -> None:
        self._keys = keys

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics of all keys."""
        tokens = CounterMetricFamily(
            "disranker_key_tokens", "Tokens ranked for a key.", labels=("key",)
        )
        refusals = CounterMetricFamily(
            "disranker_key_refusals",
            "Requests refused for their key: none (missing) or none of ours (unknown), both "
            "without a name, not for this endpoint (scope), or its tokens used up (rate).",
            labels=("key", "reason"),
        )
        for reason, count in self._keys.refusals.items():
            refusals.add_metric(("", reason), count)
        for holder in self._keys.holders:
            name = holder.key.name
            tokens.add_metric((name,), holder.tokens)
            for reason, count in holder.refusals.items():
                refusals.add_metric((name, reason), count)
        yield from (tokens, refusals)
