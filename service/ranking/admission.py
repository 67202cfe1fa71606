"""Whether a request is taken at all, decided from its bytes before any work."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from time import monotonic

from service.contract.encoding import SPECIALS
from service.contract.types import Candidate
from service.ranking.errors import Fault, InfeasibleDeadlineError, OverloadedError

BYTES_PER_TOKEN = 4
"""UTF-8 bytes a token stands for; English has about 4.7, so this overestimates a little."""

BYTES_TOKENISED_PER_TOKEN = 400
"""Bytes tokenised in the time of one token in the model: 5 MB/s against 12,000 tokens/s."""

HEADROOM = 1.1
"""A deadline named as feasible stays so when the measured speed drops a little."""

DOUBT = 2.0
"""How much faster than the best launch an engine may prove to be, or text cheaper than its bytes.

Requests refused as infeasible teach nothing, so an estimate that errs must err towards trying.
"""

SMOOTHING = 0.05
"""Weight of the newest launch in the measured speed, once there are 1 / SMOOTHING of them."""


@dataclass(slots=True, eq=False)
class _Ticket:
    tokens: int
    deadline: float


class Admission:
    """Accepts a whole request or none of it.

    The cost is estimated in tokens, the speed measured in real tokens a second: the best launch
    so far tells what an idle engine could do, the latest ones how fast a backlog shrinks. Work
    with an earlier deadline is ahead in the queue; all accepted work counts against the bound.
    """

    def __init__(self, *, max_length: int, max_query_length: int, max_backlog_tokens: int) -> None:
        """Start without work and without a measured speed.

        Args:
            max_length: Tokens of the longest pair.
            max_query_length: Tokens kept of a query.
            max_backlog_tokens: Most tokens accepted at a time; a request alone always fits.
        """
        self._max_length = max_length
        self._max_query_length = max_query_length
        self._max_backlog_tokens = max_backlog_tokens
        self._tickets: set[_Ticket] = set()
        self._launches = 0
        self._tokens = 0.0
        self._seconds = 0.0
        self._best_tokens_per_s = 0.0

    @property
    def tokens_per_s(self) -> float:
        """The engine's speed over the latest launches; infinite before the first."""
        return self._tokens / self._seconds if self._seconds else math.inf

    @property
    def best_tokens_per_s(self) -> float:
        """The speed of the fastest launch; infinite before the first."""
        return self._best_tokens_per_s or math.inf

    def observe(self, tokens: int, seconds: float) -> None:
        """Learn from a launch: its real tokens and how long it took."""
        self._launches += 1
        weight = max(SMOOTHING, 1 / self._launches)
        self._tokens += weight * (tokens - self._tokens)
        self._seconds += weight * (seconds - self._seconds)
        self._best_tokens_per_s = max(self._best_tokens_per_s, tokens / seconds)

    def estimate_tokens(self, query: str, candidates: Sequence[Candidate]) -> int:
        """Return the request's cost, tokenising included, in tokens of the model."""
        query_bytes = len(query.encode())
        query_tokens = min(self._max_query_length, _tokens(query_bytes))
        total_bytes, total_tokens = query_bytes, 0
        for candidate in candidates:
            size = len(candidate.title.encode()) + len(candidate.summary.encode())
            total_bytes += size
            total_tokens += min(self._max_length, query_tokens + _tokens(size) + SPECIALS)
        return total_tokens + total_bytes // BYTES_TOKENISED_PER_TOKEN

    @contextmanager
    def admit(self, query: str, candidates: Sequence[Candidate], deadline: float) -> Iterator[None]:
        """Hold the request's cost while it is ranked.

        Raises:
            InfeasibleDeadlineError: Even an idle engine could not meet the deadline.
            OverloadedError: The accepted work leaves no room before the deadline, or in the queue.
        """
        ticket = _Ticket(self.estimate_tokens(query, candidates), deadline)
        self._require_feasible(ticket)
        self._require_room(ticket)
        self._tickets.add(ticket)
        try:
            yield
        finally:
            self._tickets.discard(ticket)

    def _require_feasible(self, ticket: _Ticket) -> None:
        left_s = ticket.deadline - monotonic()
        need_s = ticket.tokens / self.best_tokens_per_s
        if need_s <= DOUBT * left_s:
            return
        feasible_ms = math.ceil(1000 * need_s * HEADROOM) + 1
        raise InfeasibleDeadlineError(
            Fault(
                "deadline_ms",
                f"about {ticket.tokens} tokens take an idle engine longer than this; "
                f"the smallest feasible deadline_ms is {feasible_ms}",
                value=round(1000 * left_s, 3),
                limit=feasible_ms,
            )
        )

    def _require_room(self, ticket: _Ticket) -> None:
        if not self._tickets:
            return
        held = sum(other.tokens for other in self._tickets)
        ahead = sum(t.tokens for t in self._tickets if t.deadline <= ticket.deadline)
        left_s = ticket.deadline - monotonic()
        late_s = (ahead + ticket.tokens) / self.tokens_per_s - left_s
        over = held + ticket.tokens - self._max_backlog_tokens
        if late_s <= 0 and over <= 0:
            return
        raise OverloadedError(
            "too much work is waiting to rank this request before its deadline; "
            "try again later, elsewhere, or with a longer deadline_ms",
            retry_after_s=max(late_s, over / self.tokens_per_s),
        )


def _tokens(size_bytes: int) -> int:
    return math.ceil(size_bytes / BYTES_PER_TOKEN)
