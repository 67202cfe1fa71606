"""Who gets in, with which key, to what; over the app, and over HTTP where the path is spelt."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from hypothesis import given, settings
from hypothesis import strategies as st

from service.api.guard import OPEN_PATHS, scope_of
from tests.service.asking import api_key, assert_problem, bearer, request
from tests.service.conftest import Client, listening
from tests.service.test_operations import samples

pytestmark = pytest.mark.anyio

KEYS = [
    api_key("search"),
    api_key("search-2"),
    api_key("scrape", scopes=["metrics"]),
    api_key("operator", scopes=["admin", "rank"]),
]


@pytest.fixture(scope="module")
async def client(serving: Client) -> AsyncIterator[httpx.AsyncClient]:
    async with serving(keys=KEYS, admin=True) as client:
        yield client


@pytest.fixture(scope="module")
async def address(build_app: Callable[..., FastAPI]) -> AsyncIterator[httpx.URL]:
    async with listening(build_app(keys=KEYS, admin=True)) as client:
        yield client.base_url


async def test_several_keys_rank_at_a_time(client: httpx.AsyncClient) -> None:
    for key in ("search", "search-2", "operator"):
        answer = await client.post("/rank", json=request(), headers=bearer(key))
        assert answer.status_code == 200


async def test_clients_of_other_rerankers_use_the_same_keys(client: httpx.AsyncClient) -> None:
    body = {"query": "cat", "queries": "cat", "documents": ["cat", "dog"]}
    for path in ("/rerank", "/v1/rerank", "/v2/rerank", "/score", "/v1/score"):
        assert_problem(await client.post(path, json=body), 401)
        assert (await client.post(path, json=body, headers=bearer("search"))).status_code == 200
    for path in ("/v1/models", "/models", "/info"):
        assert_problem(await client.get(path), 401)
        assert (await client.get(path, headers=bearer("search"))).status_code == 200


async def test_no_key_and_unknown_key_are_401_and_never_repeated(client: httpx.AsyncClient) -> None:
    for headers in ({}, bearer("sesquipedalian"), {"Authorization": "Basic search"}):
        answer = await client.post("/rank", json=request(), headers=headers)
        assert assert_problem(answer, 401)["error_type"] == "unauthorized"
        assert answer.headers["www-authenticate"] == "Bearer"
        assert "sesquipedalian" not in f"{answer.text}{answer.headers}"


async def test_a_key_for_something_else_is_403(client: httpx.AsyncClient) -> None:
    for method, path, key in (
        ("POST", "/rank", "scrape"),
        ("GET", "/metrics", "search"),
        ("GET", "/admin/settings", "search"),
        ("DELETE", "/admin/caches", "scrape"),
    ):
        answer = await client.request(method, path, headers=bearer(key))
        assert assert_problem(answer, 403)["error_type"] == "forbidden"


async def test_scopes_open_what_they_name(client: httpx.AsyncClient) -> None:
    assert (await client.get("/metrics", headers=bearer("scrape"))).status_code == 200
    assert (await client.get("/admin/settings", headers=bearer("operator"))).status_code == 200


async def test_probes_and_docs_need_no_key(client: httpx.AsyncClient) -> None:
    for path in (
        "/",
        "/livez",
        "/readyz",
        "/docs",
        "/docs/oauth2-redirect",
        "/openapi.json",
        "/healthz",
        "/health",
        "/v1/health/live",
        "/v2/health/ready",
    ):
        assert (await client.get(path)).status_code == 200
        assert (await client.get(path, headers=bearer("unknown"))).status_code == 200


async def test_every_route_is_guarded_but_those_for_everybody(
    build_app: Callable[..., FastAPI], client: httpx.AsyncClient
) -> None:
    """Holds for routes added later: what is not in the list of open paths answers 401."""
    paths = {
        (method.upper(), path)
        for path, operations in build_app(admin=False).openapi()["paths"].items()
        for method in operations
    }
    assert ("POST", "/rank") in paths
    for method, path in paths:
        status = (await client.request(method, path)).status_code
        assert (status == 401) != (path in OPEN_PATHS), path


async def test_paths_nobody_knows_need_a_key(client: httpx.AsyncClient) -> None:
    for path in ("/nowhere", "/rank/", "/Livez", "/livez/", "/admin", "/admin/", "/metrics/"):
        for method in ("GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE", "TRACE"):
            assert (await client.request(method, path)).status_code == 401
    answer = await client.get("/nowhere", headers=bearer("search"))
    assert_problem(answer, 404)


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "PUT", "DELETE", "PATCH"])
async def test_no_method_passes_without_a_key(client: httpx.AsyncClient, method: str) -> None:
    assert (await client.request(method, "/rank")).status_code == 401
    assert (await client.request(method, "/rank", headers=bearer("search"))).status_code == 405


TRICKS = [
    "//rank", "/rank/", "/./rank", "/livez/../rank", "/livez/%2e%2e/rank", "/livez%2f..%2frank",
    "/rank%2f", "/rank;x", "/rank%00", "/%72ank", "/r%61nk", "/rank?x=/livez", "/rank%3f", "/RANK",
    "/livez;/rank", "/livez%00/rank", "/docs/../rank", "http://x/rank", "http://x//rank",
    "/%2frank", "/rank%20", "/rank#/livez", "/admin/caches", "//admin/caches", "/admin//caches",
    "/%61dmin/caches", "/admin%2fcaches", "/docs/%2e%2e/admin/caches", "http://x/admin/caches",
    "/v1/retrieval/x/reranking", "/v1/retrieval/../../livez/reranking", "/health/..%2frerank",
]  # fmt: skip


@pytest.mark.parametrize("target", TRICKS)
@pytest.mark.parametrize("method", ["POST", "DELETE", "GET"])
async def test_no_spelling_of_a_path_passes_without_a_key(
    address: httpx.URL, method: str, target: str
) -> None:
    assert await status_of(address, method, target) in (400, 401)


@pytest.mark.parametrize("target", ["/rank", "/%72ank", "http://x/rank", "/rank?x=/livez"])
async def test_every_spelling_that_is_routed_takes_the_same_keys(
    address: httpx.URL, target: str
) -> None:
    assert await status_of(address, "POST", target, "search") == 200
    assert await status_of(address, "POST", target, "scrape") == 403


async def test_every_spelling_of_an_admin_path_needs_its_scope(address: httpx.URL) -> None:
    for target in ("/admin/caches", "/%61dmin/caches", "/admin%2fcaches"):
        assert await status_of(address, "DELETE", target, "search") == 403
        assert await status_of(address, "DELETE", target, "operator") == 200


async def test_a_path_behind_a_prefix_is_the_path_that_is_routed(
    build_app: Callable[..., FastAPI],
) -> None:
    app = build_app(keys=KEYS, admin=True)
    app.root_path = "/livez"
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://service") as client:
        for path in ("/livez/rank", "/livez/admin/caches", "/livez/livez/rank"):
            assert (await client.delete(path)).status_code == 401
        answer = await client.delete("/livez/admin/caches", headers=bearer("search"))
        assert answer.status_code == 403
        assert (await client.get("/livez/livez")).status_code == 200


async def status_of(address: httpx.URL, method: str, target: str, key: str | None = None) -> int:
    """Return the status of a request whose target goes over the wire as it is spelt."""
    body = json.dumps(request()).encode()
    reader, writer = await asyncio.open_connection(address.host, address.port)
    key_line = f"Authorization: Bearer {key}\r\n" if key else ""
    writer.write(
        f"{method} {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{key_line}"
        f"Content-Length: {len(body)}\r\n\r\n".encode()
        + body
    )
    status = int((await reader.readline()).split()[1])
    writer.close()
    return status


PARTS = st.sampled_from(
    ["/", "//", ".", "..", "%2f", "%2e", ";", " ", "\x00", "é", "rank", "rerank", "v1", "admin",
     "caches", "settings", "livez", "health", "live", "docs", "metrics", "models", "retrieval",
     "reranking", "x"]
)  # fmt: skip


@pytest.fixture(scope="module")
def guarded(build_app: Callable[..., FastAPI]) -> FastAPI:
    return build_app(keys=KEYS, admin=True)


@given(parts=st.lists(PARTS, max_size=8), root=st.sampled_from(["", "/livez", "/x"]))
@settings(max_examples=300, deadline=None)
def test_the_router_is_never_reached_without_a_key_but_for_open_paths(
    guarded: FastAPI, parts: list[str], root: str
) -> None:
    route_path = "/" + "".join(parts)
    for method in ("POST", "GET", "HEAD", "DELETE"):
        scope: dict[str, Any] = {
            "type": "http", "method": method, "path": root + route_path, "root_path": root,
            "query_string": b"", "headers": [(b"host", b"x")], "http_version": "1.1",
        }  # fmt: skip
        status = asyncio.run(answered(guarded, scope))
        assert (status == 401) == (route_path not in OPEN_PATHS)
        assert ("endpoint" in scope) <= (route_path in OPEN_PATHS)


async def answered(app: FastAPI, scope: dict[str, Any]) -> int:
    statuses: list[int] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])

    await app(scope, receive, send)
    return statuses[0]


async def test_websockets_are_closed(build_app: Callable[..., FastAPI]) -> None:
    app = build_app(keys=KEYS)
    sent: list[Any] = []

    async def receive() -> dict[str, str]:
        return {"type": "websocket.connect"}

    async def send(message: Any) -> None:
        sent.append(message)

    headers = [(b"authorization", b"Bearer search")]
    await app({"type": "websocket", "path": "/rank", "headers": headers}, receive, send)
    assert sent == [{"type": "websocket.close", "code": 1008}]


async def test_refused_before_the_body_is_read(address: httpx.URL) -> None:
    reader, writer = await asyncio.open_connection(address.host, address.port)
    writer.write(b"POST /rank HTTP/1.1\r\nHost: x\r\nContent-Length: 900000\r\n\r\n{")
    assert (await reader.readline()).startswith(b"HTTP/1.1 401")
    writer.close()


async def test_without_a_key_for_ranking_anybody_ranks(serving: Client) -> None:
    async with serving(keys=[api_key("scrape", scopes=["metrics"])]) as client:
        assert (await client.post("/rank", json=request())).status_code == 200
        assert (await client.get("/metrics")).status_code == 401
        assert (await client.get("/admin/settings")).status_code == 401


async def test_without_a_key_for_metrics_anybody_scrapes(serving: Client) -> None:
    async with serving(keys=[api_key("search")]) as client:
        assert (await client.get("/metrics")).status_code == 200
        assert (await client.post("/rank", json=request())).status_code == 401


async def test_debt_is_429_with_both_retry_headers_for_this_key_alone(serving: Client) -> None:
    keys = [api_key("slow", tokens_per_s=0.5, burst_s=2), api_key("fast")]
    async with serving(keys=keys) as client:
        headers = bearer("slow")
        first = await client.post("/rank", json=request(), headers=headers)
        spent = first.json()["usage"]["total_tokens"]
        assert spent > 1
        refused = await client.post("/rank", json=request(), headers=headers)
        assert assert_problem(refused, 429)["error_type"] == "rate_limited"
        wait_s = (spent - 1) / 0.5
        assert wait_s - 5 < int(refused.headers["retry-after-ms"]) / 1000 <= wait_s
        assert wait_s - 5 < int(refused.headers["retry-after"]) <= wait_s + 1
        assert (await client.get("/rank", headers=headers)).status_code == 405  # costs nothing
        answer = await client.post("/rank", json=request(), headers=bearer("fast"))
        assert answer.status_code == 200
        counts = await samples(client)
        assert counts["disranker_key_tokens_total", "slow"] == spent
        assert counts["disranker_key_tokens_total", "fast"] == spent
        assert counts["disranker_key_refusals_total", "slow,rate"] == 1
        assert counts["disranker_request_duration_seconds_count", "rejected"] == 1


async def test_a_request_that_fails_costs_its_key_nothing(serving: Client) -> None:
    async with serving(keys=[api_key("slow", tokens_per_s=0.5)]) as client:
        for _ in range(3):
            answer = await client.post("/rank", json={"query": "x"}, headers=bearer("slow"))
            assert answer.status_code == 422


async def test_refusals_are_counted_under_names_of_ours_only(serving: Client) -> None:
    async with serving(keys=KEYS[:2]) as client:
        before = (await client.get("/metrics")).text
        for headers in ({}, bearer("sesquipedalian"), bearer("sesqui")):
            await client.post("/rank", json=request(), headers=headers)
        await client.get("/admin/settings", headers=bearer("search"))
        counts = await samples(client)
        after = (await client.get("/metrics")).text
    assert counts["disranker_key_refusals_total", ",missing"] == 1
    assert counts["disranker_key_refusals_total", ",unknown"] == 2
    assert counts["disranker_key_refusals_total", "search,scope"] == 1
    assert "sesqui" not in after
    assert len(before.splitlines()) == len(after.splitlines())


async def test_openapi_names_the_key_where_one_is_needed(
    client: httpx.AsyncClient, serving: Client
) -> None:
    document = (await client.get("/openapi.json")).json()
    assert document["components"]["securitySchemes"] == {
        "key": {"type": "http", "scheme": "bearer"}
    }
    for path, operations in document["paths"].items():
        for operation in operations.values():
            assert ("security" in operation) == (scope_of(path) is not None)
            assert ("401" in operation["responses"]) == (scope_of(path) is not None)
    async with serving() as open_client:
        assert "securitySchemes" not in (await open_client.get("/openapi.json")).text
