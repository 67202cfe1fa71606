"""How fast a key, or a shadow, may spend."""

from __future__ import annotations


class Allowance:
    """Tokens to spend, refilled evenly up to a burst.

    What a request costs is known after it was ranked. It is let in unless there is a debt, and may
    leave one, which the next ones wait for: a request larger than the burst is not locked out, and
    over time no more is spent than the rate allows.
    """

    def __init__(self, tokens_per_s: float, *, burst_s: float, now: float) -> None:
        """Start full.

        Args:
            tokens_per_s: What is refilled.
            burst_s: How long it takes to refill all.
            now: The time, in seconds of a clock that is never put back.
        """
        self._tokens_per_s = tokens_per_s
        self._most = tokens_per_s * burst_s
        self._left = self._most
        self._at = now

    def wait_s(self, now: float) -> float:
        """Return the seconds until there is no debt; 0 without one."""
        self._refill(now)
        return max(0.0, -self._left / self._tokens_per_s)

    def spend(self, tokens: int, now: float) -> None:
        """Take tokens off, into debt where they are more than is left."""
        self._refill(now)
        self._left -= tokens

    def _refill(self, now: float) -> None:
        self._left = min(self._most, self._left + (now - self._at) * self._tokens_per_s)
        self._at = now
