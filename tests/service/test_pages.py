"""What a browser is told of each answer, and which sites' pages may ask."""

import pytest

from tests.service.asking import api_key, bearer, request
from tests.service.conftest import Client

pytestmark = pytest.mark.anyio

KEYS = [api_key("search")]

PREFLIGHT = {
    "Origin": "https://shop.example",
    "Access-Control-Request-Method": "POST",
    "Access-Control-Request-Headers": "authorization, content-type",
}


async def test_every_answer_has_the_security_headers(serving: Client) -> None:
    async with serving(keys=KEYS) as client:
        for answer in (
            await client.post("/rank", json=request(), headers=bearer("search")),
            await client.post("/rank", json={}, headers=bearer("search")),
            await client.post("/rank", json=request()),
            await client.get("/nowhere", headers=bearer("search")),
            await client.get("/docs"),
            await client.get("/livez"),
        ):
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert answer.headers["x-frame-options"] == "DENY"
            assert answer.headers["referrer-policy"] == "no-referrer"
            assert answer.headers["cache-control"] == "no-store"
            assert "server" not in answer.headers
            assert "access-control-allow-origin" not in answer.headers


async def test_other_pages_may_not_ask_by_default(serving: Client) -> None:
    async with serving(keys=KEYS) as client:
        assert (await client.options("/rank", headers=PREFLIGHT)).status_code == 401


@pytest.mark.parametrize("allowed", ["https://shop.example", "*"])
async def test_pages_of_allowed_origins_may_ask_and_see_errors(
    serving: Client, allowed: str
) -> None:
    async with serving(keys=KEYS, cors_origins=[allowed]) as client:
        asked = await client.options("/rank", headers=PREFLIGHT)
        assert asked.status_code == 200
        assert asked.headers["access-control-allow-headers"] == "authorization, content-type"
        origin = {"Origin": "https://shop.example"}
        for headers, status in ((bearer("search"), 200), ({}, 401)):
            answer = await client.post("/rank", json=request(), headers={**headers, **origin})
            assert answer.status_code == status
            assert answer.headers["access-control-allow-origin"] == allowed
            assert "access-control-allow-credentials" not in answer.headers
        if allowed != "*":
            other = {**PREFLIGHT, "Origin": "https://evil.example"}
            assert (await client.options("/rank", headers=other)).status_code == 400
