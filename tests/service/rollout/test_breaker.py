"""The circuit breaker, with a clock of the test's own."""

from __future__ import annotations

import contextlib

import pytest

from service.engines.engine import EngineError, EngineRefusedError
from service.rollout.breaker import (
    FAILURES,
    FIRST_PAUSE_S,
    LONGEST_PAUSE_S,
    Breaker,
    BreakerOpenError,
)


class Clock:
    """Stands still until told."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def state_of(breaker: Breaker) -> str:
    return breaker.state


def fail(breaker: Breaker) -> None:
    with pytest.raises(EngineError), breaker.call():
        raise EngineError


def succeed(breaker: Breaker) -> None:
    with breaker.call():
        pass


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def breaker(clock: Clock) -> Breaker:
    return Breaker(clock=clock)


def test_it_opens_after_failures_in_a_row_only(breaker: Breaker) -> None:
    for _ in range(FAILURES - 1):
        fail(breaker)
    succeed(breaker)
    for _ in range(FAILURES - 1):
        fail(breaker)
    assert (state_of(breaker), breaker.passes) == ("closed", True)
    fail(breaker)
    assert (state_of(breaker), breaker.passes) == ("open", False)
    with pytest.raises(BreakerOpenError), breaker.call():
        raise AssertionError("it was let through")


def test_half_open_lets_one_through_which_decides(breaker: Breaker, clock: Clock) -> None:
    for _ in range(FAILURES):
        fail(breaker)
    clock.now += FIRST_PAUSE_S
    assert (state_of(breaker), breaker.passes) == ("half_open", True)
    with breaker.call():
        assert not breaker.passes
        with pytest.raises(BreakerOpenError), breaker.call():
            pass
    assert state_of(breaker) == "closed"
    for _ in range(FAILURES):
        fail(breaker)
    clock.now += FIRST_PAUSE_S
    fail(breaker)
    assert state_of(breaker) == "open"


def test_pauses_grow_to_a_bound_and_start_over(breaker: Breaker, clock: Clock) -> None:
    for _ in range(FAILURES):
        fail(breaker)
    for doubled in range(12):
        longest = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2**doubled)
        clock.now += longest * 0.499
        assert state_of(breaker) == "open"
        clock.now += longest * 0.502
        assert state_of(breaker) == "half_open"
        fail(breaker)
    clock.now += LONGEST_PAUSE_S
    succeed(breaker)
    for _ in range(FAILURES):
        fail(breaker)
    clock.now += FIRST_PAUSE_S
    assert state_of(breaker) == "half_open"


def test_requests_that_are_refused_are_their_own_fault(breaker: Breaker) -> None:
    for _ in range(FAILURES + 1):
        with pytest.raises(EngineRefusedError), breaker.call():
            raise EngineRefusedError
    assert state_of(breaker) == "closed"


def test_a_cancelled_trial_teaches_nothing_and_frees_its_place(
    breaker: Breaker, clock: Clock
) -> None:
    for _ in range(FAILURES):
        fail(breaker)
    clock.now += FIRST_PAUSE_S
    with pytest.raises(KeyboardInterrupt), breaker.call():
        raise KeyboardInterrupt
    assert (state_of(breaker), breaker.passes) == ("half_open", True)


def test_calls_on_their_way_when_it_opened_do_not_prolong_it(
    breaker: Breaker, clock: Clock
) -> None:
    with contextlib.suppress(EngineError), breaker.call():
        for _ in range(FAILURES):
            fail(breaker)
        clock.now += FIRST_PAUSE_S / 4
        raise EngineError
    clock.now += FIRST_PAUSE_S * 3 / 4
    assert state_of(breaker) == "half_open"
