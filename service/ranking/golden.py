"""The start-up check: does the model score its golden pairs on this host as it did at export?"""

from __future__ import annotations

from collections.abc import Sequence
from time import monotonic

import numpy as np
from numpy.typing import ArrayLike

from service.contract.bundle import GoldenQuery
from service.contract.encoding import TokenPair
from service.contract.template import document_text
from service.contract.types import Candidate
from service.engines.engine import Engine
from service.ranking.admission import Ticket
from service.ranking.lane import Lane

GOLDEN_TIMEOUT_S = 300.0
"""For one golden query; generous, for a cold and crowded machine."""

REHEARSED_PAIRS = 8

MAX_TOKEN_CHARS = 8
"""More characters than a token of ordinary text has."""


class GoldenError(Exception):
    """A golden pair scored otherwise than at export; the message says which and by how much."""


async def check_golden(lane: Lane, golden: Sequence[GoldenQuery], *, tolerance: float) -> float:
    """Score every golden query through the lane and return the largest deviation, in logits.

    Raises:
        GoldenError: A score deviates by more than tolerance, or did not come in time.
        RankError: The lane failed.
    """
    largest = 0.0
    for number, query in enumerate(golden, start=1):
        ticket = Ticket(monotonic() + GOLDEN_TIMEOUT_S, low=True)  # traffic of others goes first
        scores = await lane.score(query.query, query.candidates, ticket)
        if not scores.complete:
            raise GoldenError(f"golden query {number} was not scored in {GOLDEN_TIMEOUT_S:g} s")
        found = deviation(query, scores.values)
        if not found <= tolerance:
            raise GoldenError(
                f"golden query {number} deviates by {found:.6g} from its scores at export; "
                f"the tolerance is {tolerance:.6g}"
            )
        largest = max(largest, found)
    return largest


async def probe(
    engine: Engine, pairs: Sequence[TokenPair], golden: GoldenQuery, *, tolerance: float
) -> None:
    """Score a golden query's pairs on the engine itself, past queue and caches.

    Raises:
        GoldenError: A score deviates by more than tolerance.
        EngineError: The engine failed.
    """
    scores = await engine.score(pairs, monotonic() + GOLDEN_TIMEOUT_S)
    found = deviation(golden, scores.values)
    if not (scores.complete and found <= tolerance):
        raise GoldenError(f"the golden scores deviate by {found:.6g}, tolerance {tolerance:.6g}")


async def rehearse(lane: Lane, golden: Sequence[GoldenQuery], *, max_length: int) -> None:
    """Score pairs of full length, so that memory is warm and the speed was measured at its best.

    Raises:
        RankError: The lane failed.
    """
    query = golden[0]
    text = document_text(query.candidates[0]) or "text"
    long = " ".join([text] * (MAX_TOKEN_CHARS * max_length // len(text) + 1))
    # Numbered, because equal pairs would be scored once.
    candidates = [Candidate(summary=f"{number} {long}") for number in range(REHEARSED_PAIRS)]
    await lane.score(query.query, candidates, Ticket(monotonic() + GOLDEN_TIMEOUT_S, low=True))


def deviation(query: GoldenQuery, scores: ArrayLike) -> float:
    """Return the largest |score - golden score|, in logits; NaN where a score is NaN."""
    return float(np.abs(np.asarray(scores, dtype=np.float64) - np.asarray(query.scores)).max())
