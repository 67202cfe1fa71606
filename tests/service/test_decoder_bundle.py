"""A decoder's bundle, served: the same path as a BERT's, on other pairs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from loadtest.server import our_service
from service.__main__ import main
from service.contract.bundle import Bundle, BundleError
from service.contract.encoding import Truncation
from service.contract.types import Candidate, RankingExample
from service.ranking.caches import DocumentTokenCache
from service.scorers.scorer import choose_engine
from tests.service.asking import assert_problem
from tests.tiny import tiny_teacher
from tests.training.decoders import scores_by_hand

QUERY = "the cat"
TEXTS = (
    ("Kettle", "boil water in the kettle"),
    ("", "the dog"),
    ("capital", ""),
    ("the river", "</s> <s> <pad> stone"),
    ("lamp the", "river"),
    ("lamp", "the river"),
)
DOCUMENTS = [{"title": title, "summary": summary} for title, summary in TEXTS]
LONG = "the cat and the dog in the kettle " * 20


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_teacher(tmp_path_factory.mktemp("teacher") / "checkpoint")


@pytest.fixture(scope="module")
def bundle(teacher: Path) -> Bundle:
    from export.bundle import export_bundle

    return export_bundle(teacher, teacher.parent / "bundle", name="teacher").bundle


@pytest.fixture(scope="module")
def client(bundle: Bundle) -> Iterator[httpx.Client]:
    with (
        our_service(bundle.root, "--threads", "2") as server,
        httpx.Client(base_url=server.url, timeout=30) as client,
    ):
        yield client


def scores(client: httpx.Client, *documents: dict[str, str]) -> list[float]:
    """Return the documents' scores, in the request's order."""
    answer = client.post("/rank", json={"query": QUERY, "candidates": documents})
    results = answer.raise_for_status().json()["results"]
    return [result["score"] for result in sorted(results, key=lambda result: result["index"])]


def test_scores_are_those_of_transformers(client: httpx.Client, teacher: Path) -> None:
    plain = [texts for texts in TEXTS if "<" not in texts[1]]
    example = RankingExample("q", QUERY, tuple(Candidate(None, *texts) for texts in plain))
    (expected,) = scores_by_hand(teacher, [example])
    found = scores(client, *({"title": title, "summary": summary} for title, summary in plain))
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert found[-1] != found[-2]  # where the title ends makes a difference


def test_a_score_is_the_same_in_any_company(client: httpx.Client, bundle: Bundle) -> None:
    """Cached and not: the one-by-one scores are asked for before, and after the cache is lost."""
    documents = [*DOCUMENTS, *({"text": f"{text} {LONG}"} for text in ("cat", "dog"))]
    alone = [score for document in documents for score in scores(client, document)]
    assert scores(client, *documents) == alone
    assert scores(client, *reversed(documents)) == alone[::-1]
    with our_service(bundle.root, "--threads", "1", "--score-cache-mb", "0") as server:
        other = httpx.Client(base_url=server.url, timeout=30)
        assert scores(other, *documents) == alone


def test_usage_counts_the_pairs_tokens(client: httpx.Client, bundle: Bundle) -> None:
    texts = [Candidate(None, "river", "of dogs"), Candidate(None, "", LONG)]
    documents = [{"title": text.title, "summary": text.summary} for text in texts]
    answer = client.post("/rank", json={"query": QUERY, "candidates": documents}).json()
    lengths = [len(pair) for pair in bundle.encoder().encode(QUERY, texts)]
    assert lengths[1] == bundle.manifest.max_length
    assert answer["usage"] == {
        "prompt_tokens": sum(lengths),
        "padded_tokens": sum(lengths),
        "total_tokens": sum(lengths),
    }


def test_a_text_that_is_not_to_be_cut_is_refused_with_its_room(
    client: httpx.Client, bundle: Bundle
) -> None:
    encoder = bundle.encoder()
    room = encoder.max_length - encoder.frame_tokens - len(encoder.encode_query(QUERY))
    body = {"query": QUERY, "texts": ["dog", LONG], "truncate": False}
    assert str(room) in assert_problem(client.post("/rerank", json=body), 422)["detail"]
    assert client.post("/rerank", json=body | {"truncate": True}).status_code == 200


def test_clients_of_others_are_answered(client: httpx.Client, bundle: Bundle) -> None:
    texts = [text for _, text in TEXTS if text]
    expected = scores(client, *({"text": text} for text in texts))
    raw = {"query": QUERY, "texts": texts, "raw_scores": True}
    ranks = client.post("/rerank", json=raw).raise_for_status().json()
    assert {rank["index"]: rank["score"] for rank in ranks} == dict(enumerate(expected))
    short = {"query": QUERY, "documents": texts, "max_tokens_per_doc": 1}
    assert client.post("/v2/rerank", json=short).status_code == 200
    tight = {"model": "any", "query": QUERY, "documents": texts, "truncate_prompt_tokens": 1}
    assert client.post("/v1/rerank", json=tight).status_code == 200
    manifest = bundle.manifest
    info = client.get("/info").json()
    assert (info["model_id"], info["model_sha"]) == ("teacher", manifest.version)
    assert (info["model_dtype"], info["max_input_length"]) == ("float32", 64)
    (card,) = client.get("/v1/models").json()["data"]
    assert (card["id"], card["max_model_len"]) == ("teacher", 64)
    assert 'engine="onnx"' in client.get("/metrics").text


def test_the_native_engine_says_that_it_runs_berts_only(
    bundle: Bundle, capsys: pytest.CaptureFixture[str]
) -> None:
    assert choose_engine(bundle, "fp32") == (
        "onnx",
        "the native engine runs BERTs; the bundle has 'decoder-pair-1' pairs",
    )
    assert main(["serve", "--bundle", str(bundle.root), "--engine", "native", "--port", "0"]) == 2
    assert "engine native: the native engine runs BERTs" in capsys.readouterr().err
    assert main(["serve", "--bundle", str(bundle.root), "--precision", "int8"]) == 2
    assert "no int8 model; it offers fp32" in capsys.readouterr().err


def test_files_are_ranked_and_bundles_checked_without_a_server(
    bundle: Bundle, client: httpx.Client, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "candidates.jsonl"
    path.write_text("".join(json.dumps(document) + "\n" for document in DOCUMENTS))
    flags = ["--bundle", str(bundle.root), "--query", QUERY, "--candidates", str(path)]
    assert main(["rank", *flags]) == 0
    results: list[dict[str, Any]] = json.loads(capsys.readouterr().out)["results"]
    expected = scores(client, *DOCUMENTS)
    by_index = {result["index"]: result["score"] for result in results}
    np.testing.assert_allclose([by_index[place] for place in range(len(TEXTS))], expected)
    assert main(["check-bundle", str(bundle.root)]) == 0
    assert "fp32, engine onnx: largest deviation 0.0000" in capsys.readouterr().out


def test_a_flipped_byte_of_the_weights_is_found(bundle: Bundle, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    for path in bundle.root.iterdir():
        (broken / path.name).write_bytes(path.read_bytes())
    weights = bytearray((broken / "model.onnx.data").read_bytes())
    weights[-1] ^= 1
    (broken / "model.onnx.data").write_bytes(weights)
    with pytest.raises(BundleError, match=r"'model\.onnx\.data' was changed"):
        Bundle.open(broken)


def test_the_token_cache_keeps_titles_apart(bundle: Bundle) -> None:
    encoder, cache = bundle.encoder(), DocumentTokenCache(max_bytes=100_000)
    texts = [("", "lamp the river"), ("lamp", "the river"), ("lamp the", "river"), (" ", "lamp")]
    candidates = [Candidate(None, *text) for text in texts]
    for _ in range(2):
        cached = cache.encode_documents(encoder, candidates)
        fresh = encoder.encode_documents(candidates)
        assert [ids.tolist() for ids in cached] == [ids.tolist() for ids in fresh]
    assert cache.stats.hits == len(candidates)


def test_the_shortest_pair_that_may_be_asked_for_has_room_for_a_token(bundle: Bundle) -> None:
    encoder = bundle.encoder()
    query, document = encoder.encode_texts([QUERY, LONG])
    for asked in (1, 4, encoder.frame_tokens + 1):
        pair = encoder.splice(query, document, Truncation(max_pair_tokens=asked))
        assert len(pair) == max(asked, encoder.frame_tokens + 1)
        assert pair.input_ids[1] == query[0]
