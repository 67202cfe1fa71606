"""What need not be computed twice: documents' token ids, and pairs' scores."""

from __future__ import annotations

import asyncio
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from threading import Lock
from time import monotonic
from typing import Protocol

import numpy as np

from service.contract.encoder import Encoder
from service.contract.encoding import TokenIds, TokenPair
from service.contract.types import Candidate, Scores
from service.ranking.admission import Ticket
from service.ranking.lru import KEY_BYTES, Lru


@dataclass(frozen=True, slots=True)
class CacheStats:
    """What a cache did and holds.

    Attributes:
        hits: Lookups answered by what was stored.
        misses: Lookups that cost work.
        shared: Lookups answered by the work of another: a duplicate in the same request, or a
            concurrent request.
        entries: What is stored.
        size_bytes: What that takes, keys and tables included.
    """

    hits: int
    misses: int
    shared: int
    entries: int
    size_bytes: int


class DocumentTokenCache:
    """Token ids of documents, least recently used out first; may be called from several threads.

    A key is a hash of the tokenizer and the text, never a client's id, by which one client could
    name another's document. It is salted by the process, so that nobody can look for two texts of
    one hash ahead. Ids are kept as bytes: a list of Python objects would be ten times as large and
    would make the garbage collector walk it.
    """

    def __init__(self, *, max_bytes: int) -> None:
        """Start empty; without a byte to fill, every document is tokenised."""
        self._stored: Lru[bytes] = Lru(max_bytes)
        self._salt = os.urandom(blake2b.SALT_SIZE)
        self._lock = Lock()
        self._hits = self._misses = self._shared = 0

    def encode_documents(self, encoder: Encoder, candidates: Sequence[Candidate]) -> list[TokenIds]:
        """Return what `encoder.encode_documents` returns, tokenising each unknown text once."""
        if not self._stored.max_bytes:
            return encoder.encode_documents(candidates)
        keys = self._keys(encoder, candidates)
        with self._lock:
            found = self._stored.find(keys)
        unknown = {
            key: candidate
            for key, candidate in zip(keys, candidates, strict=True)
            if key not in found
        }
        new = dict(zip(unknown, encoder.encode_documents([*unknown.values()]), strict=True))
        stored = {key: ids.astype(_dtype(encoder)).tobytes() for key, ids in new.items()}
        with self._lock:
            self._stored.store(stored)
            hits = sum(key in found for key in keys)
            self._hits += hits
            self._misses += len(new)
            self._shared += len(keys) - hits - len(new)
        known = {key: _ids(encoder, ids) for key, ids in found.items()}
        return [known[key] if key in known else new[key] for key in keys]

    def peek(self, encoder: Encoder, candidate: Candidate) -> TokenIds | None:
        """Return a document's ids where they are stored; neither counted nor a use."""
        if not self._stored.max_bytes:
            return None
        (key,) = self._keys(encoder, [candidate])
        found = self._stored.get(key)
        return None if found is None else _ids(encoder, found)

    @property
    def stats(self) -> CacheStats:
        """What was looked up and what is stored."""
        return CacheStats(self._hits, self._misses, self._shared, *self._stored.fill)

    def clear(self) -> int:
        """Forget everything; return how many documents that was."""
        with self._lock:
            return self._stored.clear()

    def _keys(self, encoder: Encoder, candidates: Iterable[Candidate]) -> list[bytes]:
        empty = blake2b(digest_size=KEY_BYTES, key=encoder.fingerprint, salt=self._salt)
        keys = []
        for candidate in candidates:
            hashed = empty.copy()
            hashed.update(encoder.document_key(candidate).encode())
            keys.append(hashed.digest())
        return keys


def _dtype(encoder: Encoder) -> type[np.uint16] | type[np.int32]:
    return np.uint16 if encoder.largest_id < 1 << 16 else np.int32


def _ids(encoder: Encoder, stored: bytes) -> TokenIds:
    return np.frombuffer(stored, _dtype(encoder)).astype(np.int32)


class Queue(Protocol):
    """Has pairs scored by an engine, in their tickets' turn."""

    async def score(self, pairs: Sequence[TokenPair], ticket: Ticket) -> Scores:
        """Return one score a pair, in order; those not reached by the deadline are left out."""
        ...


@dataclass(slots=True, eq=False)
class _Flight:
    """One request's pairs on their way through the engine.

    Attributes:
        turn: Its request's place in the queue.
        landed: Done once the engine answered, failed, or the request expired or was cancelled.
        scores: What it brought back, by key.
    """

    turn: tuple[bool, float]
    landed: asyncio.Future[None]
    scores: dict[bytes, float] = field(default_factory=dict)


class ScoreCache:
    """Scores of pairs by model and token ids, least recently used out first.

    A score is a function of its pair alone, so a stored one is the score. Equal pairs of a request
    are scored once. A pair that another request is having scored is not scored again: that
    request's flight is awaited, but only if its turn is not later. Such a flight is ahead of where
    this request's own pairs would stand in the queue, and waiting for it costs nothing; behind a
    later deadline or a low priority, an urgent pair is scored on its own. Whatever a flight does
    not bring back, because its request failed, expired or was cancelled, the waiting request
    scores itself, once and without waiting for anybody again.
    """

    def __init__(self, *, max_bytes: int) -> None:
        """Start empty; without a byte to fill, every pair is scored, duplicates included."""
        self._stored: Lru[float] = Lru(max_bytes)
        self._salt = os.urandom(blake2b.SALT_SIZE)
        self._flights: dict[bytes, _Flight] = {}  # by key the one of the earliest turn
        self._hits = self._misses = self._shared = 0

    @property
    def stats(self) -> CacheStats:
        """What was looked up and what is stored."""
        return CacheStats(self._hits, self._misses, self._shared, *self._stored.fill)

    def clear(self) -> int:
        """Forget everything; return how many scores that was. What is in flight will be stored."""
        return self._stored.clear()

    def keys(self, model: str, pairs: Iterable[TokenPair]) -> list[bytes]:
        """Return the pairs' names in this cache; hashing is work for a thread.

        Args:
            model: Names the weights and their precision.
            pairs: What will be scored.
        """
        if not self._stored.max_bytes:
            return []
        empty = blake2b(model.encode(), digest_size=KEY_BYTES, salt=self._salt)
        keys = []
        for pair in pairs:
            hashed = empty.copy()
            hashed.update(b"%8d" % pair.first_segment)
            hashed.update(pair.input_ids.astype(np.int32).tobytes())
            keys.append(hashed.digest())
        return keys

    def knows(self, model: str, pair: TokenPair) -> bool:
        """Return whether a pair's score is stored; neither counted nor a use."""
        return any(self._stored.get(key) is not None for key in self.keys(model, [pair]))

    async def score(
        self, queue: Queue, pairs: Sequence[TokenPair], keys: Sequence[bytes], ticket: Ticket
    ) -> Scores:
        """Return one score a pair, queueing what nobody has or is asking for.

        Args:
            queue: Has scored what is not known.
            pairs: What to score.
            keys: Their names, from `keys`.
            ticket: The request's turn; the exact cost of what is queued is reserved on it.

        Raises:
            RankError: The exact cost does not fit, or the engine failed on a pair that this
                request had to have scored.
        """
        if not self._stored.max_bytes:
            ticket.reserve(sum(map(len, pairs)))
            return await queue.score(pairs, ticket)
        wanted = dict(zip(keys, pairs, strict=True))
        found = self._stored.find(wanted)
        hits = sum(key in found for key in keys)
        ahead = self._flights_ahead(wanted.keys() - found.keys(), ticket.turn)
        own = {key: pair for key, pair in wanted.items() if key not in found and key not in ahead}
        ticket.reserve(sum(map(len, own.values())))
        self._hits += hits
        self._misses += len(own)
        parts = []
        if own:
            parts.append(await self._fly(queue, own, ticket, found))
        waited_s = await _land(ahead, ticket.deadline, found)
        found |= self._stored.find(ahead.keys() - found.keys())
        lost = {key: wanted[key] for key in ahead if key not in found}
        self._misses += len(lost)
        self._shared += len(keys) - hits - len(own) - len(lost)
        if lost and monotonic() < ticket.deadline:
            ticket.reserve(sum(map(len, lost.values())))
            parts.append(await self._fly(queue, lost, ticket, found))
        return _assembled(pairs, keys, found, parts, waited_s)

    def _flights_ahead(
        self, keys: Iterable[bytes], turn: tuple[bool, float]
    ) -> dict[bytes, _Flight]:
        flights = ((key, self._flights.get(key)) for key in keys)
        return {key: flight for key, flight in flights if flight and flight.turn <= turn}

    async def _fly(
        self,
        queue: Queue,
        pairs: Mapping[bytes, TokenPair],
        ticket: Ticket,
        found: dict[bytes, float],
    ) -> Scores:
        """Have pairs scored, and let requests with later turns wait for it meanwhile."""
        flight = _Flight(ticket.turn, asyncio.get_running_loop().create_future())
        for key in pairs:
            if key not in self._flights or ticket.turn < self._flights[key].turn:
                self._flights[key] = flight
        try:
            scores = await queue.score([*pairs.values()], ticket)
            answers = zip(pairs, scores.values.tolist(), scores.scored.tolist(), strict=True)
            flight.scores = {key: value for key, value, scored in answers if scored}
            self._stored.store({k: v for k, v in flight.scores.items() if math.isfinite(v)})
            found |= flight.scores
        finally:
            for key in pairs:
                if self._flights.get(key) is flight:
                    del self._flights[key]
            flight.landed.set_result(None)
        return scores


async def _land(
    flights: Mapping[bytes, _Flight], deadline: float, found: dict[bytes, float]
) -> float:
    """Wait for others' flights and take their scores; return the seconds it took."""
    if not flights:
        return 0.0
    began = monotonic()
    landed = {flight.landed for flight in flights.values()}
    await asyncio.wait(landed, timeout=max(0.0, deadline - began))
    for key, flight in flights.items():
        if key in flight.scores:
            found[key] = flight.scores[key]
    return monotonic() - began


def _assembled(
    pairs: Sequence[TokenPair],
    keys: Sequence[bytes],
    found: Mapping[bytes, float],
    parts: Iterable[Scores],
    waited_s: float,
) -> Scores:
    """Return the request's scores: all its pairs' tokens, and what the engine ran for it."""
    scored = [key in found for key in keys]
    stages_s, padded_tokens = {"queue": waited_s, "infer": 0.0}, 0
    for part in parts:
        padded_tokens += part.padded_tokens
        for stage, seconds in part.stages_s.items():
            stages_s[stage] = stages_s.get(stage, 0.0) + seconds
    return Scores(
        np.array([found.get(key, 0.0) for key in keys], dtype=np.float32),
        np.array(scored, dtype=np.bool_),
        real_tokens=sum(len(pair) for pair, done in zip(pairs, scored, strict=True) if done),
        padded_tokens=padded_tokens,
        stages_s=stages_s,
    )
