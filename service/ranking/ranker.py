"""The path of a request, from admission to the ranking."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from time import monotonic

import numpy as np
from numpy.typing import ArrayLike, NDArray

from service.contract.bundle import Relevance
from service.contract.order import rank_order
from service.contract.types import Candidate, Float32s, RankedDocument
from service.ranking.admission import Admission
from service.ranking.errors import DeadlineExpiredError
from service.ranking.lane import Lane
from service.ranking.readiness import Readiness


@dataclass(frozen=True, slots=True)
class Ranking:
    """A query's candidates in order, best first.

    Attributes:
        documents: The candidates' places.
        relevance: Calibrated relevance of each of `documents`, in [0, 1], float64 [n].
        real_tokens: Tokens of the scored pairs.
        padded_tokens: Tokens the model was run on.
        stages_s: Seconds spent in each stage.
    """

    documents: tuple[RankedDocument, ...]
    relevance: NDArray[np.float64]
    real_tokens: int
    padded_tokens: int
    stages_s: Mapping[str, float]


class Ranker:
    """Ranks candidates with one lane."""

    def __init__(
        self, lane: Lane, *, admission: Admission, readiness: Readiness, relevance: Relevance
    ) -> None:
        self._lane = lane
        self._admission = admission
        self._readiness = readiness
        self._relevance = relevance

    async def rank(
        self,
        query: str,
        candidates: Sequence[Candidate],
        *,
        arrived: float,
        allowed_s: float,
        top_k: int | None,
    ) -> Ranking:
        """Return the candidates from best to worst, ties by input order.

        Args:
            query: Query text.
            candidates: The documents, at least one.
            arrived: When the request came, in `time.monotonic()` seconds.
            allowed_s: How long after that an answer is of use.
            top_k: How many to return; None for all.

        Raises:
            RankError: Not ready, not admitted, failed or expired.
        """
        self._readiness.require_model()
        with self._admission.admit(query, candidates, arrived=arrived, allowed_s=allowed_s):
            scores = await self._lane.score(query, candidates, arrived + allowed_s)
        if not scores.complete:
            raise DeadlineExpiredError
        began = monotonic()
        documents = ranked(candidates, scores.values, top_k=top_k)
        relevance = relevance_of([document.score for document in documents], self._relevance)
        stages_s = {**scores.stages_s, "order": monotonic() - began}
        return Ranking(documents, relevance, scores.real_tokens, scores.padded_tokens, stages_s)


def ranked(
    candidates: Sequence[Candidate], scores: Float32s, *, top_k: int | None
) -> tuple[RankedDocument, ...]:
    """Return the candidates from best to worst, at most top_k, ties by input order.

    Raises:
        ValueError: A score is not finite.
    """
    order = rank_order(scores)[:top_k]
    places = zip(order.tolist(), scores[order].tolist(), strict=True)
    return tuple(
        RankedDocument(candidates[index].id, index, score, rank)
        for rank, (index, score) in enumerate(places, start=1)
    )


def relevance_of(scores: ArrayLike, platt: Relevance) -> NDArray[np.float64]:
    """Return sigmoid(scale * score + offset) in float64, [n].

    Written for either sign, so that no score overflows and scores far below zero keep their order
    instead of becoming ties at 0.
    """
    x = platt.scale * np.asarray(scores, dtype=np.float64) + platt.offset
    decay = np.exp(-np.abs(x))  # in (0, 1]
    return np.where(x >= 0, 1.0, decay) / (1.0 + decay)
