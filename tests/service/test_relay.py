# ruff: noqa: ARG002 - fakes have the signature of what they stand for
"""The way to an engine that batches itself, with one that does as it is told."""

import asyncio
import math
from collections.abc import Sequence
from time import monotonic
from typing import Any

import numpy as np
import pytest

from service.contract.encoding import TokenPair
from service.contract.types import Scores
from service.engines.engine import EngineError, EngineOverloadedError, EngineUnavailableError
from service.ranking.admission import Ticket
from service.ranking.errors import NotReadyError, OverloadedError, ScoringError
from service.ranking.health import MAX_FAILURES
from service.ranking.pace import Pace
from service.ranking.relay import Relay
from tests.service.fakes import pair

pytestmark = pytest.mark.anyio


class ToldEngine:
    """Answers once it may, with `error` or with the scores of the first `reached` pairs."""

    served_version = math.nan

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.error: EngineError | None = None
        self.reached: int | None = None
        self.lows: list[bool] = []

    async def score(
        self, pairs: Sequence[TokenPair], deadline: float, *, low: bool = False
    ) -> Scores:
        self.lows.append(low)
        await self.open.wait()
        if self.error is not None:
            raise self.error
        scored = np.arange(len(pairs)) < (len(pairs) if self.reached is None else self.reached)
        tokens = sum(len(pair) for pair, done in zip(pairs, scored, strict=True) if done)
        return Scores(np.ones(len(pairs), np.float32), scored, tokens, 2 * tokens)

    async def check(self) -> None: ...

    async def close(self) -> None: ...


class Bench:
    """A relay, its engine and what it reports."""

    def __init__(self) -> None:
        self.engine, self.pace, self.faults = ToldEngine(), Pace(), list[str]()
        self.relay = Relay(self.engine, pace=self.pace, on_fault=self.faults.append)

    def ask(self, n: int = 1, **ticket: Any) -> asyncio.Task[Scores]:
        pairs = [pair(tokens=10) for _ in range(n)]
        return asyncio.create_task(self.relay.score(pairs, Ticket(math.inf, **ticket)))


@pytest.fixture
def bench() -> Bench:
    return Bench()


async def test_requests_go_side_by_side_and_are_counted(bench: Bench) -> None:
    first, second = bench.ask(3), bench.ask(2, low=True)
    await asyncio.sleep(0)
    assert bench.engine.lows == [False, True]
    depth = bench.relay.depth
    assert (depth.requests, depth.pairs, depth.tokens) == (2, 5, 50)
    bench.engine.open.set()
    scores = await first
    assert (scores.real_tokens, scores.padded_tokens) == (30, 60)
    assert (await second).complete
    assert bench.relay.depth.requests == bench.relay.depth.tokens == 0


async def test_speed_is_that_of_all_requests_together(bench: Bench) -> None:
    began = monotonic()
    requests = [bench.ask(100) for _ in range(8)]
    await asyncio.sleep(0.05)
    bench.engine.open.set()
    await asyncio.gather(*requests)
    assert 8000 / (monotonic() - began) <= bench.pace.tokens_per_s <= 8000 / 0.05
    assert bench.pace.best_tokens_per_s <= 8000 / 0.05


async def test_full_queue_is_no_fault(bench: Bench) -> None:
    bench.engine.open.set()
    bench.engine.error = EngineOverloadedError("full")
    for _ in range(2 * MAX_FAILURES):
        with pytest.raises(OverloadedError) as refused:
            await bench.ask()
        assert refused.value.retry_after_s is not None
    assert bench.faults == []


async def test_engine_that_is_gone_is_a_fault_at_once(bench: Bench) -> None:
    bench.engine.open.set()
    bench.engine.error = EngineUnavailableError("gone")
    with pytest.raises(NotReadyError):
        await bench.ask()
    assert bench.faults == ["gone"]


async def test_failures_are_a_fault_once_there_were_several(bench: Bench) -> None:
    bench.engine.open.set()
    bench.engine.error = EngineError("bad")
    for _ in range(MAX_FAILURES):
        assert bench.faults == []
        with pytest.raises(ScoringError):
            await bench.ask()
    assert len(bench.faults) == 1
    assert bench.relay.depth.requests == 0


async def test_scores_that_came_too_late_are_waste(bench: Bench) -> None:
    bench.engine.open.set()
    bench.engine.reached = 2
    assert not (await bench.ask(5)).complete
    assert bench.relay.wasted_tokens == 20
    assert not (await bench.ask(5, partial=True)).complete
    assert bench.relay.wasted_tokens == 20
    assert bench.relay.depth.requests == 0


async def test_cancelled_request_is_forgotten(bench: Bench) -> None:
    request = bench.ask(3)
    await asyncio.sleep(0)
    request.cancel()
    await asyncio.gather(request, return_exceptions=True)
    assert bench.relay.depth.requests == bench.relay.depth.tokens == 0
