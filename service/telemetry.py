"""What the service says of itself: Prometheus instruments and JSON logs."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from functools import partial
from typing import Any

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector

from service.api.keys import Keys
from service.contract.bundle import Bundle
from service.contract.triton import TritonPrecision
from service.engines.engine import EngineKind
from service.ranking.batcher import QueueDepth
from service.ranking.caches import CacheStats
from service.ranking.pace import Pace
from service.tracebacks import describe

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


class Telemetry:
    """The instruments of one app, in a registry of their own.

    Every label set exists from the start, so that a rate over it is 0 and not absent.
    """

    def __init__(
        self,
        bundle: Bundle,
        *,
        variant: str,
        precision: TritonPrecision,
        engine: EngineKind,
        budget_s: float,
    ) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # a `_created` twin for each series is of no use here
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._budget_s = budget_s
        self._labels = (bundle.manifest.name, bundle.short_version, variant)
        duration = self._histogram(
            "disranker_request_duration_seconds", "Seconds from request to response.", "outcome"
        )
        stage = self._histogram(
            "disranker_stage_duration_seconds", "Seconds of a ranked request's stages.", "stage"
        )
        self._pairs = self._counter("disranker_pairs_total", "Query-document pairs ranked.").labels(
            *self._labels
        )
        tokens = self._counter(
            "disranker_tokens_total",
            "Tokens of ranked pairs: real, and padded as run (none for a cached score).",
            "kind",
        )
        self._misses = self._counter(
            "disranker_budget_misses_total",
            "Requests to rank not answered within the latency budget, failed ones included.",
        )
        self._ready = self._gauge("disranker_ready", "1 when ready for traffic.")
        # Looking a label set up costs as much as counting, so each is looked up once.
        self._durations = {name: duration.labels(*self._labels, name) for name in OUTCOMES}
        self._stages = {name: stage.labels(*self._labels, name) for name in STAGES}
        self._real, self._padded = (tokens.labels(*self._labels, k) for k in ("real", "padded"))
        info = self._gauge(
            "disranker_model_info",
            "The model served; always 1.",
            "precision",
            "engine",
            "bundle_version",
        )
        info.labels(*self._labels, precision, engine, bundle.manifest.version).set(1)

    def watch_readiness(self, ready: Callable[[], bool]) -> None:
        """Read the readiness at each scrape."""
        self._ready.labels(*self._labels).set_function(lambda: float(ready()))

    def watch_queue(self, depth: Callable[[], QueueDepth]) -> None:
        """Read the queue's depth at each scrape."""
        for unit in ("requests", "pairs", "tokens"):
            gauge = self._gauge(f"disranker_queue_{unit}", f"Waiting {unit}, not yet launched.")
            gauge.labels(*self._labels).set_function(partial(_depth_of, depth, unit))

    def watch_engine(self, pace: Pace, *, wasted_tokens: Callable[[], int]) -> None:
        """Read the engine's speed, and the work it did in vain, at each scrape."""
        speed = self._gauge(
            "disranker_engine_tokens_per_second", "Speed of the latest launches, all cores."
        )
        speed.labels(*self._labels).set_function(lambda: pace.tokens_per_s)
        self.registry.register(_WasteCollector(self._labels, wasted_tokens))

    def watch_triton(self, served_version: Callable[[], float]) -> None:
        """Read which version of its model Triton answered from last at each scrape."""
        version = self._gauge(
            "disranker_triton_model_version",
            "Triton's number of the model that answered last; NaN before the first answer.",
        )
        version.labels(*self._labels).set_function(served_version)

    def watch_caches(self, stats: Mapping[str, Callable[[], CacheStats]]) -> None:
        """Read what the named caches did and hold at each scrape."""
        self.registry.register(_CacheCollector(self._labels, stats))

    def watch_keys(self, keys: Keys) -> None:
        """Read what the keys spent and how often they were refused at each scrape."""
        self.registry.register(_KeyCollector(self._labels, keys))

    def observe_request(self, outcome: str, seconds: float) -> None:
        """Count a request to rank, whatever became of it.

        One that was ranked later than the budget, or that we failed, misses it. One that its
        client spoilt or left, or that was refused at once, does not.
        """
        self._durations[outcome].observe(seconds)
        late = outcome in ("ok", "degraded") and seconds > self._budget_s
        if late or outcome in ("expired", "error"):
            self._misses.labels(*self._labels).inc()

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

    def exposition(self) -> bytes:
        """Return all metrics in Prometheus' text format."""
        return generate_latest(self.registry)

    def _histogram(self, name: str, text: str, label: str) -> Histogram:
        return Histogram(name, text, (*LABELS, label), buckets=BUCKETS_S, registry=self.registry)

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        counter = Counter(name, text, (*LABELS, *labels), registry=self.registry)
        if not labels:
            counter.labels(*self._labels)
        return counter

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(name, text, (*LABELS, *labels), registry=self.registry)


def _depth_of(depth: Callable[[], QueueDepth], unit: str) -> float:
    return float(getattr(depth(), unit))


class _WasteCollector(Collector):
    """Turns the batcher's own count into a metric."""

    def __init__(self, labels: tuple[str, str, str], wasted_tokens: Callable[[], int]) -> None:
        self._labels = labels
        self._wasted_tokens = wasted_tokens

    def collect(self) -> Iterator[Metric]:
        """Yield the metric."""
        wasted = CounterMetricFamily(
            "disranker_wasted_tokens",
            "Tokens the model was run on for requests that expired, failed or were abandoned.",
            labels=LABELS,
        )
        wasted.add_metric(self._labels, self._wasted_tokens())
        yield wasted


class _CacheCollector(Collector):
    """Turns caches' own counts into metrics."""

    def __init__(
        self, labels: tuple[str, str, str], stats: Mapping[str, Callable[[], CacheStats]]
    ) -> None:
        self._labels = labels
        self._stats = stats

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics of all caches."""
        lookups = CounterMetricFamily(
            "disranker_cache_lookups",
            "Candidates looked up: found (hit), computed (miss), or answered by the same work as "
            "another candidate (shared).",
            labels=(*LABELS, "cache", "result"),
        )
        size = GaugeMetricFamily(
            "disranker_cache_bytes", "Memory the cache takes.", labels=(*LABELS, "cache")
        )
        entries = GaugeMetricFamily(
            "disranker_cache_entries", "What the cache holds.", labels=(*LABELS, "cache")
        )
        for cache, stats_of in self._stats.items():
            stats, labels = stats_of(), (*self._labels, cache)
            lookups.add_metric((*labels, "hit"), stats.hits)
            lookups.add_metric((*labels, "miss"), stats.misses)
            lookups.add_metric((*labels, "shared"), stats.shared)
            size.add_metric(labels, stats.size_bytes)
            entries.add_metric(labels, stats.entries)
        yield from (lookups, size, entries)


class _KeyCollector(Collector):
    """Turns the keys' own counts into metrics; a name is the operator's, never a request's."""

    def __init__(self, labels: tuple[str, str, str], keys: Keys) -> None:
        self._labels = labels
        self._keys = keys

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics of all keys."""
        tokens = CounterMetricFamily(
            "disranker_key_tokens", "Tokens ranked for a key.", labels=(*LABELS, "key")
        )
        refusals = CounterMetricFamily(
            "disranker_key_refusals",
            "Requests refused for their key: none (missing) or none of ours (unknown), both "
            "without a name, not for this endpoint (scope), or its tokens used up (rate).",
            labels=(*LABELS, "key", "reason"),
        )
        for reason, count in self._keys.refusals.items():
            refusals.add_metric((*self._labels, "", reason), count)
        for holder in self._keys.holders:
            labels = (*self._labels, holder.key.name)
            tokens.add_metric(labels, holder.tokens)
            for reason, count in holder.refusals.items():
                refusals.add_metric((*labels, reason), count)
        yield from (tokens, refusals)


class JsonFormatter(logging.Formatter):
    """One JSON object a line; `extra={"fields": {...}}` adds keys."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as JSON."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": _message(record),
            **getattr(record, "fields", {}),
        }
        if record.exc_info and record.exc_info[1]:
            line["exception"] = describe(record.exc_info[1])
        return json.dumps(line, ensure_ascii=False, default=str)


def _message(record: logging.LogRecord) -> str:
    message = record.getMessage()
    # Its other lines are representations of tasks and the messages of their exceptions.
    return message.partition("\n")[0] if record.name == "asyncio" else message


def configure_logging(level: str) -> None:
    """Send all logs, uvicorn's among them, to stderr as JSON lines."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level.upper())
