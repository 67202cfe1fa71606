"""`POST /rank` with the caches on and off, on a real bundle."""

import asyncio
import random
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from tests.contract.texts import random_texts
from tests.service.conftest import Client
from tests.service.test_operations import samples

pytestmark = pytest.mark.anyio

OFF = {"token_cache_mb": 0, "score_cache_mb": 0}


@pytest.fixture(scope="module")
async def cached(serving: Client) -> AsyncIterator[httpx.AsyncClient]:
    async with serving() as client:
        yield client


@pytest.fixture(scope="module")
async def plain(serving: Client) -> AsyncIterator[httpx.AsyncClient]:
    async with serving(**OFF) as client:
        yield client


async def rank(
    client: httpx.AsyncClient, query: str, candidates: list[dict[str, str]]
) -> dict[str, Any]:
    response = await client.post("/rank", json={"query": query, "candidates": candidates})
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


def requests(seed: int, count: int) -> list[tuple[str, list[dict[str, str]]]]:
    """Return requests that share queries and documents, with duplicates in them."""
    draw, texts = random.Random(seed), random_texts(seed, longest=12)
    documents = [f"{n} {next(texts)}" for n in range(12)]
    return [
        (
            draw.choice(("boil water", "cat", "猫 [SEP] kettle")),
            [
                {"title": text, "summary": "the"} if n % 3 else {"text": text}
                for n, text in enumerate(draw.choices(documents, k=draw.randint(1, 9)))
            ],
        )
        for _ in range(count)
    ]


async def test_rankings_are_the_same_with_and_without_caches(
    cached: httpx.AsyncClient, plain: httpx.AsyncClient
) -> None:
    asked = requests(5, 40)
    fresh = [await rank(plain, *request) for request in asked]
    for _cold_then_warm in range(2):
        for request, expected in zip(asked, fresh, strict=True):
            answer = await rank(cached, *request)
            assert answer["results"] == expected["results"]
            used, whole = answer["usage"], expected["usage"]
            assert used["prompt_tokens"] == whole["prompt_tokens"]
            assert used["padded_tokens"] <= whole["padded_tokens"] == whole["prompt_tokens"]


async def test_concurrent_strangers_get_what_they_would_get_alone(
    serving: Client, plain: httpx.AsyncClient
) -> None:
    asked = requests(6, 25) * 2
    random.Random(7).shuffle(asked)
    async with serving() as client:
        answers = await asyncio.gather(*(rank(client, *request) for request in asked))
        counts = await samples(client)
    for request, answer in zip(asked, answers, strict=True):
        assert answer["results"] == (await rank(plain, *request))["results"]
    assert counts["disranker_cache_lookups_total", "scores,shared"] > 0


async def test_a_repeated_request_costs_the_model_nothing(cached: httpx.AsyncClient) -> None:
    candidates = [{"id": "a", "text": "only asked here"}, {"id": "b", "text": "nor is this"}]
    first = await rank(cached, "to be repeated", candidates)
    again = await rank(cached, "to be repeated", candidates)
    assert again["results"] == first["results"]
    assert first["usage"]["padded_tokens"] == first["usage"]["prompt_tokens"]
    assert again["usage"]["padded_tokens"] == 0
    assert again["timings"]["infer_ms"] == 0


async def test_an_id_with_anothers_text_poisons_nothing(
    cached: httpx.AsyncClient, plain: httpx.AsyncClient
) -> None:
    honest = [{"id": "doc-1", "text": "the kettle"}, {"id": "doc-2", "text": "a dog"}]
    poison = [{"id": "doc-1", "text": "a dog " * 30}, {"id": "doc-2", "text": "kettle"}]
    expected = await rank(plain, "kettle", honest)
    await rank(cached, "kettle", poison)
    assert (await rank(cached, "kettle", honest))["results"] == expected["results"]
    await rank(cached, "kettle", poison)
    assert (await rank(cached, "kettle", honest))["results"] == expected["results"]


async def test_metrics_are_there_from_the_start_and_count(serving: Client) -> None:
    async with serving() as client:
        before = await samples(client)
        candidates = [{"text": "never seen"}, {"text": "never seen"}, {"text": "nor this"}]
        await rank(client, "cat", candidates)
        await rank(client, "cat", candidates)
        after = await samples(client)
    for cache in ("tokens", "scores"):
        grown = [
            after["disranker_cache_lookups_total", f"{cache},{result}"]
            - before["disranker_cache_lookups_total", f"{cache},{result}"]
            for result in ("hit", "miss", "shared")
        ]
        assert grown == [3, 2, 1]
        for name in ("bytes", "entries"):
            assert (
                after[f"disranker_cache_{name}", cache] > before[f"disranker_cache_{name}", cache]
            )


async def test_switched_off_nothing_is_kept_and_every_pair_is_run(serving: Client) -> None:
    async with serving(**OFF) as client:
        for _ in range(2):
            usage = (await rank(client, "cat", [{"text": "same"}] * 3))["usage"]
            assert usage["padded_tokens"] == usage["prompt_tokens"]
        counts = await samples(client)
    for cache in ("tokens", "scores"):
        for result in ("hit", "miss", "shared"):
            assert counts["disranker_cache_lookups_total", f"{cache},{result}"] == 0
        assert counts["disranker_cache_entries", cache] == 0
