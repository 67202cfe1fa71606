"""The nouns of ranking, shared by training, export and service."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

Float32s = NDArray[np.float32]
Bools = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Candidate:
    """A document offered for ranking.

    Attributes:
        id: The caller's name for the document; None where the caller gave none.
        title: Title, may be empty.
        summary: Summary, snippet or whole text, may be empty.
    """

    id: str | None = None
    title: str = ""
    summary: str = ""


@dataclass(frozen=True, slots=True)
class RankedDocument:
    """A candidate with its place in the ranking.

    Attributes:
        id: The candidate's id.
        index: The candidate's position in the request, from 0.
        score: The model's raw logit, finite; None where the deadline came first.
        rank: Place in the ranking, from 1.
    """

    id: str | None
    index: int
    score: float | None
    rank: int


@dataclass(frozen=True, slots=True)
class RankingExample:
    """One query with its candidates and what is known of their relevance.

    Attributes:
        query_id: The data set's name for the query.
        query: Query text.
        candidates: The documents, in the data set's order.
        grades: Human or LLM relevance grades, one a candidate, or None.
        teacher_scores: A teacher's scores, one a candidate, or None.
    """

    query_id: str
    query: str
    candidates: tuple[Candidate, ...]
    grades: tuple[float, ...] | None = None
    teacher_scores: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        for name in ("grades", "teacher_scores"):
            values = getattr(self, name)
            if values is not None and len(values) != len(self.candidates):
                raise ValueError(
                    f"query {self.query_id!r}: {len(values)} {name} "
                    f"for {len(self.candidates)} candidates"
                )


@dataclass(frozen=True, slots=True)
class Scores:
    """What a lane or an engine answers for n candidates.

    Attributes:
        values: Raw logits, float32 [n]; meaningful only where `scored`.
        scored: Which candidates were scored before the deadline, bool [n].
        real_tokens: Tokens of the scored pairs, special tokens included.
        padded_tokens: Tokens the model was run on, padding included.
        stages_s: Seconds spent in each named stage, for `Server-Timing`.
    """

    values: Float32s
    scored: Bools
    real_tokens: int = 0
    padded_tokens: int = 0
    stages_s: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))

    @property
    def complete(self) -> bool:
        """Whether every candidate was scored."""
        return bool(self.scored.all())
