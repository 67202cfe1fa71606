"""Requests to rank: made from nothing but a tokenizer, once or as often as a query log repeats."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from numpy.random import Generator as Rng

from loadtest.lengths import LENGTHS, RECURRENCE, REPEAT_GAP, REPEAT_SHARE, Kind
from loadtest.prose import Prose
from service.contract.types import Candidate, RankingExample

RECENT_DOCUMENTS = 5_000
"""How many documents are remembered to come again."""


class Generator:
    """Makes requests without any data: real words, real lengths, no meaning.

    Equal seeds make equal requests. Deterministic for a tokenizer and a numpy version.
    """

    def __init__(self, tokenizer: Path, *, seed: int = 0) -> None:
        """Read the tokenizer that the service under test uses.

        Raises:
            ValueError: The file is no BERT-type tokenizer, or has no words.
        """
        self._prose = Prose(tokenizer)
        self._seed = seed

    def requests(
        self,
        kind: Kind,
        *,
        candidates: int = 48,
        document_tokens: int | None = None,
        recurrence: float = RECURRENCE,
    ) -> Iterator[RankingExample]:
        """Yield endless distinct requests.

        Args:
            kind: Whose lengths to take: web results (title and snippet) or passages.
            candidates: Documents a request.
            document_tokens: Exact tokens of every document; by default the kind's distribution.
            recurrence: Share of the candidates that an earlier request had too; 0 for none.
        """
        rng = np.random.default_rng(self._seed)
        recent: list[Candidate] = []
        number = 0
        while True:
            query = self._prose.write(max(1, LENGTHS[kind].query.draw(rng)), rng)
            documents = self._documents(kind, candidates, document_tokens, rng)
            if recent:
                documents = _with_recurring(documents, recent, recurrence, rng)
            recent = [*recent, *documents][-RECENT_DOCUMENTS:]
            yield RankingExample(f"q{number}", query, tuple(documents))
            number += 1

    def _documents(self, kind: Kind, count: int, tokens: int | None, rng: Rng) -> list[Candidate]:
        if tokens is not None:
            titles, summaries = np.zeros(count, dtype=np.int64), np.full(count, tokens)
        else:
            levels = rng.random(count)
            # Half a turn apart, so that no document lacks both, as in the data.
            titles = LENGTHS[kind].title.at((levels + 0.5) % 1)
            summaries = LENGTHS[kind].summary.at(levels)
        return [
            Candidate(
                f"d{rng.integers(1 << 62):x}", self._prose.write(t, rng), self._prose.write(s, rng)
            )
            for t, s in zip(titles.tolist(), summaries.tolist(), strict=True)
        ]


def replayed(distinct: Iterable[RankingExample], *, seed: int = 0) -> Iterator[RankingExample]:
    """Yield the requests in the repetition of a real query log, until there is no new one left.

    A request is an earlier one with the log's share of repeats, as far back as in the log; else it
    is the next of the distinct ones. A repeated query brings the same candidates.
    """
    rng = np.random.default_rng(seed)
    source = iter(distinct)
    log: list[RankingExample] = []
    while True:
        gap = REPEAT_GAP.draw(rng)
        if rng.random() < REPEAT_SHARE and gap <= len(log):
            example = log[-gap]
        else:
            try:
                example = next(source)
            except StopIteration:
                return
        log.append(example)
        yield example


def rank_body(example: RankingExample) -> bytes:
    """Return the body of `POST /rank` for a request."""
    candidates = [
        {"id": candidate.id, "title": candidate.title, "summary": candidate.summary}
        for candidate in example.candidates
    ]
    return json.dumps({"query": example.query, "candidates": candidates}).encode()


def _with_recurring(
    documents: list[Candidate], recent: list[Candidate], share: float, rng: Rng
) -> list[Candidate]:
    """Return the documents, a share of them replaced by distinct recent ones."""
    places = np.flatnonzero(rng.random(len(documents)) < share).tolist()
    chosen = {c.id: c for c in (recent[i] for i in rng.integers(len(recent), size=len(places)))}
    for place, candidate in zip(places, chosen.values(), strict=False):
        documents[place] = candidate
    return documents
