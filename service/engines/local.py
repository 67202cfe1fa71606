"""A scorer in this process, off the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from time import monotonic

import numpy as np

from service.contract.encoding import TokenPair
from service.contract.types import Float32s, Scores
from service.engines.engine import EngineError
from service.runtime import step_back
from service.scorers.portions import portions
from service.scorers.scorer import Scorer


class LocalEngine:
    """Runs a scorer portion by portion until the deadline, each call in a thread of its own.

    One core a call, as many calls at a time as there are cores: two cores on one pair of 40 tokens
    give 1.1 times the speed of one, two cores on two pairs 1.9 times (`docs/experiments.md`).
    """

    def __init__(self, scorer: Scorer, *, workers: int = 1) -> None:
        """Take a scorer that runs on the thread it is called from.

        Args:
            scorer: Scores the pairs; called from several threads at once.
            workers: Calls that run side by side.
        """
        self._scorer: Scorer | None = scorer
        self._threads = ThreadPoolExecutor(workers, "score", initializer=step_back)

    async def score(self, pairs: Sequence[TokenPair], deadline: float) -> Scores:
        """Return one score a pair; the deadline is checked between portions.

        Raises:
            EngineError: The scorer failed, or gave a score that is not finite.
        """
        loop = asyncio.get_running_loop()
        if self._scorer is None:
            raise EngineError("the engine was closed")
        return await loop.run_in_executor(self._threads, _score, self._scorer, pairs, deadline)

    def close(self) -> None:
        """Let the threads end after their current work, and the scorer's memory go with them."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._scorer = None


def _score(scorer: Scorer, pairs: Sequence[TokenPair], deadline: float) -> Scores:
    values = np.zeros(len(pairs), dtype=np.float32)
    scored = np.zeros(len(pairs), dtype=np.bool_)
    start = tokens = 0
    for portion in portions(pairs):
        if monotonic() >= deadline:
            break
        end = start + len(portion)
        values[start:end] = _score_portion(scorer, portion)
        scored[start:end] = True
        tokens += sum(map(len, portion))
        start = end
    return Scores(values, scored, real_tokens=tokens, padded_tokens=tokens)


def _score_portion(scorer: Scorer, pairs: Sequence[TokenPair]) -> Float32s:
    try:
        scores = scorer.score(pairs)
    except Exception as error:  # onnxruntime's own exceptions share no base class
        raise EngineError(f"the model failed on pairs of {[*map(len, pairs)]} tokens") from error
    if not np.isfinite(scores).all():
        raise EngineError(f"the model scored pairs of {[*map(len, pairs)]} tokens as {scores}")
    return scores
