"""A model at work: a bundle, what runs it, and all that is its own, from start to stop."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial

from service.contract.bundle import Bundle
from service.contract.triton import tolerance
from service.engines.engine import RemoteEngine, Runner
from service.engines.local import LocalEngine
from service.ranking.admission import Admission, Backlog
from service.ranking.batcher import Batcher, QueueDepth
from service.ranking.caches import DocumentTokenCache, ScoreCache
from service.ranking.cores import Cores
from service.ranking.encoders import Encoders
from service.ranking.golden import probe
from service.ranking.health import Recovery, WatchedEngine
from service.ranking.lane import LocalLane
from service.ranking.pace import Pace
from service.ranking.ranker import Ranker
from service.ranking.readiness import Trust
from service.ranking.relay import Relay
from service.ranking.startup import accompany, warm_up

STOP_S = 1.0
"""For the last launch; every request is answered by then, only a hung engine is not."""


@dataclass(frozen=True, slots=True)
class Shared:
    """What the models of a process share.

    Attributes:
        cores: What runs the launches of those in this process.
        backlog: The accepted work of those in this process.
        encoders: By tokenizer.
        tokens: Documents' token ids, by tokenizer.
        scores: Pairs' scores, by model.
        max_batch: Most pairs a launch.
        launch_tokens: Most tokens a launch.
        hang_s: How long a launch may take.
    """

    cores: Cores
    backlog: Backlog
    encoders: Encoders
    tokens: DocumentTokenCache
    scores: ScoreCache
    max_batch: int
    launch_tokens: int
    hang_s: float


class Model:
    """A bundle that is served.

    Attributes:
        bundle: What is served.
        runner: What runs it.
        pace: How fast it is.
        trust: Whether it may rank.
        lane: Scores candidates.
        ranker: Ranks them.
    """

    def __init__(self, bundle: Bundle, runner: Runner, shared: Shared) -> None:
        """Take what is opened; nothing runs yet.

        Raises:
            BundleError: The bundle has no encoder.
        """
        self.bundle = bundle
        self.runner = runner
        self.pace = Pace(concurrency=runner.concurrency)
        self.trust = Trust()
        self._recovery = Recovery(self.trust)
        self._queue, self._engine, backlog = self._before(shared)
        encoder = shared.encoders.of(bundle)
        lane = partial(
            LocalLane, encoder, self._queue, model=f"{bundle.manifest.version} {runner.precision}"
        )
        self.lane = lane(tokens=shared.tokens, scores=shared.scores)
        # A model is proven by what it computes, not by what it computed when last it was here.
        self._bare = lane(tokens=DocumentTokenCache(max_bytes=0), scores=ScoreCache(max_bytes=0))
        self.ranker = Ranker(
            self.lane,
            admission=Admission(self.pace, backlog),
            trust=self.trust,
            relevance=bundle.manifest.score.relevance,
        )
        self._probed = encoder.encode(bundle.golden[0].query, bundle.golden[0].candidates)
        self._judged = asyncio.Event()
        self._requests = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._tasks: list[asyncio.Task[None]] = []

    def _before(
        self, shared: Shared
    ) -> tuple[Batcher | Relay, WatchedEngine | RemoteEngine, Backlog]:
        """Return the queue before the engine, the engine as it is asked, and whose work counts."""
        engine, suspect = self.runner.engine, self._recovery.suspect
        if isinstance(engine, RemoteEngine):  # it has cores of its own
            backlog = Backlog(max_tokens=shared.backlog.max_tokens)
            return Relay(engine, pace=self.pace, on_fault=suspect), engine, backlog
        watched = WatchedEngine(engine, on_fault=suspect, hang_s=shared.hang_s)
        batcher = Batcher(
            watched,
            pace=self.pace,
            cores=shared.cores,
            max_batch=shared.max_batch,
            launch_tokens=shared.launch_tokens,
        )
        return batcher, watched, shared.backlog

    @property
    def depth(self) -> QueueDepth:
        """What waits, for the metrics."""
        return self._queue.depth

    @property
    def wasted_tokens(self) -> int:
        """Tokens it was run on for requests that were not answered with their scores."""
        return self._queue.wasted_tokens

    @property
    def requests(self) -> int:
        """How many requests hold it."""
        return self._requests

    @contextmanager
    def held(self) -> Iterator[None]:
        """Count a request that needs it; see `drained`."""
        self._requests += 1
        self._idle.clear()
        try:
            yield
        finally:
            self._requests -= 1
            if self._requests == 0:
                self._idle.set()

    def start(self) -> None:
        """Begin to warm up, and to watch over it."""
        if isinstance(self._queue, Batcher):
            self._queue.start()
        self._tasks = [
            asyncio.create_task(self._begin()),
            asyncio.create_task(self._recovery.run(self._prove)),
        ]

    async def check(self) -> None:
        """Pass where its engine is there, as one in this process is.

        Raises:
            EngineError: It is not; the message says why.
        """
        if isinstance(self._engine, RemoteEngine):
            await self._engine.check()

    async def judged(self) -> None:
        """Return once the first warm-up is over; `trust` tells how it went."""
        await self._judged.wait()

    async def drained(self) -> None:
        """Return once nobody holds it."""
        await self._idle.wait()

    async def stop(self) -> None:
        """Let go of engine and memory; whoever still waits is answered, if it does not hang."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if isinstance(self._queue, Batcher) and self._tasks:
            with suppress(TimeoutError):
                async with asyncio.timeout(STOP_S):
                    await self._queue.stop()
        self._tasks.clear()
        for lane in (self.lane, self._bare):
            lane.close()
        engine = self.runner.engine
        if isinstance(engine, RemoteEngine):
            await engine.close()
        elif isinstance(engine, LocalEngine):
            engine.close()

    async def _begin(self) -> None:
        if isinstance(self._engine, RemoteEngine):
            await accompany(self._engine, self._warm_up, trust=self.trust, recovery=self._recovery)
        else:
            await self._warm_up()

    async def _warm_up(self) -> None:
        await warm_up(self._bare, self.bundle, tolerance=self._tolerance, trust=self.trust)
        self._judged.set()

    async def _prove(self) -> None:
        await self.check()
        await probe(self._engine, self._probed, self.bundle.golden[0], tolerance=self._tolerance)

    @property
    def _tolerance(self) -> float:
        return tolerance(self.bundle.manifest, self.bundle.golden, self.runner.precision)
