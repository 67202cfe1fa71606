"""The way to an engine that has a queue of its own."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from time import monotonic

from service.contract.encoding import TokenPair
from service.contract.types import Scores
from service.engines.engine import (
    EngineError,
    EngineOverloadedError,
    EngineUnavailableError,
    RemoteEngine,
)
from service.ranking.admission import Ticket
from service.ranking.batcher import QueueDepth
from service.ranking.errors import NotReadyError, OverloadedError, ScoringError
from service.ranking.health import MAX_FAILURES
from service.ranking.pace import Pace

log = logging.getLogger(__name__)

BURST_S = 0.001
"""Answers of one batch come at once; they are told to the pace as one."""

SPAN_S = 0.1
"""Longest time that is told as one."""

RETRY_S = 0.1
"""When to try again where the engine's queue was full, at least."""


class Relay:
    """Hands each request to the engine at once; waiting and merging happen there.

    What cannot be known from here is how much of the time a request waited there, so its speed is
    that of all requests together: the tokens answered for while at least one was on its way.
    """

    def __init__(
        self, engine: RemoteEngine, *, pace: Pace, on_fault: Callable[[str], None]
    ) -> None:
        """Stand before an engine.

        Args:
            engine: Scores the requests, all of them side by side.
            pace: Learns from what is answered.
            on_fault: Told why the engine no longer deserves trust.
        """
        self._engine = engine
        self._pace = pace
        self._on_fault = on_fault
        self._requests = self._pairs = self._tokens = 0  # on their way
        self._wasted_tokens = 0
        self._failures = 0
        self._since = self._latest = 0.0  # what is not told to the pace yet was done between these
        self._done_tokens = 0

    @property
    def depth(self) -> QueueDepth:
        """What is on its way, for the metrics."""
        return QueueDepth(self._requests, self._pairs, self._tokens)

    @property
    def wasted_tokens(self) -> int:
        """Tokens the engine was run on for requests that were not answered with their scores."""
        return self._wasted_tokens

    async def score(self, pairs: Sequence[TokenPair], ticket: Ticket) -> Scores:
        """Return one score a pair, or what was scored by the deadline.

        Raises:
            OverloadedError: The engine's queue is full.
            NotReadyError: The engine is not there.
            ScoringError: The engine failed on a pair of this request.
        """
        tokens = sum(map(len, pairs))
        began = monotonic()
        self._enter(len(pairs), tokens, began)
        try:
            scores = await self._engine.score(pairs, ticket.deadline, low=ticket.low)
            self._failures = 0
            self._observe(scores.real_tokens)
        except EngineOverloadedError as error:
            raise self._overloaded() from error
        except EngineUnavailableError as error:
            self._on_fault(str(error))
            raise NotReadyError from error
        except EngineError as error:
            self._count_failure(error)
            raise ScoringError from error
        finally:
            self._leave(len(pairs), tokens)
        ticket.done(tokens)
        if not (ticket.partial or scores.complete):
            self._wasted_tokens += scores.real_tokens
        return Scores(
            scores.values,
            scores.scored,
            scores.real_tokens,
            scores.padded_tokens,
            {"queue": 0.0, "infer": monotonic() - began},
        )

    def _enter(self, pairs: int, tokens: int, now: float) -> None:
        if self._requests == 0:
            self._since = self._latest = now
        self._requests += 1
        self._pairs += pairs
        self._tokens += tokens

    def _leave(self, pairs: int, tokens: int) -> None:
        self._requests -= 1
        self._pairs -= pairs
        self._tokens -= tokens
        if self._requests == 0:
            self._tell()

    def _observe(self, tokens: int) -> None:
        now = monotonic()
        if now - self._latest >= BURST_S or now - self._since >= SPAN_S:
            self._tell()
        self._done_tokens += tokens
        self._latest = now

    def _tell(self) -> None:
        self._pace.observe(self._done_tokens, self._latest - self._since)
        self._since, self._done_tokens = self._latest, 0

    def _overloaded(self) -> OverloadedError:
        wait_s = self._tokens / self._pace.tokens_per_s
        return OverloadedError(
            "the engine's queue is full; try again later, or elsewhere",
            retry_after_s=max(RETRY_S, wait_s),
        )

    def _count_failure(self, error: EngineError) -> None:
        log.error("the engine failed: %s", type(error).__name__)
        self._failures += 1
        if self._failures >= MAX_FAILURES:
            self._on_fault(f"the engine failed {self._failures} times in a row")
