"""A circuit breaker: who fails again and again is left alone for a while."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic
from typing import Literal

from service.engines.engine import EngineError, EngineRefusedError

FAILURES = 5
FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 60.0

State = Literal["closed", "open", "half_open"]


class BreakerOpenError(EngineError):
    """It failed too often lately and is not asked now."""


class Breaker:
    """Closed until `FAILURES` calls in a row failed, then open for a pause, then half open.

    Half open lets one call through: it closes the breaker, or opens it for twice as long, up to
    `LONGEST_PAUSE_S`. Pauses are random to a half, so that many do not come back together.
    """

    def __init__(self, *, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._failures = 0
        self._pause_s = FIRST_PAUSE_S
        self._until: float | None = None
        self._trying = False

    @property
    def state(self) -> State:
        """What it is now."""
        if self._until is None:
            return "closed"
        return "open" if self._clock() < self._until else "half_open"

    @property
    def passes(self) -> bool:
        """Whether a call would be let through."""
        return self.state == "closed" or (self.state == "half_open" and not self._trying)

    def require(self) -> None:
        """Pass where a call would be let through; for one that is not to be learnt from.

        Raises:
            BreakerOpenError: It would not.
        """
        if not self.passes:
            raise BreakerOpenError("it failed too often lately")

    @contextmanager
    def call(self) -> Iterator[None]:
        """Hold a call, and learn from how it ends; one cancelled or refused teaches nothing.

        A refusal is of the request: an empty document, say, which any client may send.

        Raises:
            BreakerOpenError: It is not let through.
        """
        self.require()
        trial = self._until is not None
        self._trying |= trial
        try:
            yield
        except EngineRefusedError:
            raise
        except EngineError:
            self._fail(trial=trial)
            raise
        else:
            self._failures, self._pause_s, self._until = 0, FIRST_PAUSE_S, None
        finally:
            if trial:
                self._trying = False

    def _fail(self, *, trial: bool) -> None:
        self._failures += 1
        if self._until is None and self._failures < FAILURES:
            return
        if self._until is not None and not trial:  # it was on its way when the breaker opened
            return
        self._until = self._clock() + self._pause_s * random.uniform(0.5, 1)
        self._pause_s = min(LONGEST_PAUSE_S, 2 * self._pause_s)
