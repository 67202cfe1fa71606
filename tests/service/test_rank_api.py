"""`POST /rank` in process, on a real bundle."""

import asyncio
import json
import math
from collections.abc import AsyncIterator
from typing import Any

import httpx
import numpy as np
import pytest

from service.api.schema import RankResponse
from service.contract.bundle import Bundle
from service.contract.types import Candidate
from service.scorers.onnx import OnnxScorer
from tests.service.conftest import Client

pytestmark = pytest.mark.anyio

QUERY = "boil water"
DOCUMENTS = (
    {"id": "k", "title": "Kettle", "summary": "A kettle is to boil water in."},
    {"title": "Python"},
    {"id": "", "summary": "read a file line of python"},
    {"text": "the capital city"},
    {"id": "ünï", "title": " ", "summary": "Katze 猫 🐈 [SEP] [CLS] cat"},
)


@pytest.fixture(scope="module")
async def client(serving: Client) -> AsyncIterator[httpx.AsyncClient]:
    async with serving() as client:
        yield client


def candidates() -> list[dict[str, str]]:
    return [dict(document) for document in DOCUMENTS]


async def rank(client: httpx.AsyncClient, **fields: Any) -> dict[str, Any]:
    body = {"query": QUERY, "candidates": candidates(), **fields}
    response = await client.post("/rank", json=body)
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


async def test_ranking_is_the_models_own(client: httpx.AsyncClient, bundle: Bundle) -> None:
    texts = [
        Candidate(title=d.get("title", ""), summary=d.get("summary", d.get("text", "")))
        for d in DOCUMENTS
    ]
    pairs = bundle.encoder().encode(QUERY, texts)
    scores = OnnxScorer(bundle.model_path("int8"), threads=1).score(pairs)
    best_first = sorted(range(len(scores)), key=lambda i: (-scores[i], i))

    answer = await rank(client)
    results = answer["results"]
    assert [result["index"] for result in results] == best_first
    assert [result["rank"] for result in results] == [1, 2, 3, 4, 5]
    assert [np.float32(result["score"]) for result in results] == [scores[i] for i in best_first]
    assert [result["id"] for result in results] == [DOCUMENTS[i].get("id") for i in best_first]
    for result in results:
        assert result["relevance"] == pytest.approx(1 / (1 + math.exp(-result["score"])), abs=1e-12)
    tokens = sum(map(len, pairs))
    assert answer["usage"] == {
        "prompt_tokens": tokens,
        "padded_tokens": tokens,
        "total_tokens": tokens,
    }
    manifest = bundle.manifest
    assert answer["model"] == {
        "name": manifest.name,
        "version": manifest.version[:12],
        "variant": "stable",
    }
    assert answer["degraded"] is False
    assert set(answer["timings"]) == {
        "tokenise_ms", "queue_ms", "infer_ms", "order_ms", "total_ms"
    }  # fmt: skip


async def test_documents_come_back_only_when_asked_for(client: httpx.AsyncClient) -> None:
    assert all("document" not in result for result in (await rank(client))["results"])
    for result in (await rank(client, return_documents=True))["results"]:
        sent = DOCUMENTS[result["index"]]
        assert result["document"] == {name: text for name, text in sent.items() if name != "id"}


@pytest.mark.parametrize("fields", [{}, {"return_documents": True}, {"top_k": 1}])
async def test_answer_is_what_its_schema_says_byte_for_byte(
    client: httpx.AsyncClient, fields: dict[str, Any]
) -> None:
    body = {"query": QUERY, "candidates": candidates(), **fields}
    content = (await client.post("/rank", json=body)).content
    assert RankResponse.model_validate_json(content).model_dump_json().encode() == content


async def test_top_k_cuts_the_list_and_more_than_n_returns_all(client: httpx.AsyncClient) -> None:
    everything = (await rank(client))["results"]
    assert (await rank(client, top_k=2))["results"] == everything[:2]
    assert (await rank(client, top_k=500))["results"] == everything


async def test_explicit_nulls_are_defaults(client: httpx.AsyncClient) -> None:
    options = (
        "top_k", "deadline_ms", "priority", "on_deadline", "routing_key", "return_documents"
    )  # fmt: skip
    body = {"candidates": [{"id": None, "title": None, "text": "cat"}], **dict.fromkeys(options)}
    assert len((await rank(client, **body))["results"]) == 1


async def test_equal_scores_keep_the_requests_order(client: httpx.AsyncClient) -> None:
    answer = await rank(client, candidates=[{"text": "the same"}] * 4)
    assert [result["index"] for result in answer["results"]] == [0, 1, 2, 3]
    assert len({result["score"] for result in answer["results"]}) == 1


async def test_scores_never_depend_on_the_rest_of_the_request(client: httpx.AsyncClient) -> None:
    """int8 bit for bit: alone, in company, and beside concurrent requests of other lengths."""

    async def scores(*documents: dict[str, str]) -> dict[str, float]:
        answer = await rank(client, candidates=list(documents), return_documents=True)
        return {json.dumps(r["document"]): r["score"] for r in answer["results"]}

    documents = [{"text": f"{word} " * n} for n in (1, 7, 40, 200) for word in ("cat", "kettle")]
    alone: dict[str, float] = {}
    for document in documents:
        alone |= await scores(document)
    assert await scores(*documents) == alone
    assert await scores(*reversed(documents)) == alone
    for answer in await asyncio.gather(*(scores(*documents[n:]) for n in range(8))):
        assert answer.items() <= alone.items()


async def test_a_thousand_candidates_are_ranked(client: httpx.AsyncClient) -> None:
    many = [{"id": str(n), "text": f"cat {n}"} for n in range(1000)]
    results = (await rank(client, candidates=many))["results"]
    assert sorted(result["index"] for result in results) == list(range(1000))
    scores = [result["score"] for result in results]
    assert scores == sorted(scores, reverse=True)


async def test_request_id_is_echoed_where_it_is_safe(client: httpx.AsyncClient) -> None:
    body = {"query": QUERY, "candidates": [{"text": "cat"}]}
    given = await client.post("/rank", json=body, headers={"X-Request-Id": "abc-1/2:3"})
    assert given.headers["x-request-id"] == given.json()["request_id"] == "abc-1/2:3"
    for unsafe in ("", "a b", "x" * 129, 'quo"te', "ümlaut"):
        response = await client.post(
            "/rank", json=body, headers=[(b"X-Request-Id", unsafe.encode())]
        )
        new = response.headers["x-request-id"]
        assert new != unsafe
        assert len(new) == 32
        assert response.json()["request_id"] == new


async def test_server_timing_names_every_stage(client: httpx.AsyncClient) -> None:
    response = await client.post("/rank", json={"query": QUERY, "candidates": candidates()})
    timings = dict(part.split(";dur=") for part in response.headers["server-timing"].split(", "))
    assert list(timings) == ["tok", "queue", "infer", "order", "total"]
    stages = {name: float(value) for name, value in timings.items()}
    assert sum(stages.values()) <= 2 * stages["total"]


async def test_openapi_describes_the_raw_body_and_the_problems(client: httpx.AsyncClient) -> None:
    document = (await client.get("/openapi.json")).json()
    operation = document["paths"]["/rank"]["post"]
    schemas = document["components"]["schemas"]
    body = operation["requestBody"]["content"]["application/json"]["schema"]["$ref"]
    assert body == "#/components/schemas/RankRequest"
    assert set(schemas["RankRequest"]["required"]) == {"query", "candidates"}
    assert "sticky" in schemas["RankRequest"]["properties"]["routing_key"]["description"]
    for status in ("400", "413", "422", "429", "503", "504"):
        assert list(operation["responses"][status]["content"]) == ["application/problem+json"]
    references = {
        part.split('"')[0] for part in json.dumps(document).split("#/components/schemas/")[1:]
    }
    assert references <= schemas.keys()
    assert (await client.get("/docs")).status_code == 200
