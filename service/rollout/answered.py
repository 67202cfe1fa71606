"""A request after its answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from service.contract.encoding import AS_FITS, Truncation
from service.contract.types import Candidate, Scores
from service.rollout.lanes import Labels


@dataclass(frozen=True, slots=True)
class Answered:
    """A request that was answered.

    Attributes:
        request_id: Decides whether it is sampled.
        time: When, in seconds since 1970.
        labels: Of the model that answered, and its lane.
        query: Query text.
        candidates: The documents.
        scores: What they were ranked by, in the request's order.
        truncation: How much of the texts was read.
    """

    request_id: str
    time: float
    labels: Labels
    query: str
    candidates: Sequence[Candidate]
    scores: Scores
    truncation: Truncation = AS_FITS

    @property
    def queue_s(self) -> float:
        """How long it waited."""
        return self.scores.stages_s.get("queue", 0.0)

    @property
    def chars(self) -> int:
        """Characters of its texts."""
        return len(self.query) + sum(len(c.title) + len(c.summary) for c in self.candidates)
