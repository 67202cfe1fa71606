# ruff: noqa: ASYNC110 - polling is what a client of these endpoints does
"""More work than the engine can do, as clients see it."""

import asyncio
from collections.abc import Sequence
from typing import Any

import anyio
import httpx
import pytest

from service.api.schema import RankResponse
from service.contract.bundle import Bundle
from service.contract.encoding import TokenPair
from service.contract.types import Scores
from service.engines.local import LocalEngine
from service.ranking.pace import WINDOW
from service.scorers.onnx import OnnxScorer
from tests.service.asking import CAT, assert_problem, request
from tests.service.conftest import Client
from tests.service.test_operations import samples

pytestmark = pytest.mark.anyio

TOKENS_PER_S = 1_000


class SlowEngine:
    """The real engine at a steady pace of `TOKENS_PER_S`, once `slow`."""

    def __init__(self, bundle: Bundle) -> None:
        self.slow = False
        self._engine = LocalEngine(OnnxScorer(bundle.model_path("int8"), threads=1))

    async def score(self, pairs: Sequence[TokenPair], deadline: float) -> Scores:
        scores = await self._engine.score(pairs, deadline)
        if self.slow:
            await asyncio.sleep(scores.real_tokens / TOKENS_PER_S)
        return scores


@pytest.fixture
def engine(bundle: Bundle) -> SlowEngine:
    return SlowEngine(bundle)


def texts(count: int, *, words: int = 20, mark: str = "") -> list[dict[str, str]]:
    return [{"text": f"{mark} {n} " + "cat " * words} for n in range(count)]


async def slow_down(engine: SlowEngine, client: httpx.AsyncClient) -> None:
    """Slow the engine, and let the service learn it."""
    engine.slow = True
    for n in range(WINDOW):
        await client.post("/rank", json=request(query=f"cat {n}"))


async def fill(client: httpx.AsyncClient, **fields: Any) -> asyncio.Task[httpx.Response]:
    """Have about 1.5 s of work accepted, and return once it waits."""
    body = request(candidates=texts(60, mark="fill"), **fields)
    task = asyncio.create_task(client.post("/rank", json=body))
    with anyio.fail_after(10):
        while not (await samples(client))["disranker_queue_requests", ""]:
            await asyncio.sleep(0.001)
    return task


async def test_a_refusal_says_when_to_come_again_and_there_is_room_then(
    engine: SlowEngine, serving: Client
) -> None:
    async with serving(engine, launch_tokens=64) as client:
        await slow_down(engine, client)
        task = await fill(client)
        mine = request(candidates=texts(20, mark="mine"), deadline_ms=700, priority="low")
        refused = await client.post("/rank", json=mine)
        problem = assert_problem(refused, 429)
        assert problem["error_type"] == "overloaded"
        assert problem["predicted_wait_ms"] > 700
        hint_ms = int(refused.headers["retry-after-ms"])
        assert int(refused.headers["retry-after"]) == max(1, -(-hint_ms // 1000))
        for _ in range(5):  # the first hint is right on a machine that is as fast then as before
            await asyncio.sleep(hint_ms / 1000)
            again = await client.post("/rank", json={**mine, "deadline_ms": 1_400})
            if again.status_code == 200:
                break
            hint_ms = int(again.headers.get("retry-after-ms", "100"))
        assert again.status_code == 200, again.text
        assert (await task).status_code == 200


async def test_cached_pairs_are_free_whatever_waits(engine: SlowEngine, serving: Client) -> None:
    async with serving(engine, launch_tokens=64) as client:
        known = request(candidates=texts(30, mark="known"))
        expected = (await client.post("/rank", json=known)).json()["results"]
        await slow_down(engine, client)
        task = await fill(client)
        hurried = {"deadline_ms": 900, "priority": "low"}  # low waits for all that is accepted
        new = request(candidates=texts(30, mark="new"), **hurried)
        assert_problem(await client.post("/rank", json=new), 429)
        answer = await client.post("/rank", json={**known, **hurried})
        assert answer.status_code == 200, answer.text
        assert answer.json()["results"] == expected
        assert (await task).status_code == 200


async def test_low_priority_waits_for_all_normal_work(engine: SlowEngine, serving: Client) -> None:
    async with serving(engine, launch_tokens=64) as client:
        await slow_down(engine, client)
        order: list[str] = []

        async def ask(name: str, count: int, **fields: Any) -> None:
            body = request(candidates=texts(count, mark=name), **fields)
            assert (await client.post("/rank", json=body)).status_code == 200
            order.append(name)

        async with asyncio.TaskGroup() as group:
            group.create_task(ask("low", 60, priority="low", deadline_ms=20_000))
            await asyncio.sleep(0.05)
            for n in range(3):
                group.create_task(ask(f"normal {n}", 5))
        assert order[-1] == "low"


async def test_partial_returns_what_was_scored_and_the_rest_in_the_requests_order(
    engine: SlowEngine, serving: Client
) -> None:
    async with serving(engine, launch_tokens=64) as client:
        await slow_down(engine, client)
        n = 100
        partial = request(candidates=texts(n), deadline_ms=1_000, on_deadline="partial")
        response = await client.post("/rank", json=partial)
        assert response.status_code == 200, response.text
        assert RankResponse.model_validate_json(response.content).model_dump_json() == response.text
        answer = response.json()
        scored = answer["scored"]
        assert 0 < scored < n
        assert answer["degraded"] is True
        best, rest = answer["results"][:scored], answer["results"][scored:]
        scores = [result["score"] for result in best]
        assert scores == sorted(scores, reverse=True)
        assert all(0 <= result["relevance"] <= 1 for result in best)
        assert [(r["score"], r["relevance"]) for r in rest] == [(None, None)] * (n - scored)
        assert [result["index"] for result in rest] == sorted(result["index"] for result in rest)
        assert [result["rank"] for result in answer["results"]] == list(range(1, n + 1))
        assert sorted(result["index"] for result in answer["results"]) == list(range(n))
        engine.slow = False
        full = (await client.post("/rank", json={**partial, "deadline_ms": 20_000})).json()
        assert full["degraded"] is False
        assert full["scored"] == n
        alone = {result["index"]: result["score"] for result in full["results"]}
        assert all(result["score"] == alone[result["index"]] for result in best)
        counts = await samples(client)
        assert counts["disranker_request_duration_seconds_count", "degraded"] == 1


async def test_work_in_vain_is_counted(engine: SlowEngine, serving: Client) -> None:
    async with serving(engine, launch_tokens=64) as client:
        await client.post("/rank", json=request(candidates=[CAT]))
        before = await samples(client)
        assert before["disranker_wasted_tokens_total", ""] == 0
        assert before["disranker_engine_tokens_per_second", ""] > 0
        engine.slow = True
        answer = await client.post("/rank", json=request(candidates=texts(60), deadline_ms=400))
        assert_problem(answer, 504)
        assert (await samples(client))["disranker_wasted_tokens_total", ""] > 0
