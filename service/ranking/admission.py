"""Whether a request is taken at all, and what the accepted ones still have to do."""

from __future__ import annotations

import math
from bisect import insort
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from time import monotonic

from service.ranking.cost import Cost
from service.ranking.errors import (
    DeadlineExpiredError,
    Fault,
    InfeasibleDeadlineError,
    OverloadedError,
)
from service.ranking.pace import Pace

HEADROOM = 1.5
"""A deadline named as feasible stays so when the machine slows a little."""

FIXED_S = 0.005
"""What a request takes beside its tokens: parsing, hand-overs, the response."""

DOUBT = 2.0
"""How much faster than the best launch an engine may prove to be, or text cheaper than its bytes.

Requests refused as infeasible teach nothing, so an estimate that errs must err towards trying.
"""

MARGIN = 0.85
"""Of the time left, what an accepted request may be predicted to take; the speed may drop."""

LOW_SHARE = 0.5
"""Of the backlog's bound, what low priority may fill; the rest is kept for normal requests."""


@dataclass(slots=True, eq=False)
class Ticket:
    """A request's place among the others, and the work it still brings.

    Attributes:
        deadline: When an answer stops being useful, in `time.monotonic()` seconds.
        low: Served only while nothing normal waits.
        partial: Whether some of the scores are of use without the others.
        tokens: What is still to be run: estimated until the caches were asked, then exact.
    """

    deadline: float
    low: bool = False
    partial: bool = False
    tokens: float = 0
    _admission: Admission | None = None

    @property
    def turn(self) -> tuple[bool, float]:
        """What tickets are served in the order of: normal before low, then by deadline."""
        return self.low, self.deadline

    def reserve(self, tokens: int) -> None:
        """Replace the estimate by what is exactly to be run, before any of it is.

        Raises:
            OverloadedError: It is more than was estimated, and does not fit.
        """
        if self._admission is not None:
            self._admission.reprice(self, tokens)

    def done(self, tokens: int) -> None:
        """Note that so many tokens were run."""
        self.tokens = max(0.0, self.tokens - tokens)


@dataclass(frozen=True, slots=True)
class _Room:
    """What still fits for a ticket.

    Attributes:
        tokens: Most it may cost; below zero where the others alone are too much.
        ahead: Tokens that are served before it.
        wait_s: Until the accepted work that it would make late is done.
    """

    tokens: float
    ahead: float
    wait_s: float

    def fits(self, tokens: int) -> bool:
        return tokens <= max(0.0, self.tokens)


class Admission:
    """Accepts a whole request or none of it, and keeps what it accepted.

    Accepted work is served in the order of `Ticket.turn`. A request is accepted where it would be
    done by its deadline without making an accepted one late that would have been in time; low
    priority gets no such protection from normal, partial answers need none. An idle engine takes
    whatever it could do in time alone.
    """

    def __init__(self, pace: Pace, *, max_backlog_tokens: int) -> None:
        """Start without work.

        Args:
            pace: How fast the engine is.
            max_backlog_tokens: Most tokens accepted at a time; a request alone always fits.
        """
        self._pace = pace
        self._max_backlog_tokens = max_backlog_tokens
        self._tickets: list[Ticket] = []  # by turn; equals by arrival

    @property
    def backlog_tokens(self) -> float:
        """Accepted and not yet run, for the metrics."""
        return sum(ticket.tokens for ticket in [*self._tickets])

    @contextmanager
    def admit(
        self, ticket: Ticket, price: Callable[[Callable[[Cost], bool]], Cost], *, allowed_s: float
    ) -> Iterator[None]:
        """Hold the request's work until it is answered.

        Args:
            ticket: The request's deadline and priority.
            price: Returns the request's cost, given a function that tells whether a cost fits; one
                that does not is worth a closer look before it is returned.
            allowed_s: What the client allowed, from the request's arrival to the deadline.

        Raises:
            DeadlineExpiredError: The deadline has passed already.
            InfeasibleDeadlineError: Even an idle engine could not meet the deadline.
            OverloadedError: The accepted work leaves no room before the deadline, or in the queue.
        """
        room = self._room(ticket)
        cost = price(
            lambda cost: (
                room.fits(_needed(ticket, cost)) and self._feasible(ticket, cost, allowed_s)
            )
        )
        if not self._feasible(ticket, cost, allowed_s):
            raise self._infeasible(ticket, cost, allowed_s)
        if ticket.deadline <= monotonic():  # a slow upload used it up
            raise DeadlineExpiredError
        if not room.fits(_needed(ticket, cost)):
            raise self._overloaded(room, _needed(ticket, cost))
        ticket.tokens = _held(ticket, cost.tokens, room)
        ticket._admission = self
        insort(self._tickets, ticket, key=lambda other: other.turn)
        try:
            yield
        finally:
            self._tickets.remove(ticket)
            ticket._admission = None

    def reprice(self, ticket: Ticket, tokens: int) -> None:
        """Set what an accepted request exactly costs; see `Ticket.reserve`."""
        room = self._room(ticket)
        if tokens > ticket.tokens and not room.fits(tokens) and not ticket.partial:
            raise self._overloaded(room, tokens)
        ticket.tokens = _held(ticket, tokens, room)

    def _feasible(self, ticket: Ticket, cost: Cost, allowed_s: float) -> bool:
        return self._alone(ticket, cost) / self._pace.best_tokens_per_s <= DOUBT * allowed_s

    def _alone(self, ticket: Ticket, cost: Cost) -> float:
        """Return the work on each core of an otherwise idle engine, times the cores."""
        return max(_needed(ticket, cost), self._pace.concurrency * cost.longest)

    def _infeasible(self, ticket: Ticket, cost: Cost, allowed_s: float) -> InfeasibleDeadlineError:
        alone_s = self._alone(ticket, cost) / self._pace.tokens_per_s
        feasible_ms = math.ceil(1000 * (alone_s * HEADROOM + FIXED_S))
        return InfeasibleDeadlineError(
            Fault(
                "deadline_ms",
                f"about {_needed(ticket, cost)} tokens take an idle engine longer than this; "
                f"the smallest feasible deadline_ms is {feasible_ms}",
                value=round(1000 * allowed_s, 6),
                limit=feasible_ms,
            )
        )

    def _overloaded(self, room: _Room, tokens: int) -> OverloadedError:
        tokens_per_s = self._pace.tokens_per_s
        return OverloadedError(
            "too much work is waiting to be sure to rank this request before its deadline; "
            "try again later, elsewhere, or with a longer deadline_ms",
            retry_after_s=max(room.wait_s, (tokens - room.tokens) / tokens_per_s),
            predicted_wait_s=(room.ahead + tokens) / tokens_per_s,
        )

    def _room(self, ticket: Ticket) -> _Room:
        """Return what fits for a ticket among the others, itself not counted."""
        now = monotonic()
        held = ahead = until = 0.0
        slack = self._tokens_in(MARGIN * (ticket.deadline - now) - FIXED_S)
        wait_s = 0.0
        alone = not ticket.partial
        for other in self._tickets:
            if other is ticket:
                continue
            held += other.tokens
            if other.low and not ticket.low:
                continue  # out of a normal request's way
            alone = False
            until += other.tokens
            if other.turn <= ticket.turn:
                ahead += other.tokens
                slack -= other.tokens
            elif not other.partial:
                spare = self._tokens_in(other.deadline - now) - until
                if 0 <= spare < slack:
                    slack, wait_s = spare, until / self._pace.tokens_per_s
        bound = self._max_backlog_tokens * (LOW_SHARE if ticket.low else 1)
        left = bound - held if held else math.inf
        return _Room(min(math.inf if alone else slack, left), ahead, wait_s)

    def _tokens_in(self, seconds: float) -> float:
        return seconds * self._pace.tokens_per_s if seconds > 0 else 0.0


def _needed(ticket: Ticket, cost: Cost) -> int:
    """Return the work without which a request is no use to start."""
    return cost.longest if ticket.partial else cost.tokens


def _held(ticket: Ticket, tokens: int, room: _Room) -> float:
    """Return the work to expect of a request; partial answers end where the room does."""
    return min(tokens, max(0.0, room.tokens)) if ticket.partial else tokens
