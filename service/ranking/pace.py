"""How fast the engine is, learnt from what it did."""

from __future__ import annotations

import math
from collections import deque

WINDOW = 32
"""Launches that the speed is measured over: some tenths of a second of a busy engine."""


class Pace:
    """Tokens a second of the whole engine: all the launches it runs side by side.

    The best launch so far tells what an idle engine might do, the latest ones what it does. They
    are forgotten at once when the window has passed, so that a machine that turns slower or faster
    by any factor is known as such after so many launches.
    """

    def __init__(self, *, concurrency: int = 1) -> None:
        """Start without a measurement, which counts as infinitely fast.

        Args:
            concurrency: Launches the engine runs side by side, each on a core of its own.
        """
        self.concurrency = concurrency
        self._latest: deque[tuple[int, float]] = deque(maxlen=WINDOW)
        self._tokens_per_s = self._best_tokens_per_s = math.inf

    @property
    def tokens_per_s(self) -> float:
        """The speed over the latest launches; infinite before the first."""
        return self.concurrency * self._tokens_per_s

    @property
    def best_tokens_per_s(self) -> float:
        """The speed of the fastest launch; infinite before the first."""
        return self.concurrency * self._best_tokens_per_s

    def observe(self, tokens: int, seconds: float) -> None:
        """Learn from a launch: its real tokens and how long it took."""
        if tokens == 0 or seconds <= 0:  # its deadline had passed
            return
        best = 0.0 if math.isinf(self._best_tokens_per_s) else self._best_tokens_per_s
        self._best_tokens_per_s = max(best, tokens / seconds)
        self._latest.append((tokens, seconds))
        all_tokens, all_seconds = map(sum, zip(*self._latest, strict=True))
        self._tokens_per_s = all_tokens / all_seconds
