"""A load's figures are counted from when requests were due, by hand-made requests."""

import json
import math

from loadtest.arrivals import constant
from loadtest.open_loop import Arrival, OpenLoad
from loadtest.overload.summary import recovery_of, step_of

DEADLINE_S = 0.5


def arrival(
    due_s: float, latency_s: float = 0.1, status: int = 200, *, handler_s: float = 0.001
) -> Arrival:
    text = json.dumps({"usage": {"prompt_tokens": 40}}) if status == 200 else "{}"
    return Arrival(0, due_s, due_s + 0.004, latency_s, status, handler_s, text)


def unsent(due_s: float) -> Arrival:
    return Arrival(0, due_s, math.nan, math.nan, 0, math.nan, "")


def test_only_what_is_due_or_answered_in_the_window_counts() -> None:
    load = OpenLoad(
        (
            arrival(0.9),  # due before the window, answered in it: goodput
            arrival(1.0),
            arrival(1.5, 0.6),  # too late
            arrival(1.6, 0.55, 504),
            arrival(1.7, 0.002, 429, handler_s=0.0015),
            arrival(1.8, 0.010, 429),
            unsent(1.9),
            arrival(2.95),  # due in the window, answered after it: no goodput
            arrival(3.0),
        )
    )
    step = step_of(
        load,
        name="2×",
        factor=2,
        window_s=(0.95, 3.0),
        deadline_s=DEADLINE_S,
        wasted_share=0.01,
        ranked=6,
        others_cpu=0.2,
    )
    assert (step.scheduled, step.sent) == (7, 6)
    assert step.outcomes == {
        "ok": 3, "rejected": 2, "expired": 1, "error": 0, "lost": 0, "unsent": 1,
    }  # fmt: skip
    assert math.isclose(step.good_per_s, 2 / 2.05)
    assert math.isclose(step.good_tokens_per_s, 80 / 2.05)
    assert (step.accepted_p50_ms, step.accepted_p99_ms) == (100.0, 600.0)
    assert (step.refused_p50_ms, step.refused_p99_ms) == (2.0, 10.0)
    assert (step.handler_p50_ms, step.handler_p99_ms) == (1.0, 1.5)
    assert step.lag_p99_ms == 4.0
    assert step.behind  # a request was not sent
    assert step.unanswered == 1  # the service counted six rankings, the client got five


def test_load_without_refusals_has_none_to_time() -> None:
    load = OpenLoad((arrival(0.0),))
    step = step_of(
        load,
        name="0.5×",
        factor=0.5,
        window_s=(0, 1),
        deadline_s=DEADLINE_S,
        wasted_share=None,
        ranked=1,
        others_cpu=None,
    )
    assert step.refused_p99_ms is None
    assert step.handler_p99_ms is None
    assert not step.behind


def test_recovery_is_when_a_whole_second_is_answered_in_time() -> None:
    bad = {2.1: 429, 2.3: 504, 2.9: 429}
    after = [round(2 + number / 10, 1) for number in range(1, 30)]
    crowd = [arrival(due_s, status=429) for due_s in constant(20, 2)]
    load = OpenLoad((*crowd, *[arrival(due_s, status=bad.get(due_s, 200)) for due_s in after]))
    recovery = recovery_of(load, name="5×", ended_s=2, until_s=5, deadline_s=DEADLINE_S)
    assert recovery.seconds == 1.0
    assert [b.due for b in recovery.bins[:8]] == [5] * 8
    assert sum(b.good for b in recovery.bins) == 26
    assert recovery.bins[0].slowest_ms is None
    assert recovery.bins[-2].slowest_ms == 100.0


def test_late_answers_are_no_recovery() -> None:
    load = OpenLoad(tuple(arrival(due_s, 0.6) for due_s in constant(10, 4)))
    recovery = recovery_of(load, name="5×", ended_s=1, until_s=4, deadline_s=DEADLINE_S)
    assert recovery.seconds is None


def test_second_that_the_load_did_not_last_proves_no_recovery() -> None:
    load = OpenLoad(tuple(arrival(due_s) for due_s in constant(10, 1.5)))
    recovery = recovery_of(load, name="5×", ended_s=1, until_s=1.5, deadline_s=DEADLINE_S)
    assert recovery.seconds is None
