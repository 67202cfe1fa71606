"""Requests scored a second time, after their answer and out of their way."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from time import monotonic

from service.contract.types import Candidate, Float32s
from service.engines.engine import (
    EngineAnswerError,
    EngineError,
    EngineLateError,
    EngineOverloadedError,
    EngineRefusedError,
    EngineUnavailableError,
)
from service.ranking.allowance import Allowance
from service.ranking.errors import NoShadowError, ShadowFailedError
from service.rollout.answered import Answered
from service.rollout.breaker import BreakerOpenError
from service.rollout.lanes import Variant
from service.rollout.records import Recorder
from service.rollout.shadow_metrics import ShadowMetrics
from service.rollout.target import Target
from service.runtime import step_back

log = logging.getLogger(__name__)

BURST_S = 2.0
"""Of a budget, what may be spent at once."""

WAITING_CHARS = 8_000_000
"""Most text that waits; the bound for requests is far below it but for the longest documents."""

FAILURES: dict[type[EngineError], str] = {
    EngineAnswerError: "garbage",
    EngineLateError: "late",
    EngineOverloadedError: "overloaded",
    EngineRefusedError: "refused",
    EngineUnavailableError: "unavailable",
    BreakerOpenError: "unavailable",
}


@dataclass(frozen=True, slots=True)
class Limits:
    """What a shadow may cost.

    Attributes:
        sample: Share of the requests, 0 to 1.
        concurrency: Most requests on their way to it.
        waiting: Most requests that wait for that.
        timeout_s: Time for one of them.
        max_queue_s: Where requests to rank wait longer than this, it gets none.
        requests_per_s: Most requests, over time; None for no limit.
        tokens_per_s: Most tokens of the answering model, over time; None for no limit.
    """

    sample: float
    concurrency: int
    waiting: int
    timeout_s: float
    max_queue_s: float
    requests_per_s: float | None = None
    tokens_per_s: float | None = None


class Shadow:
    """Has answered requests scored by another model, and compares.

    `offer` costs the request some microseconds after its answer and can neither fail nor wait. What
    does not fit is dropped, the newest first, and counted with its reason: too many waiting, a
    budget spent, a target that fails or a primary that is busy.
    """

    def __init__(
        self,
        target: Callable[[Variant], Target | None],
        limits: Limits,
        *,
        queue_s: Callable[[], float],
        metrics: ShadowMetrics,
        recorder: Recorder,
    ) -> None:
        """Stand beside the requests.

        Args:
            target: Returns what scores a lane's requests now, None for nothing.
            limits: What it may cost.
            queue_s: Returns how long a request to rank would wait now.
            metrics: Counts what became of each request.
            recorder: Compares and keeps.
        """
        self.sample = limits.sample
        self._target = target
        self._limits = limits
        self._queue_s = queue_s
        self._metrics = metrics
        self._recorder = recorder
        self._waiting: deque[tuple[float, Answered]] = deque()
        self._chars = 0
        self._wake = asyncio.Event()
        self._workers: list[asyncio.Task[None]] = []
        self._thread = ThreadPoolExecutor(1, "compare", initializer=step_back)
        now = monotonic()
        self._requests = _allowance(limits.requests_per_s, now)
        self._tokens = _allowance(limits.tokens_per_s, now)

    def start(self) -> None:
        """Begin to work."""
        self._workers = [
            asyncio.create_task(self._run(), name=f"shadow-{number}")
            for number in range(self._limits.concurrency)
        ]

    async def stop(self) -> None:
        """Give up what waits and what is on its way."""
        for worker in self._workers:
            worker.cancel()
        await asyncio.gather(*self._workers, return_exceptions=True)
        self._thread.shutdown(wait=False, cancel_futures=True)

    @property
    def waiting(self) -> int:
        """How many requests wait, for the metrics."""
        return len(self._waiting)

    @property
    def target(self) -> Target | None:
        """What scores the stable lane's requests now."""
        return self._target("stable")

    def offer(self, answered: Answered) -> None:
        """Take a request that was answered, or not; never raises."""
        target = self._target(_lane_of(answered))
        if target is None:
            return
        reason = self._skipped(answered)
        if reason is not None:
            self._metrics.count("skipped", reason)
            return
        now = monotonic()
        reason = self._dropped(answered, target, now)
        if reason is not None:
            self._metrics.count("dropped", reason)
            return
        self._waiting.append((now, answered))
        self._chars += answered.chars
        self._wake.set()

    async def score(
        self, query: str, candidates: Sequence[Candidate], deadline: float
    ) -> tuple[Target, Float32s]:
        """Return the target and its raw scores now, float32 [n]; for people, past all limits.

        The breaker is asked, and told nothing: deadline and texts are the client's, and five bad
        ones would take the shadow from everybody.

        Raises:
            NoShadowError: There is no target.
            ShadowFailedError: It gave no scores.
        """
        target = self._target("stable")
        if target is None:
            raise NoShadowError
        try:
            target.breaker.require()
            return target, await target.score(query, candidates, deadline)
        except EngineError as error:
            log.warning("the shadow failed: %s", error)
            raise ShadowFailedError(reason_of(error)) from error

    def _skipped(self, answered: Answered) -> str | None:
        if not is_sampled(answered.request_id, self.sample):
            return "sample"
        if len(answered.candidates) < 2:
            return "single"
        return None if answered.scores.complete else "partial"

    def _dropped(self, answered: Answered, target: Target, now: float) -> str | None:
        limits = self._limits
        if not target.breaker.passes:
            return "breaker"
        if self._is_busy(target) or answered.queue_s > limits.max_queue_s:
            return "busy"
        if len(self._waiting) >= limits.waiting or self._chars > WAITING_CHARS:
            return "full"
        budgets = [(self._requests, 1), (self._tokens, answered.scores.real_tokens)]
        if any(budget is not None and budget.wait_s(now) > 0 for budget, _ in budgets):
            return "budget"
        for budget, cost in budgets:
            if budget is not None:
                budget.spend(cost, now)
        return None

    def _is_busy(self, target: Target) -> bool:
        """Whether requests to rank wait too long; for a target of this process, at all."""
        return self._queue_s() > (0.0 if target.local else self._limits.max_queue_s)

    async def _run(self) -> None:
        while True:
            while not self._waiting:
                self._wake.clear()
                await self._wake.wait()
            since, answered = self._waiting.popleft()
            self._chars -= answered.chars
            try:
                outcome, reason = await self._shadow(since, answered)
            except Exception as error:  # a bug; the worker goes on
                log.exception("a shadow request failed", exc_info=error)
                outcome, reason = "failed", "internal"
            self._metrics.count(outcome, reason)

    async def _shadow(self, since: float, answered: Answered) -> tuple[str, str]:
        """Score and compare a request; return what became of it."""
        target = self._target(_lane_of(answered))
        now = monotonic()
        if target is None or now - since > self._limits.timeout_s:
            return "dropped", "stale"
        if not is_sampled(answered.request_id, self.sample):  # it was switched off meanwhile
            return "skipped", "sample"
        if self._is_busy(target):
            return "dropped", "busy"
        try:
            with target.breaker.call():
                scores = await target.score(
                    answered.query,
                    answered.candidates,
                    now + self._limits.timeout_s,
                    answered.truncation,
                )
        except BreakerOpenError:
            return "dropped", "breaker"
        except EngineError as error:
            log.debug("the shadow failed: %s", error)
            return "failed", reason_of(error)
        self._metrics.observe(monotonic() - now)
        guarded = await asyncio.get_running_loop().run_in_executor(
            self._thread, self._recorder.record, answered, target.name, target.version, scores
        )
        return ("failed", "garbage") if guarded == "not_finite" else ("compared", guarded or "")


def _lane_of(answered: Answered) -> Variant:
    return answered.labels[2]


def reason_of(error: EngineError) -> str:
    """Return an error's kind in a word."""
    return FAILURES.get(type(error), "error")


def is_sampled(request_id: str, share: float) -> bool:
    """Return whether a request is in a share of all: the same ones always, more for a larger."""
    if share >= 1:
        return True
    digest = hashlib.blake2b(request_id.encode(), digest_size=8, person=b"shadow").digest()
    return int.from_bytes(digest) < share * 2**64


def _allowance(per_s: float | None, now: float) -> Allowance | None:
    return None if per_s is None else Allowance(per_s, burst_s=BURST_S, now=now)
