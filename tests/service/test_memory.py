"""Memory under requests of every shape: it comes to rest, and a leak would be seen."""

import asyncio
from pathlib import Path

from loadtest.soak.measure import SMALL_CACHES, Series, soak
from loadtest.soak.watched import service

LEAK_BYTES = 40_000
SECONDS = 4


def watched(bundle: Path, *, leak_bytes: int) -> Series:
    flags = ("--bundle", str(bundle), "--threads", "1", *SMALL_CACHES)
    with service(*flags, leak_bytes=leak_bytes) as server:
        return asyncio.run(soak(server, seconds=SECONDS, warm_up_requests=400, max_candidates=30))


def test_memory_comes_to_rest_and_a_leak_is_caught(bundle_path: Path) -> None:
    steady = watched(bundle_path, leak_bytes=0)
    assert steady.bytes_per_request.high < LEAK_BYTES / 2
    assert {0, 200, 400, 413, 422} <= steady.endings.keys()
    assert not any(status >= 500 and status != 504 for status in steady.endings)
    leaking = watched(bundle_path, leak_bytes=LEAK_BYTES)
    assert leaking.bytes_per_request.low > LEAK_BYTES / 2
