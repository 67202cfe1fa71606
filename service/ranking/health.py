"""An engine that is watched: what it may not do, and what follows when it does."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence

import numpy as np

from service.contract.encoding import TokenPair
from service.contract.types import Scores
from service.engines.engine import Engine, EngineError
from service.ranking.readiness import Trust

log = logging.getLogger(__name__)

HANG_S = 10.0
"""Longer than any launch takes on a slow and crowded machine."""

PROBE_S = 1.0
"""Between two trials of an engine that is not trusted."""

MAX_FAILURES = 5
"""Launches that fail in a row before the engine counts as broken; one bad pair fails fewer."""


class EngineHungError(EngineError):
    """A launch did not end."""


class WatchedEngine:
    """An engine whose answers are checked and whose launches end.

    A launch that does not end in time, that raises, or that has too few scores or some that are
    not finite, fails. A hang, or several failures in a row, is reported.
    """

    def __init__(
        self, engine: Engine, *, on_fault: Callable[[str], None], hang_s: float = HANG_S
    ) -> None:
        """Watch an engine.

        Args:
            engine: Scores the pairs.
            on_fault: Told why the engine no longer deserves trust.
            hang_s: How long a launch may take.
        """
        self._engine = engine
        self._on_fault = on_fault
        self._hang_s = hang_s
        self._failures = 0

    async def score(self, pairs: Sequence[TokenPair], deadline: float) -> Scores:
        """Return one finite score a pair; see `Engine`.

        Raises:
            EngineHungError: The launch did not end.
            EngineError: It failed otherwise.
        """
        try:
            async with asyncio.timeout(self._hang_s) as limit:
                scores = _checked(await self._engine.score(pairs, deadline), len(pairs))
        except Exception as error:
            if limit.expired():
                self._on_fault("the engine hangs")
                raise EngineHungError(f"{len(pairs)} pairs took over {self._hang_s:g} s") from error
            self._failures += 1
            if self._failures >= MAX_FAILURES:
                self._on_fault(f"the engine failed {self._failures} times in a row")
            raise
        self._failures = 0
        return scores


def _checked(scores: Scores, n: int) -> Scores:
    if len(scores.values) != n or len(scores.scored) != n:
        raise EngineError(f"{len(scores.values)} scores for {n} pairs")
    if not np.isfinite(scores.values[scores.scored]).all():
        raise EngineError("a score is not finite")
    return scores


class Recovery:
    """Keeps traffic from an engine that is not trusted until it proved itself again."""

    def __init__(self, trust: Trust) -> None:
        self._trust = trust
        self._broken = asyncio.Event()

    def suspect(self, reason: str) -> None:
        """Trust the model no more, unless it is not trusted anyway."""
        if self._trust.fault is None:
            self._trust.fault = f"{reason}; its golden scores are being checked again"
            log.error("not ready any more", extra={"fields": {"reason": reason}})
            self._broken.set()

    async def run(self, probe: Callable[[], Awaitable[object]]) -> None:
        """Trust the model again whenever probe no longer raises; never returns."""
        while True:
            await self._broken.wait()
            try:
                await probe()
            except Exception as error:
                log.error("still not ready: %s: %s", type(error).__name__, error)
                await asyncio.sleep(PROBE_S)
            else:
                self._broken.clear()
                self._trust.fault = None
                log.info("ready again")
