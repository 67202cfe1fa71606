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

    @property
    def work_s(self) -> float:
        """How long the rest takes all cores, at its model's latest pace."""
        if self._admission is None:
            return 0.0
        return self.tokens / self._admission.pace.tokens_per_s

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


class Backlog:
    """The accepted work of all models that share an engine, or the cores of this process.

    Models differ in speed, so what is ahead of a request is counted in seconds, each ticket's by
    its own model's pace.

    Attributes:
        max_tokens: Most tokens accepted at a time; a request alone always fits.
        tickets: By turn; equals by arrival.
    """

    def __init__(self, *, max_tokens: int) -> None:
        self.max_tokens = max_tokens
        self.tickets: list[Ticket] = []


@dataclass(frozen=True, slots=True)
class _Room:
    """What still fits for a ticket.

    Attributes:
        seconds: Most it may take; below zero where the others alone are too much.
        tokens: Most it may cost, for the memory that accepted work takes.
        ahead_s: Seconds of work that are served before it.
        wait_s: Until the accepted work that it would make late is done.
        tokens_per_s: Its model's speed.
    """

    seconds: float
    tokens: float
    ahead_s: float
    wait_s: float
    tokens_per_s: float

    def fits(self, tokens: int) -> bool:
        return tokens <= self.most_tokens

    @property
    def most_tokens(self) -> float:
        """How many tokens fit."""
        in_time = self.seconds * self.tokens_per_s if self.seconds > 0 else 0.0
        return max(0.0, min(in_time, self.tokens))

    def short_s(self, tokens: int) -> float:
        """Return how long it takes until so many tokens fit, if nothing else came."""
        over_tokens = max(0.0, tokens - self.tokens)
        return max(tokens / self.tokens_per_s - self.seconds, over_tokens / self.tokens_per_s)


class Admission:
    """Accepts a whole request of a model or none of it, and keeps what it accepted.

    Accepted work is served in the order of `Ticket.turn`. A request is accepted where it would be
    done by its deadline without making an accepted one late that would have been in time; low
    priority gets no such protection from normal, partial answers need none. An idle engine takes
    whatever it could do in time alone.
    """

    def __init__(self, pace: Pace, backlog: Backlog) -> None:
        """Stand before a model.

        Args:
            pace: How fast the model runs.
            backlog: The accepted work of this model, and of those it shares the engine with.
        """
        self.pace = pace
        self._backlog = backlog

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
        insort(self._backlog.tickets, ticket, key=lambda other: other.turn)
        try:
            yield
        finally:
            self._backlog.tickets.remove(ticket)
            ticket._admission = None

    def reprice(self, ticket: Ticket, tokens: int) -> None:
        """Set what an accepted request exactly costs; see `Ticket.reserve`."""
        room = self._room(ticket)
        if tokens > ticket.tokens and not room.fits(tokens) and not ticket.partial:
            raise self._overloaded(room, tokens)
        ticket.tokens = _held(ticket, tokens, room)

    def _feasible(self, ticket: Ticket, cost: Cost, allowed_s: float) -> bool:
        return self._alone(ticket, cost) / self.pace.best_tokens_per_s <= DOUBT * allowed_s

    def _alone(self, ticket: Ticket, cost: Cost) -> float:
        """Return the work on each core of an otherwise idle engine, times the cores."""
        return max(_needed(ticket, cost), self.pace.concurrency * cost.longest)

    def _infeasible(self, ticket: Ticket, cost: Cost, allowed_s: float) -> InfeasibleDeadlineError:
        alone_s = self._alone(ticket, cost) / self.pace.tokens_per_s
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
        return OverloadedError(
            "too much work is waiting to be sure to rank this request before its deadline; "
            "try again later, elsewhere, or with a longer deadline_ms",
            retry_after_s=max(room.wait_s, room.short_s(tokens)),
            predicted_wait_s=room.ahead_s + tokens / self.pace.tokens_per_s,
        )

    def _room(self, ticket: Ticket) -> _Room:
        """Return what fits for a ticket among the others, itself not counted."""
        now = monotonic()
        held = ahead_s = until_s = wait_s = 0.0
        tokens_per_s = self.pace.tokens_per_s
        slack_s = max(0.0, MARGIN * (ticket.deadline - now) - FIXED_S)
        alone = not ticket.partial
        for other in self._backlog.tickets:
            if other is ticket:
                continue
            held += other.tokens
            if other.low and not ticket.low:
                continue  # out of a normal request's way
            alone = False
            # Most are of the same model, and there may be hundreds.
            own = other._admission is self
            work_s = other.tokens / tokens_per_s if own else other.work_s
            until_s += work_s
            if other.turn <= ticket.turn:
                ahead_s += work_s
                slack_s -= work_s
            elif not other.partial:
                spare_s = max(0.0, other.deadline - now) - until_s
                if 0 <= spare_s < slack_s:
                    slack_s, wait_s = spare_s, until_s
        bound = self._backlog.max_tokens * (LOW_SHARE if ticket.low else 1)
        return _Room(
            seconds=math.inf if alone else slack_s,
            tokens=bound - held if held else math.inf,
            ahead_s=ahead_s,
            wait_s=wait_s,
            tokens_per_s=tokens_per_s,
        )


def _needed(ticket: Ticket, cost: Cost) -> int:
    """Return the work without which a request is no use to start."""
    return cost.longest if ticket.partial else cost.tokens


def _held(ticket: Ticket, tokens: int, room: _Room) -> float:
    """Return the work to expect of a request; partial answers end where the room does."""
    return min(tokens, room.most_tokens) if ticket.partial else tokens
