"""What people tell a rollout on the command line, within its limits."""

import json
from functools import partial
from pathlib import Path

import pytest

from service.__main__ import main
from service.rollout.canary import Plan
from service.rollout.guardrails import Bounds, Needs
from service.rollout.orders import ORDERS, ReasonRequest, StartRequest
from service.rollout.progress import WrongStateError, ask, hold
from service.rollout.store import Store


@pytest.mark.parametrize(
    ("flag", "text", "told"),
    [
        ("--steps", "0.5", "weights rise from above 0 to 1, got ['0.5']"),
        ("--steps", "0.5,0.2,1", "weights rise from above 0 to 1, got ['0.5', '0.2', '1']"),
        ("--steps", "0,1", "greater than 0, got '0'"),
        ("--steps", "0.1,nan,1", "less than or equal to 1, got 'nan'"),
        ("--steps", "half", "got 'half'"),
        ("--step-s", "nan", "a finite number, got 'nan'"),
        ("--step-s", "-1", "greater than or equal to 0, got '-1'"),
        ("--step-s", "1e9", "less than or equal to 2592000, got '1e9'"),
        ("--min-requests", "0", "greater than or equal to 1, got '0'"),
        ("--min-requests", "1.5", "got '1.5'"),
        ("--min-sampled", "0", "greater than or equal to 1, got '0'"),
        ("--min-tau-b", "7", "less than or equal to 1, got '7'"),
        ("--min-overlap-10", "-0.1", "greater than or equal to 0, got '-0.1'"),
        ("--max-psi", "nan", "a finite number, got 'nan'"),
        ("--max-psi", "inf", "a finite number, got 'inf'"),
    ],
)
def test_a_plan_out_of_its_limits_is_refused_by_flag_value_and_limit(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], flag: str, text: str, told: str
) -> None:
    assert main(["rollout", "start", "--folder", str(tmp_path / "new"), flag, text]) == 2
    line = capsys.readouterr().err
    assert line.startswith(f"disranker: {flag}: ")
    assert told in line
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("reason", ["", "x" * 501, "\x1b[2Jgone", "two\nlines"])
def test_a_reason_is_a_line_for_people(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], reason: str
) -> None:
    store = Store(tmp_path)
    store.change(partial(ask, plan=None, now=0.0))
    assert main(["rollout", "rollback", "--folder", str(tmp_path), "--reason", reason]) == 2
    assert capsys.readouterr().err.startswith("disranker: --reason: ")
    assert store.load().status == "asked"


def test_flags_and_json_make_the_same_plan(tmp_path: Path) -> None:
    fields = {"steps": (0.5, 1.0), "step_s": 1.0, "min_requests": 2, "min_sampled": 3}
    bounds = {"min_tau_b": -0.5, "min_overlap_10": 0.6, "max_psi": 7.0}
    wanted = Plan(steps=(0.5, 1), step_s=1, needs=Needs(2, 3), bounds=Bounds(-0.5, 0.6, 7))
    asked = StartRequest.model_validate_json(json.dumps(fields | bounds))
    assert asked.arguments == {"plan": wanted}
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in (fields | bounds).items()]
    flags[0] = "--steps=0.5,1"
    assert main(["rollout", "start", "--folder", str(tmp_path), *flags]) == 0
    assert Store(tmp_path).load().plan == wanted


def test_without_a_word_it_is_the_default_plan() -> None:
    defaults = StartRequest().model_dump()
    assert StartRequest.model_validate(defaults).arguments == {"plan": Plan()}
    assert StartRequest().arguments == {"plan": None}
    assert ReasonRequest().arguments == {"reason": "asked to"}
    assert {order.name for order in ORDERS} == {"start", "hold", "promote", "rollback"}


def test_a_held_rollout_goes_on_by_its_own_plan_alone(tmp_path: Path) -> None:
    store, plan = Store(tmp_path), Plan(step_s=7)
    store.change(partial(ask, plan=plan, now=0.0))
    store.change(lambda rollout: rollout.model_copy(update={"status": "running"}))
    store.change(partial(hold, reason="lunch", now=1.0))
    with pytest.raises(WrongStateError, match="by its own plan"):
        store.change(partial(ask, plan=Plan(), now=2.0))
    resumed = store.change(partial(ask, plan=None, now=3.0))
    assert (resumed.status, resumed.plan) == ("running", plan)
