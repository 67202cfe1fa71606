"""ONNX Runtime in this process, off the event loop."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from time import monotonic

import numpy as np

from service.contract.encoding import TokenPair
from service.contract.types import Scores
from service.engines.engine import EngineError
from service.scorers.onnx import OnnxScorer


class OnnxEngine:
    """Runs an `OnnxScorer` pair by pair until the deadline, each call in a thread of its own.

    One core a pair, as many pairs at a time as there are cores: two cores on one pair of 40 tokens
    give 1.1 times the speed of one, two cores on two pairs 1.9 times (`docs/experiments.md`).
    """

    def __init__(self, scorer: OnnxScorer, *, workers: int = 1) -> None:
        """Take a scorer that was loaded with one thread.

        Args:
            scorer: Scores the pairs; called from several threads at once.
            workers: Calls that run side by side.
        """
        self._scorer = scorer
        self._threads = ThreadPoolExecutor(max_workers=workers, thread_name_prefix="onnx")

    async def score(self, pairs: Sequence[TokenPair], deadline: float) -> Scores:
        """Return one score a pair; the deadline is checked between pairs.

        Raises:
            EngineError: ONNX Runtime failed, or gave a score that is not finite.
        """
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, self._score, pairs, deadline)

    def close(self) -> None:
        """Let the threads end after their current work."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _score(self, pairs: Sequence[TokenPair], deadline: float) -> Scores:
        values = np.zeros(len(pairs), dtype=np.float32)
        scored = np.zeros(len(pairs), dtype=np.bool_)
        tokens = 0
        for i, pair in enumerate(pairs):
            if monotonic() >= deadline:
                break
            values[i] = self._score_one(pair)
            scored[i] = True
            tokens += len(pair)
        return Scores(values, scored, real_tokens=tokens, padded_tokens=tokens)

    def _score_one(self, pair: TokenPair) -> float:
        try:
            score = self._scorer.score_one(pair)
        except Exception as error:  # onnxruntime's own exceptions share no base class
            raise EngineError(f"ONNX Runtime failed on a pair of {len(pair)} tokens") from error
        if not math.isfinite(score):
            raise EngineError(f"ONNX Runtime scored a pair of {len(pair)} tokens as {score}")
        return score
