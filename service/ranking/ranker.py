"""The path of a request, from admission to the ranking."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial as bind
from time import monotonic

import numpy as np
from numpy.typing import ArrayLike, NDArray

from service.contract.encoding import AS_FITS, Truncation
from service.contract.manifest import Relevance
from service.contract.order import rank_order
from service.contract.types import Bools, Candidate, Float32s, RankedDocument, Scores
from service.ranking.admission import Admission, Ticket
from service.ranking.errors import DeadlineExpiredError
from service.ranking.lane import Lane
from service.ranking.readiness import Trust


@dataclass(frozen=True, slots=True)
class Ranking:
    """A query's candidates in order, best first.

    Attributes:
        documents: The candidates' places: the scored ones from best to worst, then the others in
            the request's order.
        relevance: Calibrated relevance of each scored one of `documents`, in [0, 1], float64.
        scores: What they are ranked by, in the request's order.
        offered: How many candidates there were.
        scored: How many of them were scored.
        real_tokens: Tokens of the scored pairs.
        padded_tokens: Tokens the model was run on.
        stages_s: Seconds spent in each stage.
    """

    documents: tuple[RankedDocument, ...]
    relevance: NDArray[np.float64]
    scores: Scores
    offered: int
    scored: int
    real_tokens: int
    padded_tokens: int
    stages_s: Mapping[str, float]

    @property
    def degraded(self) -> bool:
        """Whether a candidate was not scored in time."""
        return self.scored < self.offered


class Ranker:
    """Ranks candidates with one lane."""

    def __init__(
        self, lane: Lane, *, admission: Admission, trust: Trust, relevance: Relevance
    ) -> None:
        self._lane = lane
        self._admission = admission
        self._trust = trust
        self._relevance = relevance

    async def rank(
        self,
        query: str,
        candidates: Sequence[Candidate],
        *,
        arrived: float,
        allowed_s: float,
        top_k: int | None = None,
        low: bool = False,
        partial: bool = False,
        truncation: Truncation = AS_FITS,
    ) -> Ranking:
        """Return the candidates from best to worst, ties by input order.

        Args:
            query: Query text.
            candidates: The documents, at least one.
            arrived: When the request came, in `time.monotonic()` seconds.
            allowed_s: How long after that an answer is of use.
            top_k: How many to return; None for all.
            low: Rank it only while nothing normal waits.
            partial: Rank what was scored by the deadline, instead of failing.
            truncation: How much of the texts is read.

        Raises:
            RankError: Not ready, not admitted, failed or expired.
        """
        self._trust.require()
        ticket = Ticket(arrived + allowed_s, low=low, partial=partial)
        price = bind(self._lane.price, query, candidates, truncation=truncation)
        with self._admission.admit(ticket, price, allowed_s=allowed_s):
            scores = await self._lane.score(query, candidates, ticket, truncation)
        if not (scores.complete or partial):
            raise DeadlineExpiredError
        began = monotonic()
        documents = ranked(candidates, scores.values, scored=scores.scored, top_k=top_k)
        known = [document.score for document in documents if document.score is not None]
        relevance = relevance_of(known, self._relevance)
        stages_s = {**scores.stages_s, "order": monotonic() - began}
        return Ranking(
            documents,
            relevance,
            scores,
            len(candidates),
            int(scores.scored.sum()),
            scores.real_tokens,
            scores.padded_tokens,
            stages_s,
        )


def ranked(
    candidates: Sequence[Candidate],
    scores: Float32s,
    *,
    scored: Bools | None = None,
    top_k: int | None = None,
) -> tuple[RankedDocument, ...]:
    """Return the candidates from best to worst, at most top_k, ties by input order.

    Those that were not scored come last, in input order and without a score.

    Raises:
        ValueError: A score is not finite.
    """
    if scored is None:
        scored = np.ones(len(scores), dtype=np.bool_)
    (known,), (unknown,) = scored.nonzero(), (~scored).nonzero()
    best = known[rank_order(scores[known])]
    order = [*best.tolist(), *unknown.tolist()][:top_k]
    values = [*scores[best].tolist(), *[None] * len(unknown)][:top_k]
    return tuple(
        RankedDocument(candidates[index].id, index, score, rank)
        for rank, (index, score) in enumerate(zip(order, values, strict=True), start=1)
    )


def relevance_of(scores: ArrayLike, platt: Relevance) -> NDArray[np.float64]:
    """Return sigmoid(scale * score + offset) in float64, [n].

    Written for either sign, so that no score overflows and scores far below zero keep their order
    instead of becoming ties at 0.
    """
    x = platt.scale * np.asarray(scores, dtype=np.float64) + platt.offset
    decay = np.exp(-np.abs(x))  # in (0, 1]
    return np.where(x >= 0, 1.0, decay) / (1.0 + decay)
