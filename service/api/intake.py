"""What is received and ranked at a time, bounded in requests and in bytes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from service.ranking.errors import OverloadedError

RETRY_S = 1.0


class Held:
    """The bytes one request keeps until it is answered."""

    def __init__(self, intake: Intake) -> None:
        self._intake = intake
        self.size_bytes = 0

    def grow(self, more_bytes: int) -> None:
        """Hold more.

        Raises:
            OverloadedError: Others hold so much that this does not fit.
        """
        self.size_bytes += more_bytes
        self._intake.size_bytes += more_bytes
        others = self._intake.size_bytes - self.size_bytes
        if others and self._intake.size_bytes > self._intake.max_bytes:
            raise OverloadedError(
                "the bodies of other requests take all the memory set aside for them; "
                "try again later",
                retry_after_s=RETRY_S,
            )


class Intake:
    """Counts the requests in progress, uploads included, and their bodies' bytes."""

    def __init__(self, *, max_requests: int, max_bytes: int) -> None:
        """Start empty.

        Args:
            max_requests: Most requests at a time.
            max_bytes: Most bytes of their bodies; a request alone always fits.
        """
        self.max_requests = max_requests
        self.max_bytes = max_bytes
        self.requests = 0
        self.size_bytes = 0

    @contextmanager
    def request(self) -> Iterator[Held]:
        """Count a request, and what it holds, until it is answered.

        Raises:
            OverloadedError: Too many requests are in progress.
        """
        if self.requests >= self.max_requests:
            raise OverloadedError(
                f"{self.requests} requests are in progress, the most that are taken at a time; "
                "try again later",
                retry_after_s=RETRY_S,
            )
        held = Held(self)
        self.requests += 1
        try:
            yield held
        finally:
            self.requests -= 1
            self.size_bytes -= held.size_bytes
