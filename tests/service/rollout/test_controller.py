"""What the controller makes of metrics that are missing, strange or begin anew."""

import logging
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from service.rollout.canary import Plan
from service.rollout.controller import Controller
from service.rollout.guardrails import Needs
from service.rollout.observation import Arm, Histogram, Observation, Side
from service.rollout.progress import (
    Rollout,
    WrongStateError,
    ask,
    hold,
    promote,
    roll_back,
)
from service.rollout.source import Reading, SourceError
from service.rollout.store import Store, StoreError
from service.rollout.view import view


def seen(requests: int) -> Observation:
    side = Side(Arm(requests, 0, 0, Histogram((0.1,), (requests, 0))))
    return Observation(side, side)


class Metrics:
    """Says what it is told to."""

    def __init__(self) -> None:
        self.reading: Reading | None = Reading(("s",), ("c",), 0, seen(1_000), cumulative=True)

    def read(self, window_s: float) -> Reading:  # noqa: ARG002
        if self.reading is None:
            raise SourceError("nobody listens")
        return self.reading

    def say(self, requests: int | None = None, **fields: Any) -> None:
        assert self.reading is not None
        if requests is not None:
            fields["seen"] = seen(requests)
        self.reading = replace(self.reading, **fields)


class Desk:
    """A controller with its store and what it reads."""

    def __init__(self, folder: Path) -> None:
        self.metrics, self.store, self.now = Metrics(), Store(folder), 0.0
        self.controller = Controller(self.store, self.metrics, clock=self._tick)
        self.store.change(partial(ask, plan=Plan(needs=Needs(1, 1)), now=0.0))

    def _tick(self) -> float:
        self.now += 10
        return self.now

    def step(self, steps: int = 1) -> Rollout:
        for _ in range(steps):
            rollout = self.controller.step()
        return rollout


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    found = Desk(tmp_path)
    began = found.step(2)  # it begins, and then takes what was counted before as nothing
    assert (began.status, began.stable, began.canary, began.weight) == ("running", "s", "c", 0.01)
    return found


def test_what_was_counted_before_the_step_does_not_count(desk: Desk) -> None:
    assert desk.step().seen.canary.arm.requests == 0
    desk.metrics.say(requests=1_040)
    assert desk.step().seen.canary.arm.requests == 40


def test_an_instance_that_began_anew_has_its_step_begin_anew(desk: Desk) -> None:
    desk.metrics.say(requests=1_040)
    desk.step()
    desk.metrics.say(requests=30)
    began = desk.step()
    assert (began.events[-1].what, began.weight, began.stage.step) == ("recounted", 0.01, 0)
    desk.step()
    desk.metrics.say(requests=35)
    assert desk.step().seen.canary.arm.requests == 5


def test_an_instance_that_began_anew_and_overtook_is_seen_by_its_buckets(desk: Desk) -> None:
    fast = Side(Arm(1_040, 0, 0, Histogram((0.1,), (1_040, 0))))
    slow = Side(Arm(1_060, 0, 0, Histogram((0.1,), (1_000, 60))))
    for side in (fast, slow):
        desk.metrics.say(None, seen=Observation(side, side))
        last = desk.step()
    assert last.events[-1].what == "recounted"


def test_metrics_that_cannot_be_read_change_nothing(
    desk: Desk, caplog: pytest.LogCaptureFixture
) -> None:
    before, desk.metrics.reading = desk.store.load(), None
    with caplog.at_level(logging.INFO):
        assert desk.step(3) == before
    assert [record.message for record in caplog.records] == ["the metrics cannot be read"]


def test_a_state_that_cannot_be_written_is_tried_again(
    desk: Desk, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    obstacle = tmp_path / ".state.json.part"
    obstacle.mkdir()
    desk.metrics.say(requests=1_040)
    with caplog.at_level(logging.INFO):
        assert desk.step(3).seen.canary.arm.requests == 0
        obstacle.rmdir()
        assert desk.step().seen.canary.arm.requests == 40
    assert [record.message for record in caplog.records] == [
        "the state cannot be written",
        "over: the state cannot be written",
    ]


@pytest.mark.parametrize("lanes", [{"canary": ()}, {"stable": ()}])
def test_a_lane_that_is_not_scraped_yet_is_waited_for(
    desk: Desk, lanes: dict[str, tuple[str, ...]]
) -> None:
    desk.metrics.say(None, **lanes)
    assert desk.step().status == "running"


@pytest.mark.parametrize(
    ("lanes", "status", "weight"),
    [
        ({"stable": ("t",)}, "held", 0.01),
        ({"stable": ("s", "t")}, "held", 0.01),
        ({"canary": ("c", "d")}, "held", 0.01),
        ({"canary": ("d",)}, "rolled_back", 0.0),
        ({"stable": ("c",), "canary": ()}, "finished", 0.01),
    ],
)
def test_other_models_than_it_began_with_stop_it(
    desk: Desk, lanes: dict[str, tuple[str, ...]], status: str, weight: float
) -> None:
    desk.metrics.say(None, **lanes)
    stopped = desk.step(2)
    assert (stopped.status, stopped.weight) == (status, weight)


@pytest.mark.parametrize("promoted", [False, True])
def test_there_is_no_way_back_from_a_canary_that_is_the_stable_model(
    desk: Desk, promoted: bool
) -> None:
    if promoted:
        desk.store.change(partial(promote, reason="it is good", now=1.0))
    desk.metrics.say(None, stable=("c",), canary=())
    ended = desk.step(2)
    assert (ended.status, ended.events[-1].reason) == ("finished", "the canary is the stable model")
    assert len(ended.events) == 3 + promoted
    with pytest.raises(WrongStateError, match="load another one"):
        desk.store.change(partial(roll_back, reason="asked to", now=2.0))


@pytest.mark.parametrize(
    "lanes", [{"canary": ()}, {"canary": ("c", "d")}, {"stable": ("c",)}, {"stable": ("s", "t")}]
)
def test_it_begins_with_one_canary_beside_one_other_model(
    tmp_path: Path, lanes: dict[str, tuple[str, ...]]
) -> None:
    desk = Desk(tmp_path)
    desk.metrics.say(None, **lanes)
    assert (desk.step().status, desk.step().weight) == ("asked", 0.0)


def test_a_rollout_that_waits_for_a_canary_shows_none(desk: Desk) -> None:
    desk.store.change(partial(roll_back, reason="asked to", now=1.0))
    asked = desk.store.change(partial(ask, plan=Plan(), now=2.0))
    with (console := Console()).capture() as shown:
        console.print(view(asked, now=3.0))
    assert shown.get().splitlines()[0] == "rollout asked"


def test_a_state_that_is_none_of_ours_is_refused(tmp_path: Path) -> None:
    (tmp_path / "state.json").write_text('{"schema_version": 2}')
    with pytest.raises(StoreError, match=r"state\.json"):
        Store(tmp_path).load()


def test_an_event_is_logged_once_and_peoples_too(
    desk: Desk, caplog: pytest.LogCaptureFixture
) -> None:
    desk.store.change(partial(hold, reason="lunch", now=1.0))
    with caplog.at_level(logging.INFO):
        desk.step(3)
    (line,) = [record for record in caplog.records if record.message == "rollout held"]
    assert line.fields["reason"] == "lunch"  # type: ignore[attr-defined]
