"""Rollouts under made-up traffic, through the real controller, its files and its decisions."""

from functools import partial
from pathlib import Path

import numpy as np
import pytest

from service.rollout.canary import Plan, Stage, alpha_of, decide, is_due
from service.rollout.controller import Controller
from service.rollout.guardrails import GUARDRAILS, Bounds, Needs
from service.rollout.observation import Observation
from service.rollout.progress import Rollout, ask
from service.rollout.store import Store
from tests.service.rollout.traffic import (
    Lane,
    Model,
    Traffic,
    constant,
    not_finite,
    shuffled,
    student,
)

OFFLINE = Bounds(tau_b=0.54, overlap_10=0.58)
"""A little below what two students that are as good have offline: 0.59 and 0.64."""

WORSE = student(0.9)
"""Its nDCG@10 is 0.80 of the stable model's."""


def rolled_out(
    folder: Path,
    canary: Lane,
    *,
    seed: int,
    teacher: Model | None = None,
    readings: int = 100,
    sample: float = 0.02,
) -> Rollout:
    """Return a rollout's end, or where it is after so many readings, two minutes apart."""
    now = 0.0
    traffic = Traffic(Lane(), canary, np.random.default_rng(seed), teacher=teacher, sample=sample)
    store = Store(folder / str(seed))
    controller = Controller(store, traffic, clock=lambda: now)
    rollout = store.change(partial(ask, plan=Plan(bounds=OFFLINE), now=now))
    for _ in range(readings):
        now += 120
        rollout = controller.step()
        traffic.weight, traffic.generation = rollout.weight, rollout.generation
        if rollout.status in ("finished", "rolled_back"):
            break
    return rollout


def test_a_hundred_canaries_that_are_as_good_are_let_through(tmp_path: Path) -> None:
    ends = [rolled_out(tmp_path, Lane(), seed=seed) for seed in range(100)]
    assert sum(end.status == "rolled_back" for end in ends) <= 1
    assert sum(end.status == "finished" for end in ends) >= 99
    began = [event for event in ends[0].events if event.what in ("began", "advanced")]
    assert [event.weight for event in began] == [0.01, 0.05, 0.25, 0.5, 1.0]


@pytest.mark.parametrize("teacher", [None, student(0.2)])
def test_a_better_model_is_let_through_though_it_ranks_otherwise(
    tmp_path: Path, teacher: Model | None
) -> None:
    ends = [
        rolled_out(
            tmp_path,
            Lane(student(0.3)),
            seed=seed,
            teacher=teacher,
            sample=0.5 if teacher else 0.02,
        )
        for seed in range(5)
    ]
    assert {end.status for end in ends} == {"finished"}


@pytest.mark.parametrize(
    ("canary", "guardrail"),
    [
        (Lane(shuffled), "concordance"),
        (Lane(constant), "garbage"),
        (Lane(not_finite), "garbage"),
        (Lane(WORSE), "concordance"),
        (Lane(median_s=0.0078), "latency"),  # 30 % slower
        (Lane(failures=0.05), "errors"),
        (Lane(degraded=0.2), "degraded"),
    ],
)
def test_a_bad_model_is_caught_at_the_first_step(
    tmp_path: Path, canary: Lane, guardrail: str
) -> None:
    for seed in range(10):
        end = rolled_out(tmp_path, canary, seed=seed)
        assert (end.status, end.weight, end.stage.step) == ("rolled_back", 0.0, 0)
        assert guardrail in end.events[-1].reason
        assert end.seen.canary.paired.compared <= 1_000


@pytest.mark.parametrize("model", [shuffled, constant, not_finite])
def test_a_teacher_tells_a_bad_model_too(tmp_path: Path, model: Model) -> None:
    end = rolled_out(tmp_path, Lane(model), seed=1, teacher=student(0.2), sample=0.5)
    assert (end.status, end.stage.step) == ("rolled_back", 0)
    assert end.seen.canary.taught.compared <= 1_000


def test_what_nothing_is_known_of_does_not_pass(tmp_path: Path) -> None:
    end = rolled_out(tmp_path, Lane(), seed=1, sample=0.0)
    assert (end.status, end.weight, end.stage.step) == ("running", 0.01, 0)
    assert {found.name for found in end.findings if found.state == "open"} == {
        "garbage", "concordance", "overlap_10", "stability"
    }  # fmt: skip
    assert end.seen.canary.arm.requests > 2_000


@pytest.mark.parametrize(("requests", "passes"), [(499, False), (500, True)])
def test_fewer_than_500_requests_pass_nothing(requests: int, passes: bool) -> None:
    traffic = Traffic(Lane(), Lane(), np.random.default_rng(3), per_reading=50_000, weight=0.5)
    traffic.flow()
    canary, control = traffic.seen.canary, traffic.seen.control
    exactly = traffic._arm(Lane(failures=0, degraded=0), requests)
    seen = Observation(
        canary=type(canary)(exactly, canary.paired),
        control=type(control)(control.arm, control.paired),
    )
    found = decide(Plan(bounds=OFFLINE), Stage(0, 0.0), seen, now=1e6)
    assert found.action == ("advance" if passes else "wait")


def test_a_step_lasts_its_time(tmp_path: Path) -> None:
    traffic = Traffic(Lane(), Lane(), np.random.default_rng(3), per_reading=50_000, weight=0.5)
    traffic.flow()
    plan = Plan(bounds=OFFLINE, step_s=600)
    assert decide(plan, Stage(0, 1_000.0), traffic.seen, now=1_599).action == "wait"
    assert decide(plan, Stage(0, 1_000.0), traffic.seen, now=1_600).action == "advance"


def test_looks_spend_no_more_than_the_plan_has() -> None:
    plan = Plan()
    spent = sum(alpha_of(plan, 1, look) for look in range(1, 100_000))
    assert spent * len(GUARDRAILS) == pytest.approx(plan.alpha / 2, rel=1e-4)
    steps = sum(alpha_of(plan, step, 1) for step in range(1, 100_000))
    assert steps / alpha_of(plan, 1, 1) == pytest.approx(2, rel=1e-4)


def test_a_look_needs_a_tenth_more_than_the_last() -> None:
    assert not is_due(Stage(0, 0.0), 99)
    assert is_due(Stage(0, 0.0), 100)
    assert not is_due(Stage(0, 0.0, looks=1, seen=100), 109)
    assert is_due(Stage(0, 0.0, looks=1, seen=100), 111)


def test_nothing_ends_between_two_looks() -> None:
    traffic = Traffic(Lane(), Lane(shuffled), np.random.default_rng(3), weight=0.5)
    traffic.flow()
    evidence = traffic.seen.evidence
    stage = Stage(0, 0.0, looks=1, seen=evidence)
    assert decide(Plan(needs=Needs(1, 1)), stage, traffic.seen, now=1e6).action == "wait"
    stage = Stage(0, 0.0, looks=1, seen=evidence // 2)
    assert decide(Plan(needs=Needs(1, 1)), stage, traffic.seen, now=1e6).action == "rollback"
