"""Shadows that fail in every way, at every request: the primary does not notice."""

from __future__ import annotations

import asyncio
import gc
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from time import monotonic
from typing import Any

import anyio
import httpx
import pytest

from service.contract.bundle import Bundle
from service.contract.types import Candidate
from service.engines.engine import Runner
from service.engines.local import LocalEngine
from service.ranking.admission import Ticket
from service.ranking.model import Model
from service.rollout import shadow
from service.rollout.breaker import Breaker
from service.rollout.lanes import Served
from service.rollout.target import LaneTarget
from service.scorers.onnx import OnnxScorer
from tests.service.conftest import Client
from tests.service.fakes import GatedEngine, one_core
from tests.service.rollout import teachers
from tests.service.rollout.teachers import Behaviour, Teacher
from tests.service.rollout.test_shadow import metric, outcomes, settled

pytestmark = pytest.mark.anyio

CLIENTS, EACH = 4, 25
SHADOW: dict[str, Any] = {
    "shadow_protocol": "tei",
    "shadow_sample": 1.0,
    "shadow_timeout_ms": 100,
    "shadow_waiting": 8,
    "shadow_max_queue_ms": 1e6,
}


async def dawdles(teacher: Teacher, body: dict[str, Any]) -> bytes:
    await asyncio.sleep(1)  # ten times what it may take
    return await teachers.answers(teacher, body)


async def breaks_off(*_: object) -> bytes:
    return b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n[{"


async def never_ends(*_: object) -> bytes:
    return b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + b"fffff\r\n" * 10_000


async def load(client: httpx.AsyncClient, *, size: int = 1) -> list[int]:
    """Rank from several clients at once; return all statuses."""
    statuses: list[int] = []

    async def ask(name: int) -> None:
        for number in range(EACH):
            texts = [{"text": f"cat {name} {number} " * size + "x" * n} for n in range(3)]
            answer = await client.post("/rank", json={"query": "cat", "candidates": texts})
            statuses.append(answer.status_code)

    async with anyio.create_task_group() as group:
        for name in range(CLIENTS):
            group.start_soon(ask, name)
    return statuses


@pytest.mark.parametrize(
    "behaviour",
    [
        teachers.hangs,
        teachers.crashes,
        dawdles,
        teachers.talks_nonsense,
        breaks_off,
        never_ends,
    ],
)
async def test_no_request_notices_a_shadow_that_fails(
    serving: Client, behaviour: Behaviour
) -> None:
    async with (
        Teacher(behaviour).run() as teacher,
        serving(shadow_url=teacher.url, **SHADOW) as client,
    ):
        assert await load(client) == [200] * CLIENTS * EACH
        found = await settled(client, CLIENTS * EACH)
        assert found["failed/internal"] == 0
        assert found["compared/"] == 0
        assert sum(found[f"failed/{reason}"] for reason in REASONS) >= 1
        # What does not get through is dropped: asked that rarely, it is not hurt either.
        assert len(teacher.bodies) < CLIENTS * EACH
        assert await metric(client, "disranker_shadow_waiting_requests") == 0


REASONS = ("late", "unavailable", "garbage", "refused", "error")


async def test_a_teacher_that_comes_back_is_asked_again(serving: Client) -> None:
    async with (
        Teacher(teachers.crashes).run() as teacher,
        serving(shadow_url=teacher.url, **SHADOW) as client,
    ):
        with anyio.fail_after(180):
            while await metric(client, "disranker_shadow_breaker_open") != 1:
                await load(client)
            teacher.behaviour = teachers.answers
            while not (await outcomes(client))["compared/"]:
                await load(client)
        assert await metric(client, "disranker_shadow_breaker_open") == 0
        assert (await outcomes(client))["dropped/breaker"] > 0


async def test_what_waits_for_a_hung_shadow_is_bounded(
    serving: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hundred requests with 2.5 MB of text, at a shadow that takes none of them away."""
    monkeypatch.setattr(shadow, "WAITING_CHARS", 100_000)
    settings = SHADOW | {"shadow_waiting": 1000, "shadow_timeout_ms": 600_000}
    async with (
        Teacher(teachers.hangs).run() as teacher,
        serving(shadow_url=teacher.url, token_cache_mb=0, score_cache_mb=0, **settings) as client,
    ):
        await load(client, size=2)  # a first time, for what stays anyway
        gc.collect()
        tracemalloc.start()
        await load(client, size=800)
        gc.collect()
        held, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert held < 1_500_000
        assert (await outcomes(client))["dropped/full"] > CLIENTS * EACH / 2


@asynccontextmanager
async def two_models(bundle: Bundle, primary: GatedEngine) -> AsyncIterator[tuple[Model, Model]]:
    """Run a model with an engine of the test's beside a real one, on one core."""
    shared = one_core()
    engine = LocalEngine(OnnxScorer(bundle.model_path("int8"), threads=1))
    stable = Model(bundle, Runner("onnx", primary, "int8", 1), shared)
    other = Model(bundle, Runner("onnx", engine, "int8", 1), shared)
    for model in (stable, other):
        model.start()
    await other.judged()
    try:
        yield stable, other
    finally:
        for model in (stable, other):
            await model.stop()


async def test_a_shadow_in_this_process_runs_only_while_nothing_waits(bundle: Bundle) -> None:
    primary, texts = GatedEngine(), [Candidate(None, "", f"cat {n}") for n in range(3)]
    async with two_models(bundle, primary) as (stable, other):
        await stable.judged()
        later = monotonic() + 60
        target = LaneTarget(Served("shadow", other), Breaker())
        other.trust.fault = None
        ended: list[str] = []

        async def run(name: str, work: Awaitable[object]) -> None:
            await work
            ended.append(name)

        primary.open.clear()
        before = len(primary.launches)  # of the golden queries
        with anyio.fail_after(120):
            async with asyncio.TaskGroup() as group:
                # One is being scored; then comes a shadow request, and after it another one.
                group.create_task(run("a", stable.lane.score("cat", texts, Ticket(later))))
                await until(lambda: len(primary.launches) > before and not stable.depth.requests)
                scoring = target.score("cat", texts, later)
                shadowed = group.create_task(scoring)
                await until(lambda: other.depth.requests == 1)
                group.create_task(run("b", stable.lane.score("dog", texts, Ticket(later))))
                await until(lambda: stable.depth.requests == 1)
                shadowed.add_done_callback(lambda _: ended.append("shadow"))
                primary.open.set()
    assert ended == ["a", "b", "shadow"]
    pairs = bundle.encoder().encode("cat", texts)
    expected = OnnxScorer(bundle.model_path("int8"), threads=1).score(pairs)
    assert shadowed.result().tolist() == expected.tolist()


async def until(true: Callable[[], bool]) -> None:
    while not true():  # noqa: ASYNC110
        await asyncio.sleep(0.01)
