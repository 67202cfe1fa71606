"""One queue before an engine: merges requests, earliest deadline first."""

from __future__ import annotations

import asyncio
import logging
import math
from bisect import insort
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from time import monotonic

import numpy as np

from service.contract.encoding import TokenPair
from service.contract.types import Bools, Float32s, Scores
from service.engines.engine import Engine, EngineError
from service.ranking.errors import NotReadyError, OverloadedError, RankError, ScoringError

log = logging.getLogger(__name__)

HANG_GRACE_S = 1.0
"""How long past its latest deadline a launch may run before its engine counts as hung."""


@dataclass(frozen=True, slots=True)
class QueueDepth:
    """What waits for its first or next launch."""

    requests: int
    pairs: int
    tokens: int


@dataclass(slots=True, eq=False)
class _Waiting:
    """A request's pairs on their way through the engine."""

    pairs: Sequence[TokenPair]
    deadline: float
    done: asyncio.Future[None]
    values: Float32s
    scored: Bools
    submitted: float = field(default_factory=monotonic)
    launched: int = 0  # pairs handed to the engine
    settled: int = 0  # pairs the engine answered
    waiting_tokens: int = 0
    real_tokens: int = 0
    padded_tokens: int = 0
    launches: int = 0  # in flight
    launched_at: float = 0.0  # when the first of those began
    infer_s: float = 0.0  # with at least one launch in flight

    def enter_launch(self, now: float) -> None:
        if self.launches == 0:
            self.launched_at = now
        self.launches += 1

    def leave_launch(self, now: float) -> None:
        self.launches -= 1
        if self.launches == 0:
            self.infer_s += now - self.launched_at

    def scores(self) -> Scores:
        queue_s = max(0.0, monotonic() - self.submitted - self.infer_s)
        return Scores(
            self.values,
            self.scored,
            real_tokens=self.real_tokens,
            padded_tokens=self.padded_tokens,
            stages_s={"queue": queue_s, "infer": self.infer_s},
        )


_Launch = list[tuple[_Waiting, int, int]]  # request, first pair, end


class Batcher:
    """An engine that gathers concurrent requests for the engine behind it.

    As many launches are in flight as the engine runs at a time. Whatever waits when one ends is
    launched at once, earliest deadline first, up to `max_batch` pairs and `launch_tokens` tokens
    (one pair at least) and a fair share of what waits: no timer, and a request waits for a launch
    and for earlier deadlines, never for a long request with a later one. Pairs of requests that
    were abandoned or have expired are dropped before they cost. Every waiter gets an answer: its
    scores, what was scored by its deadline, or the failure of its launch.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        concurrency: int = 1,
        max_batch: int = 48,
        launch_tokens: int = 256,
        max_waiting_tokens: int = 1_048_576,
        on_launch: Callable[[int, float], None] = lambda _tokens, _seconds: None,
    ) -> None:
        """Stand before an engine; `start` begins to launch.

        Args:
            engine: Scores the launches, `concurrency` of them at a time.
            concurrency: Launches the engine runs side by side.
            max_batch: Most pairs a launch.
            launch_tokens: Most tokens a launch; a longer pair goes alone.
            max_waiting_tokens: Most tokens that may wait; a request alone always may.
            on_launch: Told the real tokens and the seconds of each launch that succeeded.
        """
        self._engine = engine
        self._concurrency = concurrency
        self._max_batch = max_batch
        self._launch_tokens = launch_tokens
        self._max_waiting_tokens = max_waiting_tokens
        self._on_launch = on_launch
        self._queue: list[_Waiting] = []  # by deadline; equals by arrival
        self._waiting_tokens = 0
        self._wake = asyncio.Event()
        self._stopping = False
        self._loops: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Begin to launch."""
        self._loops = [
            asyncio.create_task(self._run(), name=f"batcher-{number}")
            for number in range(self._concurrency)
        ]

    async def stop(self) -> None:
        """Take no more, and return once everything taken is answered."""
        self._stopping = True
        self._wake.set()
        await asyncio.gather(*self._loops)

    @property
    def depth(self) -> QueueDepth:
        """What waits now, for the metrics."""
        queue = list(self._queue)
        pairs = sum(len(waiting.pairs) - waiting.launched for waiting in queue)
        return QueueDepth(len(queue), pairs, self._waiting_tokens)

    async def score(self, pairs: Sequence[TokenPair], deadline: float) -> Scores:
        """Return one score a pair, or what was scored by the deadline.

        Raises:
            OverloadedError: The queue is full.
            NotReadyError: The batcher is stopping.
            ScoringError: The engine failed on a launch with a pair of this request.
        """
        waiting = self._enqueue(pairs, deadline)
        try:
            async with asyncio.timeout(max(0.0, deadline - monotonic())):
                await waiting.done
        except TimeoutError:
            pass  # what was scored by now is the answer
        finally:
            self._dequeue(waiting)
        return waiting.scores()

    def _enqueue(self, pairs: Sequence[TokenPair], deadline: float) -> _Waiting:
        if self._stopping:
            raise NotReadyError
        tokens = sum(map(len, pairs))
        if self._queue and self._waiting_tokens + tokens > self._max_waiting_tokens:
            raise OverloadedError(
                f"{self._waiting_tokens} tokens wait already; the queue holds at most "
                f"{self._max_waiting_tokens}",
                retry_after_s=1.0,
            )
        waiting = _Waiting(
            pairs,
            deadline,
            asyncio.get_running_loop().create_future(),
            np.zeros(len(pairs), dtype=np.float32),
            np.zeros(len(pairs), dtype=np.bool_),
            waiting_tokens=tokens,
        )
        if not pairs:
            waiting.done.set_result(None)
            return waiting
        insort(self._queue, waiting, key=lambda other: other.deadline)
        self._waiting_tokens += tokens
        self._wake.set()
        return waiting

    def _dequeue(self, waiting: _Waiting) -> None:
        """Forget what of a request was not launched; safe to repeat."""
        if waiting.launched < len(waiting.pairs) and waiting in self._queue:
            self._queue.remove(waiting)
        self._waiting_tokens -= waiting.waiting_tokens
        waiting.waiting_tokens = 0

    async def _run(self) -> None:
        while self._queue or not self._stopping:
            try:
                await self._step()
            except Exception as error:  # a bug; whoever waits must still get an answer
                log.exception("the batch loop failed")
                for waiting in list(self._queue):
                    self._fail(waiting, error)

    async def _step(self) -> None:
        launch = self._take(monotonic())
        if launch:
            await self._launch(launch)
        elif not self._stopping:
            self._wake.clear()
            await self._wake.wait()

    def _take(self, now: float) -> _Launch:
        """Return the next launch, taken off the queue; expired requests are settled unscored."""
        launch: _Launch = []
        share = math.ceil(self._waiting_tokens / self._concurrency)  # so that no core goes idle
        pairs_left, tokens_left = self._max_batch, min(self._launch_tokens, share)
        while self._queue and pairs_left > 0:
            waiting = self._queue[0]
            if waiting.done.done() or waiting.deadline <= now:
                self._dequeue(waiting)
                _settle(waiting)
                continue
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

    def _advance(self, waiting: _Waiting, end: int) -> None:
        tokens = sum(map(len, waiting.pairs[waiting.launched : end]))
        waiting.launched = end
        waiting.waiting_tokens -= tokens
        self._waiting_tokens -= tokens
        if end == len(waiting.pairs):
            self._queue.remove(waiting)

    async def _launch(self, launch: _Launch) -> None:
        pairs = [pair for waiting, start, end in launch for pair in waiting.pairs[start:end]]
        latest = max(waiting.deadline for waiting, _, _ in launch)
        began = monotonic()
        for waiting, _, _ in launch:
            waiting.enter_launch(began)
        try:
            async with asyncio.timeout(max(0.0, latest - began) + HANG_GRACE_S):
                scores = await self._engine.score(pairs, latest)
            if len(scores.values) != len(pairs):
                raise EngineError(f"{len(scores.values)} scores for {len(pairs)} pairs")
            seconds = monotonic() - began
            self._on_launch(scores.real_tokens, seconds)
            _distribute(launch, scores, len(pairs))
        except Exception as error:
            log.error("a launch of %d pairs failed: %s", len(pairs), type(error).__name__)
            for waiting, _, _ in launch:
                self._fail(waiting, error)

    def _fail(self, waiting: _Waiting, cause: Exception) -> None:
        self._dequeue(waiting)
        failure = ScoringError()
        failure.__cause__ = cause
        _settle(waiting, failure)


def _distribute(launch: _Launch, scores: Scores, n: int) -> None:
    offset, now = 0, monotonic()
    padding = max(0, scores.padded_tokens - scores.real_tokens)
    for waiting, start, end in launch:
        size = end - start
        if waiting.done.done():  # answered already, with what was scored by its deadline
            offset += size
            continue
        scored = scores.scored[offset : offset + size]
        waiting.values[start:end] = scores.values[offset : offset + size]
        waiting.scored[start:end] = scored
        lengths = map(len, waiting.pairs[start:end])
        real = sum(length for length, done in zip(lengths, scored, strict=True) if done)
        waiting.real_tokens += real
        waiting.padded_tokens += real + padding * size // n
        waiting.leave_launch(now)
        waiting.settled += size
        if waiting.settled == len(waiting.pairs):
            _settle(waiting)
        offset += size


def _settle(waiting: _Waiting, error: RankError | None = None) -> None:
    if waiting.done.done():
        return
    if error is None:
        waiting.done.set_result(None)
    else:
        waiting.done.set_exception(error)
