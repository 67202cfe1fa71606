"""The shadow of an application, put together from its settings."""

from __future__ import annotations

import asyncio

from prometheus_client import CollectorRegistry

from service.contract.decoder_checkpoint import checkpoint_encoder
from service.rollout.breaker import Breaker, State
from service.rollout.event_log import EventLog, EventLogCollector
from service.rollout.lanes import Labels, Lanes, Variant
from service.rollout.metrics import ComparisonMetrics
from service.rollout.records import Recorder
from service.rollout.shadow import Limits, Shadow
from service.rollout.shadow_metrics import ShadowMetrics
from service.rollout.target import LaneTarget, RemoteTarget, Target
from service.scorers.wire import Wire
from service.settings import Settings, SettingsError

MB = 1_000_000


class Shadowing:
    """A shadow with all that it needs, from start to stop.

    Attributes:
        shadow: Takes answered requests.
    """

    def __init__(self, settings: Settings, lanes: Lanes, registry: CollectorRegistry) -> None:
        """Put it together; nothing runs yet.

        Raises:
            SettingsError: Something is not installed, the tokenizer cannot be used, or there is an
                event log of nothing.
        """
        sources = settings.shadow, settings.shadow_url, settings.canary, settings.admin
        if settings.event_log is not None and not any(sources):
            raise SettingsError("event_log: there is no shadow, and never will be without admin")
        self._lanes = lanes
        self._remote = _remote(settings) if settings.shadow_url else None
        self._breakers: dict[Variant, tuple[Labels, Breaker]] = {}  # not the models: they may leave
        self._events: EventLog | None = None
        if settings.event_log is not None:
            self._events = EventLog(
                settings.event_log,
                file_bytes=int(settings.event_log_file_mb * MB),
                file_s=settings.event_log_file_s,
            )
            registry.register(EventLogCollector(self._events))
        metrics = ShadowMetrics(registry)
        self.shadow = Shadow(
            self._target,
            _limits(settings),
            queue_s=self._queue_s,
            metrics=metrics,
            recorder=Recorder(
                ComparisonMetrics(registry), self._events, texts=settings.event_log_texts
            ),
        )
        metrics.watch(
            waiting=lambda: self.shadow.waiting,
            breaker=self._breaker,
            sample=lambda: self.shadow.sample,
        )

    def start(self) -> None:
        """Begin to shadow."""
        self.shadow.start()

    async def stop(self) -> None:
        """Give up what waits, and let go of connections and files."""
        await self.shadow.stop()
        if self._remote is not None:
            await self._remote.close()
        if self._events is not None:
            await asyncio.to_thread(self._events.close)

    def _target(self, answered: Variant) -> Target | None:
        """Return what scores a lane's requests again.

        The shadow lane, where something is served there, else what is elsewhere; without either
        stable and canary score each other's.
        """
        served = self._lanes.get("shadow")
        if served is None and self._remote is not None:
            return self._remote
        if served is None and self._lanes.get("canary") is not None:
            served = self._lanes.get("stable" if answered == "canary" else "canary")
        if served is None:
            return None
        known = self._breakers.get(served.variant)
        if known is None or known[0] != served.labels:
            known = self._breakers[served.variant] = served.labels, Breaker()
        return LaneTarget(served, known[1])

    def _queue_s(self) -> float:
        """Return how long a request to rank would wait now, in the lane where that is longest."""
        return max(
            served.model.depth.tokens / served.model.pace.tokens_per_s
            for served in self._lanes
            if served.variant != "shadow"
        )

    def _breaker(self) -> State:
        target = self._target("stable")
        return "closed" if target is None else target.breaker.state


def _limits(settings: Settings) -> Limits:
    return Limits(
        sample=settings.shadow_sample,
        concurrency=settings.shadow_concurrency,
        waiting=settings.shadow_waiting,
        timeout_s=settings.shadow_timeout_ms / 1000,
        max_queue_s=settings.shadow_max_queue_ms / 1000,
        requests_per_s=settings.shadow_requests_per_s,
        tokens_per_s=settings.shadow_tokens_per_s,
    )


def _remote(settings: Settings) -> RemoteTarget:
    """Import aiohttp, which a service without a remote shadow neither has nor pays for."""
    try:
        from service.engines.remote import RemoteReranker
    except ModuleNotFoundError as error:
        raise SettingsError(
            f"shadow_url: {error.name} is not installed: pip install '.[remote]'"
        ) from error
    tokenizer, key = settings.shadow_tokenizer, settings.shadow_key
    try:
        wire = Wire(
            settings.shadow_protocol,
            model=settings.shadow_model,
            encoder=checkpoint_encoder(tokenizer) if tokenizer else None,
        )
    except ValueError as error:
        raise SettingsError(f"shadow_tokenizer: {error}") from error
    url = settings.shadow_url or ""
    reranker = RemoteReranker(url, wire, key=key.get_secret_value() if key else None)
    return RemoteTarget(reranker, url=url, model=settings.shadow_model)
