import math
from collections.abc import Callable
from contextlib import ExitStack
from time import monotonic

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.contract.types import Candidate
from service.ranking.admission import Admission, Backlog, Ticket
from service.ranking.cost import Cost, cost_of_bytes
from service.ranking.errors import (
    DeadlineExpiredError,
    InfeasibleDeadlineError,
    OverloadedError,
    RankError,
)
from service.ranking.pace import WINDOW, Pace

TOKENS_PER_S = 1000


def admission(*, max_backlog_tokens: int = 1_000_000, concurrency: int = 1) -> Admission:
    return Admission(measured(concurrency), Backlog(max_tokens=max_backlog_tokens))


def measured(concurrency: int = 1, *, tokens_per_s: int = TOKENS_PER_S) -> Pace:
    pace = Pace(concurrency=concurrency)
    pace.observe(tokens_per_s, 1.0)
    return pace


def costing(tokens: int, longest: int = 1) -> Callable[[Callable[[Cost], bool]], Cost]:
    return lambda _fits: Cost(tokens, longest)


class Desk:
    """Where requests come and stay until `leave`."""

    def __init__(self, found: Admission) -> None:
        self._admission = found
        self._stack = ExitStack()

    def __enter__(self) -> "Desk":
        return self

    def __exit__(self, *_: object) -> None:
        self.leave()

    def ask(
        self,
        tokens: int,
        allowed_s: float,
        *,
        low: bool = False,
        partial: bool = False,
        longest: int = 1,
    ) -> Ticket:
        ticket = Ticket(monotonic() + allowed_s, low=low, partial=partial)
        price = costing(tokens, longest)
        self._stack.enter_context(self._admission.admit(ticket, price, allowed_s=allowed_s))
        return ticket

    def refuse(self, tokens: int, allowed_s: float, **kind: bool) -> OverloadedError:
        with pytest.raises(OverloadedError) as caught:
            self.ask(tokens, allowed_s, **kind)
        return caught.value

    def leave(self) -> None:
        self._stack.close()


def test_cost_is_estimated_from_bytes_and_capped_by_the_longest_pair() -> None:
    def cost(query: str, candidates: list[Candidate]) -> Cost:
        return cost_of_bytes(query, candidates, max_length=256, max_query_length=64, frame_tokens=3)

    long = [Candidate(summary="x" * 10_000)]
    short = cost("q" * 8, [Candidate(title="t" * 12, summary="s" * 28)])
    assert short == Cost(8 // 4 + 40 // 4 + 3, longest=15)
    assert cost("q", [Candidate(summary="猫" * 4)]).tokens == 1 + 3 + 3
    assert cost("q" * 4, long) == Cost(256 + 10_004 // 400, longest=256)
    assert cost("q" * 4, long * 3) == Cost(3 * 256 + 30_004 // 400, longest=256)


def test_deadline_below_an_idle_engines_time_names_one_that_passes() -> None:
    with Desk(admission()) as desk:
        with pytest.raises(InfeasibleDeadlineError) as caught:
            desk.ask(500, 0.1)
        (fault,) = caught.value.faults
        assert caught.value.status == 422
        assert fault.field == "deadline_ms"
        assert isinstance(fault.limit, int)
        desk.ask(500, fault.limit / 1000)


def test_cores_share_a_request_but_not_a_pair() -> None:
    def limit(tokens: int, longest: int) -> float:
        with (
            Desk(admission(concurrency=4)) as desk,
            pytest.raises(InfeasibleDeadlineError) as caught,
        ):
            desk.ask(tokens, 0.01, longest=longest)
        assert caught.value.faults[0].limit is not None
        return caught.value.faults[0].limit

    assert limit(200, 200) > 200  # as long as on a single core
    assert limit(600, 200) == limit(200, 200)
    assert limit(8000, 200) == pytest.approx(10 * limit(200, 200), rel=0.15)


def test_a_deadline_that_passed_before_admission_has_expired() -> None:
    ticket = Ticket(monotonic() - 0.1)
    with (
        pytest.raises(DeadlineExpiredError),
        admission().admit(ticket, costing(300), allowed_s=4.9),
    ):
        raise AssertionError("unreachable")


def test_backlog_before_the_deadline_is_refused_and_a_later_deadline_is_not() -> None:
    with Desk(admission()) as desk:
        desk.ask(400, 0.5)
        desk.refuse(400, 0.55)
        desk.ask(400, 5)
        desk.leave()
        desk.ask(400, 0.5)


def test_a_refusal_tells_when_there_will_be_room_and_how_long_it_would_have_taken() -> None:
    with Desk(admission()) as desk:
        desk.ask(400, 1)
        error = desk.refuse(800, 1)
        assert error.predicted_wait_s == pytest.approx(1.2, abs=0.01)
        assert error.retry_after_s == pytest.approx(0.355, abs=0.02)  # 45 of 400 are left, with 845


def test_urgent_work_goes_first_but_never_makes_an_accepted_request_late() -> None:
    with Desk(admission()) as desk:
        desk.ask(5_000, 5.5)
        desk.ask(300, 0.5)
        error = desk.refuse(600, 1)
        assert error.retry_after_s == pytest.approx(5.3, abs=0.01)  # once the others are done
        desk.ask(20, 1)


def test_what_is_late_anyway_is_in_nobodys_way() -> None:
    with Desk(admission()) as desk:
        desk.ask(1_500, 1)  # an idle engine may try
        desk.ask(100, 0.5)


@given(
    asked=st.lists(
        st.tuples(st.integers(1, 900), st.floats(0.1, 3), st.booleans()), min_size=2, max_size=30
    )
)
def test_accepted_requests_all_meet_their_deadlines_at_the_measured_speed(
    asked: list[tuple[int, float, bool]],
) -> None:
    """Served in turn, whatever came in whichever order; low ones only beside no later normal."""
    with Desk(admission()) as desk:
        began, accepted = monotonic(), []
        for number, (tokens, allowed_s, low) in enumerate(asked):
            try:
                ticket = desk.ask(tokens, allowed_s, low=low)
            except RankError:
                continue
            accepted.append((ticket.turn, number, tokens, allowed_s))
        done = 0
        for (low, _deadline), number, tokens, allowed_s in sorted(accepted):
            done += tokens
            earlier = [turn for turn, n, *_ in accepted if n < number]
            later = [turn for turn, n, *_ in accepted if n > number]
            tried = not earlier or (not low and all(turn[0] for turn in earlier))  # when idle
            overtaken = low and not all(turn[0] for turn in later)
            if not (tried or overtaken):
                assert done / TOKENS_PER_S <= allowed_s + (monotonic() - began)


def test_low_work_is_never_in_the_way_of_normal_work() -> None:
    with Desk(admission()) as desk:
        desk.ask(900, 1, low=True)
        desk.ask(900, 1)
        desk.refuse(900, 1, low=True)


def test_low_work_is_refused_first_when_the_queue_fills() -> None:
    with Desk(admission(max_backlog_tokens=1_000)) as desk:
        desk.ask(300, 60)
        desk.refuse(300, 60, low=True)
        desk.ask(300, 60)
        desk.refuse(600, 60)


def test_backlog_bound_counts_all_work_but_never_refuses_a_request_alone() -> None:
    with Desk(admission(max_backlog_tokens=300)) as desk:
        desk.ask(1_000, 60)
        desk.refuse(256, 5)
        desk.leave()
        desk.ask(1_000, 60)


def test_a_partial_request_is_taken_for_what_fits_and_holds_no_more() -> None:
    with Desk(admission()) as desk:
        desk.ask(500, 1)
        part = desk.ask(10_000, 1, partial=True, longest=100)
        assert part.tokens == pytest.approx(345, abs=5)
        desk.refuse(10_000, 1, partial=True)
        desk.ask(400, 1.5)


def test_the_exact_cost_replaces_the_estimate() -> None:
    with Desk(admission()) as desk:
        ticket = desk.ask(900, 1)
        desk.refuse(500, 1)
        ticket.reserve(100)
        desk.ask(500, 1)
        with pytest.raises(OverloadedError):
            ticket.reserve(900)
        ticket.reserve(350)


def test_work_done_makes_room() -> None:
    with Desk(admission()) as desk:
        ticket = desk.ask(900, 1)
        ticket.reserve(900)
        ticket.done(500)
        desk.ask(400, 1)


def test_a_closer_look_is_taken_only_at_what_does_not_fit() -> None:
    looked = []

    def price(fits: Callable[[Cost], bool]) -> Cost:
        if fits(Cost(800, 1)):
            return Cost(800, 1)
        looked.append(True)
        return Cost(0, 0)

    found = admission()
    with found.admit(Ticket(monotonic() + 1), price, allowed_s=1):
        assert looked == []
        with found.admit(Ticket(monotonic() + 1), price, allowed_s=1):
            assert looked == [True]
        with found.admit(Ticket(monotonic() + 0.001), price, allowed_s=0.001):
            assert looked == [True, True]


def test_failed_request_frees_its_room() -> None:
    backlog = Backlog(max_tokens=300)
    found = Admission(measured(), backlog)
    for _ in range(2):
        ticket = Ticket(monotonic() + 60)
        with pytest.raises(RuntimeError), found.admit(ticket, costing(300), allowed_s=60):
            raise RuntimeError
    assert backlog.tickets == []


def test_slow_launches_never_lock_an_idle_engine() -> None:
    """What was measured slow by accident must get the chance to be measured again."""
    pace = Pace()
    pace.observe(1000, 1.0)
    for _ in range(500):
        pace.observe(10, 1.0)
    with Desk(Admission(pace, Backlog(max_tokens=1000))) as desk:
        desk.ask(256, 0.5)


def test_less_is_accepted_when_the_machine_slows() -> None:
    pace = Pace()
    pace.observe(1000, 1.0)
    with Desk(Admission(pace, Backlog(max_tokens=10_000))) as desk:
        desk.ask(400, 2)
        desk.ask(400, 2)
        for _ in range(100):
            pace.observe(100, 0.3)
        desk.refuse(400, 2)
        for _ in range(100):
            pace.observe(100, 0.1)
        desk.ask(400, 2)


def test_speed_follows_the_launches_of_all_cores() -> None:
    pace = Pace(concurrency=2)
    assert pace.tokens_per_s == pace.best_tokens_per_s == math.inf
    pace.observe(1000, 1.0)
    assert pace.tokens_per_s == 2000
    for _ in range(WINDOW):
        pace.observe(100, 1.0)
    assert pace.tokens_per_s == pytest.approx(200, rel=0.01)
    assert pace.best_tokens_per_s == 2000
    pace.observe(0, 1.0)  # nothing was run, nothing is learnt
    assert pace.tokens_per_s == pytest.approx(200, rel=0.01)


def test_models_of_different_speed_share_one_backlog_in_seconds() -> None:
    backlog = Backlog(max_tokens=1_000_000)
    fast = Desk(Admission(measured(tokens_per_s=1000), backlog))
    slow = Desk(Admission(measured(tokens_per_s=100), backlog))
    with fast, slow:
        slow.ask(50, 0.8)  # half a second of the cores
        error = fast.refuse(400, 0.85)  # 0.4 s of its own, after the other's
        assert error.predicted_wait_s == pytest.approx(0.9, abs=0.01)
        fast.ask(150, 0.85)


def test_memory_is_bounded_over_all_models() -> None:
    backlog = Backlog(max_tokens=1000)
    with Desk(Admission(measured(), backlog)) as first, Desk(Admission(Pace(), backlog)) as second:
        first.ask(800, 60)
        second.refuse(300, 60)
        second.ask(200, 60)
