"""The seam of ranking: texts in, scores out."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from time import monotonic
from typing import Protocol

import numpy as np

from service.contract.encoder import Encoder
from service.contract.encoding import AS_FITS, TokenIds, TokenPair, Truncation
from service.contract.types import Candidate, Scores
from service.ranking.admission import Ticket
from service.ranking.caches import DocumentTokenCache, Queue, ScoreCache
from service.ranking.cost import NOTHING, Cost, cost_of_bytes, document_bytes, tokens_of
from service.ranking.errors import TextTooLongError
from service.runtime import step_back


class Lane(Protocol):
    """Scores candidates for a query; what serves a variant."""

    def price(
        self,
        query: str,
        candidates: Sequence[Candidate],
        fits: Callable[[Cost], bool],
        truncation: Truncation = AS_FITS,
    ) -> Cost:
        """Return about what scoring costs; cheap, and called on the event loop.

        Args:
            query: Query text.
            candidates: The documents.
            fits: Whether a cost is acceptable. One that is not deserves a closer look, which may
                find work that was done before.
            truncation: How much of the texts is read.
        """
        ...

    async def score(
        self,
        query: str,
        candidates: Sequence[Candidate],
        ticket: Ticket,
        truncation: Truncation = AS_FITS,
    ) -> Scores:
        """Return one score a candidate, in order.

        Candidates not reached by the deadline are left out of `scored`.

        Args:
            query: Query text.
            candidates: The documents.
            ticket: The request's deadline and priority; told the exact cost before the work.
            truncation: How much of the texts is read.

        Raises:
            RankError: Nothing could be scored, or a text is too long and not to be cut.
        """
        ...


class LocalLane:
    """A bundle's encoder and the caches before an engine in this process."""

    def __init__(
        self,
        encoder: Encoder,
        queue: Queue,
        *,
        model: str,
        tokens: DocumentTokenCache,
        scores: ScoreCache,
    ) -> None:
        """Stand before an engine's queue.

        Args:
            encoder: The bundle's encoder.
            queue: Has the bundle's token pairs scored, in their tickets' turn.
            model: Names the weights and their precision to the score cache.
            tokens: Token ids of documents, shared by all lanes.
            scores: Scores of pairs, shared by all lanes.
        """
        self._encoder = encoder
        self._queue = queue
        self._model = model
        self._tokens = tokens
        self._scores = scores
        # Two, so that a long request's tokenising does not hold up a short one's.
        self._threads = ThreadPoolExecutor(2, "tokenise", initializer=step_back)
        self._low_threads = ThreadPoolExecutor(1, "tokenise-low", initializer=step_back)

    def price(
        self,
        query: str,
        candidates: Sequence[Candidate],
        fits: Callable[[Cost], bool],
        truncation: Truncation = AS_FITS,
    ) -> Cost:
        """Return the cost by bytes, or, if that does not fit, by what the caches know; see `Lane`.

        The caches are asked candidate by candidate only until the cost stops to fit, so that a
        request is refused at once when the engine is busy and nothing of it is known.
        """
        by_bytes = cost_of_bytes(
            query,
            candidates,
            max_length=self._encoder.longest(truncation),
            max_query_length=self._encoder.max_query_length,
            frame_tokens=self._encoder.frame_tokens,
        )
        if fits(by_bytes):
            return by_bytes
        query_ids = self._encoder.encode_query(query)
        known = NOTHING
        for candidate in candidates:
            known = self._with_one_more(known, query_ids, candidate, truncation)
            if not fits(known):
                return by_bytes
        return known

    def _with_one_more(
        self, cost: Cost, query_ids: TokenIds, candidate: Candidate, truncation: Truncation
    ) -> Cost:
        ids = None if truncation.keep_end else self._tokens.peek(self._encoder, candidate)
        if ids is None:
            size = document_bytes(candidate)
            longest, frame = self._encoder.longest(truncation), self._encoder.frame_tokens
            tokens = min(longest, len(query_ids) + tokens_of(size) + frame)
            return cost.plus(tokens, size)
        pair = self._encoder.splice(query_ids, ids, truncation)
        return cost if self._scores.knows(self._model, pair) else cost.plus(len(pair))

    async def score(
        self,
        query: str,
        candidates: Sequence[Candidate],
        ticket: Ticket,
        truncation: Truncation = AS_FITS,
    ) -> Scores:
        """Return one score a candidate, tokenised off the event loop; see `Lane`."""
        began = monotonic()
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(max(0.0, ticket.deadline - began)):
                threads = self._low_threads if ticket.low else self._threads
                pairs, keys = await loop.run_in_executor(
                    threads, self._encode, query, candidates, truncation
                )
        except TimeoutError:
            return _nothing(len(candidates), monotonic() - began)
        tokenise_s = monotonic() - began
        scores = await self._scores.score(self._queue, pairs, keys, ticket)
        return replace(scores, stages_s={"tokenise": tokenise_s, **scores.stages_s})

    def close(self) -> None:
        """Let the threads end after their current work."""
        for threads in (self._threads, self._low_threads):
            threads.shutdown(wait=False, cancel_futures=True)

    def _encode(
        self, query: str, candidates: Sequence[Candidate], truncation: Truncation
    ) -> tuple[list[TokenPair], list[bytes]]:
        encoder = self._encoder
        query_ids = encoder.encode_query(query)
        if truncation.keep_end:  # the cache has beginnings
            documents = encoder.encode_documents(candidates, keep_end=True)
        else:
            documents = self._tokens.encode_documents(encoder, candidates)
        if truncation.refuse:
            self._refuse_long(query, documents, truncation)
        pairs = [encoder.splice(query_ids, ids, truncation) for ids in documents]
        return pairs, self._scores.keys(self._model, pairs)

    def _refuse_long(
        self, query: str, documents: Sequence[TokenIds], truncation: Truncation
    ) -> None:
        encoder = self._encoder
        (query_ids,) = encoder.encode_texts([query])
        if len(query_ids) > encoder.max_query_length:
            raise TextTooLongError(None, limit=encoder.max_query_length)
        room = encoder.longest(truncation) - encoder.frame_tokens - len(query_ids)
        for index, ids in enumerate(documents):
            if len(ids) > room:
                raise TextTooLongError(index, limit=max(0, room))


def _nothing(n: int, tokenise_s: float) -> Scores:
    values, scored = np.zeros(n, dtype=np.float32), np.zeros(n, dtype=np.bool_)
    return Scores(values, scored, stages_s={"tokenise": tokenise_s, "queue": 0.0, "infer": 0.0})
