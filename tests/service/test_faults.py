# ruff: noqa: ASYNC110 - polling is what a client of these endpoints does
"""What goes wrong below the service and beside it, as its clients see it over HTTP."""

import ast
import asyncio
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import anyio
import httpx
import numpy as np
import pytest
from fastapi import FastAPI

import service
from service.contract.bundle import Bundle
from service.contract.encoding import TokenPair
from service.contract.types import Scores
from service.engines.local import LocalEngine
from service.scorers.onnx import OnnxScorer
from tests.service.asking import assert_problem, request
from tests.service.conftest import listening
from tests.service.test_operations import samples

pytestmark = pytest.mark.anyio

Mood = Literal["well", "raise", "short", "nan", "hang"]
REPEATS = 200
BAD = {"text": "kettle " * REPEATS}


class MoodyEngine:
    """The real engine, but moody about launches that repeat a word too often, or about all."""

    def __init__(self, bundle: Bundle) -> None:
        self.mood: Mood = "well"
        self.minimum = REPEATS
        self.open = asyncio.Event()
        self.open.set()
        self.launched = 0
        self._engine = LocalEngine(OnnxScorer(bundle.model_path("int8"), threads=1))

    async def score(self, pairs: Sequence[TokenPair], deadline: float) -> Scores:
        self.launched += len(pairs)
        await self.open.wait()
        scores = await self._engine.score(pairs, deadline)
        if max(np.bincount(pair.input_ids).max() for pair in pairs) < self.minimum:
            return scores
        if self.mood == "raise":
            raise RuntimeError("the engine broke on secret words")
        if self.mood == "short":
            return replace(scores, values=scores.values[1:], scored=scores.scored[1:])
        if self.mood == "nan":
            return replace(scores, values=scores.values * np.float32("nan"))
        if self.mood == "hang":
            await asyncio.Event().wait()
        return scores


@pytest.fixture
def engine(bundle: Bundle) -> MoodyEngine:
    return MoodyEngine(bundle)


async def until_ready(client: httpx.AsyncClient, *, ready: bool) -> str | None:
    """Return the reason, once the readiness is as wanted."""
    with anyio.fail_after(20):
        while (await client.get("/readyz")).is_success != ready:
            await asyncio.sleep(0.01)
    reason: str | None = (await client.get("/readyz")).json()["reason"]
    return reason


@pytest.mark.parametrize("mood", ["raise", "short", "nan"])
async def test_a_failure_is_a_fixed_500_of_the_request_at_fault_and_of_no_other(
    build_app: Callable[..., FastAPI], engine: MoodyEngine, mood: Mood
) -> None:
    async with listening(build_app(engine, launch_tokens=5_000)) as client:
        engine.mood = mood
        engine.open.clear()  # so that all but the first wait, and share a launch
        before = engine.launched
        asked = [request(query=f"cat {n}") for n in range(5)]
        asked.insert(3, request(candidates=[BAD]))
        tasks = []
        with anyio.fail_after(20):
            for body in asked:
                tasks.append(asyncio.create_task(client.post("/rank", json=body)))
                while engine.launched == before:
                    await asyncio.sleep(0.001)
            while (await samples(client))["disranker_queue_requests", ""] < 5:
                await asyncio.sleep(0.01)
        engine.open.set()
        answers = await asyncio.gather(*tasks)
        problem = assert_problem(answers.pop(3), 500)
        assert problem["detail"] == "the ranking model failed on this request"
        assert [answer.status_code for answer in answers] == [200] * 5
        assert (await client.get("/readyz")).status_code == 200


async def test_a_broken_engine_turns_readiness_red_until_its_golden_scores_match(
    build_app: Callable[..., FastAPI], engine: MoodyEngine
) -> None:
    async with listening(build_app(engine)) as client:
        engine.mood, engine.minimum = "raise", 0
        for n in range(5):
            answer = await client.post("/rank", json=request(query=f"cat {n}"))
            assert assert_problem(answer, 500)["error_type"] == "scoring_failed"
        reason = await until_ready(client, ready=False)
        assert reason is not None
        assert "failed 5 times in a row" in reason
        refused = await client.post("/rank", json=request())
        assert assert_problem(refused, 503)["error_type"] == "not_ready"
        assert refused.headers["retry-after"] == "1"
        assert (await client.get("/livez")).status_code == 200
        engine.mood = "well"
        assert await until_ready(client, ready=True) is None
        assert (await client.post("/rank", json=request(query="cat 0"))).status_code == 200


async def test_a_hung_engine_turns_readiness_red_until_it_answers_again(
    build_app: Callable[..., FastAPI], engine: MoodyEngine
) -> None:
    async with listening(build_app(engine, hang_s=0.3)) as client:
        engine.mood, engine.minimum = "hang", 0
        expired = await client.post("/rank", json=request(query="dog", deadline_ms=100))
        assert assert_problem(expired, 504)["error_type"] == "deadline_expired"
        failed = await client.post("/rank", json=request())
        assert failed.status_code in (500, 503)  # 503 where the first hang was noticed already
        reason = await until_ready(client, ready=False)
        assert reason is not None
        assert "hangs" in reason
        engine.mood = "well"
        await until_ready(client, ready=True)
        assert (await client.post("/rank", json=request())).status_code == 200


async def test_one_bad_request_again_and_again_does_not_keep_others_out(
    build_app: Callable[..., FastAPI], engine: MoodyEngine
) -> None:
    async with listening(build_app(engine)) as client:
        engine.mood = "raise"
        for _ in range(7):
            answer = await client.post("/rank", json=request(candidates=[BAD]))
            assert answer.status_code in (500, 503)
        await until_ready(client, ready=True)
        assert (await client.post("/rank", json=request())).status_code == 200


async def test_the_work_of_a_client_that_left_is_not_run(
    build_app: Callable[..., FastAPI], engine: MoodyEngine
) -> None:
    async with listening(build_app(engine)) as client:
        engine.open.clear()
        before = engine.launched
        first = asyncio.create_task(client.post("/rank", json=request()))
        with anyio.fail_after(10):
            while engine.launched == before:
                await asyncio.sleep(0.001)
            body = json.dumps(request(candidates=[{"text": f"left {n}"} for n in range(9)]))
            _, leaving = await asyncio.open_connection(client.base_url.host, client.base_url.port)
            leaving.write(b"POST /rank HTTP/1.1\r\nHost: x\r\nContent-Length: ")
            leaving.write(f"{len(body)}\r\n\r\n{body}".encode())
            while (await samples(client))["disranker_queue_pairs", ""] != 9:
                await asyncio.sleep(0.001)
            leaving.close()
            while (await samples(client))["disranker_queue_pairs", ""] != 0:
                await asyncio.sleep(0.001)
        engine.open.set()
        assert (await first).status_code == 200
        assert (await client.post("/rank", json=request(query="dog"))).status_code == 200
        assert engine.launched == before + 2
        assert (await samples(client))["disranker_request_duration_seconds_count", "cancelled"] == 1


def test_no_clock_that_can_go_backwards_is_read() -> None:
    """Deadlines and durations come from `monotonic`, so a clock that is set changes nothing."""
    for path in Path(service.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                assert all(name.name != "time" for name in node.names), path
            if isinstance(node, ast.ImportFrom) and node.module == "time":
                # The event log's times, and a rollout's, which outlives the process.
                stamps = path.name in ("serving.py", "command.py", "decider_admin.py")
                known = {"monotonic", "sleep", *(["time"] if stamps else [])}
                assert {name.name for name in node.names} <= known, path
            if isinstance(node, ast.Attribute):
                # vLLM's answers say when they were made, and so do the event log's files.
                told = path.name in ("score.py", "event_log.py")
                assert told or node.attr not in ("now", "utcnow", "today"), path
