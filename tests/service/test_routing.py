"""Requests on their way to the stable model or the canary, in every dialect."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
from fastapi import FastAPI
from prometheus_client.parser import text_string_to_metric_families

from service.app import create_app
from service.contract.bundle import Bundle
from service.engines.local import LocalEngine
from service.logs import JsonFormatter
from service.rollout.split import place
from service.scorers.scorer import load_scorer
from service.settings import Settings
from tests.service.asking import api_key, assert_problem, bearer, request
from tests.service.conftest import Client, started

pytestmark = pytest.mark.anyio

SALT = "disranker"
KEYS = [f"user-{number}" for number in range(40)]


@asynccontextmanager
async def all_ready(app: FastAPI, n: int = 2) -> AsyncIterator[httpx.AsyncClient]:
    """Run an app until all its lanes are ready."""
    async with started(app) as client:
        with anyio.fail_after(30):
            while sum((await lane_metric(client, "disranker_lane_ready")).values()) < n:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        yield client


async def lane_metric(client: httpx.AsyncClient, name: str, **labels: str) -> dict[str, float]:
    """Return a metric's values by lane."""
    text = (await client.get("/metrics", headers=bearer("all"))).text
    return {
        sample.labels["variant"]: sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    }


def expected_lane(candidate_path: Path, key: str, weight: float) -> str:
    version = Bundle.open(candidate_path).manifest.version
    return "canary" if place(key, salt=f"{SALT} {version}") < weight else "stable"


async def test_equal_keys_go_to_one_lane_by_header_and_by_field_alike(
    build_app: Callable[..., FastAPI], candidate_path: Path
) -> None:
    async with all_ready(build_app(canary=candidate_path, canary_weight=0.4)) as client:
        lanes = {}
        for key in [*KEYS, "zoë"]:
            header = {b"X-Routing-Key": key.encode()}
            answers = [
                await client.post("/rank", json=request(routing_key=key)),
                await client.post("/rank", json=request(), headers=header),
                await client.post("/rank", json=request(routing_key="other"), headers=header),
            ]
            (found,) = {answer.headers["x-variant"] for answer in answers}
            (model,) = {json.dumps(answer.json()["model"]) for answer in answers}
            assert json.loads(model)["variant"] == found == expected_lane(candidate_path, key, 0.4)
            lanes[key] = found
    assert set(lanes.values()) == {"stable", "canary"}


async def test_without_a_key_the_request_id_is_the_key(
    build_app: Callable[..., FastAPI], candidate_path: Path
) -> None:
    async with all_ready(build_app(canary=candidate_path, canary_weight=0.5)) as client:
        for key in KEYS[:10]:
            answer = await client.post("/rank", json=request(), headers={"X-Request-Id": key})
            assert answer.headers["x-variant"] == expected_lane(candidate_path, key, 0.5)


async def test_a_canary_scores_with_its_own_weights_in_every_dialect(
    build_app: Callable[..., FastAPI], candidate_path: Path
) -> None:
    asked: list[tuple[str, dict[str, Any]]] = [
        ("/rank", request()),
        ("/rerank", {"query": "cat", "texts": ["cat"], "raw_scores": True}),
        ("/v1/rerank", {"query": "cat", "documents": ["cat"]}),
        ("/v2/rerank", {"query": "cat", "documents": ["cat"]}),
        ("/v1/ranking", {"query": {"text": "cat"}, "passages": [{"text": "cat"}]}),
        ("/score", {"text_1": "cat", "text_2": ["cat"]}),
    ]

    def told(answer: httpx.Response) -> object:
        found = answer.raise_for_status().json()
        if isinstance(found, dict):
            for volatile in ("id", "request_id", "created", "timings", "usage", "model", "meta"):
                found.pop(volatile, None)
        return found

    async with all_ready(build_app(canary=candidate_path)) as client:
        stable = [told(await client.post(path, json=body)) for path, body in asked]
        wanted = {"X-Variant": "canary"}
        answers = [await client.post(path, json=body, headers=wanted) for path, body in asked]
        routed = await lane_metric(client, "disranker_routed_requests_total", reason="override")
    assert {answer.headers["x-variant"] for answer in answers} == {"canary"}
    assert routed == {"stable": 0, "canary": len(asked)}
    alone = Bundle.open(candidate_path)
    engine = LocalEngine(load_scorer(alone, "int8"))
    app = create_app(Settings(), bundle=alone, engine=engine, precision="int8")
    async with all_ready(app, n=1) as client:
        expected = [told(await client.post(path, json=body)) for path, body in asked]
    assert [told(answer) for answer in answers] == expected
    assert all(one != other for one, other in zip(expected, stable, strict=True))


async def test_metrics_and_the_log_tell_model_and_lane_of_each_request(
    bundle: Bundle,
    build_app: Callable[..., FastAPI],
    candidate_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    async with all_ready(build_app(canary=candidate_path, canary_weight=0.5)) as client:
        caplog.clear()
        answers = [
            await client.post("/rank", json=request(), headers={"X-Routing-Key": key})
            for key in KEYS
        ]
        chosen = [answer.headers["x-variant"] for answer in answers]
        counts = {lane: chosen.count(lane) for lane in ("stable", "canary")}
        name = "disranker_request_duration_seconds_count"
        assert await lane_metric(client, name, outcome="ok") == counts
        assert await lane_metric(client, "disranker_pairs_total") == counts
        split = {"reason": "split"}
        assert await lane_metric(client, "disranker_routed_requests_total", **split) == counts
        weights = await lane_metric(client, "disranker_lane_weight")
        assert weights == {"stable": 0.5, "canary": 0.5}
        info = await lane_metric(client, "disranker_model_info", model="candidate")
        assert info == {"canary": 1}
    lines = [
        json.loads(JsonFormatter().format(record))
        for record in caplog.records
        if record.name == "service.requests"
    ]
    assert [line["variant"] for line in lines] == chosen
    assert {(line["variant"], line["model"], line["routed_by"]) for line in lines} == {
        ("stable", bundle.manifest.name, "split"),
        ("canary", "candidate", "split"),
    }


async def test_a_canary_that_may_not_rank_leaves_its_share_to_the_stable_model(
    build_app: Callable[..., FastAPI], skewed_path: Path
) -> None:
    async with all_ready(build_app(canary=skewed_path, canary_weight=1.0), n=1) as client:
        answer = await client.post("/rank", json=request())
        assert answer.status_code == 200
        assert answer.json()["model"]["variant"] == answer.headers["x-variant"] == "stable"
        reason = {"reason": "fallback"}
        fallbacks = await lane_metric(client, "disranker_routed_requests_total", **reason)
        assert fallbacks == {"stable": 1, "canary": 0}
        assert (await client.get("/readyz")).status_code == 200  # it is the stable one that counts
        wanted = await client.post("/rank", json=request(), headers={"X-Variant": "canary"})
        assert_problem(wanted, 503)  # a tester is not told something else


async def test_lanes_that_cannot_be_asked_for_are_refused_with_their_name(
    serving: Client,
) -> None:
    async with serving() as client:
        missing = await client.post("/rank", json=request(), headers={"X-Variant": "canary"})
        assert assert_problem(missing, 409)["error_type"] == "no_lane"
        for value in ("shadow", "Canary", "nothing"):
            answer = await client.post("/rank", json=request(), headers={"X-Variant": value})
            (fault,) = assert_problem(answer, 422)["errors"]
            assert (fault["field"], fault["value"]) == ("X-Variant", value)
        stable = await client.post("/rank", json=request(), headers={"X-Variant": "stable"})
        assert stable.json()["model"]["variant"] == "stable"
        long = await client.post("/rank", json=request(), headers={"X-Routing-Key": "k" * 257})
        (fault,) = assert_problem(long, 422)["errors"]
        assert (fault["field"], fault["limit"]) == ("X-Routing-Key", 256)


async def test_choosing_a_lane_needs_its_scope_wherever_there_are_keys(
    build_app: Callable[..., FastAPI], candidate_path: Path
) -> None:
    keys = [
        api_key("search"),
        api_key("tester", scopes=["rank", "variant"]),
        api_key("half", scopes=["variant"]),
        api_key("all", scopes=["metrics"]),
    ]
    wanted = {"X-Variant": "canary"}
    async with all_ready(build_app(canary=candidate_path, keys=keys)) as client:

        async def ask(key: str, headers: dict[str, str]) -> httpx.Response:
            return await client.post("/rank", json=request(), headers=bearer(key) | headers)

        assert (await ask("tester", wanted)).json()["model"]["variant"] == "canary"
        assert (await ask("tester", {})).json()["model"]["variant"] == "stable"
        assert (await ask("search", {})).status_code == 200
        for key in ("search", "half"):
            assert_problem(await ask(key, wanted), 403)
        assert_problem(await client.post("/rank", json=request(), headers=wanted), 401)


async def test_choosing_a_lane_needs_its_scope_even_where_anybody_may_rank(
    serving: Client,
) -> None:
    async with serving(keys=[api_key("operator", scopes=["admin"])], admin=True) as client:
        assert (await client.post("/rank", json=request())).status_code == 200
        answer = await client.post("/rank", json=request(), headers={"X-Variant": "stable"})
        assert_problem(answer, 401)
        answer = await client.get("/readyz", headers={"X-Variant": "stable"})
        assert answer.status_code == 200
