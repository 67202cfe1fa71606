"""A service under requests of every shape for a long time: does its memory stay where it is?"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from time import monotonic

import httpx

from loadtest.process import Service
from loadtest.shapes import Shape, shapes
from loadtest.trend import Trend, floors, trend

CLIENTS = 4
SAMPLE_S = 0.1
BLOCKS = 20
MB = 1_000_000
ABANDONED = 0


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


async def soak(
    running: Service,
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
        httpx.AsyncClient(base_url=running.url, timeout=300) as http,
        asyncio.TaskGroup() as group,
    ):
        clients = [group.create_task(_ask_on(http, source, series)) for _ in range(CLIENTS)]
        while series.endings.total() < warm_up_requests:  # noqa: ASYNC110 - sampled, like the rest
            await asyncio.sleep(SAMPLE_S)
        began = monotonic()
        while (since := monotonic() - began) < seconds:
            series.seconds.append(since)
            series.requests.append(series.endings.total())
            series.rss_bytes.append(running.rss_bytes)
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
    try:
        async with asyncio.timeout(shape.patience_s):
            return (await http.post("/rank", content=content)).status_code
    except TimeoutError:
        return ABANDONED


async def _cut(body: bytes) -> AsyncIterator[bytes]:
    yield body[: len(body) // 2]
    await asyncio.Event().wait()
