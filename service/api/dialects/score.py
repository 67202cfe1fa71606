"""vLLM's `POST /score`: pairs of texts, scored in the request's order."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, Self

from pydantic import (
    AliasChoices,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictBool,
    WithJsonSchema,
    model_validator,
)
from pydantic_core import PydanticCustomError

from service.api.dialect import Answer, Dialect, Question
from service.api.dialects.fields import Lenient, PairTokens, Priority, truncation_of
from service.api.dialects.rerank import Usage
from service.api.schema import MAX_CANDIDATES, NON_BLANK, QUERY_MARK
from service.contract.types import Candidate

QUERIES = ("queries", "text_1", "data_1")
DOCUMENTS = ("documents", "items", "text_2", "data_2")
"""Names of the same thing; the first one given is read."""

QUERY: dict[str, Any] = {"type": "string", "pattern": NON_BLANK, QUERY_MARK: True}
DOCUMENT: dict[str, Any] = {"type": "string"}


def _one_or_more(text: dict[str, Any]) -> dict[str, Any]:
    texts = {"type": "array", "items": text, "minItems": 1, "maxItems": MAX_CANDIDATES}
    return {"anyOf": [text, texts]}


def _first_given(names: Sequence[str], schema: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of an object of which the first of these properties counts."""
    choices: list[dict[str, Any]] = []
    for place, name in enumerate(names):
        choice: dict[str, Any] = {"properties": {name: schema}, "required": [name]}
        if earlier := names[:place]:
            choice["not"] = {"anyOf": [{"required": [other]} for other in earlier]}
        choices.append(choice)
    return {"anyOf": choices}


def _describe_names(schema: dict[str, Any]) -> None:
    """Tell of all the names in the model's schema, which has only the first ones."""
    del schema["required"]
    schema["allOf"] = [
        _first_given(QUERIES, _one_or_more(QUERY)),
        _first_given(DOCUMENTS, _one_or_more(DOCUMENT)),
    ]
    schema["examples"] = [
        {
            "queries": "how do bees make honey",
            "documents": ["Honeymoon destinations in Europe.", "Bees turn nectar into honey."],
        },
        {
            "model": "BAAI/bge-reranker-v2-m3",
            "text_1": ["how do bees make honey", "where to go on a honeymoon"],
            "text_2": ["Bees turn nectar into honey.", "Honeymoon destinations in Europe."],
        },
    ]


Texts = Annotated[
    list[str],
    Field(min_length=1, max_length=MAX_CANDIDATES),
    BeforeValidator(lambda value: [value] if isinstance(value, str) else value),
]


class ScoreRequest(Lenient):
    """One query and documents, or as many queries as documents."""

    model_config = ConfigDict(json_schema_extra=_describe_names)

    model: str | None = Field(default=None, description="Ignored: one model is served.")
    queries: Annotated[Texts, WithJsonSchema(_one_or_more(QUERY))] = Field(
        validation_alias=AliasChoices(*QUERIES),
        description="One query, or one a document; also `text_1`, `data_1`.",
    )
    documents: Annotated[Texts, WithJsonSchema(_one_or_more(DOCUMENT))] = Field(
        validation_alias=AliasChoices(*DOCUMENTS),
        description="The documents; also `items`, `text_2`, `data_2`.",
    )
    truncate_prompt_tokens: PairTokens | None = None
    use_activation: StrictBool | None = Field(
        default=None, description="false: the model's logits instead of relevance from 0 to 1."
    )
    priority: Priority | None = None

    @model_validator(mode="after")
    def _require_as_many(self) -> Self:
        q, d = len(self.queries), len(self.documents)
        if q not in (1, d):
            raise PydanticCustomError(
                "queries_and_documents",
                "give one query, or as many as documents: {q} queries, {d} documents",
                {"q": q, "d": d},
            )
        return self

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """Each document with its query."""
        queries = self.queries * len(self.documents) if len(self.queries) == 1 else self.queries
        return [*zip(queries, self.documents, strict=True)]

    @property
    def places(self) -> dict[str, list[int]]:
        """Where each query's pairs are, in the request's order."""
        found: dict[str, list[int]] = {}
        for place, (query, _) in enumerate(self.pairs):
            found.setdefault(query, []).append(place)
        return found


class PairScore(BaseModel):
    """One pair's score."""

    index: int
    object: str
    score: float


class ScoreResponse(BaseModel):
    """The pairs' scores, in the request's order."""

    id: str
    object: str
    created: int
    model: str
    data: list[PairScore]
    usage: Usage


def ask(asked: ScoreRequest) -> Sequence[Question]:
    """Return one question a query."""
    pairs = asked.pairs
    truncation = truncation_of(asked.truncate_prompt_tokens, None)
    return [
        Question(
            query,
            [Candidate(summary=pairs[place][1]) for place in places],
            low=(asked.priority or 0) > 0,
            truncation=truncation,
        )
        for query, places in asked.places.items()
    ]


def write(asked: ScoreRequest, answer: Answer) -> object:
    """Return a `ScoreResponse` as a dict."""
    scores: dict[int, float] = {}
    for places, ranking in zip(asked.places.values(), answer.rankings, strict=True):
        for document, relevance in zip(ranking.documents, ranking.relevance.tolist(), strict=True):
            logit = document.score
            score = logit if asked.use_activation is False and logit is not None else relevance
            scores[places[document.index]] = score
    data: list[dict[str, Any]] = [
        {"index": place, "object": "score", "score": scores[place]} for place in sorted(scores)
    ]
    return {
        "id": answer.request_id,
        "object": "list",
        "created": int(datetime.now(UTC).timestamp()),
        "model": answer.model.name,
        "data": data,
        "usage": answer.usage,
    }


SCORE = Dialect(request=ScoreRequest, response=ScoreResponse, ask=ask, write=write, query="queries")
