"""The service before a real Triton, which runs the exported configuration as it is."""

import asyncio
import itertools
import math
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import httpx
import pytest

from export.triton import export_triton
from export.triton_config import MAX_QUEUE, Target
from service.app import create_app
from service.contract.bundle import Bundle
from service.contract.types import Candidate
from service.engines.local import LocalEngine
from service.engines.triton import TritonEngine
from service.scorers.onnx import OnnxScorer
from service.settings import Settings
from tests.service.asking import assert_problem
from tests.service.conftest import started
from tests.tiny import tiny_bundle
from tests.triton.conftest import Served

pytestmark = [pytest.mark.anyio, pytest.mark.real_part]

UNIQUE = itertools.count()


@asynccontextmanager
async def service(
    served: Served, engine: TritonEngine | LocalEngine | None = None, **settings: Any
) -> AsyncIterator[httpx.AsyncClient]:
    """Run a ready service before Triton, without a score cache."""
    app = create_app(
        Settings(bundle=served.bundle.root, score_cache_mb=0, **settings),
        bundle=served.bundle,
        engine=engine or served.engine(),
        precision="fp32",
        engine_name="triton",
    )
    async with started(app) as client:
        await until(client, ready=True)
        yield client


async def until(client: httpx.AsyncClient, *, ready: bool) -> str | None:
    """Wait for a readiness, and return the reason given."""
    with anyio.fail_after(30):
        while True:
            answer = await client.get("/readyz")
            if (answer.status_code == 200) == ready:
                reason: str | None = answer.json()["reason"]
                return reason
            await anyio.sleep(0.02)


def unique(words: int = 4, n: int = 1) -> list[dict[str, str]]:
    """Return candidates that nobody asked for before."""
    return [{"text": f"{next(UNIQUE)} " + "water " * words} for _ in range(n)]


async def rank(
    client: httpx.AsyncClient, candidates: list[dict[str, str]], **fields: Any
) -> httpx.Response:
    return await client.post("/rank", json={"query": "cat", "candidates": candidates, **fields})


async def waiting(served: Served, n: int) -> None:
    """Wait until so many requests wait in Triton's queue."""
    with anyio.fail_after(10):
        while served.triton.metric("nv_inference_pending_request_count", served.model) < n:  # noqa: ASYNC110
            await anyio.sleep(0.02)


@asynccontextmanager
async def load(client: httpx.AsyncClient, users: int = 4) -> AsyncIterator[Counter[int]]:
    """Let users rank one after the other; yields how often each status came."""
    statuses: Counter[int] = Counter()
    stopping = False

    async def use() -> None:
        while not stopping:
            statuses[(await rank(client, unique(n=3))).status_code] += 1
            await asyncio.sleep(0.005)

    tasks = [asyncio.create_task(use()) for _ in range(users)]
    try:
        yield statuses
    finally:
        stopping = True
        await asyncio.gather(*tasks)


async def test_scores_are_those_of_the_engine_in_process(served: Served) -> None:
    local = LocalEngine(OnnxScorer(served.bundle.model_path("fp32"), threads=1))
    requests = [
        {"query": golden.query, "candidates": [{"text": c.summary} for c in golden.candidates]}
        for golden in served.bundle.golden
    ]
    mixed = [candidate for words in range(0, 300, 5) for candidate in unique(words)]
    requests.append({"query": "cat", "candidates": mixed})
    async with service(served) as remote, service(served, local) as near:
        for request in requests:
            found, expected = [
                (await client.post("/rank", json=request)).raise_for_status().json()
                for client in (remote, near)
            ]
            scores = {result["index"]: result["score"] for result in expected["results"]}
            assert len(found["results"]) == len(request["candidates"])
            for result in found["results"]:
                assert result["score"] == pytest.approx(scores[result["index"]], abs=1e-4)
            assert found["usage"] == expected["usage"] | {
                "padded_tokens": found["usage"]["padded_tokens"]
            }


async def test_concurrent_requests_become_full_batches(
    served: Served, held: Callable[[], None]
) -> None:
    held()
    async with service(served) as client:
        before = served.triton.batches(served.model)
        served.triton.hold.touch()
        requests = [asyncio.create_task(rank(client, unique())) for _ in range(120)]
        await waiting(served, 100)
        held()
        answers = await asyncio.gather(*requests)
    assert {answer.status_code for answer in answers} == {200}
    after = served.triton.batches(served.model)
    new = {size: n - before.get(size, 0) for size, n in after.items()}
    assert new[48] >= 2
    assert sum(size * n for size, n in new.items()) == 120


async def test_full_queue_is_429(served: Served, held: Callable[[], None]) -> None:
    held()
    async with service(served) as client:
        served.triton.hold.touch()
        requests = [asyncio.create_task(rank(client, unique())) for _ in range(MAX_QUEUE + 60)]
        with anyio.fail_after(20):
            while not any(request.done() for request in requests):  # noqa: ASYNC110
                await anyio.sleep(0.02)
        await waiting(served, MAX_QUEUE)
        held()
        answers = await asyncio.gather(*requests)
        refused = [answer for answer in answers if answer.status_code != 200]
        assert 0 < len(refused) <= 60
        for answer in refused:
            problem = assert_problem(answer, 429)
            assert problem["error_type"] == "overloaded"
            assert int(answer.headers["retry-after"]) >= 1
        assert (await client.get("/readyz")).status_code == 200


async def test_deadline_passed_in_triton_is_504(served: Served, held: Callable[[], None]) -> None:
    held()
    async with service(served) as client:
        served.triton.hold.touch()
        with anyio.fail_after(20):  # Triton itself would not say so before it is let go
            answers = await asyncio.gather(
                *(rank(client, unique(), deadline_ms=300) for _ in range(3)),
                rank(client, unique(), deadline_ms=300, on_deadline="partial"),
            )
    for answer in answers[:3]:
        assert assert_problem(answer, 504)["error_type"] == "deadline_expired"
    assert answers[3].json()["degraded"]
    assert answers[3].json()["results"][0]["score"] is None


async def test_normal_goes_before_low(served: Served, held: Callable[[], None]) -> None:
    held()
    finished = []

    async def run(client: httpx.AsyncClient, name: str, words: int, **fields: Any) -> None:
        (await rank(client, unique(words), **fields)).raise_for_status()
        finished.append(name)

    async with service(served) as client, asyncio.TaskGroup() as group:
        served.triton.hold.touch()
        group.create_task(run(client, "first", 4))
        await asyncio.sleep(0.2)  # until it is held, and no longer in the queue
        group.create_task(run(client, "low", 4, priority="low"))
        await waiting(served, 1)
        group.create_task(run(client, "normal", 60))  # of another width: not in one batch
        await waiting(served, 2)
        held()
    assert finished == ["first", "normal", "low"]


async def test_killed_triton_turns_the_service_red_until_it_is_back(served: Served) -> None:
    async with service(served) as client:
        async with load(client) as statuses:
            await anyio.sleep(0.2)
            served.triton.kill()
            reason = await until(client, ready=False)
            assert reason is not None
            assert served.triton.url in reason
            assert_problem(await rank(client, unique()), 503)
            await anyio.to_thread.run_sync(served.triton.start)
            await until(client, ready=True)
            before = statuses[200]
            with anyio.fail_after(10):
                while statuses[200] < before + 10:  # noqa: ASYNC110
                    await anyio.sleep(0.02)
        assert set(statuses) == {200, 503}


async def test_service_waits_for_triton(served: Served) -> None:
    engine = served.engine(url="127.0.0.1:9")
    app = create_app(
        Settings(bundle=served.bundle.root), bundle=served.bundle, engine=engine, precision="fp32"
    )
    async with started(app) as client:
        with anyio.fail_after(10):
            while "127.0.0.1:9" not in (await client.get("/readyz")).json()["reason"]:  # noqa: ASYNC110
                await anyio.sleep(0.02)
        assert_problem(await rank(client, unique()), 503)


async def test_version_is_swapped_without_a_failed_request(served: Served) -> None:
    async with service(served) as client, load(client) as statuses:
        old = await triton_version(client)
        export_triton(served.bundle, served.repository, Target("cpu", "fp32"), overwrite=True)
        await anyio.to_thread.run_sync(served.triton.load, served.model)
        before = statuses[200]
        with anyio.fail_after(10):
            while statuses[200] < before + 20:  # noqa: ASYNC110
                await anyio.sleep(0.02)
        assert await triton_version(client) == old + 1
    assert set(statuses) == {200}


async def test_a_canary_is_another_model_of_the_same_triton(served: Served) -> None:
    folder = served.repository.parent
    path = tiny_bundle(folder / "candidate", name="candidate", seed=1, precisions=("fp32",))
    candidate = Bundle.open(path)
    model = export_triton(candidate, served.repository, Target("cpu", "fp32")).name
    near = LocalEngine(OnnxScorer(candidate.model_path("fp32"), threads=1))
    pairs = candidate.encoder().encode("cat", [Candidate(summary="water")])
    expected = (await near.score(pairs, math.inf)).values
    settings = Settings(
        bundle=served.bundle.root,
        engine="triton",
        triton_url=served.triton.url,
        precision="fp32",
        admin=True,
        bundles_root=folder,
    )
    app = create_app(settings, bundle=served.bundle, engine=served.engine(), precision="fp32")
    async with started(app) as client:
        await until(client, ready=True)

        async def put() -> httpx.Response:
            return await client.put("/admin/lanes/canary", json={"bundle": "candidate"})

        (fault,) = assert_problem(await put(), 409)["errors"]
        assert fault["field"] == "triton_model"
        assert model in fault["message"]
        await anyio.to_thread.run_sync(served.triton.load, model)
        (await put()).raise_for_status()
        body = {"query": "cat", "candidates": [{"text": "water"}]}
        answer = await client.post("/rank", json=body, headers={"X-Variant": "canary"})
        (result,) = answer.json()["results"]
        assert answer.json()["model"]["name"] == "candidate"
        assert result["score"] == pytest.approx(expected[0], abs=1e-4)
        async with load(client) as statuses:
            (await client.post("/admin/lanes/canary/promote")).raise_for_status()
            with anyio.fail_after(10):
                while statuses[200] < 20:  # noqa: ASYNC110
                    await anyio.sleep(0.02)
        assert set(statuses) == {200}
    await anyio.to_thread.run_sync(served.triton.unload, model)


async def triton_version(client: httpx.AsyncClient) -> float:
    text = (await client.get("/metrics")).text
    (line,) = [line for line in text.splitlines() if line.startswith("disranker_triton_model_v")]
    return float(line.split()[-1])
