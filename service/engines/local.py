"""A scorer in this process, off the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from time import monotonic

import numpy as np

from service.contract.encoding import TokenPair
from service.contract.types import Float32s, Scores
from service.engines.engine import EngineError
from service.runtime import step_back
from service.scorers.portions import PORTION_TOKENS, portions, real_tokens
from service.scorers.scorer import Scorer

Score = Callable[[Sequence[TokenPair], float], Scores]


class LocalEngine:
    """Runs a scorer portion by portion until the deadline, each call in a thread of its own.

    One core a call, as many calls at a time as there are cores: two cores on one pair of 40 tokens
    give 1.1 times the speed of one, two cores on two pairs 1.9 times (`docs/experiments.md`).
    """

    def __init__(
        self,
        scorer: Scorer,
        *,
        workers: int = 1,
        portion_tokens: int = PORTION_TOKENS,
        padded_tokens: Callable[[Sequence[TokenPair]], int] = real_tokens,
    ) -> None:
        """Take a scorer that runs on the thread it is called from.

        Args:
            scorer: Scores the pairs; called from several threads at once.
            workers: Calls that run side by side.
            portion_tokens: Most tokens between two looks at the clock.
            padded_tokens: What the scorer runs for some pairs, where it pads.
        """
        self._score: Score | None = partial(
            _score, scorer, portion_tokens=portion_tokens, padded_tokens=padded_tokens
        )
        self._threads = ThreadPoolExecutor(workers, "score", initializer=step_back)

    async def score(self, pairs: Sequence[TokenPair], deadline: float) -> Scores:
        """Return one score a pair; the deadline is checked between portions.

        Raises:
            EngineError: The scorer failed, or gave a score that is not finite.
        """
        loop = asyncio.get_running_loop()
        if self._score is None:
            raise EngineError("the engine was closed")
        return await loop.run_in_executor(self._threads, self._score, pairs, deadline)

    def close(self) -> None:
        """Let the threads end after their current work, and the scorer's memory go with them."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._score = None


def _score(
    scorer: Scorer,
    pairs: Sequence[TokenPair],
    deadline: float,
    *,
    portion_tokens: int,
    padded_tokens: Callable[[Sequence[TokenPair]], int],
) -> Scores:
    values = np.zeros(len(pairs), dtype=np.float32)
    scored = np.zeros(len(pairs), dtype=np.bool_)
    start = tokens = padded = 0
    for portion in portions(pairs, portion_tokens):
        if monotonic() >= deadline:
            break
        end = start + len(portion)
        values[start:end] = _score_portion(scorer, portion)
        scored[start:end] = True
        tokens += real_tokens(portion)
        padded += padded_tokens(portion)
        start = end
    return Scores(values, scored, real_tokens=tokens, padded_tokens=padded)


def _score_portion(scorer: Scorer, pairs: Sequence[TokenPair]) -> Float32s:
    try:
        scores = scorer.score(pairs)
    except Exception as error:  # onnxruntime's own exceptions share no base class
        raise EngineError(f"the model failed on pairs of {[*map(len, pairs)]} tokens") from error
    if not np.isfinite(scores).all():
        raise EngineError(f"the model scored pairs of {[*map(len, pairs)]} tokens as {scores}")
    return scores
