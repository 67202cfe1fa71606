"""Latencies of the ways to Triton's model, by turns within one run."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from time import perf_counter

import numpy as np

from loadtest.statistics import median, median_ratio, percentile
from loadtest.triton.ways import Feeds, InProcess, Way, by_message, by_shared_memory
from service.contract.bundle import Bundle
from service.contract.encoding import TokenPair
from service.contract.manifest import Precision
from service.contract.triton import model_name, padding
from service.scorers.buckets import padded

WAYS = ("in process", "gRPC", "shared memory")
CLIENTS = (1, 8)
NEAR = 1e-3


class WaysError(Exception):
    """The ways do not give the same scores; the message says by how much."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What to ask, how often.

    Attributes:
        url: Triton's gRPC.
        precision: Of the model that it serves.
        pairs: Pairs a request.
        width: Tokens a pair.
        rounds: Turns of each way.
        seconds: How long a turn lasts.
    """

    url: str
    precision: Precision
    pairs: int
    width: int
    rounds: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Row:
    """A way with so many clients: milliseconds, one value a round."""

    way: str
    clients: int
    p50_ms: tuple[float, ...]
    p99_ms: tuple[float, ...]

    def ratio(self, other: Row, percent: int = 50) -> float:
        """Return the median of the rounds' ratios to another way."""
        if percent == 50:
            return median_ratio(self.p50_ms, other.p50_ms)
        return median_ratio(self.p99_ms, other.p99_ms)

    @property
    def middle_ms(self) -> tuple[float, float]:
        """The medians over rounds of p50 and p99."""
        return median(self.p50_ms), median(self.p99_ms)


async def measure(bundle: Bundle, plan: Plan) -> list[Row]:
    """Return a row for each way and number of clients.

    Raises:
        WaysError: The ways do not score alike.
    """
    feeds = _feeds(bundle, plan)
    n_bytes = sum(values.nbytes for values in feeds.values()) + 4 * plan.pairs
    model = model_name(bundle.manifest)
    async with AsyncExitStack() as stack:
        local = InProcess(bundle.model_path(plan.precision))
        message = await stack.enter_async_context(by_message(plan.url, model))
        regions = [
            await stack.enter_async_context(by_shared_memory(plan.url, model, n_bytes))
            for _ in range(max(CLIENTS))
        ]
        # Each client of shared memory has a region; the others share what they ask.
        asked: dict[str, Sequence[Way]] = {
            "in process": [local] * max(CLIENTS),
            "gRPC": [message] * max(CLIENTS),
            "shared memory": regions,
        }
        await _require_alike({name: ways[0] for name, ways in asked.items()}, feeds)
        turns: dict[tuple[str, int], list[list[float]]] = {}
        for _ in range(plan.rounds):
            for clients in CLIENTS:
                for name in WAYS:
                    found = await _turn(asked[name][:clients], feeds, plan.seconds)
                    turns.setdefault((name, clients), []).append(found)
    return [
        Row(
            name,
            clients,
            tuple(percentile(turn, 50) for turn in found),
            tuple(percentile(turn, 99) for turn in found),
        )
        for (name, clients), found in turns.items()
    ]


def _feeds(bundle: Bundle, plan: Plan) -> Feeds:
    encoder, golden = bundle.encoder(), bundle.golden[0]
    (first, *_) = encoder.encode(golden.query, golden.candidates)
    ids = np.resize(first.input_ids, plan.width)  # its tokens, again and again
    pairs = [TokenPair(ids, min(first.first_segment, plan.width))] * plan.pairs
    known = padded(pairs, plan.width, padding(bundle.manifest))
    return {name: known[name] for name in bundle.manifest.inputs}


async def _require_alike(ways: dict[str, Way], feeds: Feeds) -> None:
    found = {name: await way.score(feeds) for name, way in ways.items()}
    for name, scores in found.items():
        largest = float(np.abs(scores - found["in process"]).max())
        if not largest <= NEAR:
            raise WaysError(f"{name} is {largest:.6g} off the scores in process")


async def _turn(ways: Sequence[Way], feeds: Feeds, seconds: float) -> list[float]:
    """Return the latencies in ms of clients that ask one request after the other."""
    end, latencies = perf_counter() + seconds, list[float]()

    async def client(way: Way) -> None:
        while perf_counter() < end:
            began = perf_counter()
            await way.score(feeds)
            latencies.append(1000 * (perf_counter() - began))

    await asyncio.gather(*(client(way) for way in ways))
    return latencies
