"""What a shadow request goes to: a lane of this process, or a reranker elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol
from urllib.parse import urlsplit

from service.contract.encoding import AS_FITS, Truncation
from service.contract.types import Candidate, Float32s
from service.engines.engine import EngineError, EngineLateError, EngineRefusedError
from service.ranking.admission import Ticket
from service.ranking.errors import RankError, TextTooLongError
from service.rollout.breaker import Breaker
from service.rollout.lanes import Served

if TYPE_CHECKING:
    from service.engines.remote import RemoteReranker  # needs aiohttp, which a lane does not


class Target(Protocol):
    """Scores candidates that were answered for already.

    Attributes:
        name: Of its model.
        version: Of its model.
        local: Whether it computes on the cores that requests are answered with.
        breaker: Told of every call.
    """

    name: str
    version: str
    local: bool
    breaker: Breaker

    async def score(
        self,
        query: str,
        candidates: Sequence[Candidate],
        deadline: float,
        truncation: Truncation = AS_FITS,
    ) -> Float32s:
        """Return the raw score of each candidate, float32 [n].

        Args:
            query: Query text.
            candidates: The documents.
            deadline: When the answer stops being useful, in `time.monotonic()` seconds.
            truncation: How much of the texts was read for the answer.

        Raises:
            EngineError: There are none; its class tells why.
        """
        ...


class RemoteTarget:
    """A reranker elsewhere, which reads as much of a text as it does."""

    local = False

    def __init__(self, reranker: RemoteReranker, *, url: str, model: str | None) -> None:
        self.name = model or urlsplit(url).netloc.rpartition("@")[2]
        self.version = "remote"
        self.breaker = Breaker()
        self._reranker = reranker

    async def score(
        self,
        query: str,
        candidates: Sequence[Candidate],
        deadline: float,
        truncation: Truncation = AS_FITS,  # noqa: ARG002 - it has no way to be told
    ) -> Float32s:
        """Return the raw score of each candidate; see `Target`."""
        return await self._reranker.score(query, candidates, deadline)

    async def close(self) -> None:
        """Close the connections."""
        await self._reranker.close()


class LaneTarget:
    """A lane of this process, asked with low priority: normal requests go before it."""

    local = True

    def __init__(self, served: Served, breaker: Breaker) -> None:
        self.name, self.version, _ = served.labels
        self.breaker = breaker
        self._model = served.model

    async def score(
        self,
        query: str,
        candidates: Sequence[Candidate],
        deadline: float,
        truncation: Truncation = AS_FITS,
    ) -> Float32s:
        """Return the raw score of each candidate; see `Target`."""
        model = self._model
        with model.held():
            try:
                model.trust.require()
                ticket = Ticket(deadline, low=True)
                scores = await model.lane.score(query, candidates, ticket, truncation)
            except TextTooLongError as error:  # its model may read less than the one that answered
                raise EngineRefusedError(f"{self.name}: a text is too long") from error
            except RankError as error:
                raise EngineError(f"{self.name}: {type(error).__name__}") from error
        if not scores.complete:
            raise EngineLateError(f"{self.name} was not done in time")
        return scores.values
