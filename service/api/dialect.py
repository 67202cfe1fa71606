"""What a kind of client sends, and what it expects back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from pydantic import BaseModel

from service.api.schema import ServedModel
from service.contract.encoding import AS_FITS, Truncation
from service.contract.types import Candidate
from service.ranking.ranker import Ranking

Asked = TypeVar("Asked", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Question:
    """One query's part of a request, in the service's own words.

    Attributes:
        query: Query text.
        candidates: The documents, at least one.
        top_k: How many to return, None for all.
        deadline_ms: How long an answer is of use, None for the service's default.
        low: Rank it only while nothing normal waits.
        partial: Take what was scored by the deadline.
        truncation: How much of the texts is read.
        routing_key: Equal keys are ranked by the same model; None for one a request.
    """

    query: str
    candidates: Sequence[Candidate]
    top_k: int | None = None
    deadline_ms: float | None = None
    low: bool = False
    partial: bool = False
    truncation: Truncation = AS_FITS
    routing_key: str | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """What is known once a request is ranked.

    Attributes:
        request_id: Names the request.
        model: What ranked it.
        rankings: One a question, in order.
        total_s: Seconds since the request arrived.
    """

    request_id: str
    model: ServedModel
    rankings: Sequence[Ranking]
    total_s: float

    @property
    def ranking(self) -> Ranking:
        """The ranking of a request with one question."""
        return self.rankings[0]

    @property
    def tokens(self) -> int:
        """Tokens of the ranked pairs."""
        return sum(ranking.real_tokens for ranking in self.rankings)

    @property
    def usage(self) -> dict[str, int]:
        """What the request cost, as OpenAI's clients count it."""
        return {"prompt_tokens": self.tokens, "total_tokens": self.tokens}


@dataclass(frozen=True, slots=True)
class Dialect(Generic[Asked]):
    """How one kind of client speaks.

    Attributes:
        request: What it sends.
        response: What it expects back; describes what `write` returns.
        ask: Returns what a request asks, one question a query.
        write: Returns the answer's body, ready for JSON.
        keys: Of a body that is in this dialect, not null, where its path has others too.
        query: Where a request has its query, for errors.
        documents: Where it has its documents, for errors.
    """

    request: type[Asked]
    response: Any
    ask: Callable[[Asked], Sequence[Question]]
    write: Callable[[Asked, Answer], object]
    keys: frozenset[str] = field(default=frozenset())
    query: str = "query"
    documents: str = "documents"
