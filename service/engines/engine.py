"""The seam below ranking: token pairs in, scores out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

from service.contract.encoding import TokenPair
from service.contract.triton import TritonPrecision
from service.contract.types import Scores

EngineKind = Literal["native", "onnx", "triton"]
"""What can run a model: two in this process, and a server."""


class EngineError(Exception):
    """An engine could not score; the message is for the log, never for a client."""


class EngineOverloadedError(EngineError):
    """The engine's own queue is full."""


class EngineUnavailableError(EngineError):
    """The engine cannot be reached, or does not serve this model."""


class EngineLateError(EngineError):
    """The engine did not answer by the deadline."""


class EngineRefusedError(EngineError):
    """The engine will not take this request, now or later."""


class EngineAnswerError(EngineError):
    """The engine answered with something else than one finite score each."""


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


@runtime_checkable
class RemoteEngine(Protocol):
    """Scores token pairs elsewhere, where requests wait and are merged."""

    async def score(
        self, pairs: Sequence[TokenPair], deadline: float, *, low: bool = False
    ) -> Scores:
        """Return one score a pair, in order; see `Engine`.

        Args:
            pairs: What to score.
            deadline: When the answer stops being useful, in `time.monotonic()` seconds.
            low: Serve it only while nothing normal waits there.

        Raises:
            EngineOverloadedError: Its queue is full.
            EngineUnavailableError: It is not there, or serves something else.
            EngineError: It failed on these pairs.
        """
        ...

    async def check(self) -> None:
        """Pass where the engine says that it serves this model.

        Raises:
            EngineUnavailableError: It does not; the message says why.
        """
        ...

    async def close(self) -> None:
        """Let go of its connections."""
        ...

    @property
    def served_version(self) -> float:
        """The engine's own number of the model that answered last, NaN before."""
        ...


@dataclass(frozen=True, slots=True)
class Runner:
    """An engine and what is known of it.

    Attributes:
        name: What the log and the metrics call it.
        engine: Scores a bundle's token pairs.
        precision: Of the model that it runs.
        concurrency: Calls that it runs side by side, each on a core of its own.
    """

    name: EngineKind
    engine: Engine | RemoteEngine
    precision: TritonPrecision
    concurrency: int
