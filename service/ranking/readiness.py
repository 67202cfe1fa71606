"""Whether this replica should get traffic, and why not."""

from __future__ import annotations

from service.ranking.errors import NotReadyError


class Trust:
    """Whether a model may rank: not before the warm-up, nor after a fault until it proved itself.

    Attributes:
        fault: Why it may not; None once it proved itself on this host.
    """

    def __init__(self) -> None:
        self.fault: str | None = "warming up: the golden scores are being checked"

    def require(self) -> None:
        """Pass where the model may rank.

        Raises:
            NotReadyError: It may not; `fault` says why.
        """
        if self.fault is not None:
            raise NotReadyError


class Readiness:
    """Red from the start, green once the stable model is trusted, red again once stopping.

    Attributes:
        trust: In the stable model.
        stopping: Whether the service was asked to stop. What still arrives then is ranked.
    """

    def __init__(self) -> None:
        self.trust = Trust()
        self.stopping = False

    @property
    def reason(self) -> str | None:
        """Why no traffic should come, None where it should."""
        return "stopping" if self.stopping else self.trust.fault
