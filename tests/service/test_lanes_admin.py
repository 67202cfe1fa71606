"""Bundles loaded, swapped, promoted and let go of while the service ranks."""

import asyncio
import gc
import shutil
import weakref
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
from fastapi import FastAPI

from service.app import create_app
from service.contract.bundle import Bundle
from service.engines.local import LocalEngine
from service.ranking.model import Model
from service.scorers.onnx import OnnxScorer
from service.settings import Settings
from tests.service.asking import api_key, assert_problem, bearer, request
from tests.service.conftest import Client
from tests.service.test_operations import Gate
from tests.service.test_routing import all_ready, lane_metric

pytestmark = pytest.mark.anyio


@pytest.fixture
def root(bundle_path: Path, candidate_path: Path, skewed_path: Path) -> Path:
    return bundle_path.parent


@pytest.fixture
def admin(serving: Client, root: Path) -> Callable[..., Any]:
    """Return a context manager: a service whose operators may load what lies beside its bundle."""

    def serve(**settings: Any) -> Any:
        return serving(admin=True, bundles_root=root, **settings)

    return serve


async def lanes_of(client: httpx.AsyncClient) -> dict[str, Any]:
    found = (await client.get("/admin/lanes")).raise_for_status().json()
    return {lane["lane"]: lane for lane in found["lanes"]} | {"leaving": found["leaving"]}


async def load(client: httpx.AsyncClient, lane: str, bundle: str) -> httpx.Response:
    return await client.put(f"/admin/lanes/{lane}", json={"bundle": bundle})


async def weigh(client: httpx.AsyncClient, weight: float, **fields: int) -> httpx.Response:
    return await client.put("/admin/lanes/canary/weight", json={"weight": weight, **fields})


@asynccontextmanager
async def traffic(client: httpx.AsyncClient, users: int = 4) -> AsyncIterator[Counter[str]]:
    """Let users rank one after the other; yields how often what was answered."""
    answers: Counter[str] = Counter()
    stopping = False

    async def use(user: int) -> None:
        number = 0
        while not stopping:
            number += 1  # or the caches would answer
            body = request(query=f"cat {user} {number}", routing_key=f"{user} {number}")
            answer = await client.post("/rank", json=body)
            model = answer.json().get("model", {})
            answers[f"{answer.status_code} {model.get('variant')} {model.get('name')}"] += 1

    tasks = [asyncio.create_task(use(user)) for user in range(users)]
    try:
        yield answers
    finally:
        stopping = True
        await asyncio.gather(*tasks)


async def grown(answers: Counter[str], kind: str, by: int = 5) -> None:
    """Wait until so many more were answered in a way."""
    end = answers[kind] + by
    with anyio.fail_after(30):
        while answers[kind] < end:  # noqa: ASYNC110
            await asyncio.sleep(0.005)


async def test_a_canary_comes_takes_its_share_and_becomes_stable_with_no_failed_request(
    admin: Callable[..., Any],
) -> None:
    async with admin() as client, traffic(client) as answers:
        await grown(answers, "200 stable tiny")
        loaded = (await load(client, "canary", "candidate")).raise_for_status().json()
        assert [lane["weight"] for lane in loaded["lanes"]] == [1, 0]
        assert not any("canary" in kind for kind in answers)  # nothing is its until it is given
        (await weigh(client, 0.5)).raise_for_status()
        await grown(answers, "200 canary candidate")
        await grown(answers, "200 stable tiny")
        promoted = await client.post("/admin/lanes/canary/promote")
        assert [lane["model"] for lane in promoted.json()["lanes"]] == ["candidate"]
        await grown(answers, "200 stable candidate")
        with anyio.fail_after(10):
            while (await lanes_of(client))["leaving"]:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        tiny = answers["200 stable tiny"]
        await grown(answers, "200 stable candidate")
        assert answers["200 stable tiny"] == tiny
        assert (await client.get("/readyz")).status_code == 200
        assert (await client.get("/v1/models")).json()["data"][0]["id"] == "candidate"
    assert set(answers) == {"200 stable tiny", "200 canary candidate", "200 stable candidate"}


async def test_stable_is_swapped_in_place_with_no_failed_request(
    admin: Callable[..., Any],
) -> None:
    async with admin() as client, traffic(client) as answers:
        for name in ("candidate", "tiny", "candidate"):
            (await load(client, "stable", name)).raise_for_status()
            await grown(answers, f"200 stable {name}")
    assert set(answers) == {"200 stable tiny", "200 stable candidate"}


async def test_requests_in_flight_finish_on_the_model_they_began_with(
    bundle: Bundle, build_app: Callable[..., FastAPI], candidate_path: Path
) -> None:
    gate = Gate(bundle)
    app = build_app(gate, admin=True, canary=candidate_path)
    async with all_ready(app) as client:
        gate.open.clear()
        running = asyncio.create_task(client.post("/rank", json=request(query="dog")))
        with anyio.fail_after(10):
            while (await lanes_of(client))["stable"]["requests"] == 0:  # noqa: ASYNC110
                await asyncio.sleep(0.001)
        (await client.post("/admin/lanes/canary/promote")).raise_for_status()
        found = await lanes_of(client)
        assert found["stable"]["model"] == "candidate"
        assert [(left["model"], left["requests"]) for left in found["leaving"]] == [("tiny", 1)]
        gate.open.set()
        assert (await running).json()["model"] == {
            "name": "tiny", "version": bundle.short_version, "variant": "stable"
        }  # fmt: skip
        answer = await client.post("/rank", json=request(query="dog"))
        assert answer.json()["model"]["name"] == "candidate"


async def test_a_model_that_is_let_go_is_freed_at_once(bundle: Bundle, root: Path) -> None:
    """Without the garbage collector, which never looks at what was there from the start."""
    scorer = OnnxScorer(bundle.model_path("int8"), threads=1)
    gone = weakref.ref(scorer)
    settings = Settings(bundle=bundle.root, admin=True, bundles_root=root)
    app = create_app(settings, bundle=bundle, engine=LocalEngine(scorer), precision="int8")
    del scorer
    async with all_ready(app, n=1) as client:
        gc.disable()
        try:
            await load(client, "stable", "candidate")
            with anyio.fail_after(10):
                while gone() is not None:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
        finally:
            gc.enable()


async def test_canaries_that_come_and_go_leave_nothing_behind(admin: Callable[..., Any]) -> None:
    def models() -> int:
        gc.collect()
        return sum(isinstance(found, Model) for found in gc.get_objects())

    async with admin() as client:
        before = models()
        for _ in range(3):
            await load(client, "canary", "candidate")
            assert models() == before + 1
            (await client.post("/admin/lanes/canary/unload")).raise_for_status()
            with anyio.fail_after(10):
                while (await lanes_of(client))["leaving"]:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
            assert models() == before


@pytest.mark.parametrize("lane", ["stable", "canary", "shadow"])
async def test_a_bad_bundle_changes_nothing(
    admin: Callable[..., Any], root: Path, tmp_path: Path, lane: str
) -> None:
    broken = root / f"broken-{lane}"
    shutil.copytree(root / "candidate", broken)
    with Bundle.open(broken).model_path("int8").open("r+b") as file:
        file.seek(1000)
        file.write(b"?")
    (root / f"link-{lane}").symlink_to(tmp_path)
    async with admin() as client:
        (await load(client, "canary", "candidate")).raise_for_status()
        (await weigh(client, 0.25)).raise_for_status()
        before = await lanes_of(client)
        for name, told in {
            "nothing": "no bundle",
            broken.name: "sha256",
            "skewed": "golden query 1 deviates by 5",
            ".": "leads out of bundles_root",
            "../bundles0": "leads out of bundles_root",
            f"../../{root.parent.name}": "leads out of bundles_root",
            str(root / "candidate" / ".."): "leads out of bundles_root",
            "/etc": "leads out of bundles_root",
            f"link-{lane}": "leads out of bundles_root",
            "nul\0": "cannot be found",
        }.items():
            problem = assert_problem(await load(client, lane, name), 422)
            (fault,) = problem["errors"]
            assert fault["field"] == "bundle"
            assert told in fault["message"], name
        assert await lanes_of(client) == before
        assert (await client.post("/rank", json=request())).status_code == 200


async def test_what_does_not_go_with_the_lanes_is_a_conflict(
    admin: Callable[..., Any], serving: Client
) -> None:
    async with admin() as client:
        for answer in (
            await client.post("/admin/lanes/canary/promote"),
            await client.post("/admin/lanes/canary/unload"),
            await client.post("/admin/lanes/shadow/unload"),
            await weigh(client, 0.5),
        ):
            assert assert_problem(answer, 409)["error_type"] == "conflict"
        first, second = await asyncio.gather(
            load(client, "canary", "candidate"), load(client, "shadow", "candidate")
        )
        assert first.status_code == 200
        assert "try again later" in assert_problem(second, 409)["detail"]
        assert_problem(await client.post("/admin/lanes/stable/unload"), 404)
        assert_problem(await load(client, "other", "candidate"), 404)
        asked = {"bundle": "candidate", "triton_model": "candidate_int8"}
        problem = assert_problem(await client.put("/admin/lanes/shadow", json=asked), 409)
        assert problem["errors"][0]["field"] == "triton_model"
    async with serving(admin=True) as client:
        problem = assert_problem(await load(client, "canary", "candidate"), 409)
        assert "bundles_root" in problem["detail"]


async def test_a_canary_that_may_not_rank_is_not_promoted(
    build_app: Callable[..., FastAPI], skewed_path: Path
) -> None:
    app = build_app(admin=True, canary=skewed_path)
    async with all_ready(app, n=1) as client:
        with anyio.fail_after(10):
            while "warming" in (await lanes_of(client))["canary"]["fault"]:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        answer = await client.post("/admin/lanes/canary/promote")
        assert "deviates by 5" in assert_problem(answer, 409)["detail"]
        assert (await lanes_of(client))["stable"]["model"] == "tiny"


async def test_weights_are_applied_by_generation(admin: Callable[..., Any]) -> None:
    async with admin() as client:
        await load(client, "canary", "candidate")
        assert (await weigh(client, 0.1)).json()["generation"] == 1
        assert (await weigh(client, 0.2, generation=7)).json()["generation"] == 7
        for _ in range(2):  # told again, it stays
            assert (await weigh(client, 0.2, generation=7)).status_code == 200
        (fault,) = assert_problem(await weigh(client, 0.9, generation=6), 409)["errors"]
        assert (fault["field"], fault["value"]) == ("generation", 6)
        found = await lanes_of(client)
        assert (found["stable"]["weight"], found["canary"]["weight"]) == (0.8, 0.2)
        await load(client, "canary", "tiny")  # another canary begins at nothing
        assert (await lanes_of(client))["canary"]["weight"] == 0
        assert (await weigh(client, 0.3)).json()["generation"] == 8


@pytest.mark.parametrize(
    ("body", "status", "field"),
    [
        (b"{", 400, "body"),
        (b"{}", 422, "weight"),
        (b'{"weight": 1.5}', 422, "weight"),
        (b'{"weight": "1"}', 422, "weight"),
        (b'{"weight": NaN}', 422, "weight"),
        (b'{"weight": 1, "generation": 0}', 422, "generation"),
        (b'{"weight": 1, "more": 0}', 422, "more"),
        (b" " * 20_000, 413, "body"),
    ],
)
async def test_a_bad_body_names_its_field(
    admin: Callable[..., Any], body: bytes, status: int, field: str
) -> None:
    async with admin() as client:
        answer = await client.put("/admin/lanes/canary/weight", content=body)
        assert assert_problem(answer, status)["errors"][0]["field"] == field


async def test_lanes_are_for_operators(admin: Callable[..., Any]) -> None:
    keys = [api_key("operator", scopes=["admin"]), api_key("tester", scopes=["rank", "variant"])]
    async with admin(keys=keys) as client:
        for method, path in (
            ("GET", ""), ("PUT", "/canary"), ("POST", "/canary/unload"),
            ("POST", "/canary/promote"), ("PUT", "/canary/weight"),
        ):  # fmt: skip
            found = await client.request(method, f"/admin/lanes{path}", headers=bearer("tester"))
            assert_problem(found, 403)
            assert_problem(await client.request(method, f"/admin/lanes{path}"), 401)
        found = await client.get("/admin/lanes", headers=bearer("operator"))
        assert found.status_code == 200


async def test_a_shadow_is_loaded_and_answers_nobody(admin: Callable[..., Any]) -> None:
    async with admin() as client, traffic(client) as answers:
        (await load(client, "shadow", "candidate")).raise_for_status()
        await grown(answers, "200 stable tiny")
        found = await lanes_of(client)
        assert (found["shadow"]["ready"], found["shadow"]["weight"]) == (True, 0)
        ready = await lane_metric(client, "disranker_lane_ready")
        assert ready == {"stable": 1, "shadow": 1}
        (await client.post("/admin/lanes/shadow/unload")).raise_for_status()
    assert set(answers) == {"200 stable tiny"}
