"""A service under requests of every shape for a long time: does its memory stay where it is?

`python -m loadtest.soak --minutes 60`, or `--help`.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field
from time import monotonic

import httpx

from loadtest.server import Server
from loadtest.shapes import Shape, shapes
from loadtest.trend import Trend, floors, trend
from loadtest.watched import logged_errors, rss_bytes, service

CLIENTS = 4
SAMPLE_S = 0.1
BLOCKS = 20
MB = 1_000_000
ABANDONED = 0

LIMIT_MB_PER_HOUR = 5.0
LEAST_MINUTES = 1
"""The control runs a sixth of it: 100 samples, 5 a block."""

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


def main(arguments: Sequence[str] | None = None) -> int:
    """Soak the service, then one that leaks; return 0 where only the latter's memory rises."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.minutes < LEAST_MINUTES:
        parser.error(f"--minutes: at least {LEAST_MINUTES} for a trend, got {options.minutes:g}")
    flags = ("--bundle", options.bundle, *SMALL_CACHES, "--log-level", "info")
    verdicts = []
    for leak_bytes, minutes in ((0, options.minutes), (LEAK_BYTES, options.minutes / 6)):
        with service(*flags, leak_bytes=leak_bytes) as server:
            series = asyncio.run(
                soak(server, seconds=60 * minutes, warm_up_requests=options.warm_up_requests)
            )
            errors = logged_errors(server)
        found = series.mb_per_hour
        verdicts.append(found.low if leak_bytes else found.high)
        print(_line(series, leak_bytes), flush=True)
        for message, times in errors.items():
            print(f"  logged {times} times: {message}")
    bounded, caught = verdicts[0] < LIMIT_MB_PER_HOUR, verdicts[1] > LIMIT_MB_PER_HOUR
    print(f"bounded: {'yes' if bounded else 'NO'}; leak caught: {'yes' if caught else 'NO'}")
    return 0 if bounded and caught else 1


def _line(series: Series, leak_bytes: int) -> str:
    name = f"control, leaking {leak_bytes} bytes a request" if leak_bytes else "service"
    hour, each = series.mb_per_hour, series.bytes_per_request
    endings = ", ".join(f"{status}: {n}" for status, n in sorted(series.endings.items()))
    return (
        f"{name}: {series.rss_bytes[0] / MB:.1f} MB after the warm-up, "
        f"{series.rss_bytes[-1] / MB:.1f} MB after {series.seconds[-1] / 60:.1f} minutes and "
        f"{series.requests[-1] - series.requests[0]} requests; "
        f"{hour.slope:.2f} MB/h [{hour.low:.2f}, {hour.high:.2f}], "
        f"{each.slope:.0f} bytes a request [{each.low:.0f}, {each.high:.0f}]; "
        f"statuses (0: abandoned) {endings}"
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m loadtest.soak", description=main.__doc__)
    parser.add_argument("--minutes", type=float, default=60, help="after the warm-up; %(default)s")
    parser.add_argument("--bundle", default="models/default", help="%(default)s")
    parser.add_argument(
        "--warm-up-requests", type=int, default=2_000, help="before memory is watched; %(default)s"
    )
    return parser


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
    try:
        async with asyncio.timeout(shape.patience_s):
            return (await http.post("/rank", content=content)).status_code
    except TimeoutError:
        return ABANDONED


async def _cut(body: bytes) -> AsyncIterator[bytes]:
    yield body[: len(body) // 2]
    await asyncio.Event().wait()


if __name__ == "__main__":
    sys.exit(main())
