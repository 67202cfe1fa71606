"""Whether this replica should get traffic, and why not."""

from __future__ import annotations

from service.ranking.errors import NotReadyError


class Readiness:
    """Red from the start, green after the warm-up, red again once stopping.

    Attributes:
        fault: Why nothing can be ranked; None once the model proved itself on this host.
        stopping: Whether the service was asked to stop. What still arrives then is ranked.
    """

    def __init__(self) -> None:
        self.fault: str | None = "warming up: the golden scores are being checked"
        self.stopping = False

    @property
    def reason(self) -> str | None:
        """Why no traffic should come, None where it should."""
        return "stopping" if self.stopping else self.fault

    def require_model(self) -> None:
        """Pass where ranking is possible.

        Raises:
            NotReadyError: It is not; `fault` says why.
        """
        if self.fault is not None:
            raise NotReadyError
