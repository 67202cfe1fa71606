"""The other rerankers' requests and answers, over the same rankings as `/rank`."""

import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import numpy as np
import pytest
from pydantic import BaseModel, TypeAdapter

from service.api.dialects.cohere import COHERE
from service.api.dialects.nim import NimResponse
from service.api.dialects.rerank import RERANK, RerankResponse
from service.api.dialects.score import SCORE, ScoreResponse
from service.api.dialects.tei import TeiRank
from service.api.dialects.voyage import VoyageResponse
from service.api.record import RANKING_PATHS
from service.api.routes import ROUTES
from service.api.serving import read_request
from service.contract.bundle import Bundle
from service.contract.encoding import Truncation
from service.scorers.onnx import OnnxScorer
from tests.service.asking import assert_problem
from tests.service.conftest import Client

pytestmark = pytest.mark.anyio

QUERY = "boil water"
TEXTS = (
    "the capital city",
    "a kettle is to boil water in",
    "",
    "read a file line of python",
    "the kettle " * 300 + "cat",
)
LONG = 4


@pytest.fixture(scope="module")
async def client(serving: Client) -> AsyncIterator[httpx.AsyncClient]:
    async with serving() as client:
        yield client


@pytest.fixture(scope="module")
async def reference(client: httpx.AsyncClient, bundle: Bundle) -> list[dict[str, Any]]:
    """Return the model's own ranking of the texts: index, score and relevance, best first."""
    scores = logits(bundle, [Truncation()] * len(TEXTS))
    a, b = bundle.manifest.score.relevance.scale, bundle.manifest.score.relevance.offset
    relevance = 1 / (1 + np.exp(-(a * scores.astype(np.float64) + b)))
    order = sorted(range(len(TEXTS)), key=lambda i: (-scores[i], i))
    return [
        {"index": i, "score": float(scores[i]), "relevance": float(relevance[i])} for i in order
    ]


def logits(bundle: Bundle, truncations: list[Truncation]) -> np.ndarray[Any, Any]:
    """Return the texts' scores, each read as its truncation says."""
    encoder = bundle.encoder()
    query = encoder.encode_query(QUERY)
    pairs = []
    for text, truncation in zip(TEXTS, truncations, strict=True):
        (ids,) = encoder.encode_texts([text])
        pairs.append(encoder.splice(query, ids, truncation))
    return OnnxScorer(bundle.model_path("int8"), threads=1).score(pairs)


async def ask(client: httpx.AsyncClient, path: str, **body: Any) -> Any:
    response = await client.post(path, json=body)
    assert response.status_code == 200, response.text
    return response.json()


def of_schema(model: Any, answer: Any) -> None:
    """Hold an answer against its documented schema, which must have all of it."""
    found = TypeAdapter(model).validate_python(answer)
    parts = found if isinstance(found, list) else [found]
    dumped = [part.model_dump() for part in parts if isinstance(part, BaseModel)]
    assert (dumped if isinstance(answer, list) else dumped[0]) == answer


def places(results: list[dict[str, Any]], score: str) -> list[tuple[int, Any]]:
    return [(result["index"], result[score]) for result in results]


def best(reference: list[dict[str, Any]], score: str) -> list[tuple[int, Any]]:
    return [(place["index"], pytest.approx(place[score])) for place in reference]


async def test_tei_gets_every_text_sorted_as_a_bare_array(
    client: httpx.AsyncClient, reference: list[dict[str, Any]]
) -> None:
    answer = await ask(client, "/rerank", query=QUERY, texts=TEXTS, top_n=1)
    of_schema(list[TeiRank], answer)
    assert places(answer, "score") == best(reference, "relevance")
    assert all(result.keys() == {"index", "score"} for result in answer)
    answer = await ask(
        client, "/rerank", query=QUERY, texts=TEXTS, raw_scores=True, return_text=True
    )
    assert places(answer, "score") == best(reference, "score")
    assert [result["text"] for result in answer] == [TEXTS[r["index"]] for r in answer]


async def test_tei_refuses_to_cut_where_asked_and_names_the_text(
    client: httpx.AsyncClient, bundle: Bundle
) -> None:
    body = {"query": QUERY, "texts": TEXTS, "truncate": False}
    problem = assert_problem(await client.post("/rerank", json=body), 422)
    (fault,) = problem["errors"]
    assert fault["field"] == f"texts[{LONG}]"
    room = bundle.manifest.max_length - 3 - len(bundle.encoder().encode_query(QUERY))
    assert fault["limit"] == room
    await ask(client, "/rerank", query=QUERY, texts=TEXTS[:LONG], truncate=False)
    query = "cat " * (bundle.manifest.max_query_length + 1)
    body = {"query": query, "texts": ["cat"], "truncate": False}
    (fault,) = assert_problem(await client.post("/rerank", json=body), 422)["errors"]
    assert (fault["field"], fault["limit"]) == ("query", bundle.manifest.max_query_length)


@pytest.mark.parametrize("direction", ["Left", "LEFT", "left"])
async def test_tei_reads_the_end_of_long_texts_where_asked(
    client: httpx.AsyncClient, bundle: Bundle, direction: str
) -> None:
    answer = await ask(
        client,
        "/rerank",
        query=QUERY,
        texts=TEXTS,
        truncation_direction=direction,
        raw_scores=True,
    )
    expected = logits(bundle, [Truncation(keep_end=True)] * len(TEXTS))
    found = dict(places(answer, "score"))
    assert [found[i] for i in range(len(TEXTS))] == pytest.approx(expected.tolist())
    assert expected[LONG] != logits(bundle, [Truncation()] * len(TEXTS))[LONG]


@pytest.mark.parametrize("path", ["/rerank", "/v1/rerank", "/v2/rerank"])
async def test_cohere_jina_vllm_and_infinity_find_what_they_look_for(
    client: httpx.AsyncClient, reference: list[dict[str, Any]], path: str
) -> None:
    answer = await ask(
        client,
        path,
        model="rerank-v3.5",
        query=QUERY,
        documents=TEXTS,
        top_n=None,
        return_documents=None,
        max_tokens_per_doc=None,
        relevant_spans={"unknown": True},
    )
    of_schema(RerankResponse, answer)
    assert places(answer["results"], "relevance_score") == best(reference, "relevance")
    assert "document" not in answer["results"][0]
    assert answer["usage"]["total_tokens"] == answer["meta"]["tokens"]["input_tokens"] > 0
    assert answer["meta"]["api_version"]["version"] == ("2" if path == "/v2/rerank" else "1")
    two = await ask(client, path, query=QUERY, documents=TEXTS, top_n=2)
    assert two["results"] == answer["results"][:2]
    assert two["usage"] == answer["usage"]
    for everything in (0, 5, 1000):
        many = await ask(client, path, query=QUERY, documents=TEXTS, top_n=everything)
        assert many["results"] == answer["results"]


async def test_documents_come_back_only_where_every_client_can_read_them(
    client: httpx.AsyncClient,
) -> None:
    documents = ["cat", {"text": "dog", "url": 5}]
    body = {"query": QUERY, "documents": documents, "return_documents": True}
    answer = await ask(client, "/v1/rerank", **body)
    sent = {0: {"text": "cat"}, 1: {"text": "dog", "url": 5}}
    assert {r["index"]: r["document"] for r in answer["results"]} == sent
    assert answer["data"] == answer["results"]
    for path in ("/rerank", "/v2/rerank"):
        answer = await ask(client, path, **body)
        assert all("document" not in result for result in answer["results"])


async def test_numbers_that_json_cannot_write_come_back_as_null(client: httpx.AsyncClient) -> None:
    document = b'{"text": "cat", "a": 1e400, "b": -1e400, "c": NaN}'
    body = b'{"query": "cat", "return_documents": true, "documents": [%b]}' % document
    response = await client.post("/v1/rerank", content=body)
    assert response.status_code == 200
    (result,) = response.json()["results"]
    assert result["document"] == {"text": "cat", "a": None, "b": None, "c": None}


async def test_document_objects_are_read_in_their_rank_fields(client: httpx.AsyncClient) -> None:
    objects = [{"title": "kettle", "text": "boil water", "id": 7}, {"title": "dog", "text": "cat"}]
    for fields, texts in (
        (["title", "text"], ["kettle boil water", "dog cat"]),
        (["title"], ["kettle", "dog"]),
        (None, ["boil water", "cat"]),
    ):
        body = {"query": QUERY, "documents": objects, "rank_fields": fields}
        answer = await ask(client, "/v1/rerank", **body)
        plain = await ask(client, "/v1/rerank", query=QUERY, documents=texts)
        assert answer["results"] == plain["results"]
    body = {"query": QUERY, "documents": [*objects, {"title": "x", "id": 7}]}
    (fault,) = assert_problem(await client.post("/v1/rerank", json=body), 422)["errors"]
    assert (fault["field"], fault["value"]) == ("documents[2].text", "null")
    body["rank_fields"] = ["title", "id"]
    (fault,) = assert_problem(await client.post("/v1/rerank", json=body), 422)["errors"]
    assert (fault["field"], fault["value"]) == ("documents[0].id", "int")


@pytest.mark.parametrize(
    ("fields", "truncation"),
    [
        ({"max_tokens_per_doc": 2}, Truncation(max_document_tokens=2)),
        ({"max_tokens_per_doc": 4096}, Truncation()),
        ({"truncate_prompt_tokens": 8}, Truncation(max_pair_tokens=8)),
        ({"truncate_prompt_tokens": 1}, Truncation(max_pair_tokens=1)),
        ({"truncate_prompt_tokens": -1}, Truncation()),
        (
            {"truncate_prompt_tokens": 9, "max_tokens_per_doc": 1},
            Truncation(max_pair_tokens=9, max_document_tokens=1),
        ),
    ],
)
async def test_lengths_are_cut_as_asked_and_never_beyond_the_models(
    client: httpx.AsyncClient, bundle: Bundle, fields: dict[str, int], truncation: Truncation
) -> None:
    answer = await ask(
        client, "/v1/rerank", query=QUERY, documents=TEXTS, raw_scores=True, **fields
    )
    found = dict(places(answer["results"], "relevance_score"))
    expected = logits(bundle, [truncation] * len(TEXTS))
    assert [found[i] for i in range(len(TEXTS))] == pytest.approx(expected.tolist())


async def test_voyage_finds_its_data_and_strings(
    client: httpx.AsyncClient, reference: list[dict[str, Any]]
) -> None:
    body = {"query": QUERY, "documents": TEXTS, "model": "rerank-2", "truncation": True}
    answer = await ask(client, "/v1/rerank", **body, top_k=None, return_documents=True)
    of_schema(VoyageResponse, answer)
    assert answer["object"] == "list"
    assert places(answer["data"], "relevance_score") == best(reference, "relevance")
    assert [result["document"] for result in answer["data"]] == [
        TEXTS[result["index"]] for result in answer["data"]
    ]
    two = await ask(client, "/v1/rerank", query=QUERY, documents=TEXTS, top_k=2)
    assert places(two["data"], "relevance_score") == best(reference, "relevance")[:2]
    refused = await client.post("/v1/rerank", json={**body, "truncation": False})
    assert assert_problem(refused, 422)["errors"][0]["field"] == f"documents[{LONG}]"


async def test_keys_that_are_null_choose_no_dialect(client: httpx.AsyncClient) -> None:
    body = {"query": QUERY, "documents": TEXTS, "top_n": 1}
    plain = await ask(client, "/v1/rerank", **body)
    assert len(plain["results"]) == 1
    nulls = await ask(client, "/v1/rerank", **body, top_k=None, truncation=None)
    assert nulls["results"] == plain["results"]
    bare = await ask(client, "/rerank", query=QUERY, documents=TEXTS, texts=None)
    assert len(bare["results"]) == len(TEXTS)


@pytest.mark.parametrize("path", ["/ranking", "/v1/ranking", "/v1/retrieval/a/b-c/reranking"])
async def test_nim_gets_logits(
    client: httpx.AsyncClient, bundle: Bundle, reference: list[dict[str, Any]], path: str
) -> None:
    body = {"query": {"text": QUERY}, "passages": [{"text": text} for text in TEXTS]}
    answer = await ask(client, path, **body, model="nvidia/x", truncate="END")
    of_schema(NimResponse, answer)
    assert places(answer["rankings"], "logit") == best(reference, "score")
    two = await ask(client, path, **body, top_k=2)
    assert two["rankings"] == answer["rankings"][:2]
    refused = await client.post(path, json={**body, "truncate": "NONE"})
    assert assert_problem(refused, 422)["errors"][0]["field"] == f"passages[{LONG}]"
    start = await ask(client, path, **body, truncate="START")
    expected = logits(bundle, [Truncation(keep_end=True)] * len(TEXTS))
    assert dict(places(start["rankings"], "logit"))[LONG] == pytest.approx(float(expected[LONG]))


@pytest.mark.parametrize("path", ["/score", "/v1/score"])
@pytest.mark.parametrize(
    ("one", "many"),
    [("queries", "documents"), ("text_1", "text_2"), ("data_1", "data_2"), ("queries", "items")],
)
async def test_vllm_scores_come_in_the_requests_order(
    client: httpx.AsyncClient, reference: list[dict[str, Any]], path: str, one: str, many: str
) -> None:
    answer = await ask(client, path, model="m", **{one: QUERY, many: TEXTS})
    of_schema(ScoreResponse, answer)
    relevance = {place["index"]: place["relevance"] for place in reference}
    assert places(answer["data"], "score") == [
        (index, pytest.approx(relevance[index])) for index in range(len(TEXTS))
    ]
    single = await ask(client, path, **{one: [QUERY], many: TEXTS[1]})
    assert places(single["data"], "score") == [(0, pytest.approx(relevance[1]))]


async def test_vllm_scores_pairs_of_several_queries(client: httpx.AsyncClient) -> None:
    queries = ["boil water", "cat", "boil water", "capital"]
    documents = ["kettle", "dog", "the sea", "city"]
    answer = await ask(client, "/score", queries=queries, documents=documents)
    tokens = 0
    for index, (query, document) in enumerate(zip(queries, documents, strict=True)):
        alone = await ask(client, "/score", queries=query, documents=document)
        assert answer["data"][index] == {**alone["data"][0], "index": index}
        tokens += alone["usage"]["total_tokens"]
    assert answer["usage"] == {"prompt_tokens": tokens, "total_tokens": tokens}
    body = {"queries": queries, "documents": documents[:3]}
    problem = assert_problem(await client.post("/score", json=body), 422)
    assert "4 queries, 3 documents" in problem["detail"]
    assert len(problem["errors"]) == 1
    body = {"queries": [*queries[:3], " "], "documents": documents}
    (fault,) = assert_problem(await client.post("/score", json=body), 422)["errors"]
    assert fault["field"] == "queries"


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("/rerank", {"query": QUERY}, "documents"),
        ("/rerank", {"texts": ["a"]}, "query"),
        ("/rerank", {"query": QUERY, "texts": []}, "texts"),
        ("/rerank", {"query": QUERY, "texts": ["a"], "truncation_direction": "up"},
         "truncation_direction"),
        ("/rerank", {"query": " ", "texts": ["a"]}, "query"),
        ("/rerank", ["query"], "body"),
        ("/v1/rerank", {"query": QUERY, "documents": ["a"], "top_n": -1}, "top_n"),
        ("/v1/rerank", {"query": QUERY, "documents": ["a"], "top_k": 0}, "top_k"),
        ("/v1/rerank", {"query": QUERY, "documents": ["a"], "top_n": "1"}, "top_n"),
        ("/v1/rerank", {"query": QUERY, "documents": ["a"], "return_documents": 1},
         "return_documents"),
        ("/v1/rerank", {"query": QUERY, "documents": ["a", 5]}, "documents[1]"),
        ("/score", {"text_1": "a", "text_2": ["a", {"a": "b"}]}, "text_2[1]"),
        ("/score", {"queries": {"a": "b"}, "documents": "a"}, "queries"),
        ("/v2/rerank", {"query": QUERY, "documents": []}, "documents"),
        ("/v2/rerank", {"query": QUERY, "documents": ["a"] * 1001}, "documents"),
        ("/v2/rerank", {"query": QUERY, "documents": ["a"], "max_tokens_per_doc": -1},
         "max_tokens_per_doc"),
        ("/v1/ranking", {"query": QUERY, "passages": [{"text": "a"}]}, "query"),
        ("/v1/ranking", {"query": {"text": ""}, "passages": [{"text": "a"}]}, "query.text"),
        ("/v1/ranking", {"query": {"text": "q"}, "passages": ["a"]}, "passages[0]"),
        ("/score", {"documents": ["a"]}, "queries"),
    ],
)  # fmt: skip
async def test_bad_requests_name_the_dialects_own_field(
    client: httpx.AsyncClient, path: str, body: Any, field: str
) -> None:
    (fault,) = assert_problem(await client.post(path, json=body), 422)["errors"]
    assert fault["field"] == field


@pytest.mark.parametrize("path", [route.path for route in ROUTES])
async def test_broken_json_is_400_and_the_wrong_method_405(
    client: httpx.AsyncClient, path: str
) -> None:
    for body in (b"", b"{", b"[" * 50_000, b'{"query": "\\ud800"}', b"\xff"):
        assert_problem(await client.post(path, content=body), 400)
    assert_problem(await client.get(path), 405)


def test_priorities_above_0_are_low() -> None:
    for dialect, documents in ((RERANK, "documents"), (COHERE, "documents"), (SCORE, "documents")):
        for priority, low in ((-3, False), (0, False), (None, False), (1, True), (999, True)):
            body = json.dumps(
                {"query": "q", "queries": "q", documents: ["d"], "priority": priority}
            )
            (question,) = read_request(body.encode(), [dialect], max_query_chars=9).questions
            assert question.low is low


def test_every_path_to_rank_at_counts_as_one() -> None:
    paths = {route.path for route in ROUTES if "{" not in route.path}
    assert paths == RANKING_PATHS
