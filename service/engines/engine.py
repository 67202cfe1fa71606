"""The seam below ranking: token pairs in, scores out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from service.contract.encoding import TokenPair
from service.contract.types import Scores


class EngineError(Exception):
    """An engine could not score; the message is for the log, never for a client."""


class Engine(Protocol):
    """Scores token pairs."""

    async def score(self, pairs: Sequence[TokenPair], deadline: float) -> Scores:
        """Return one score a pair, in order.

        Pairs not reached by the deadline are left out of `scored`; that is no error.

        Args:
            pairs: What to score.
            deadline: When the answer stops being useful, in `time.monotonic()` seconds.

        Raises:
            EngineError: Nothing can be said of any of these pairs.
        """
        ...
