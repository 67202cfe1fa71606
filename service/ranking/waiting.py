"""A request in an engine's queue."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from time import monotonic

import numpy as np

from service.contract.encoding import TokenPair
from service.contract.types import Scores
from service.ranking.admission import Ticket
from service.ranking.errors import RankError
from service.ranking.pace import Pace
from service.tracing import outgoing_traceparent


class Waiting:
    """A request's pairs on their way through the engine.

    Attributes:
        pairs: What to score, in the order it is launched.
        ticket: The request's turn.
        traceparent: Of the request that waits; its task is not the one that launches.
        done: Set once it is answered, cancelled once nobody waits any more.
        values: Scores, float32 [n].
        scored: Which of them are there, bool [n].
        launched: How many pairs were handed to the engine.
        settled: How many of those it answered.
        waiting_tokens: Of the pairs not launched yet.
        real_tokens: Of the pairs scored.
        padded_tokens: What the model was run on for them.
    """

    def __init__(self, pairs: Sequence[TokenPair], ticket: Ticket) -> None:
        """Wait with all pairs."""
        self.pairs = pairs
        self.ticket = ticket
        self.traceparent = outgoing_traceparent()
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.values = np.zeros(len(pairs), dtype=np.float32)
        self.scored = np.zeros(len(pairs), dtype=np.bool_)
        self.launched = self.settled = 0
        self.waiting_tokens = sum(map(len, pairs))
        self.real_tokens = self.padded_tokens = 0
        self._submitted = monotonic()
        self._launches = 0  # in flight
        self._launched_at = 0.0  # when the first of those began
        self._infer_s = 0.0  # with at least one launch in flight

    def enter_launch(self, now: float) -> None:
        """Note that a launch with some of the pairs began."""
        if self._launches == 0:
            self._launched_at = now
        self._launches += 1

    def leave_launch(self, now: float) -> None:
        """Note that a launch with some of the pairs ended."""
        self._launches -= 1
        if self._launches == 0:
            self._infer_s += now - self._launched_at

    def is_hopeless(self, now: float, pace: Pace) -> bool:
        """Tell whether the deadline will pass, at the latest speed, before all is scored."""
        needed_s = self.waiting_tokens / pace.tokens_per_s
        return needed_s > self.ticket.deadline - now and not self.ticket.partial

    def settle(self, error: RankError | None = None) -> None:
        """Let whoever waits go on, with what was scored or with an error; safe to repeat."""
        if self.done.done():
            return
        if error is None:
            self.done.set_result(None)
        else:
            self.done.set_exception(error)

    def scores(self) -> Scores:
        """Return what is there, and where the time went."""
        queue_s = max(0.0, monotonic() - self._submitted - self._infer_s)
        return Scores(
            self.values,
            self.scored,
            real_tokens=self.real_tokens,
            padded_tokens=self.padded_tokens,
            stages_s={"queue": queue_s, "infer": self._infer_s},
        )
