"""The seam of ranking: texts in, scores out."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from time import monotonic
from typing import Protocol

import numpy as np

from service.contract.encoding import PairEncoder, TokenPair
from service.contract.types import Candidate, Scores
from service.engines.engine import Engine
from service.ranking.caches import DocumentTokenCache, ScoreCache


class Lane(Protocol):
    """Scores candidates for a query; what serves a variant."""

    async def score(self, query: str, candidates: Sequence[Candidate], deadline: float) -> Scores:
        """Return one score a candidate, in order.

        Candidates not reached by the deadline are left out of `scored`.

        Args:
            query: Query text.
            candidates: The documents.
            deadline: When the answer stops being useful, in `time.monotonic()` seconds.

        Raises:
            RankError: Nothing could be scored.
        """
        ...


class LocalLane:
    """A bundle's encoder and the caches before an engine in this process."""

    def __init__(
        self,
        encoder: PairEncoder,
        engine: Engine,
        *,
        model: str,
        tokens: DocumentTokenCache,
        scores: ScoreCache,
    ) -> None:
        """Stand before an engine.

        Args:
            encoder: The bundle's encoder.
            engine: Scores the bundle's token pairs, earlier deadlines first.
            model: Names the weights and their precision to the score cache.
            tokens: Token ids of documents, shared by all lanes.
            scores: Scores of pairs, shared by all lanes.
        """
        self._encoder = encoder
        self._engine = engine
        self._model = model
        self._tokens = tokens
        self._scores = scores
        # Two, so that a long request's tokenising does not hold up a short one's.
        self._threads = ThreadPoolExecutor(max_workers=2, thread_name_prefix="tokenise")

    async def score(self, query: str, candidates: Sequence[Candidate], deadline: float) -> Scores:
        """Return one score a candidate, tokenised off the event loop; see `Lane`."""
        began = monotonic()
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(max(0.0, deadline - began)):
                pairs, keys = await loop.run_in_executor(
                    self._threads, self._encode, query, candidates
                )
        except TimeoutError:
            return _nothing(len(candidates), monotonic() - began)
        tokenise_s = monotonic() - began
        scores = await self._scores.score(self._engine, pairs, keys, deadline)
        return replace(scores, stages_s={"tokenise": tokenise_s, **scores.stages_s})

    def close(self) -> None:
        """Let the threads end after their current work."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _encode(
        self, query: str, candidates: Sequence[Candidate]
    ) -> tuple[list[TokenPair], list[bytes]]:
        query_ids = self._encoder.encode_query(query)
        documents = self._tokens.encode_documents(self._encoder, candidates)
        pairs = [self._encoder.splice(query_ids, ids) for ids in documents]
        return pairs, self._scores.keys(self._model, pairs)


def _nothing(n: int, tokenise_s: float) -> Scores:
    values, scored = np.zeros(n, dtype=np.float32), np.zeros(n, dtype=np.bool_)
    return Scores(values, scored, stages_s={"tokenise": tokenise_s})
