"""The shadow beside real requests: compared, bounded, and never in their way."""

from __future__ import annotations

import asyncio
import gzip
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from service.contract.bundle import Bundle
from service.contract.encoding import TokenPair
from service.contract.events import event_files, read_events
from service.contract.types import Scores
from service.engines.local import LocalEngine
from service.rollout.shadow import is_sampled
from service.runner import choose_runner
from service.scorers.onnx import OnnxScorer
from service.settings import Settings
from tests.service.asking import assert_problem, request
from tests.service.conftest import Client
from tests.service.rollout import teachers
from tests.service.rollout.teachers import Behaviour, Teacher

pytestmark = pytest.mark.anyio

DOCUMENTS = [{"id": f"d{n}", "text": "the cat " * n + "kettle"} for n in range(1, 7)]
SHADOWED = {"shadow_protocol": "tei", "shadow_sample": 1.0, "shadow_max_queue_ms": 1e6}


async def outcomes(client: httpx.AsyncClient) -> Counter[str]:
    """Return how many requests came to what, as `outcome/reason`."""
    found: Counter[str] = Counter()
    for family in text_string_to_metric_families((await client.get("/metrics")).text):
        for sample in family.samples:
            if sample.name == "disranker_shadow_requests_total" and sample.value:
                labels = sample.labels
                found[f"{labels['outcome']}/{labels['reason']}"] += int(sample.value)
    return found


async def metric(client: httpx.AsyncClient, name: str, **labels: str) -> float:
    for family in text_string_to_metric_families((await client.get("/metrics")).text):
        for sample in family.samples:
            if sample.name == name and labels.items() <= sample.labels.items():
                return sample.value
    raise AssertionError(f"no {name} {labels}")


async def settled(client: httpx.AsyncClient, requests: int) -> Counter[str]:
    """Return the outcomes once so many requests have one."""
    with anyio.fail_after(60):
        while (found := await outcomes(client)).total() < requests:  # noqa: ASYNC110
            await anyio.sleep(0.02)
    return found


Shadowed = Callable[..., Any]


@pytest.fixture
def shadowed(serving: Client) -> Shadowed:
    """Return a context manager: the app with a teacher that behaves as asked."""

    @asynccontextmanager
    async def run(
        behaviour: Behaviour = teachers.answers, *args: Any, **settings: Any
    ) -> AsyncIterator[tuple[httpx.AsyncClient, Teacher]]:
        async with (
            Teacher(behaviour).run() as teacher,
            serving(*args, **{"shadow_url": teacher.url, **SHADOWED, **settings}) as client,
        ):
            yield client, teacher

    return run


async def rank(client: httpx.AsyncClient, **fields: Any) -> dict[str, Any]:
    answer = await client.post("/rank", json={"query": "cat", "candidates": DOCUMENTS, **fields})
    found: dict[str, Any] = answer.raise_for_status().json()
    return found


async def test_answered_requests_are_compared_and_recorded(
    shadowed: Shadowed, tmp_path: Path, bundle: Bundle
) -> None:
    async with shadowed(event_log=tmp_path) as (client, teacher):
        answer = await rank(client, top_k=2)
        assert await settled(client, 1) == {"compared/": 1}
        labels = {"variant": "stable", "version": bundle.short_version, "against_version": "remote"}
        assert await metric(client, "disranker_agreement_count", measure="rbo", **labels) == 1
        assert await metric(client, "disranker_shadow_duration_seconds_count") == 1
        assert len(teacher.bodies[0]["texts"]) == len(DOCUMENTS)  # all, not the top two
    (event,) = read_events(tmp_path)
    assert event.request_id == answer["request_id"]
    assert event.ids == tuple(document["id"] for document in DOCUMENTS)
    assert event.against_scores == tuple(float(len(d["text"])) for d in DOCUMENTS)
    for result in answer["results"]:
        assert event.scores[result["index"]] == result["score"]
    assert event.comparison["candidates"] == len(DOCUMENTS)
    assert event.model.version == bundle.short_version
    assert (event.query, event.documents) == (None, None)
    (line,) = gzip.decompress(event_files(tmp_path)[0].read_bytes()).splitlines()
    assert b"kettle" not in line


async def test_texts_are_recorded_where_that_is_asked_for(
    shadowed: Shadowed, tmp_path: Path
) -> None:
    async with shadowed(event_log=tmp_path, event_log_texts=True) as (client, _):
        await rank(client)
        await settled(client, 1)
    (event,) = read_events(tmp_path)
    assert event.query == "cat"
    assert event.documents is not None
    assert [document.summary for document in event.documents] == [d["text"] for d in DOCUMENTS]


async def test_every_dialect_is_shadowed(shadowed: Shadowed) -> None:
    texts = [document["text"] for document in DOCUMENTS]
    async with shadowed() as (client, teacher):
        await client.post("/rerank", json={"query": "cat", "texts": texts})
        await client.post("/v2/rerank", json={"model": "m", "query": "cat", "documents": texts})
        both = {"model": "m", "queries": ["cat", "kettle"], "documents": texts[:2]}
        await client.post("/score", json=both)  # two queries of one document each
        assert await settled(client, 4) == {"compared/": 2, "skipped/single": 2}
        assert [body["texts"] for body in teacher.bodies] == [texts, texts]


async def test_what_has_nothing_to_compare_is_skipped(shadowed: Shadowed) -> None:
    async with shadowed() as (client, teacher):
        await client.post("/rank", json=request())
        await client.post("/rank", json=request(candidates=[]))  # 422: never answered
        assert await settled(client, 1) == {"skipped/single": 1}
        assert not teacher.bodies


async def test_a_request_id_decides_the_sample(shadowed: Shadowed) -> None:
    ids = [f"request-{number}" for number in range(60)]
    chosen = {name for name in ids if is_sampled(name, 0.5)}
    assert 15 < len(chosen) < 45
    async with shadowed(shadow_sample=0.5, shadow_timeout_ms=30_000) as (client, teacher):
        for name in ids:
            body = {"query": name, "candidates": DOCUMENTS[:2]}
            await client.post("/rank", json=body, headers={"x-request-id": name})
        found = await settled(client, len(ids))
        assert {body["query"] for body in teacher.bodies} == chosen
    assert found == {"compared/": len(chosen), "skipped/sample": len(ids) - len(chosen)}


def test_a_larger_share_has_all_of_a_smaller() -> None:
    ids = [f"r-{number}" for number in range(20_000)]
    shares = (0.0, 0.01, 0.1, 0.5, 1.0)
    chosen = [{name for name in ids if is_sampled(name, share)} for share in shares]
    for share, smaller, larger in zip(shares[1:], chosen, chosen[1:], strict=False):
        assert smaller <= larger
        assert len(larger) / len(ids) == pytest.approx(share, abs=0.01)


async def test_the_sample_is_set_while_it_runs(serving: Client) -> None:
    async with (
        Teacher().run() as teacher,
        serving(shadow_url=teacher.url, **SHADOWED, admin=True) as client,
    ):
        found = await client.put("/admin/shadow", json={"sample": 0})
        assert found.json() == {"sample": 0.0}
        await rank(client)
        await client.put("/admin/shadow", json={"sample": 1})
        await rank(client)
        assert await settled(client, 2) == {"skipped/sample": 1, "compared/": 1}
        for bad in ({"sample": 2}, {"sample": "x"}, {}, {"share": 1, "sample": 1}, [1]):
            problem = assert_problem(await client.put("/admin/shadow", json=bad), 422)
            assert problem["errors"]
        assert await metric(client, "disranker_shadow_sample_ratio") == 1


async def test_what_waits_when_it_is_switched_off_is_not_sent(shadowed: Shadowed) -> None:
    go_on = asyncio.Event()

    async def behaviour(teacher: Teacher, body: dict[str, Any]) -> bytes | None:
        await go_on.wait()
        return await teachers.answers(teacher, body)

    bounds = {"shadow_concurrency": 1, "shadow_timeout_ms": 600_000}
    async with shadowed(behaviour, admin=True, **bounds) as (client, teacher):
        for _ in range(3):
            await rank(client)
        with anyio.fail_after(60):
            while not teacher.bodies:  # noqa: ASYNC110
                await anyio.sleep(0.01)
        (await client.put("/admin/shadow", json={"sample": 0})).raise_for_status()
        go_on.set()
        assert await settled(client, 3) == {"compared/": 1, "skipped/sample": 2}
        assert len(teacher.bodies) == 1


async def test_waiting_requests_are_bounded_and_the_newest_are_dropped(shadowed: Shadowed) -> None:
    bounds = {"shadow_waiting": 3, "shadow_concurrency": 2, "shadow_timeout_ms": 600_000}
    go_on = asyncio.Event()

    async def behaviour(teacher: Teacher, body: dict[str, Any]) -> bytes | None:
        await go_on.wait()
        return await teachers.answers(teacher, body)

    async with shadowed(behaviour, **bounds) as (client, teacher):
        for number in range(12):
            await rank(client, query=f"cat {number}")
        assert await outcomes(client) == {"dropped/full": 12 - 3 - 2}
        assert await metric(client, "disranker_shadow_waiting_requests") == 3
        go_on.set()
        assert (await settled(client, 12))["compared/"] == 5
        assert [body["query"] for body in teacher.bodies] == [f"cat {n}" for n in range(5)]


async def test_what_waited_too_long_is_dropped(shadowed: Shadowed) -> None:
    bounds = {"shadow_waiting": 9, "shadow_concurrency": 1, "shadow_timeout_ms": 200}
    async with shadowed(teachers.hangs, **bounds) as (client, _):
        for _ in range(4):
            await rank(client)
        found = await settled(client, 4)
    assert found["failed/late"] >= 1
    assert found["failed/late"] + found["dropped/stale"] == 4


@pytest.mark.parametrize("budget", [{"shadow_requests_per_s": 0.001}, {"shadow_tokens_per_s": 1}])
async def test_a_budget_is_kept(shadowed: Shadowed, budget: dict[str, float]) -> None:
    async with shadowed(**budget) as (client, _):
        for _ in range(5):
            await rank(client)
            await anyio.sleep(0.01)
        found = await settled(client, 5)
    assert found == {"compared/": 1, "dropped/budget": 4}


class HeldEngine:
    """Scores as the bundle does, each launch when it is let go."""

    def __init__(self, bundle: Bundle) -> None:
        self._engine = LocalEngine(OnnxScorer(bundle.model_path("int8"), threads=1))
        self.turns = asyncio.Semaphore(1_000)

    async def score(self, pairs: Sequence[TokenPair], deadline: float) -> Scores:
        async with self.turns:
            return await self._engine.score(pairs, deadline)


async def test_nothing_is_sent_while_requests_wait(shadowed: Shadowed, bundle: Bundle) -> None:
    engine = HeldEngine(bundle)
    settings = {"shadow_max_queue_ms": 100, "max_batch": len(DOCUMENTS)}
    async with shadowed(teachers.answers, engine, **settings) as (client, teacher):
        engine.turns = asyncio.Semaphore(0)
        async with anyio.create_task_group() as group:
            for number in range(3):  # a launch each
                group.start_soon(partial(rank, client, query=f"dog {number}"))
            for _ in range(3):
                await anyio.sleep(0.25)
                engine.turns.release()
        found = await settled(client, 3)
        assert found["dropped/busy"] >= 2  # the first did not wait
        assert len(teacher.bodies) <= 1


async def test_a_bundle_in_this_process_agrees_with_itself(
    serving: Client, bundle: Bundle, tmp_path: Path
) -> None:
    async with serving(
        engine=choose_runner(Settings(bundle=bundle.root), bundle).engine,  # as the shadow's
        shadow=bundle.root,
        shadow_sample=1,
        shadow_timeout_ms=60_000,
        event_log=tmp_path,
    ) as client:
        with anyio.fail_after(60):
            while not await metric(client, "disranker_lane_ready", variant="shadow"):  # noqa: ASYNC110
                await anyio.sleep(0.02)
        for number in range(3):
            await rank(client, query=f"cat {number}")
        found = await settled(client, 3)
        assert found["compared/"] + found["dropped/busy"] == 3
        pair = {"version": bundle.short_version, "against_version": bundle.short_version}
        measured = {**pair, "measure": "concordance"}
        assert await metric(client, "disranker_agreement_sum", **measured) == found["compared/"]
        both = (await client.post("/shadow", json={"query": "cat", "candidates": DOCUMENTS})).json()
        assert both["shadow"]["model"] == both["stable"]["model"] | {"variant": "shadow"}
        assert both["comparison"]["largest_delta"] == 0
        assert "disranker_request_duration_seconds_count" in (await client.get("/metrics")).text
    for event in read_events(tmp_path):
        assert event.scores == event.against_scores
        assert event.against.variant == "shadow"


async def test_without_a_shadow_nothing_is_counted(serving: Client) -> None:
    async with serving() as client:
        await rank(client)
        assert await outcomes(client) == {}
