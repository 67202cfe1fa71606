"""Memory under requests of every shape, for a long time, and of a service that leaks."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from time import monotonic

import httpx

from loadtest.server import Server
from loadtest.soak.results import Slope, SoakResult, Watch
from loadtest.soak.shapes import Shape, shapes
from loadtest.soak.trend import Trend, floors, trend
from loadtest.soak.watched import logged_errors, rss_bytes, service
from service.contract.bundle import Bundle

CLIENTS = 4
SAMPLE_S = 0.1
BLOCKS = 20
MB = 1_000_000
ABANDONED = 0

LEAST_MINUTES = 1
"""The control runs a sixth of it: 100 samples, 5 a block."""

CONTROL_SHARE = 1 / 6

LEAK_BYTES = 20_000
"""What the control keeps of each request."""

SMALL_CACHES = ("--token-cache-mb", "1", "--score-cache-mb", "1")
"""Full within the warm-up, so that what grows afterwards is no cache."""


@dataclass(slots=True)
class Series:
    """What was seen, sample by sample, after the warm-up.

    Attributes:
        seconds: Since the warm-up ended.
        requests: How many had ended, warm-up included.
        rss_bytes: Resident memory.
        endings: How many requests ended with which status; `ABANDONED` by their clients.
    """

    seconds: list[float] = field(default_factory=list)
    requests: list[int] = field(default_factory=list)
    rss_bytes: list[int] = field(default_factory=list)
    endings: Counter[int] = field(default_factory=Counter)

    @property
    def mb_per_hour(self) -> Trend:
        """The trend of memory in time."""
        hours, lowest = floors([s / 3600 for s in self.seconds], self.rss_bytes, blocks=BLOCKS)
        return trend(hours, lowest / MB)

    @property
    def bytes_per_request(self) -> Trend:
        """The trend of memory in requests."""
        return trend(*floors(self.requests, self.rss_bytes, blocks=BLOCKS))


def measure(
    bundle: Bundle, *, minutes: float, warm_up_requests: int, say: Callable[[str], None]
) -> SoakResult:
    """Soak the service, then for a sixth of the time one that leaks.

    Args:
        bundle: What is served.
        minutes: How long memory is watched; at least `LEAST_MINUTES`.
        warm_up_requests: How many are sent before.
        say: Told what is being done.

    Raises:
        ServerError: The service did not get ready.
        httpx.HTTPError: It broke a connection or could not be reached.
    """
    say(f"the service, {minutes:g} minutes after {warm_up_requests} requests to warm up")
    steady = _watch(bundle, 0, minutes, warm_up_requests)
    minutes *= CONTROL_SHARE
    say(f"one that keeps {LEAK_BYTES} bytes of each request, {minutes:.1f} minutes")
    return SoakResult(steady=steady, control=_watch(bundle, LEAK_BYTES, minutes, warm_up_requests))


def _watch(bundle: Bundle, leak_bytes: int, minutes: float, warm_up_requests: int) -> Watch:
    flags = ("--bundle", str(bundle.root), *SMALL_CACHES, "--log-level", "info")
    with service(*flags, leak_bytes=leak_bytes) as server:
        series = asyncio.run(soak(server, seconds=60 * minutes, warm_up_requests=warm_up_requests))
        errors = logged_errors(server)
    seconds, lowest = floors(series.seconds, series.rss_bytes, blocks=BLOCKS)
    return Watch(
        leak_bytes=leak_bytes,
        seconds=series.seconds[-1],
        requests=series.requests[-1] - series.requests[0],
        block_s=tuple(seconds.round(1).tolist()),
        floor_mb=tuple((lowest / MB).round(3).tolist()),
        mb_per_hour=Slope.of(series.mb_per_hour),
        bytes_per_request=Slope.of(series.bytes_per_request),
        endings={str(status): times for status, times in sorted(series.endings.items())},
        errors=dict(errors),
    )


async def soak(
    server: Server,
    *,
    seconds: float,
    warm_up_requests: int,
    max_candidates: int = 1000,
    seed: int = 0,
) -> Series:
    """Send requests of every shape from several clients, and return what the service's memory did.

    Raises:
        httpx.HTTPError: The service broke a connection or could not be reached.
    """
    series = Series()
    source = shapes(seed=seed, max_candidates=max_candidates)
    async with (
        httpx.AsyncClient(base_url=server.url, timeout=300) as http,
        asyncio.TaskGroup() as group,
    ):
        clients = [group.create_task(_ask_on(http, source, series)) for _ in range(CLIENTS)]
        while series.endings.total() < warm_up_requests:  # noqa: ASYNC110 - sampled, like the rest
            await asyncio.sleep(SAMPLE_S)
        began = monotonic()
        while (since := monotonic() - began) < seconds:
            series.seconds.append(since)
            series.requests.append(series.endings.total())
            series.rss_bytes.append(rss_bytes(server))
            await asyncio.sleep(SAMPLE_S)
        for client in clients:
            client.cancel()
    return series


async def _ask_on(http: httpx.AsyncClient, source: Iterator[Shape], series: Series) -> None:
    for shape in source:
        series.endings[await _ask(http, shape)] += 1


async def _ask(http: httpx.AsyncClient, shape: Shape) -> int:
    if shape.ending == "answer":
        return (await http.post("/rank", content=shape.body)).status_code
    content = shape.body if shape.ending == "leave" else _cut(shape.body)
    with suppress(TimeoutError):
        async with asyncio.timeout(shape.patience_s):
            return (await http.post("/rank", content=content)).status_code
    return ABANDONED


async def _cut(body: bytes) -> AsyncIterator[bytes]:
    yield body[: len(body) // 2]
    await asyncio.Event().wait()
