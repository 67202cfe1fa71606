"""Voyage: `POST /v1/rerank` with `top_k` or `truncation`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, StrictBool

from service.api.dialect import Answer, Dialect, Question
from service.api.dialects.fields import Lenient, Texts
from service.api.schema import Query, TopK
from service.contract.encoding import Truncation
from service.contract.types import Candidate


class VoyageRequest(Lenient):
    """A query and documents to put in order for it."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "query": "how do bees make honey",
                    "documents": [
                        "Honeymoon destinations in Europe.",
                        "Bees turn nectar into honey.",
                    ],
                    "model": "rerank-2.5",
                    "top_k": 1,
                    "return_documents": True,
                    "truncation": True,
                }
            ]
        }
    )

    query: Query = Field(description="What was searched for.")
    documents: Texts
    model: str | None = Field(default=None, description="Ignored: one model is served.")
    top_k: TopK | None = Field(
        default=None, description="How many to return, best first; null for all."
    )
    return_documents: StrictBool | None = Field(
        default=None, description="Return the documents, too."
    )
    truncation: StrictBool | None = Field(
        default=None, description="false: a text that is too long is an error; else it is cut."
    )


class VoyageResult(BaseModel):
    """One document's place."""

    index: int
    relevance_score: float
    document: str | None = Field(default=None, exclude_if=lambda value: value is None)


class VoyageUsage(BaseModel):
    """What the request cost."""

    total_tokens: int


class VoyageResponse(BaseModel):
    """The documents, best first."""

    object: str
    data: list[VoyageResult]
    model: str
    usage: VoyageUsage


def ask(asked: VoyageRequest) -> Sequence[Question]:
    """Return what a request asks."""
    question = Question(
        asked.query,
        [Candidate(summary=text) for text in asked.documents],
        top_k=asked.top_k,
        truncation=Truncation(refuse=asked.truncation is False),
    )
    return (question,)


def write(asked: VoyageRequest, answer: Answer) -> object:
    """Return a `VoyageResponse` as a dict."""
    ranking = answer.ranking
    data: list[dict[str, Any]] = [
        {"index": place.index, "relevance_score": relevance}
        for place, relevance in zip(ranking.documents, ranking.relevance.tolist(), strict=True)
    ]
    if asked.return_documents:
        for result in data:
            result["document"] = asked.documents[result["index"]]
    return {
        "object": "list",
        "data": data,
        "model": answer.model.name,
        "usage": {"total_tokens": answer.tokens},
    }


VOYAGE = Dialect(
    request=VoyageRequest,
    response=VoyageResponse,
    ask=ask,
    write=write,
    keys=frozenset({"top_k", "truncation"}),
)
