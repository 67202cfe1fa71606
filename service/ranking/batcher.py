"""One queue before a model: merges requests, normal before low, earliest deadline first."""

from __future__ import annotations

import asyncio
import logging
import math
from bisect import insort
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from time import monotonic

from service.contract.encoding import TokenPair
from service.contract.types import Scores
from service.engines.engine import Engine
from service.ranking.admission import Ticket
from service.ranking.cores import Cores
from service.ranking.errors import NotReadyError, ScoringError
from service.ranking.health import EngineHungError
from service.ranking.pace import Pace
from service.ranking.waiting import Waiting
from service.tracing import passing_on

log = logging.getLogger(__name__)

LOW_LAUNCH_SHARE = 0.25
"""Of a launch's most tokens, what one of low priority may hold.

A launch cannot be stopped, so this is what a normal request may have to wait for low ones.
"""


@dataclass(frozen=True, slots=True)
class QueueDepth:
    """What waits for its first or next launch."""

    requests: int
    pairs: int
    tokens: int


_Launch = list[tuple[Waiting, int, int]]  # request, first pair, end


class Batcher:
    """Gathers concurrent requests for the engine behind it.

    Whatever waits when a core is free is launched at once, in the tickets' turn, up to `max_batch`
    pairs and `launch_tokens` tokens (one pair at least) and a fair share of what waits: no timer,
    and a request waits for a launch and for earlier deadlines, never for a long request with a
    later one. Low priority is launched only where nothing normal waits, in small launches of its
    own. Pairs of requests that were abandoned, have expired, or would at the latest speed, are
    dropped before they cost. Every waiter gets an answer: its scores, what was scored by its
    deadline, or the failure of its launch. A launch of several requests that failed is repeated
    request by request, so that only those at fault fail.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        pace: Pace,
        cores: Cores,
        max_batch: int = 48,
        launch_tokens: int = 512,
    ) -> None:
        """Stand before an engine; `start` begins to launch.

        Args:
            engine: Scores the launches.
            pace: Learns from each launch that succeeded.
            cores: Shared with other models' queues; as many launches are in flight as there are.
            max_batch: Most pairs a launch.
            launch_tokens: Most tokens a launch; a longer pair goes alone.
        """
        self._engine = engine
        self._pace = pace
        self._max_batch = max_batch
        self._launch_tokens = launch_tokens
        self._queue: list[Waiting] = []  # by turn; equals by arrival
        self._waiting_tokens = 0
        self._wasted_tokens = 0
        self._cores = cores
        self._launching = 0
        self._changed = asyncio.Event()
        self._stopping = False

    def start(self) -> None:
        """Begin to launch."""
        self._cores.join(self)

    async def stop(self) -> None:
        """Take no more, and return once everything taken is answered."""
        self._stopping = True
        try:
            while self._queue or self._launching:
                self._changed.clear()
                await self._changed.wait()
        finally:
            self._cores.leave(self)

    @property
    def turn(self) -> tuple[bool, float] | None:
        """The turn of the first request; None where nothing waits."""
        return self._queue[0].ticket.turn if self._queue else None

    @property
    def depth(self) -> QueueDepth:
        """What waits now, for the metrics."""
        queue = list(self._queue)
        pairs = sum(len(waiting.pairs) - waiting.launched for waiting in queue)
        return QueueDepth(len(queue), pairs, self._waiting_tokens)

    @property
    def wasted_tokens(self) -> int:
        """Tokens the engine was run on for requests that were not answered with their scores."""
        return self._wasted_tokens

    async def score(self, pairs: Sequence[TokenPair], ticket: Ticket) -> Scores:
        """Return one score a pair, or what was scored by the deadline.

        Raises:
            NotReadyError: The batcher is stopping.
            ScoringError: The engine failed on a pair of this request.
        """
        waiting = self._enqueue(pairs, ticket)
        of_use = False
        try:
            with suppress(TimeoutError):  # then what was scored by now is the answer
                async with asyncio.timeout(max(0.0, ticket.deadline - monotonic())):
                    await waiting.done
            scores = waiting.scores()
            of_use = ticket.partial or scores.complete
            return scores
        finally:
            self._dequeue(waiting)
            if not of_use:
                self._wasted_tokens += waiting.real_tokens

    def _enqueue(self, pairs: Sequence[TokenPair], ticket: Ticket) -> Waiting:
        if self._stopping:
            raise NotReadyError
        waiting = Waiting(pairs, ticket)
        if not pairs:
            waiting.settle()
            return waiting
        insort(self._queue, waiting, key=lambda other: other.ticket.turn)
        self._waiting_tokens += waiting.waiting_tokens
        self._cores.wake()
        return waiting

    def _dequeue(self, waiting: Waiting) -> None:
        """Forget what of a request was not launched; safe to repeat."""
        if waiting.launched < len(waiting.pairs) and waiting in self._queue:
            self._queue.remove(waiting)
            self._changed.set()
        self._waiting_tokens -= waiting.waiting_tokens
        waiting.waiting_tokens = 0

    async def step(self) -> None:
        """Launch what is first, after dropping what came too late; never raises."""
        self._launching += 1
        try:
            launch = self._take(monotonic())
            if launch:
                await self._launch(launch)
            for waiting, start, end in launch:
                waiting.ticket.done(sum(map(len, waiting.pairs[start:end])))
        except Exception as error:  # a bug; whoever waits must still get an answer
            log.exception("the batch loop failed")
            for waiting in list(self._queue):
                self._fail(waiting, error)
        finally:
            self._launching -= 1
            self._changed.set()

    def _take(self, now: float) -> _Launch:
        """Return the next launch, taken off the queue; expired requests are settled unscored."""
        launch: _Launch = []
        pairs_left, tokens_left = self._max_batch, 0.0
        while pairs_left > 0 and (waiting := self._first(now)):
            low = waiting.ticket.low
            if not launch:
                tokens_left = self._most_tokens(low=low)
            elif low and not launch[0][0].ticket.low:
                break
            start, end = waiting.launched, waiting.launched
            while end < len(waiting.pairs) and end - start < pairs_left:
                tokens = len(waiting.pairs[end])
                if tokens > tokens_left and (launch or end > start):
                    break
                tokens_left -= tokens
                end += 1
            if end == start:
                break
            launch.append((waiting, start, end))
            pairs_left -= end - start
            self._advance(waiting, end)
            if end < len(waiting.pairs):
                break
        return launch

    def _first(self, now: float) -> Waiting | None:
        """Return the first request that can still be answered; others are settled unscored."""
        while self._queue:
            waiting = self._queue[0]
            # One that waits alone is tried: a speed that was wrong must be measured again.
            expired = now >= waiting.ticket.deadline
            hopeless = len(self._queue) > 1 and waiting.is_hopeless(now, self._pace)
            if not (waiting.done.done() or expired or hopeless):
                return waiting
            self._dequeue(waiting)
            waiting.settle()
        return None

    def _most_tokens(self, *, low: bool) -> float:
        share = math.ceil(self._waiting_tokens / self._pace.concurrency)  # so no core goes idle
        return min(self._launch_tokens * (LOW_LAUNCH_SHARE if low else 1), share)

    def _advance(self, waiting: Waiting, end: int) -> None:
        tokens = sum(map(len, waiting.pairs[waiting.launched : end]))
        waiting.launched = end
        waiting.waiting_tokens -= tokens
        self._waiting_tokens -= tokens
        if end == len(waiting.pairs):
            self._queue.remove(waiting)

    async def _launch(self, launch: _Launch) -> None:
        """Have pairs scored, and settle each request that is done with it or failed by it."""
        pairs = [pair for waiting, start, end in launch for pair in waiting.pairs[start:end]]
        latest = max(waiting.ticket.deadline for waiting, _, _ in launch)
        began = monotonic()
        for waiting, _, _ in launch:
            waiting.enter_launch(began)
        failure: Exception | None = None
        try:
            with passing_on(_traceparent(launch)):
                scores = await self._engine.score(pairs, latest)
            self._pace.observe(scores.real_tokens, monotonic() - began)
            self._distribute(launch, scores, len(pairs))
        except Exception as error:
            failure = error
        ended = monotonic()
        for waiting, _, _ in launch:
            waiting.leave_launch(ended)
        if failure is not None:
            await self._recover(launch, failure)

    async def _recover(self, launch: _Launch, failure: Exception) -> None:
        """Find out whose pairs the engine fails on; a hung engine is not asked again."""
        log.error("a launch of %d requests failed: %s", len(launch), type(failure).__name__)
        if len(launch) == 1 or isinstance(failure, EngineHungError):
            for waiting, _, _ in launch:
                self._fail(waiting, failure)
            return
        for part in launch:
            if not part[0].done.done():
                await self._launch([part])

    def _fail(self, waiting: Waiting, cause: Exception) -> None:
        self._dequeue(waiting)
        failure = ScoringError()
        failure.__cause__ = cause
        waiting.settle(failure)

    def _distribute(self, launch: _Launch, scores: Scores, n: int) -> None:
        offset = 0
        padding = max(0, scores.padded_tokens - scores.real_tokens)
        for waiting, start, end in launch:
            size = end - start
            scored = scores.scored[offset : offset + size]
            lengths = map(len, waiting.pairs[start:end])
            real = sum(length for length, done in zip(lengths, scored, strict=True) if done)
            if waiting.done.done():  # answered already, with what was scored by its deadline
                self._wasted_tokens += real
            else:
                waiting.values[start:end] = scores.values[offset : offset + size]
                waiting.scored[start:end] = scored
                waiting.real_tokens += real
                waiting.padded_tokens += real + padding * size // n
                waiting.settled += size
                if waiting.settled == len(waiting.pairs):
                    waiting.settle()
            offset += size


def _traceparent(launch: _Launch) -> str | None:
    """Return the first request's that has one: a call can name only one."""
    return next((waiting.traceparent for waiting, _, _ in launch if waiting.traceparent), None)
