"""A rollout looked at and led by HTTP, beside the command line and a decider."""

import asyncio
import fcntl
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
from fastapi import FastAPI

from service.__main__ import main
from service.api.decider_admin import decider_router
from service.contract.bundle import Bundle
from service.ranking.errors import ConflictError
from service.rollout.controller import Controller
from service.rollout.desired import Desired
from service.rollout.guardrails import GUARDRAILS
from service.rollout.observation import Arm, Histogram, Observation, Side
from service.rollout.source import Reading
from service.rollout.store import Store
from tests.service.asking import api_key, assert_problem, bearer, request
from tests.service.conftest import Client, started

pytestmark = pytest.mark.anyio

ORDERS = ("start", "hold", "promote", "rollback")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "rollout")


@pytest.fixture
def leading(
    build_app: Callable[..., FastAPI], candidate_path: Path, store: Store
) -> Callable[..., Any]:
    """Return a context manager: a service with a canary, which follows the store's weights."""

    @asynccontextmanager
    async def serve(**settings: Any) -> AsyncIterator[httpx.AsyncClient]:
        known = {"admin": True, "canary": candidate_path, "rollout_weights": store.weights}
        async with started(build_app(**known | settings)) as client:
            yield client

    return serve


class Lanes:
    """Metrics of two lanes that answered a few requests, none of them compared."""

    def __init__(self, canary: str) -> None:
        self._canary = canary

    def read(self, window_s: float) -> Reading:  # noqa: ARG002
        side = Side(Arm(40, 0, 0, Histogram((0.1,), (40, 0))))
        return Reading(("s",), (self._canary,), 0, Observation(side, side), cumulative=False)


async def tell(client: httpx.AsyncClient, order: str, **fields: Any) -> httpx.Response:
    return await client.post(f"/admin/rollout/{order}", json=fields)


async def state_of(client: httpx.AsyncClient) -> dict[str, Any]:
    found: dict[str, Any] = (await client.get("/admin/rollout")).raise_for_status().json()
    return found


async def weight_of(client: httpx.AsyncClient) -> float:
    lanes = (await client.get("/admin/lanes")).json()["lanes"]
    (weight,) = (lane["weight"] for lane in lanes if lane["lane"] == "canary")
    return float(weight)


async def until_weight(client: httpx.AsyncClient, weight: float) -> None:
    with anyio.fail_after(20):
        while await weight_of(client) != weight:  # noqa: ASYNC110
            await asyncio.sleep(0.05)


async def test_a_rollout_is_led_from_start_to_rollback_by_http(
    leading: Callable[..., Any], store: Store, candidate_path: Path
) -> None:
    canary = Bundle.open(candidate_path).short_version
    async with leading() as client:
        assert (await state_of(client))["status"] == "idle"
        asked = (await tell(client, "start", steps=[0.25, 1], step_s=60, max_psi=2)).json()
        assert (asked["status"], asked["steps"], asked["step_s"]) == ("asked", [0.25, 1], 60)
        assert store.load().plan.bounds.stability == 2

        controller = Controller(store, Lanes(canary), clock=lambda: 100.0)
        controller.step()
        controller.step()
        found = await state_of(client)
        assert (found["status"], found["canary"], found["stable"]) == ("running", canary, "s")
        assert (found["step"], found["weight"], found["generation"]) == (0, 0.25, 2)
        assert (found["requests"], found["control_requests"], found["compared"]) == (40, 40, 0)
        assert {finding["name"] for finding in found["findings"]} == {*GUARDRAILS}
        assert {finding["state"] for finding in found["findings"]} == {"open"}
        await until_weight(client, 0.25)

        held = (await tell(client, "hold", reason="lunch")).json()
        assert (held["status"], held["reason"]) == ("held", "lunch")
        assert (await tell(client, "start")).json()["status"] == "running"
        await tell(client, "promote")
        await until_weight(client, 1)
        gone = (await client.post("/admin/rollout/rollback")).raise_for_status().json()
        assert (gone["status"], gone["weight"], gone["reason"]) == ("rolled_back", 0, "asked to")
        assert gone == await state_of(client)
        await until_weight(client, 0)
    whats = [event["what"] for event in gone["events"]]
    assert whats == ["asked", "began", "held", "resumed", "promoted", "rolled_back"]
    assert Desired.model_validate_json(store.weights.read_bytes()) == store.load().desired


async def test_http_and_the_command_line_lead_the_same_rollout(
    leading: Callable[..., Any], store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = ["--folder", str(store.weights.parent)]
    async with leading() as client:
        await tell(client, "start", min_requests=7)
        assert main(["rollout", "start", *folder]) == 2
        assert "a rollout is asked" in capsys.readouterr().err
        assert main(["rollout", "rollback", *folder, "--reason", "by hand"]) == 0
        assert (await state_of(client))["reason"] == "by hand"
        detail = assert_problem(await tell(client, "rollback"), 409)["detail"]
        assert "gets nothing already" in detail
    assert store.load().plan.needs.requests == 7


async def test_what_does_not_go_with_the_state_is_a_conflict(
    leading: Callable[..., Any], store: Store
) -> None:
    async with leading() as client:
        for order in ("hold", "promote", "rollback"):
            assert assert_problem(await tell(client, order), 409)["error_type"] == "conflict"
        await tell(client, "start")
        assert "is asked" in assert_problem(await tell(client, "start"), 409)["detail"]
        running = {"status": "running", "weight": 0.25, "canary": "c"}
        store.change(lambda rollout: rollout.model_copy(update=running))
        await tell(client, "hold")
        detail = assert_problem(await tell(client, "start", step_s=1), 409)["detail"]
        assert "by its own plan" in detail
        assert (await state_of(client))["status"] == "held"


async def test_a_bad_order_names_the_field_the_value_and_the_limit(
    leading: Callable[..., Any], store: Store
) -> None:
    async with leading() as client:
        for order, body, *told in (
            ("start", '{"steps": [0.5]}', "steps", "an array of 1 items", None),
            ("start", '{"steps": [0.5, 0.5, 1]}', "steps", "an array of 3 items", None),
            ("start", '{"steps": []}', "steps", "an array of 0 items", 1),
            ("start", '{"steps": [0, 1]}', "steps[0]", 0, 0),
            ("start", '{"steps": [0.5, 2]}', "steps[1]", 2, 1),
            ("start", '{"step_s": -1}', "step_s", -1, 0),
            ("start", '{"step_s": 1e9}', "step_s", 1e9, 2_592_000),
            ("start", '{"step_s": NaN}', "step_s", "nan", None),
            ("start", '{"step_s": "600"}', "step_s", "a string of 3 characters", None),
            ("start", '{"min_requests": 0}', "min_requests", 0, 1),
            ("start", '{"min_sampled": 0}', "min_sampled", 0, 1),
            ("start", '{"min_tau_b": 7}', "min_tau_b", 7, 1),
            ("start", '{"min_overlap_10": -0.1}', "min_overlap_10", -0.1, 0),
            ("start", '{"max_psi": Infinity}', "max_psi", "inf", None),
            ("start", '{"parity": "x"}', "parity", "a string of 1 characters", None),
            ("hold", '{"reason": ""}', "reason", "a string of 0 characters", 1),
            ("promote", f'{{"reason": "{"x" * 501}"}}', "reason", None, 500),
            ("rollback", '{"reason": "\\u001b[2Jgone"}', "reason", None, None),
        ):
            answer = await client.post(f"/admin/rollout/{order}", content=body)
            (fault,) = assert_problem(answer, 422)["errors"]
            field, value, limit = told
            assert (fault["field"], fault["limit"]) == (field, limit), body
            assert value is None or fault["value"] == value, body
        assert_problem(await client.post("/admin/rollout/start", content=b"{"), 400)
    assert not store.weights.parent.exists()  # nothing was so much as begun


@contextmanager
def locked(store: Store) -> Iterator[None]:
    """Keep others from changing the state, as a process does that is stopped while it does."""
    with (store.weights.parent / "edit.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


async def test_requests_are_ranked_while_an_order_waits_for_the_lock(
    leading: Callable[..., Any], store: Store
) -> None:
    async with leading() as client:
        with anyio.fail_after(30):
            while (await client.get("/readyz")).status_code != 200:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        await tell(client, "start")
        with locked(store):
            order = asyncio.create_task(tell(client, "rollback"))
            for number in range(5):
                answer = await client.post("/rank", json=request(query=f"cat {number}"))
                assert answer.status_code == 200
            assert not order.done()
            assert store.load().status == "asked"
        assert (await order).json()["status"] == "rolled_back"


async def test_an_order_does_not_wait_for_ever(store: Store) -> None:
    store.restore()
    app = FastAPI()
    app.include_router(decider_router(store.weights, wait_s=0.05))
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://service") as client:
        with locked(store), pytest.raises(ConflictError, match=r"did not answer in 0\.05 s"):
            await client.post("/rollout/start")


async def test_where_the_weights_are_a_copy_people_are_sent_to_the_state(
    leading: Callable[..., Any], store: Store
) -> None:
    store.weights.parent.mkdir()
    text = Desired(generation=3, version="c", weight=0.25).model_dump_json()
    store.weights.write_text(text)  # as a ConfigMap's volume has it
    async with leading() as client:
        for answer in (
            await client.get("/admin/rollout"),
            *[await tell(client, order) for order in ORDERS],
        ):
            detail = assert_problem(answer, 409)["detail"]
            assert "`python -m service rollout run`" in detail
    assert [path.name for path in store.weights.parent.iterdir()] == ["weights.json"]
    async with leading(rollout_weights=store.weights.with_name("other.json")) as client:
        assert_problem(await tell(client, "start"), 409)  # it would be written for nobody


async def test_where_the_state_cannot_be_written_it_is_shown_and_not_changed(
    leading: Callable[..., Any], store: Store
) -> None:
    store.restore()
    (store.weights.parent / "edit.lock").unlink()
    (store.weights.parent / "edit.lock").mkdir()  # as good as a read-only volume, for root too
    (store.weights.parent / "state.json").write_text('{"status": "running", "weight": 0.25}')
    async with leading() as client:
        assert (await state_of(client))["weight"] == 0.25
        for order in ORDERS:
            detail = assert_problem(await tell(client, order), 409)["detail"]
            assert "out of reach" in detail
        (store.weights.parent / "state.json").write_text("{")
        assert "state.json" in assert_problem(await client.get("/admin/rollout"), 409)["detail"]


async def test_orders_are_for_operators_and_logged_with_their_key(
    leading: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    keys = [api_key("operator", scopes=["admin"]), api_key("tester", scopes=["rank", "variant"])]
    async with leading(keys=keys) as client:
        for path in ("", *(f"/{order}" for order in ORDERS)):
            method = "POST" if path else "GET"
            found = await client.request(method, f"/admin/rollout{path}", headers=bearer("tester"))
            assert_problem(found, 403)
            assert_problem(await client.request(method, f"/admin/rollout{path}"), 401)
        client.headers.update(bearer("operator"))
        with caplog.at_level(logging.INFO):
            (await tell(client, "start")).raise_for_status()
            (await tell(client, "rollback", reason="lunch")).raise_for_status()
    lines = [record for record in caplog.records if record.message.startswith("rollout told")]
    assert [line.message for line in lines] == ["rollout told: start", "rollout told: rollback"]
    fields = lines[-1].fields  # type: ignore[attr-defined]
    assert (fields["key"], fields["reason"], fields["status"]) == (
        "operator",
        "lunch",
        "rolled_back",
    )


async def test_there_is_no_rollout_to_ask_for_without_its_file(serving: Client) -> None:
    async with serving(admin=True) as client:
        assert_problem(await client.get("/admin/rollout"), 404)
        assert_problem(await tell(client, "start"), 404)
