"""The service's own request and response."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, Strict, model_validator
from pydantic_core import PydanticCustomError

from service.contract.types import Candidate
from service.rollout.lanes import Labels, Variant

MAX_CANDIDATES = 1000
MAX_DEADLINE_MS = 3_600_000
MAX_KEY_CHARS = 256

NON_BLANK = r"[^\s\x1c-\x1f\x85]"
"""A character that `str.strip` keeps, in every dialect of regular expressions."""

WHOLE = BeforeValidator(
    lambda value: int(value) if isinstance(value, float) and value.is_integer() else value
)
"""Takes 5.0 for 5, as JSON does; put it last, outside of the limits."""

QUERY_MARK = "x-query"
"""Marks a query's schema for the OpenAPI document to put its limit there, which is a setting."""

TopK = Annotated[int, Strict(), Field(ge=1), WHOLE]

Query = Annotated[str, Field(json_schema_extra={"pattern": NON_BLANK, QUERY_MARK: True})]


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


def _texts(named: str, *others: str) -> dict[str, Any]:
    """Return the schema of a candidate whose text is in one field, and not in the others."""
    absent = {other: {"type": "null"} for other in others}
    text = {"type": "string", "pattern": NON_BLANK}
    return {"properties": {named: text, **absent}, "required": [named]}


class RankCandidate(_Request):
    """A document to rank: a title and a summary, or one of them, or a text."""

    model_config = ConfigDict(
        json_schema_extra={
            "anyOf": [
                _texts("text", "title", "summary"),
                _texts("title", "text"),
                _texts("summary", "text"),
            ]
        }
    )

    id: str | None = Field(
        default=None, max_length=512, description="Your name for it, returned with its place."
    )
    title: str | None = Field(default=None, description="Title.")
    summary: str | None = Field(default=None, description="Summary, snippet or body.")
    text: str | None = Field(default=None, description="A summary without a title.")

    @model_validator(mode="after")
    def _require_text(self) -> Self:
        if self.text is not None and (self.title is not None or self.summary is not None):
            raise PydanticCustomError(
                "text_and_title", "give either text, or title and summary, not both"
            )
        text = f"{self.title or ''}{self.summary or ''}{self.text or ''}"
        if not text or text.isspace():
            raise PydanticCustomError(
                "no_text", "a candidate needs non-blank text in title, summary or text"
            )
        return self

    def candidate(self) -> Candidate:
        """Return it in the contract's words."""
        return Candidate(self.id, self.title or "", self.text or self.summary or "")


class RankRequest(_Request):
    """A query and the documents to put in order for it."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "query": "how do bees make honey",
                    "candidates": [
                        {"id": "a", "title": "Bees", "summary": "Bees turn nectar into honey."},
                        {"id": "b", "text": "Honeymoon destinations in Europe."},
                    ],
                    "top_k": 1,
                },
                {
                    "query": "how do bees make honey",
                    "candidates": [{"text": "Bees turn nectar into honey."}],
                    "deadline_ms": 200,
                    "priority": "low",
                    "on_deadline": "partial",
                },
            ]
        }
    )

    query: Query = Field(description="What was searched for.")
    candidates: list[RankCandidate] = Field(
        min_length=1, max_length=MAX_CANDIDATES, description="Documents to rank."
    )
    top_k: TopK | None = Field(
        default=None, description="How many to return, best first; all by default."
    )
    deadline_ms: float | None = Field(
        default=None,
        gt=0,
        le=MAX_DEADLINE_MS,
        allow_inf_nan=False,
        description="Milliseconds after which the answer is of no use. A deadline that cannot be "
        "met is refused at once: 422 if it never could be, 429 if other work is in the way. The "
        "earliest deadline is served first: give urgent requests one, or they wait their turn.",
    )
    priority: Literal["normal", "low"] | None = Field(
        default=None,
        description="`low` is ranked only while nothing normal waits, is refused first, and may be "
        "starved until its deadline; `normal` by default.",
    )
    on_deadline: Literal["error", "partial"] | None = Field(
        default=None,
        description="When the deadline comes before every document is scored: `error` answers 504; "
        "`partial` answers with what was scored, best first, then the other documents in the "
        "request's order without a score. `error` by default.",
    )
    routing_key: str | None = Field(
        default=None,
        max_length=MAX_KEY_CHARS,
        description="Makes the choice of the model sticky while a canary is served: equal keys "
        "get the same model. Use a user's or a session's id. The header `X-Routing-Key` wins.",
    )
    return_documents: bool | None = Field(
        default=None, description="Return the documents with the results; false by default."
    )


class ServedModel(BaseModel):
    """The model that ranked."""

    name: str = Field(description="The bundle's name.")
    version: str = Field(description="The bundle's fingerprint, its first twelve digits.")
    variant: Variant = Field(description="Which of the lanes served here ranked this request.")

    @classmethod
    def of(cls, lane: Labels) -> Self:
        """Return a model in a lane, by what it is called."""
        name, version, variant = lane
        return cls(name=name, version=version, variant=variant)


class ResultDocument(BaseModel):
    """A document as it was sent."""

    title: str | None = Field(default=None, exclude_if=lambda value: value is None)
    summary: str | None = Field(default=None, exclude_if=lambda value: value is None)
    text: str | None = Field(default=None, exclude_if=lambda value: value is None)


class RankResult(BaseModel):
    """One document's place."""

    id: str | None = Field(description="The id you gave; null without one.")
    index: int = Field(description="The document's position in the request, from 0.")
    rank: int = Field(description="Place, from 1.")
    score: float | None = Field(
        description="The model's raw score; only differences within a query mean. Null where the "
        "deadline came first, with `on_deadline: partial`."
    )
    relevance: float | None = Field(
        description="Calibrated relevance, from 0 to 1; null without a score."
    )
    document: ResultDocument | None = Field(
        default=None,
        exclude_if=lambda value: value is None,
        description="The document; only with `return_documents`.",
    )


class Usage(BaseModel):
    """What the request cost."""

    prompt_tokens: int = Field(description="Tokens of the ranked pairs.")
    padded_tokens: int = Field(
        description="Tokens the model was run on, padding included; none for a document whose "
        "score was known."
    )
    total_tokens: int = Field(description="The same as `prompt_tokens`.")


class Timings(BaseModel):
    """Where the time went."""

    tokenise_ms: float
    queue_ms: float
    infer_ms: float
    order_ms: float
    total_ms: float


class RankResponse(BaseModel):
    """The documents, best first."""

    request_id: str = Field(description="Names this request in the service's log.")
    model: ServedModel
    results: list[RankResult] = Field(description="Best first; ties in the request's order.")
    degraded: bool = Field(
        description="Whether the ranking is less than the model can do: not every document was "
        "scored."
    )
    scored: int = Field(description="How many of the request's documents were scored.")
    usage: Usage
    timings: Timings
