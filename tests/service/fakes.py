# ruff: noqa: ARG002 - fakes have the signature of what they stand for
"""Engines for the seam: they score without a model and do as they are told."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import numpy as np

from service.contract.encoding import TokenPair
from service.contract.types import Scores
from service.engines.engine import Engine, EngineError
from service.ranking.admission import Backlog, Ticket
from service.ranking.caches import DocumentTokenCache, ScoreCache
from service.ranking.cores import Cores
from service.ranking.encoders import Encoders
from service.ranking.model import Shared


def pair(*, tokens: int = 8, mark: int = 0) -> TokenPair:
    """Return a pair of a length whose first id is `mark`; the gated engine scores it so."""
    ids = np.zeros(tokens, dtype=np.int64)
    ids[0] = mark
    return TokenPair(ids, 1)


def marks(pairs: Sequence[TokenPair]) -> list[int]:
    return [int(pair.input_ids[0]) for pair in pairs]


class GatedEngine:
    """Waits for `open` before each launch, and keeps a list of all launches."""

    def __init__(self, *, opened: bool = True) -> None:
        self.open = asyncio.Event()
        if opened:
            self.open.set()
        self.launches: list[list[int]] = []
        self.poison: int | None = None

    async def score(self, pairs: Sequence[TokenPair], deadline: float) -> Scores:
        found = marks(pairs)
        self.launches.append(found)
        await self.open.wait()
        if self.poison in found:
            raise EngineError("poisoned")
        tokens = sum(map(len, pairs))
        values = np.array(found, dtype=np.float32)
        return Scores(values, np.ones(len(pairs), dtype=np.bool_), tokens, tokens)


class Unqueued:
    """An engine where a queue is expected: everybody is launched at once."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def score(self, pairs: Sequence[TokenPair], ticket: Ticket) -> Scores:
        return await self._engine.score(pairs, ticket.deadline)


class ShortEngine:
    """Answers with one score too few."""

    async def score(self, pairs: Sequence[TokenPair], deadline: float) -> Scores:
        n = len(pairs) - 1
        return Scores(np.zeros(n, dtype=np.float32), np.ones(n, dtype=np.bool_))


class HungEngine:
    """Never answers."""

    async def score(self, pairs: Sequence[TokenPair], deadline: float) -> Scores:
        await asyncio.Event().wait()
        raise AssertionError("unreachable")


def one_core() -> Shared:
    """Return what models share where there is one core, and nothing is cached."""
    return Shared(
        cores=Cores(1),
        backlog=Backlog(max_tokens=100_000),
        encoders=Encoders(),
        tokens=DocumentTokenCache(max_bytes=0),
        scores=ScoreCache(max_bytes=0),
        max_batch=48,
        launch_tokens=512,
        hang_s=60,
    )
