"""Whether a request is taken at all, decided from its bytes before any work."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from time import monotonic

from service.contract.encoding import SPECIALS
from service.contract.types import Candidate
from service.ranking.errors import (
    DeadlineExpiredError,
    Fault,
    InfeasibleDeadlineError,
    OverloadedError,
)

BYTES_PER_TOKEN = 4
"""UTF-8 bytes a token stands for; English has about 4.7, so this overestimates a little."""

BYTES_TOKENISED_PER_TOKEN = 400
"""Bytes tokenised in the time of one token in the model: 5 MB/s against 12,000 tokens/s."""

HEADROOM = 1.5
"""A deadline named as feasible stays so when the machine slows a little."""

FIXED_S = 0.005
"""What a request takes beside its tokens: parsing, hand-overs, the response."""

DOUBT = 2.0
"""How much faster than the best launch an engine may prove to be, or text cheaper than its bytes.

Requests refused as infeasible teach nothing, so an estimate that errs must err towards trying.
"""

SMOOTHING = 0.05
"""Weight of the newest launch in the measured speed, once there are 1 / SMOOTHING of them."""


@dataclass(frozen=True, slots=True)
class Cost:
    """A request's work, tokenising included, in tokens of the model.

    Attributes:
        tokens: Of all pairs.
        longest: Of the longest pair, which one core scores alone.
    """

    tokens: int
    longest: int


@dataclass(slots=True, eq=False)
class _Ticket:
    cost: Cost
    deadline: float


class Admission:
    """Accepts a whole request or none of it.

    The cost is estimated in tokens, the speed measured in real tokens a second of one launch: the
    best launch so far tells what an idle engine might do, the latest ones what it does. Work with
    an earlier deadline is ahead in the queue; all accepted work counts against the bound.
    """

    def __init__(
        self,
        *,
        max_length: int,
        max_query_length: int,
        max_backlog_tokens: int,
        concurrency: int = 1,
    ) -> None:
        """Start without work and without a measured speed.

        Args:
            max_length: Tokens of the longest pair.
            max_query_length: Tokens kept of a query.
            max_backlog_tokens: Most tokens accepted at a time; a request alone always fits.
            concurrency: Launches the engine runs side by side.
        """
        self._concurrency = concurrency
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
        """The speed of one launch, over the latest ones; infinite before the first."""
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

    def estimate(self, query: str, candidates: Sequence[Candidate]) -> Cost:
        """Return the request's cost, judged by its bytes."""
        query_bytes = len(query.encode())
        query_tokens = min(self._max_query_length, _tokens(query_bytes))
        total_bytes, total_tokens, longest = query_bytes, 0, 0
        for candidate in candidates:
            size = len(candidate.title.encode()) + len(candidate.summary.encode())
            total_bytes += size
            tokens = min(self._max_length, query_tokens + _tokens(size) + SPECIALS)
            total_tokens += tokens
            longest = max(longest, tokens)
        return Cost(total_tokens + total_bytes // BYTES_TOKENISED_PER_TOKEN, longest)

    @contextmanager
    def admit(
        self, query: str, candidates: Sequence[Candidate], *, arrived: float, allowed_s: float
    ) -> Iterator[None]:
        """Hold the request's cost while it is ranked.

        Args:
            query: Query text.
            candidates: The documents.
            arrived: When the request came, in `time.monotonic()` seconds.
            allowed_s: How long after that an answer is of use.

        Raises:
            DeadlineExpiredError: The deadline has passed already.
            InfeasibleDeadlineError: Even an idle engine could not meet the deadline.
            OverloadedError: The accepted work leaves no room before the deadline, or in the queue.
        """
        ticket = _Ticket(self.estimate(query, candidates), arrived + allowed_s)
        self._require_feasible(ticket.cost, allowed_s)
        if ticket.deadline <= monotonic():  # a slow upload used it up
            raise DeadlineExpiredError
        self._require_room(ticket)
        self._tickets.add(ticket)
        try:
            yield
        finally:
            self._tickets.discard(ticket)

    def _require_feasible(self, cost: Cost, allowed_s: float) -> None:
        alone = max(cost.longest, cost.tokens / self._concurrency)
        if alone / self.best_tokens_per_s <= DOUBT * allowed_s:
            return
        feasible_ms = math.ceil(1000 * (alone / self.tokens_per_s * HEADROOM + FIXED_S))
        raise InfeasibleDeadlineError(
            Fault(
                "deadline_ms",
                f"about {cost.tokens} tokens take an idle engine longer than this; "
                f"the smallest feasible deadline_ms is {feasible_ms}",
                value=round(1000 * allowed_s, 6),
                limit=feasible_ms,
            )
        )

    def _require_room(self, ticket: _Ticket) -> None:
        if not self._tickets:
            return
        held = sum(other.cost.tokens for other in self._tickets)
        ahead = sum(t.cost.tokens for t in self._tickets if t.deadline <= ticket.deadline)
        left_s = ticket.deadline - monotonic()
        tokens_per_s = self.tokens_per_s * self._concurrency
        late_s = (ahead + ticket.cost.tokens) / tokens_per_s - left_s
        over = held + ticket.cost.tokens - self._max_backlog_tokens
        if late_s <= 0 and over <= 0:
            return
        raise OverloadedError(
            "too much work is waiting to rank this request before its deadline; "
            "try again later, elsewhere, or with a longer deadline_ms",
            retry_after_s=max(late_s, over / tokens_per_s),
        )


def _tokens(size_bytes: int) -> int:
    return math.ceil(size_bytes / BYTES_PER_TOKEN)
