"""How fast the engine is, learnt from what it did."""

from __future__ import annotations

import math

SMOOTHING = 0.05
"""Weight of the newest launch in the measured speed, once there are 1 / SMOOTHING of them."""


class Pace:
    """Tokens a second of the whole engine: all the launches it runs side by side.

    The best launch so far tells what an idle engine might do, the latest ones what it does.
    """

    def __init__(self, *, concurrency: int = 1) -> None:
        """Start without a measurement, which counts as infinitely fast.

        Args:
            concurrency: Launches the engine runs side by side, each on a core of its own.
        """
        self.concurrency = concurrency
        self._launches = 0
        self._tokens = 0.0
        self._seconds = 0.0
        self._best_tokens_per_s = 0.0

    @property
    def tokens_per_s(self) -> float:
        """The speed over the latest launches; infinite before the first."""
        return self.concurrency * self._tokens / self._seconds if self._seconds else math.inf

    @property
    def best_tokens_per_s(self) -> float:
        """The speed of the fastest launch; infinite before the first."""
        return self.concurrency * self._best_tokens_per_s or math.inf

    def observe(self, tokens: int, seconds: float) -> None:
        """Learn from a launch: its real tokens and how long it took."""
        if tokens == 0:  # its deadline had passed
            return
        self._launches += 1
        weight = max(SMOOTHING, 1 / self._launches)
        self._tokens += weight * (tokens - self._tokens)
        self._seconds += weight * (seconds - self._seconds)
        self._best_tokens_per_s = max(self._best_tokens_per_s, tokens / max(seconds, 1e-9))
