"""Replicas and the file that one decider writes."""

import asyncio
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
from fastapi import FastAPI
from prometheus_client.parser import text_string_to_metric_families

from service.contract.bundle import Bundle
from service.rollout.controller import Controller
from service.rollout.desired import Desired, write_atomically
from service.rollout.observation import Observation
from service.rollout.progress import Rollout, roll_back
from service.rollout.source import Reading
from service.rollout.store import Store
from service.rollout.tally import Sample, generation, tally, versions
from tests.service.asking import request
from tests.service.test_routing import all_ready

pytestmark = pytest.mark.anyio

DOCUMENTS = [{"text": "the cat " * n + "kettle"} for n in range(1, 13)]


async def samples_of(client: httpx.AsyncClient) -> list[Sample]:
    text = (await client.get("/metrics")).text
    return [
        Sample(sample.name, sample.labels, sample.value)
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    ]


async def weight_of(client: httpx.AsyncClient) -> tuple[float, int]:
    samples = await samples_of(client)
    (weight,) = (
        sample.value
        for sample in samples
        if sample.name == "disranker_lane_weight" and sample.labels["variant"] == "canary"
    )
    return weight, generation(samples)


async def outcomes(client: httpx.AsyncClient) -> dict[str, float]:
    return {
        sample.labels["outcome"]: sample.value
        for sample in await samples_of(client)
        if sample.name == "disranker_split_file_total" and sample.value
    }


async def until(expected: Any, ask: Callable[[], Any]) -> None:
    with anyio.fail_after(20):
        while await ask() != expected:  # noqa: ASYNC110
            await asyncio.sleep(0.05)


@pytest.fixture
def version(candidate_path: Path) -> str:
    return Bundle.open(candidate_path).short_version


async def test_a_replica_follows_the_file(
    build_app: Callable[..., FastAPI], candidate_path: Path, version: str, tmp_path: Path
) -> None:
    file = tmp_path / "weights.json"

    def write(weight: float, number: int, of: str = version) -> None:
        desired = Desired(generation=number, version=of, weight=weight)
        write_atomically(file, desired.model_dump_json())

    async with all_ready(build_app(canary=candidate_path, rollout_weights=file)) as client:
        write(0.25, 3)
        await until((0.25, 3), lambda: weight_of(client))
        file.write_text('{"generation": 4, "version": "')  # half a file
        await until(1, lambda: _count(client, "unreadable", at_least=1))
        write(0.9, 2)
        await until(1, lambda: _count(client, "stale"))
        write(0.9, 7, of="another")
        await until(1, lambda: _count(client, "other"))
        assert await weight_of(client) == (0.25, 3)
        write(0.0, 8)
        await until((0.0, 8), lambda: weight_of(client))


def mount(folder: Path, files: dict[str, str], time: str) -> None:
    """Put a ConfigMap's files into a volume as a kubelet does: aside, then by one renamed link."""
    (folder / f"..{time}").mkdir(parents=True)
    for name, text in files.items():
        (folder / f"..{time}" / name).write_text(text)
    old = (folder / "..data").resolve() if (folder / "..data").exists() else None
    (folder / "..data_tmp").symlink_to(f"..{time}")
    (folder / "..data_tmp").rename(folder / "..data")
    for name in files:
        if not (folder / name).is_symlink():
            (folder / name).symlink_to(f"..data/{name}")
    if old is not None:
        shutil.rmtree(old)


async def test_a_replica_follows_a_config_maps_volume(
    build_app: Callable[..., FastAPI], candidate_path: Path, version: str, tmp_path: Path
) -> None:
    volume = tmp_path / "volume"

    def write(weight: float, number: int) -> None:
        desired = Desired(generation=number, version=version, weight=weight)
        mount(volume, {"weights.json": desired.model_dump_json()}, time=f"2026_{number}")

    mount(volume, {}, time="2026_0")  # the ConfigMap as it is applied, without data
    settings: dict[str, Any] = {
        "canary": candidate_path,
        "rollout_weights": volume / "weights.json",
        "admin": True,
    }
    async with all_ready(build_app(**settings)) as client:
        assert await weight_of(client) == (0.0, 0)
        for weight, number in ((0.05, 3), (0.25, 4), (0.0, 5)):
            write(weight, number)
            await until((weight, number), lambda: weight_of(client))
        assert (await client.get("/admin/rollout")).status_code == 409
        assert (await client.post("/admin/rollout/rollback")).status_code == 409
    names = {path.name for path in volume.iterdir()}
    assert names == {"..2026_5", "..data", "weights.json"}


async def _count(client: httpx.AsyncClient, outcome: str, at_least: int = 0) -> float:
    found = (await outcomes(client)).get(outcome, 0)
    return min(found, 1) if at_least else found


class Fleet:
    """Reads what two replicas have, and nothing else."""

    def __init__(self, version: str) -> None:
        self.version = version
        self.generation = 0

    def read(self, window_s: float) -> Reading:  # noqa: ARG002
        return Reading(("s",), (self.version,), self.generation, Observation(), cumulative=False)


async def test_two_replicas_of_which_one_is_ahead_converge(
    build_app: Callable[..., FastAPI], candidate_path: Path, version: str, tmp_path: Path
) -> None:
    store, fleet = Store(tmp_path), Fleet(version)
    store.change(
        lambda _: Rollout(status="running", stable="s", canary=version, weight=0.05, generation=5)
    )
    settings: dict[str, Any] = {
        "canary": candidate_path,
        "rollout_weights": store.weights,
        "admin": True,
    }
    async with (
        all_ready(build_app(**settings)) as ahead,
        all_ready(build_app(**settings)) as other,
    ):
        body = {"weight": 0.5, "generation": 9}  # somebody told one replica past the decider
        (await ahead.put("/admin/lanes/canary/weight", json=body)).raise_for_status()
        await until((0.05, 5), lambda: weight_of(other))
        assert await weight_of(ahead) == (0.5, 9)
        fleet.generation = max([(await weight_of(client))[1] for client in (ahead, other)])
        Controller(store, fleet, clock=lambda: 1.0).step()
        for client in (ahead, other):
            await until((0.05, 10), partial(weight_of, client))

        (
            await ahead.put("/admin/lanes/canary/weight", json=body | {"generation": 12})
        ).raise_for_status()
        store.change(partial(roll_back, reason="asked to", now=2.0))
        fleet.generation = (await weight_of(ahead))[1]
        Controller(store, fleet, clock=lambda: 3.0).step()
        for client in (ahead, other):
            await until((0.0, 13), partial(weight_of, client))


async def test_lanes_score_each_others_requests_and_the_metrics_tell(
    build_app: Callable[..., FastAPI], candidate_path: Path, bundle: Bundle, version: str
) -> None:
    app = build_app(canary=candidate_path, shadow_sample=1.0, shadow_max_queue_ms=1e6)
    async with all_ready(app) as client:
        for place in range(9):
            lane = "canary" if place % 3 == 0 else "stable"
            body = request(query=f"cat {place}", candidates=DOCUMENTS)
            answer = await client.post("/rank", json=body, headers={"X-Variant": lane})
            assert answer.headers["x-variant"] == lane
            await asyncio.sleep(0.1)
        await client.post("/rank", content=b"{", headers={"X-Variant": "canary"})

        async def compared() -> int:
            seen = tally(await samples_of(client), stable=bundle.short_version, canary=version)
            return seen.canary.paired.compared

        await until(9, compared)
        samples = await samples_of(client)
    assert versions(samples, "canary") == (version,)
    assert versions(samples, "stable") == (bundle.short_version,)
    seen = tally(samples, stable=bundle.short_version, canary=version)
    canary, control = seen.canary, seen.control
    assert (canary.arm.requests, control.arm.requests) == (
        3,
        6,
    )  # what clients spoil counts nowhere
    assert (canary.arm.failures, canary.arm.durations.n, control.arm.durations.n) == (0, 3, 6)
    assert canary.arm.durations.total > 0
    for side in (canary.paired, control.paired):
        assert (side.compared, side.garbage, side.overlap_10.n) == (9, 0, 9)
        assert side.scores.n == 9 * len(DOCUMENTS)
    assert canary.paired.concordance == control.paired.concordance
    assert canary.paired.scores != control.paired.scores
    assert canary.taught.compared == control.taught.compared == 0
