from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI

from service.settings import Settings, SettingsError, is_loopback, load_settings
from tests.service.asking import api_key, assert_problem, bearer, request
from tests.service.conftest import Client
from tests.service.test_operations import samples
from tests.service.test_server import refused, running

OPERATOR = api_key("operator", scopes=["admin"])


async def cached(client: httpx.AsyncClient) -> list[float]:
    counts = await samples(client)
    return [counts["disranker_cache_entries", name] for name in ("tokens", "scores")]


@pytest.mark.anyio
async def test_caches_are_dropped_and_fill_again(serving: Client) -> None:
    async with serving(keys=[OPERATOR], admin=True) as client:
        await client.delete(
            "/admin/caches", headers=bearer("operator")
        )  # golden pairs of the start
        body = request(candidates=[{"text": "cat"}, {"text": "dog"}, {"text": "kettle"}])
        first = (await client.post("/rank", json=body)).json()
        assert await cached(client) == [3, 3]
        answer = await client.delete("/admin/caches", headers=bearer("operator"))
        assert answer.json() == {"tokens": 3, "scores": 3}
        assert await cached(client) == [0, 0]
        again = (await client.post("/rank", json=body)).json()
        assert again["results"] == first["results"]
        assert again["usage"]["padded_tokens"] == first["usage"]["padded_tokens"] > 0
        assert await cached(client) == [3, 3]


@pytest.mark.anyio
async def test_settings_are_shown_without_hashes(serving: Client) -> None:
    async with serving(keys=[OPERATOR], admin=True, budget_ms=7.5) as client:
        answer = await client.get("/admin/settings", headers=bearer("operator"))
    shown = answer.json()
    assert set(shown) == set(Settings.model_fields)
    assert shown["budget_ms"] == 7.5
    assert shown["keys"] == [
        {"name": "operator", "scopes": ["admin"], "tokens_per_s": None, "burst_s": 2.0}
    ]
    assert OPERATOR["sha256"] not in answer.text


@pytest.mark.anyio
async def test_there_is_no_admin_unless_it_is_asked_for(serving: Client) -> None:
    async with serving(keys=[OPERATOR]) as client:
        assert_problem(await client.get("/admin/settings", headers=bearer("operator")), 404)
        assert "/admin" not in (await client.get("/openapi.json")).text
    async with serving() as client:
        assert_problem(await client.delete("/admin/caches"), 404)


@pytest.mark.anyio
async def test_on_loopback_without_any_key_admin_is_open(build_app: Callable[..., FastAPI]) -> None:
    transport = httpx.ASGITransport(build_app(admin=True))
    async with httpx.AsyncClient(transport=transport, base_url="http://service") as client:
        assert (await client.get("/admin/settings")).status_code == 200


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "localhost"])
def test_admin_without_a_key_starts_on_loopback(host: str) -> None:
    assert load_settings({"admin": "true", "host": host}).admin


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "", "10.0.0.1", "example.com", "127.0.0.1.evil"])  # noqa: S104
def test_admin_without_a_key_starts_nowhere_else(host: str) -> None:
    assert not is_loopback(host)
    with pytest.raises(SettingsError, match=r"^admin: /admin needs a key with the scope admin"):
        load_settings({"admin": "true", "host": host})
    assert load_settings({"admin": "true", "host": host, "keys": [OPERATOR]}).admin


def test_admin_with_keys_needs_one_of_its_own_even_on_loopback() -> None:
    with pytest.raises(SettingsError, match=r"^admin: "):
        load_settings({"admin": "true", "keys": [api_key("search")]})


def test_refused_start_is_one_line_and_open_ranking_is_told(bundle_path: Path) -> None:
    told = refused(bundle_path, "--admin", "true", "--host", "0.0.0.0")  # noqa: S104
    assert "admin: /admin needs a key" in told
    # A way to write 127.0.0.1 that counts as an address of any other machine's.
    with running(bundle_path, "--host", "127.1") as server:
        assert server.wait_for("anybody who reaches this port may rank")["level"] == "warning"
