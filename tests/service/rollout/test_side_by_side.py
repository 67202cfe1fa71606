"""`POST /shadow` against a second real instance, with a decoder's bundle."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from scipy.stats import kendalltau

from export.bundle import export_bundle
from loadtest.server import Server, our_service
from service.contract.types import Candidate, RankingExample
from service.rollout.breaker import FAILURES
from tests.service.asking import assert_problem, request
from tests.service.conftest import Client
from tests.service.rollout import teachers
from tests.service.rollout.teachers import Teacher, reply
from tests.service.rollout.test_shadow import settled
from tests.service.test_server import running
from tests.tiny import tiny_teacher
from tests.training.decoders import scores_by_hand

pytestmark = pytest.mark.anyio

TITLES = ["kettle", "capital", "river", "lamp the", "", "dog"]
DOCUMENTS = [
    {"id": f"d{n}", "title": title, "summary": f"the {title} of {n * 'water '}"}
    for n, title in enumerate(TITLES)
]
ASKED: dict[str, Any] = {"query": "the cat", "candidates": DOCUMENTS}


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_teacher(tmp_path_factory.mktemp("teacher") / "checkpoint", kind="llama")


@pytest.fixture(scope="module")
def instance(teacher: Path) -> Iterator[Server]:
    export_bundle(teacher, teacher.parent / "bundle", name="teacher")
    with our_service(teacher.parent / "bundle", "--threads", "1") as server:
        yield server


async def test_both_rankings_come_back_with_their_comparison(
    serving: Client, instance: Server, teacher: Path
) -> None:
    async with serving(shadow_url=instance.url, shadow_model="teacher", shadow_sample=0) as client:
        alone = (await client.post("/rank", json=ASKED)).json()
        answer = await client.post("/shadow", json=ASKED)
        found = answer.raise_for_status().json()
    assert found["request_id"] == answer.headers["x-request-id"]
    assert found["stable"]["model"] == alone["model"]
    assert found["stable"]["results"] == alone["results"]
    assert found["shadow"]["model"] == {"name": "teacher", "version": "remote", "variant": "shadow"}
    candidates = [Candidate(d["id"], d["title"], d["summary"]) for d in DOCUMENTS]
    (expected,) = scores_by_hand(teacher, [RankingExample("q", "the cat", tuple(candidates))])
    results = found["shadow"]["results"]
    assert [r["rank"] for r in results] == [*range(1, len(DOCUMENTS) + 1)]
    assert [r["index"] for r in results] == sorted(
        range(len(expected)), key=lambda place: -expected[place]
    )
    for result in results:
        assert result["score"] == pytest.approx(expected[result["index"]], abs=1e-4)
        assert result["id"] == DOCUMENTS[result["index"]]["id"]
        assert result["relevance"] is None
    own = [r["score"] for r in sorted(alone["results"], key=lambda r: r["index"])]
    comparison = found["comparison"]
    tau = kendalltau(own, expected, variant="b").statistic
    assert comparison["tau_b"] == pytest.approx(tau, abs=1e-6)
    deltas = [abs(a - b) for a, b in zip(own, expected, strict=True)]
    assert comparison["largest_delta"] == pytest.approx(max(deltas), abs=1e-4)
    tops = ({r["index"] for r in side[:3]} for side in (alone["results"], results))
    assert comparison["overlap_3"] == pytest.approx(len(set.intersection(*tops)) / 3, abs=1e-6)


async def test_top_k_and_documents_are_as_asked_for(serving: Client, instance: Server) -> None:
    async with serving(shadow_url=instance.url, shadow_sample=0) as client:
        asked = ASKED | {"top_k": 2, "return_documents": True}
        found = (await client.post("/shadow", json=asked)).raise_for_status().json()
    for side in ("stable", "shadow"):
        assert len(found[side]["results"]) == 2
        for result in found[side]["results"]:
            sent = DOCUMENTS[result["index"]]
            assert result["document"] == {name: sent[name] for name in ("title", "summary")}
    assert found["comparison"]["candidates"] == len(DOCUMENTS)


async def test_one_candidate_or_the_same_scores_have_no_tau(serving: Client) -> None:
    async with Teacher().run() as teacher, serving(shadow_url=teacher.url, **TEI) as client:
        found = (await client.post("/shadow", json=request())).raise_for_status().json()
        assert found["comparison"]["tau_b"] is None
        assert found["comparison"]["overlap_1"] == 1.0


TEI: dict[str, Any] = {"shadow_protocol": "tei", "shadow_sample": 0}


async def test_without_a_shadow_it_is_said_what_to_set(serving: Client) -> None:
    async with serving() as client:
        problem = assert_problem(await client.post("/shadow", json=ASKED), 409)
        assert (problem["error_type"], "shadow_url" in problem["detail"]) == ("no_shadow", True)
        assert_problem(await client.post("/shadow", json={"query": "cat"}), 422)
        assert_problem(await client.post("/shadow", content=b"{"), 400)
        assert_problem(await client.get("/shadow"), 405)


async def busy(*_: object) -> bytes:
    return reply(429, {"detail": "secret"})


async def refusing(*_: object) -> bytes:
    return reply(401, {"detail": "secret"})


async def dawdling(teacher: Teacher, body: dict[str, Any]) -> None:
    await teachers.hangs(teacher, body)


@pytest.mark.parametrize(
    ("behaviour", "status", "reason"),
    [
        (teachers.crashes, 503, "unavailable"),
        (busy, 503, "overloaded"),
        (refusing, 502, "refused"),
        (teachers.talks_nonsense, 502, "garbage"),
        (dawdling, 504, "late"),
    ],
)
async def test_a_shadow_that_fails_is_a_problem_of_its_kind(
    serving: Client, behaviour: teachers.Behaviour, status: int, reason: str
) -> None:
    async with (
        Teacher(behaviour).run() as teacher,
        serving(shadow_url=teacher.url, **TEI) as client,
    ):
        answer = await client.post("/shadow", json=ASKED | {"deadline_ms": 1000})
        problem = assert_problem(answer, status)
        assert problem["error_type"] == f"shadow_{reason}"
        assert "secret" not in answer.text
        assert ("retry-after" in answer.headers) == (status == 503)
        assert (await client.post("/rank", json=ASKED)).status_code == 200


async def test_requests_that_the_shadow_refuses_take_it_from_nobody(serving: Client) -> None:
    async with (
        Teacher(refusing).run() as teacher,
        serving(shadow_url=teacher.url, **TEI) as client,
    ):
        for _ in range(FAILURES + 1):
            problem = assert_problem(await client.post("/shadow", json=ASKED), 502)
            assert problem["error_type"] == "shadow_refused"
        teacher.behaviour = teachers.answers
        (await client.post("/shadow", json=ASKED)).raise_for_status()
        assert "disranker_shadow_breaker_open 0.0" in (await client.get("/metrics")).text


async def test_empty_documents_that_the_teacher_refuses_do_not_open_its_breaker(
    serving: Client, instance: Server
) -> None:
    sampled = {"shadow_sample": 1, "shadow_max_queue_ms": 1e6, "shadow_timeout_ms": 60_000}
    async with serving(shadow_url=instance.url, **sampled) as client:
        blank = {"query": "the cat", "documents": ["", "kettle"]}
        for _ in range(FAILURES + 1):
            (await client.post("/v2/rerank", json=blank)).raise_for_status()
        found = await settled(client, FAILURES + 1)
        assert found == {"failed/refused": FAILURES + 1}
        (await client.post("/rank", json=ASKED)).raise_for_status()
        assert (await settled(client, FAILURES + 2))["compared/"] == 1


def test_the_log_names_the_request_and_not_what_is_sent_to_the_shadow(
    bundle_path: Path, instance: Server
) -> None:
    flags = ("--shadow-url", instance.url)
    with running(bundle_path, *flags) as server, httpx.Client(base_url=server.url) as client:
        answer = client.post("/shadow", json=ASKED).raise_for_status().json()
        assert server.stop() == 0
    (told,) = [line for line in server.log if line["logger"] == "service.requests"]
    assert (told["path"], told["status"]) == ("/shadow", 200)
    assert told["request_id"] == answer["request_id"]
    assert not [line for line in server.log if line["logger"].startswith("http")]


async def test_people_do_not_change_the_figures(serving: Client) -> None:
    async with Teacher().run() as teacher, serving(shadow_url=teacher.url, **TEI) as client:
        await client.post("/shadow", json=ASKED)
        metrics = (await client.get("/metrics")).text
    assert "disranker_agreement_count" not in metrics
    assert 'disranker_request_duration_seconds_count{model="tiny"' in metrics
    counts = [line for line in metrics.splitlines() if "duration_seconds_count" in line]
    assert all(line.endswith(" 0.0") for line in counts)
