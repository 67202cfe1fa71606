"""Rerankers that are sent `documents`: Cohere v1, Jina, vLLM, Infinity.

Their requests differ in options that do not contradict each other, and each client takes what it
knows from the answer: one superset serves them all.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StrictBool

from service.api.dialect import Answer, Dialect, Question
from service.api.dialects.fields import (
    DocumentTokens,
    Lenient,
    OneFault,
    PairTokens,
    Priority,
    TopN,
    truncation_of,
)
from service.api.faults import echo
from service.api.schema import MAX_CANDIDATES, Query
from service.contract.types import Candidate
from service.ranking.errors import Fault, InvalidRequestError

TEXT = "text"
SEARCH_UNITS = 1
"""Cohere bills by searches; a request is one."""


Text = Annotated[str | dict[str, Any], OneFault("give a text, or an object that has one")]

Documents = Annotated[
    list[Text],
    Field(
        min_length=1,
        max_length=MAX_CANDIDATES,
        description="Documents to rank: texts, or objects with a `text` or with `rank_fields`.",
    ),
]


class RerankRequest(Lenient):
    """A query and documents to put in order for it."""

    model_config = ConfigDict(
        json_schema_extra={
            "anyOf": [
                {
                    "properties": {"rank_fields": {"type": "array", "minItems": 1}},
                    "required": ["rank_fields"],
                },
                {
                    "properties": {
                        "documents": {
                            "items": {
                                "anyOf": [
                                    {"type": "string"},
                                    {
                                        "type": "object",
                                        "properties": {TEXT: {"type": "string"}},
                                        "required": [TEXT],
                                    },
                                ]
                            }
                        }
                    }
                },
            ],
            "examples": [
                {
                    "model": "rerank-v3.5",
                    "query": "how do bees make honey",
                    "documents": [
                        "Honeymoon destinations in Europe.",
                        "Bees turn nectar into honey.",
                    ],
                    "top_n": 1,
                    "max_tokens_per_doc": 4096,
                },
                {
                    "query": "how do bees make honey",
                    "documents": [
                        {"title": "Travel", "text": "Honeymoon destinations in Europe."},
                        {"title": "Bees", "text": "Bees turn nectar into honey."},
                    ],
                    "rank_fields": ["title", "text"],
                    "return_documents": True,
                },
            ],
        }
    )

    model: str | None = Field(default=None, description="Ignored: one model is served.")
    query: Query = Field(description="What was searched for.")
    documents: Documents
    top_n: TopN | None = Field(
        default=None, description="How many to return, best first; 0 and null for all."
    )
    return_documents: StrictBool | None = Field(
        default=None, description="Return the documents, too."
    )
    rank_fields: list[str] | None = Field(
        default=None, description="Which fields of document objects are read; `text` by default."
    )
    raw_scores: StrictBool | None = Field(
        default=None, description="Give the model's logits instead of relevance from 0 to 1."
    )
    max_tokens_per_doc: DocumentTokens | None = None
    truncate_prompt_tokens: PairTokens | None = None
    priority: Priority | None = None


class Document(BaseModel):
    """A document as it was sent; a text in an object."""

    text: str | None = None


class RerankResult(BaseModel):
    """One document's place."""

    index: int
    relevance_score: float
    document: Document | None = Field(default=None, exclude_if=lambda value: value is None)


class Usage(BaseModel):
    """What the request cost."""

    prompt_tokens: int
    total_tokens: int


class RerankResponse(BaseModel):
    """The documents, best first, and what any of the clients wants to know beside them."""

    id: str
    object: str
    model: str
    results: list[RerankResult]
    usage: Usage
    meta: dict[str, Any]
    data: list[RerankResult] | None = Field(
        default=None,
        exclude_if=lambda value: value is None,
        description="At `/v1/rerank` the same as `results`, where Voyage's clients look.",
    )


def ask(asked: RerankRequest) -> Sequence[Question]:
    """Return what a request asks.

    Raises:
        InvalidRequestError: A document object lacks a text to read.
    """
    fields = asked.rank_fields or [TEXT]
    question = Question(
        asked.query,
        [_candidate(document, fields, index) for index, document in enumerate(asked.documents)],
        top_k=asked.top_n or None,
        low=(asked.priority or 0) > 0,
        truncation=truncation_of(asked.truncate_prompt_tokens, asked.max_tokens_per_doc),
    )
    return (question,)


def write(asked: RerankRequest, answer: Answer) -> object:
    """Return a `RerankResponse` as a dict."""
    results = scored(asked, answer)
    if asked.return_documents:
        for result in results:
            document = asked.documents[result["index"]]
            result["document"] = {TEXT: document} if isinstance(document, str) else document
    # LiteLLM asks for Voyage's `data` in words that could be Jina's.
    return {**response(answer, results, version="1"), "data": results}


def scored(asked: RerankRequest, answer: Answer) -> list[dict[str, Any]]:
    """Return each `RerankResult` as a dict, without its document."""
    ranking = answer.ranking
    return [
        {
            "index": place.index,
            "relevance_score": place.score if asked.raw_scores else relevance,
        }
        for place, relevance in zip(ranking.documents, ranking.relevance.tolist(), strict=True)
    ]


def response(answer: Answer, results: list[dict[str, Any]], *, version: str) -> dict[str, Any]:
    """Return results in what Cohere, Jina, vLLM and Infinity wrap around them."""
    return {
        "id": answer.request_id,
        "object": "rerank",
        "model": answer.model.name,
        "results": results,
        "usage": answer.usage,
        "meta": {
            "api_version": {"version": version},
            "billed_units": {"search_units": SEARCH_UNITS},
            "tokens": {"input_tokens": answer.tokens},
        },
    }


def _candidate(document: str | dict[str, Any], fields: Sequence[str], index: int) -> Candidate:
    if isinstance(document, str):
        return Candidate(summary=document)
    texts = []
    for name in fields:
        text = document.get(name)
        if not isinstance(text, str):
            found = "null" if text is None else type(text).__name__
            message = "a document object needs a text here, or `rank_fields` that name its texts"
            field = f"documents[{index}].{echo(name)}"
            raise InvalidRequestError(Fault(field, message, value=found))
        texts.append(text)
    return Candidate(summary=" ".join(texts))


def write_bare(asked: RerankRequest, answer: Answer) -> object:
    """Return a `RerankResponse` as a dict, without documents."""
    return response(answer, scored(asked, answer), version="1")


RERANK = Dialect(request=RerankRequest, response=RerankResponse, ask=ask, write=write)

BARE = Dialect(request=RerankRequest, response=RerankResponse, ask=ask, write=write_bare)
"""At `/rerank`: Infinity's clients want a document as a string, vLLM's as an object, and their
requests are the same; both take the text from their own list where there is none.
"""
