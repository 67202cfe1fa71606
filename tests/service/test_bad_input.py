"""Every bad request gets its 4xx, and a problem that names field, value and limit."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.service.asking import CAT, assert_problem, request
from tests.service.conftest import Client

pytestmark = pytest.mark.anyio

TEXT = "very secret text"
STRING_16 = "a string of 16 characters"


@pytest.fixture(scope="module")
async def client(serving: Client) -> AsyncIterator[httpx.AsyncClient]:
    async with serving(max_body_bytes=100_000, max_query_chars=50) as client:
        yield client


@pytest.mark.parametrize(
    ("body", "field", "value", "limit"),
    [
        ({"candidates": [CAT]}, "query", None, None),
        ({"query": "cat"}, "candidates", None, None),
        (request(query=""), "query", "a string of 0 characters", 1),
        (request(query=" \t\n"), "query", "a string of 3 characters", 1),
        (request(query="q" * 51), "query", "a string of 51 characters", 50),
        (request(query=5), "query", 5, None),
        (request(query=None), "query", "null", None),
        (request(candidates=[]), "candidates", "an array of 0 items", 1),
        (request(candidates=[CAT] * 1001), "candidates", "an array of 1001 items", 1000),
        (request(candidates=TEXT), "candidates", STRING_16, None),
        (request(candidates=[TEXT]), "candidates[0]", STRING_16, None),
        (request(candidates=[CAT, {"id": "a"}]), "candidates[1]", "an object", None),
        (request(candidates=[{"title": " ", "summary": ""}]), "candidates[0]", "an object", None),
        (request(candidates=[{"text": "\n"}]), "candidates[0]", "an object", None),
        (request(candidates=[{"text": "a", "title": "b"}]), "candidates[0]", "an object", None),
        (request(candidates=[{"text": 7}]), "candidates[0].text", 7, None),
        (request(candidates=[{"text": ["x"]}]), "candidates[0].text", "an array of 1 items", None),
        (request(candidates=[{**CAT, "id": 7}]), "candidates[0].id", 7, None),
        (request(candidates=[{**CAT, "x": TEXT}]), "candidates[0].x", STRING_16, None),
        (request(candidates=[{**CAT, "id": "x"}] * 2), "candidates[1].id", "x", None),
        (request(top_k=0), "top_k", 0, 1),
        (request(top_k=-3), "top_k", -3, 1),
        (request(top_k="5"), "top_k", "5", None),
        (request(top_k=5.5), "top_k", 5.5, None),
        (request(top_k=True), "top_k", True, None),
        (request(top_k="5" * 99), "top_k", "5" * 64 + "…", None),
        (request(deadline_ms=0), "deadline_ms", 0, 0),
        (request(deadline_ms=-1.5), "deadline_ms", -1.5, 0),
        (request(deadline_ms=float("nan")), "deadline_ms", "nan", None),
        (request(deadline_ms=float("inf")), "deadline_ms", "inf", None),
        (request(deadline_ms=1e300), "deadline_ms", "1e+300", 3_600_000),
        (request(deadline_ms="10"), "deadline_ms", "10", None),
        (request(priority="high"), "priority", "high", None),
        (request(on_deadline="wait"), "on_deadline", "wait", None),
        (request(return_documents=1), "return_documents", 1, None),
        (request(routing_key="k" * 257), "routing_key", "a string of 257 characters", 256),
        (request(documents=[TEXT]), "documents", "an array of 1 items", None),
        ([], "body", "an array of 0 items", None),
        (None, "body", "null", None),
    ],
    ids=str,
)  # fmt: skip
async def test_rule_broken_names_field_value_and_limit(
    client: httpx.AsyncClient, body: Any, field: str, value: Any, limit: Any
) -> None:
    response = await client.post("/rank", content=json.dumps(body))
    fault = assert_problem(response, 422)["errors"][0]
    assert (fault["field"], fault["value"], fault["limit"]) == (field, value, limit)
    assert fault["message"]
    assert TEXT not in response.text


async def test_duplicate_ids_name_both_places(client: httpx.AsyncClient) -> None:
    ids = ("a", "b", "c", "b")
    body = request(candidates=[{**CAT, "id": name} for name in ids])
    problem = assert_problem(await client.post("/rank", json=body), 422)
    assert "candidates[3]" in problem["detail"]
    assert "candidates[1]" in problem["detail"]


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"query=cat", b'{"query": "\xff", "candidates": [{"text": "cat"}]}', b"\x1f\x8b",
     b'{"query": "\\ud800", "candidates": [{"text": "cat"}]}', b"[" * 50_000],
    ids=["empty", "cut", "form", "utf-8", "gzip", "surrogate", "deep"],
)  # fmt: skip
async def test_body_that_is_no_json_is_400(client: httpx.AsyncClient, body: bytes) -> None:
    problem = assert_problem(await client.post("/rank", content=body), 400)
    assert problem["errors"][0]["field"] == "body"


async def test_body_over_the_limit_is_413_whatever_its_header_says(
    client: httpx.AsyncClient,
) -> None:
    read = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal read
        while True:
            read += 1
            yield b" " * 10_000

    problem = assert_problem(await client.post("/rank", content=endless()), 413)
    assert problem["errors"] == [
        {
            "field": "body",
            "value": "more than 100000 bytes",
            "limit": 100_000,
            "message": "the body is too large",
        }
    ]
    assert read < 20
    lying = {"content-length": "10"}
    assert_problem(await client.post("/rank", content=b" " * 100_001, headers=lying), 413)
    padded = json.dumps(request()).encode().ljust(100_000)
    assert (await client.post("/rank", content=padded)).status_code == 200


async def test_deadline_no_engine_could_meet_names_the_smallest_feasible(
    client: httpx.AsyncClient,
) -> None:
    body = request(candidates=[{"text": "cat " * 200}] * 20)
    problem = assert_problem(await client.post("/rank", json={**body, "deadline_ms": 0.001}), 422)
    (fault,) = problem["errors"]
    assert (fault["field"], fault["value"]) == ("deadline_ms", 0.001)
    assert fault["limit"] > 0.001
    assert str(fault["limit"]) in problem["detail"]
    assert problem["error_type"] == "infeasible_deadline"


async def test_body_that_came_after_its_deadline_expired_and_was_not_infeasible(
    client: httpx.AsyncClient,
) -> None:
    async def slow() -> AsyncIterator[bytes]:
        body = json.dumps(request(deadline_ms=500)).encode()
        yield body[:10]
        await asyncio.sleep(0.6)
        yield body[10:]

    assert_problem(await client.post("/rank", content=slow()), 504)


async def test_wrong_path_and_wrong_method_are_problems(client: httpx.AsyncClient) -> None:
    assert_problem(await client.get(f"/{TEXT}"), 404)
    response = await client.get("/rank")
    assert_problem(response, 405)
    assert response.headers["allow"] == "POST"
    assert_problem(await client.post("/rank/", json=request()), 404)


async def test_many_faults_are_cut(client: httpx.AsyncClient) -> None:
    response = await client.post("/rank", json=request(candidates=[{}] * 500))
    problem = assert_problem(response, 422)
    assert len(problem["errors"]) == 20
    assert problem["detail"].endswith("(and 499 more)")
    assert len(response.content) < 5_000


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9)
ANY_JSON = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner),
    max_leaves=8,
)
CANDIDATES = st.fixed_dictionaries(
    {}, optional=dict.fromkeys(("id", "title", "summary", "text", "x"), SCALARS)
)
NEAR_REQUESTS = st.fixed_dictionaries(
    {"query": SCALARS, "candidates": ANY_JSON | st.lists(CANDIDATES, max_size=4)},
    optional=dict.fromkeys(
        ("top_k", "deadline_ms", "priority", "on_deadline", "routing_key", "return_documents"),
        SCALARS,
    ),
)
BODIES = st.binary(max_size=60) | (ANY_JSON | NEAR_REQUESTS).map(
    lambda body: json.dumps(body).encode()
)


@settings(
    max_examples=300,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(body=BODIES)
async def test_nothing_sent_makes_a_5xx(client: httpx.AsyncClient, body: bytes) -> None:
    response = await client.post("/rank", content=body)
    assert response.status_code in (200, 400, 422), response.text
    if response.status_code == 200:
        assert all(0 <= result["relevance"] <= 1 for result in response.json()["results"])
    else:
        assert_problem(response, response.status_code)
