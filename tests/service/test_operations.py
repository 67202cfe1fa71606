# ruff: noqa: ASYNC110 - polling is what a client of these endpoints does
"""Readiness, overload, failure and metrics, in process on a real bundle."""

import asyncio
import dataclasses
import json
import logging
from collections.abc import AsyncIterator, Callable, Sequence

import anyio
import httpx
import numpy as np
import pytest
from fastapi import FastAPI
from prometheus_client.parser import text_string_to_metric_families

from service.app import create_app
from service.contract.bundle import Bundle
from service.contract.encoding import TokenPair
from service.contract.types import Scores
from service.engines.local import LocalEngine
from service.logs import JsonFormatter
from service.ranking.readiness import Readiness
from service.scorers.onnx import OnnxScorer
from service.settings import Settings
from tests.service.asking import assert_problem, request
from tests.service.conftest import Client, started

pytestmark = pytest.mark.anyio


class Gate:
    """The real engine behind a gate; `seen` counts the pairs handed to it."""

    def __init__(self, bundle: Bundle) -> None:
        self.open = asyncio.Event()
        self.open.set()
        self.seen = 0
        self.broken = False
        self._engine = LocalEngine(OnnxScorer(bundle.model_path("int8"), threads=1))

    async def score(self, pairs: Sequence[TokenPair], deadline: float) -> Scores:
        self.seen += len(pairs)
        await self.open.wait()
        scores = await self._engine.score(pairs, deadline)
        if self.broken:
            raise RuntimeError("the engine broke on secret words")
        return scores


async def samples(client: httpx.AsyncClient) -> dict[tuple[str, str], float]:
    """Return the metrics by name and the one label that is not the model's."""
    found = {}
    for family in text_string_to_metric_families((await client.get("/metrics")).text):
        for sample in family.samples:
            own = {
                k: v for k, v in sample.labels.items() if k not in ("model", "version", "variant")
            }
            found[sample.name, ",".join(own.values())] = sample.value
    return found


async def until(condition: Callable[[], bool]) -> None:
    with anyio.fail_after(10):
        while not condition():
            await asyncio.sleep(0.001)


async def test_red_while_warming_up_green_when_golden_scores_matched(
    bundle: Bundle, build_app: Callable[..., FastAPI]
) -> None:
    gate = Gate(bundle)
    gate.open.clear()
    app = build_app(gate)
    async with started(app) as client:
        assert (await client.get("/livez")).json() == {"status": "alive"}
        red = await client.get("/readyz")
        assert red.status_code == 503
        assert "warming up" in red.json()["reason"]
        assert (await samples(client))["disranker_ready", ""] == 0
        problem = assert_problem(await client.post("/rank", json=request()), 503)
        assert problem["error_type"] == "not_ready"
        gate.open.set()
        with anyio.fail_after(10):
            while (await client.get("/readyz")).status_code != 200:
                await asyncio.sleep(0.001)
        assert (await client.get("/readyz")).json() == {"ready": True, "reason": None}
        assert (await samples(client))["disranker_ready", ""] == 1
        assert (await client.post("/rank", json=request())).status_code == 200


async def test_red_while_stopping_but_what_still_arrives_is_ranked(serving: Client) -> None:
    readiness = Readiness()
    async with serving(readiness=readiness) as client:
        readiness.stopping = True
        red = await client.get("/readyz")
        assert (red.status_code, red.json()["reason"]) == (503, "stopping")
        assert (await client.post("/rank", json=request())).status_code == 200


async def test_hung_engine_does_not_hold_up_the_stop(
    bundle: Bundle, build_app: Callable[..., FastAPI]
) -> None:
    gate = Gate(bundle)
    gate.open.clear()
    with anyio.fail_after(20):
        async with started(build_app(gate)) as client:
            assert (await client.get("/readyz")).status_code == 503


async def test_golden_mismatch_keeps_readiness_red_and_says_by_how_much(bundle: Bundle) -> None:
    first = bundle.golden[0]
    shifted = dataclasses.replace(first, scores=tuple(score + 5 for score in first.scores))
    wrong = dataclasses.replace(bundle, golden=(shifted,))
    engine = LocalEngine(OnnxScorer(bundle.model_path("fp32"), threads=1))
    app = create_app(Settings(), bundle=wrong, engine=engine, precision="fp32")
    async with started(app) as client:
        with anyio.fail_after(10):
            while "warming" in (await client.get("/readyz")).json()["reason"]:
                await asyncio.sleep(0.001)
        reason = (await client.get("/readyz")).json()["reason"]
        assert "golden query 1 deviates by 5" in reason
        assert_problem(await client.post("/rank", json=request()), 503)


async def test_engine_failure_is_a_fixed_500_and_the_next_request_is_served(
    bundle: Bundle, serving: Client
) -> None:
    gate = Gate(bundle)
    async with serving(gate) as client:
        gate.broken = True
        answers = await asyncio.gather(*(client.post("/rank", json=request()) for _ in range(3)))
        for answer in answers:
            problem = assert_problem(answer, 500)
            assert problem["error_type"] == "scoring_failed"
            assert "secret" not in answer.text
        gate.broken = False
        assert (await client.post("/rank", json=request())).status_code == 200
        counts = await samples(client)
        assert counts["disranker_request_duration_seconds_count", "error"] == 3
        assert counts["disranker_request_duration_seconds_count", "ok"] == 1


async def test_non_finite_score_is_an_engine_error(bundle: Bundle, serving: Client) -> None:
    class NanScorer(OnnxScorer):
        poison = False

        def score_one(self, pair: TokenPair) -> float:
            return float("nan") if self.poison else super().score_one(pair)

    scorer = NanScorer(bundle.model_path("int8"), threads=1)
    async with serving(LocalEngine(scorer)) as client:
        scorer.poison = True
        assert_problem(await client.post("/rank", json=request()), 500)


async def test_expiry_after_acceptance_is_504(bundle: Bundle, serving: Client) -> None:
    gate = Gate(bundle)
    async with serving(gate) as client:
        gate.open.clear()
        response = await client.post("/rank", json=request(deadline_ms=100))
        assert assert_problem(response, 504)["error_type"] == "deadline_expired"
        assert (await samples(client))["disranker_budget_misses_total", ""] == 1
        gate.open.set()


async def test_backlog_is_429_with_both_retry_headers(bundle: Bundle, serving: Client) -> None:
    gate = Gate(bundle)
    async with serving(gate, max_backlog_tokens=5) as client:
        gate.open.clear()
        seen = gate.seen
        first = asyncio.create_task(client.post("/rank", json=request()))
        await until(lambda: gate.seen > seen)
        rejected = await client.post("/rank", json=request())
        assert assert_problem(rejected, 429)["error_type"] == "overloaded"
        assert int(rejected.headers["retry-after"]) >= 1
        assert int(rejected.headers["retry-after-ms"]) >= 1
        gate.open.set()
        assert (await first).status_code == 200
        assert (await samples(client))["disranker_request_duration_seconds_count", "rejected"] == 1


async def test_client_that_leaves_costs_nothing(
    bundle: Bundle, build_app: Callable[..., FastAPI], serving: Client
) -> None:
    """The ASGI messages of a client that sends its request and goes, as a server passes them."""
    gate = Gate(bundle)
    app = build_app(gate)
    async with started(app) as client:
        with anyio.fail_after(10):
            while (await client.get("/readyz")).status_code != 200:
                await asyncio.sleep(0.001)
        gate.open.clear()
        seen = gate.seen
        running = asyncio.create_task(client.post("/rank", json=request()))
        await until(lambda: gate.seen == seen + 1)

        left = asyncio.Event()
        body = json.dumps(request(query="dog")).encode()  # an equal pair would share its launch
        messages = [{"type": "http.request", "body": body, "more_body": False}]
        sent: list[object] = []

        async def receive() -> dict[str, object]:
            if messages:
                return dict(messages.pop())
            await left.wait()
            return {"type": "http.disconnect"}

        async def send(message: object) -> None:
            sent.append(message)

        scope = {
            "type": "http", "method": "POST", "path": "/rank", "raw_path": b"/rank",
            "query_string": b"", "headers": [], "app": app, "http_version": "1.1",
        }  # fmt: skip
        gone = asyncio.create_task(app(scope, receive, send))
        with anyio.fail_after(10):
            while (await samples(client))["disranker_queue_requests", ""] != 1:
                await asyncio.sleep(0.001)
        left.set()
        await gone
        counts = await samples(client)
        assert counts["disranker_queue_pairs", ""] == counts["disranker_queue_tokens", ""] == 0
        gate.open.set()
        assert (await running).status_code == 200
        assert gate.seen == seen + 1
        counts = await samples(client)
        assert counts["disranker_request_duration_seconds_count", "cancelled"] == 1
        assert counts["disranker_request_duration_seconds_count", "error"] == 0


async def test_every_label_set_is_there_from_the_start(bundle: Bundle, serving: Client) -> None:
    async with serving() as client:
        text = (await client.get("/metrics")).text
        found = await samples(client)
    for outcome in (
        "ok", "degraded", "client_error", "rejected", "not_ready", "expired", "cancelled", "error"
    ):  # fmt: skip
        assert found["disranker_request_duration_seconds_count", outcome] == 0
    for stage in ("tokenise", "queue", "infer", "order"):
        assert found["disranker_stage_duration_seconds_count", stage] == 0
    assert found["disranker_tokens_total", "real"] == found["disranker_tokens_total", "padded"] == 0
    for name in ("pairs_total", "budget_misses_total", "wasted_tokens_total"):
        assert found[f"disranker_{name}", ""] == 0
    for unit in ("requests", "pairs", "tokens"):
        assert found[f"disranker_queue_{unit}", ""] == 0
    assert found["disranker_model_info", f"{bundle.manifest.version},onnx,int8"] == 1
    assert 'le="0.01"' in text
    assert 'le="0.0005"' in text
    assert 'le="10.0"' in text
    assert "_created" not in text
    for line in text.splitlines():
        if line.startswith(
            ("disranker_cache_", "disranker_key_", "disranker_shadow_", "disranker_split_")
        ):
            assert "variant" not in line  # all lanes share them
        elif line.startswith("disranker_"):
            assert f'version="{bundle.short_version}"' in line
            assert f'model="{bundle.manifest.name}"' in line
            assert 'variant="stable"' in line


async def test_metrics_count_pairs_tokens_and_budget_misses(serving: Client) -> None:
    async with serving(budget_ms=0.001) as client:
        answer = await client.post("/rank", json=request(candidates=[{"text": "cat"}] * 7))
        found = await samples(client)
    assert found["disranker_pairs_total", ""] == 7
    assert found["disranker_tokens_total", "real"] == answer.json()["usage"]["total_tokens"]
    assert found["disranker_budget_misses_total", ""] == 1
    assert found["disranker_stage_duration_seconds_count", "infer"] == 1


async def test_log_has_one_line_a_request_and_no_text(
    serving: Client, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    async with serving() as client:
        caplog.clear()
        text = "sesquipedalian"
        good = request(query=text, candidates=[{"id": text, "title": text, "summary": text}])
        bad = request(query=text, candidates=[{"title": text, "nope": text}], top_k=text)
        await client.post("/rank", json=good, headers={"X-Request-Id": "good-1"})
        await client.post("/rank", json=bad, headers={"X-Request-Id": "bad-1"})
        await client.post(f"/rank?q={text}", content=text, headers={"X-Request-Id": "bad-2"})
    ours = [record for record in caplog.records if not record.name.startswith("httpx")]
    lines = [json.loads(JsonFormatter().format(record)) for record in ours]
    assert text not in json.dumps(lines)
    stories = {line["request_id"]: line for line in lines if line["logger"] == "service.requests"}
    assert list(stories) == ["good-1", "bad-1", "bad-2"]
    assert stories["good-1"]["outcome"] == "ok"
    assert stories["good-1"]["candidates"] == 1
    assert stories["good-1"]["tokens"] > 0
    assert stories["good-1"]["infer_ms"] > 0
    assert stories["bad-1"]["status"] == 422
    assert stories["bad-2"]["status"] == 400


async def test_error_nobody_foresaw_is_a_fixed_500(
    build_app: Callable[..., FastAPI], caplog: pytest.LogCaptureFixture
) -> None:
    app = build_app()

    @app.get("/boom")
    async def boom(detail: str) -> None:
        raise KeyError(detail)

    async with started(app) as client:
        answer = await client.get("/boom?detail=inner", headers={"X-Request-Id": "boom-1"})
    assert assert_problem(answer, 500)["detail"] == "internal error"
    (line,) = [record for record in caplog.records if record.message == "unexpected error"]
    told = json.loads(JsonFormatter().format(line))
    assert told["request_id"] == "boom-1"
    assert "in boom\n" in told["exception"]
    assert "builtins.KeyError" in told["exception"]
    assert "inner" not in json.dumps(told)


async def test_body_that_never_ends_is_408(serving: Client) -> None:
    async def stalled() -> AsyncIterator[bytes]:
        yield b"{"
        await asyncio.Event().wait()

    async with serving(default_deadline_ms=50) as client:
        answer = await client.post("/rank", content=stalled())
    assert assert_problem(answer, 408)["error_type"] == "body_too_slow"
    assert answer.headers["connection"] == "close"


async def test_root_points_to_what_is_served(serving: Client) -> None:
    async with serving() as client:
        pointers = (await client.get("/")).json()
        for name in ("docs", "openapi", "ready", "metrics"):
            assert (await client.get(pointers[name])).status_code == 200


async def test_fp32_and_int8_are_served_and_differ(serving: Client) -> None:
    scores = []
    for precision in ("fp32", "int8"):
        async with serving(precision=precision) as client:
            answer = (await client.post("/rank", json=request())).json()
            scores.append(answer["results"][0]["score"])
    assert scores[0] != scores[1]
    assert np.isclose(scores[0], scores[1], atol=1.0)
