import math
from time import monotonic

import pytest

from service.contract.bundle import Relevance
from service.contract.types import Candidate
from service.ranking.admission import Admission, Cost
from service.ranking.errors import (
    DeadlineExpiredError,
    InfeasibleDeadlineError,
    OverloadedError,
)
from service.ranking.ranker import relevance_of

LONG = [Candidate(summary="x" * 10_000)]


def admission(*, tokens_per_s: float, max_backlog_tokens: int = 1_000_000) -> Admission:
    found = Admission(max_length=256, max_query_length=64, max_backlog_tokens=max_backlog_tokens)
    found.observe(round(tokens_per_s), 1.0)
    return found


def test_cost_is_estimated_from_bytes_and_capped_by_the_longest_pair() -> None:
    found = admission(tokens_per_s=1000)
    short = found.estimate("q" * 8, [Candidate(title="t" * 12, summary="s" * 28)])
    assert short == Cost(8 // 4 + 40 // 4 + 3, longest=15)
    assert found.estimate("q", [Candidate(summary="猫" * 4)]).tokens == 1 + 3 + 3
    assert found.estimate("q" * 4, LONG) == Cost(256 + 10_004 // 400, longest=256)
    assert found.estimate("q" * 4, LONG * 3) == Cost(3 * 256 + 30_004 // 400, longest=256)


def test_deadline_below_an_idle_engines_time_names_one_that_passes() -> None:
    found = admission(tokens_per_s=1000)
    with (
        pytest.raises(InfeasibleDeadlineError) as caught,
        found.admit("q", LONG, arrived=monotonic(), allowed_s=0.1),
    ):
        raise AssertionError("unreachable")
    (fault,) = caught.value.faults
    assert caught.value.status == 422
    assert fault.field == "deadline_ms"
    assert isinstance(fault.limit, int)
    with found.admit("q", LONG, arrived=monotonic(), allowed_s=fault.limit / 1000):
        pass


def test_cores_share_a_request_but_not_a_pair() -> None:
    found = Admission(
        max_length=256, max_query_length=64, max_backlog_tokens=1_000_000, concurrency=4
    )
    found.observe(1000, 1.0)  # one launch, on one core

    def limit(candidates: list[Candidate]) -> float:
        with (
            pytest.raises(InfeasibleDeadlineError) as caught,
            found.admit("q", candidates, arrived=monotonic(), allowed_s=0.01),
        ):
            raise AssertionError("unreachable")
        assert caught.value.faults[0].limit is not None
        return caught.value.faults[0].limit

    assert limit(LONG) > 1000 * (256 + 25) / 4 / 1000  # as long as on a single core
    assert limit(LONG) == pytest.approx(limit(LONG * 3), rel=0.1)
    assert limit(LONG * 40) == pytest.approx(10 * limit(LONG), rel=0.15)


def test_a_deadline_that_passed_before_admission_has_expired() -> None:
    found = admission(tokens_per_s=1000)
    with (
        pytest.raises(DeadlineExpiredError),
        found.admit("q", LONG, arrived=monotonic() - 5, allowed_s=4.9),
    ):
        raise AssertionError("unreachable")


def test_backlog_before_the_deadline_is_rejected_and_a_later_deadline_is_not() -> None:
    found = admission(tokens_per_s=1000)
    with found.admit("q", LONG, arrived=monotonic(), allowed_s=0.5):
        with (
            pytest.raises(OverloadedError) as caught,
            found.admit("q", LONG, arrived=monotonic(), allowed_s=0.55),
        ):
            raise AssertionError("unreachable")
        assert caught.value.retry_after_s is not None
        assert 0 < caught.value.retry_after_s < 0.1
        with found.admit("q", LONG, arrived=monotonic(), allowed_s=5):
            pass
    with found.admit("q", LONG, arrived=monotonic(), allowed_s=0.5):
        pass


def test_work_with_a_later_deadline_is_not_in_the_way() -> None:
    found = admission(tokens_per_s=1000)
    with (
        found.admit("q", LONG * 20, arrived=monotonic(), allowed_s=30),
        found.admit("q", LONG, arrived=monotonic(), allowed_s=0.5),
    ):
        pass


def test_backlog_bound_counts_all_work_but_never_refuses_a_request_alone() -> None:
    found = admission(tokens_per_s=1000, max_backlog_tokens=300)
    with (
        found.admit("q", LONG * 4, arrived=monotonic(), allowed_s=60),
        pytest.raises(OverloadedError),
        found.admit("q", LONG, arrived=monotonic(), allowed_s=5),
    ):
        raise AssertionError("unreachable")
    with found.admit("q", LONG * 4, arrived=monotonic(), allowed_s=60):
        pass


def test_failed_request_frees_its_room() -> None:
    found = admission(tokens_per_s=1000, max_backlog_tokens=300)
    with pytest.raises(RuntimeError), found.admit("q", LONG, arrived=monotonic(), allowed_s=60):
        raise RuntimeError
    with found.admit("q", LONG, arrived=monotonic(), allowed_s=60):
        pass


def test_slow_launch_never_locks_an_idle_engine() -> None:
    """What was measured slow by accident must get the chance to be measured again."""
    found = admission(tokens_per_s=1000)
    for _ in range(500):
        found.observe(10, 1.0)
    with found.admit("q", LONG, arrived=monotonic(), allowed_s=0.5):
        pass


def test_speed_follows_the_launches() -> None:
    found = Admission(max_length=256, max_query_length=64, max_backlog_tokens=1000)
    assert found.tokens_per_s == math.inf
    found.observe(1000, 1.0)
    assert found.tokens_per_s == 1000
    for _ in range(200):
        found.observe(100, 1.0)
    assert found.tokens_per_s == pytest.approx(100, rel=0.01)


def test_relevance_is_the_float64_sigmoid_at_every_magnitude() -> None:
    platt = Relevance(scale=2.0, offset=-1.0)
    assert relevance_of([0.5, 0.0, 1.5], platt).tolist() == pytest.approx(
        [0.5, 1 / (1 + math.e), 1 / (1 + math.exp(-2))], abs=1e-15
    )
    extremes = relevance_of([-1000.0, -300.0, -30.0, -20.0, 1000.0], Relevance()).tolist()
    assert extremes[0] == 0.0
    assert extremes[1] == pytest.approx(math.exp(-300), rel=1e-12)  # a plain 1 - tanh gives 0
    assert extremes[2] < extremes[3]
    assert extremes[4] == 1.0
