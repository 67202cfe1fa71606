"""NVIDIA NIM: `POST /v1/ranking`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import BaseModel, Field

from service.api.dialect import Answer, Dialect, Question
from service.api.dialects.fields import Lenient
from service.api.schema import MAX_CANDIDATES
from service.contract.encoding import Truncation
from service.contract.types import Candidate


class NimText(Lenient):
    """A text."""

    text: str


class NimRequest(Lenient):
    """A query and passages to put in order for it."""

    model: str | None = Field(default=None, description="Ignored: one model is served.")
    query: NimText = Field(description="What was searched for.")
    passages: Annotated[list[NimText], Field(min_length=1, max_length=MAX_CANDIDATES)]
    top_k: int | None = Field(
        default=None, ge=1, description="How many to return, best first; null for all."
    )
    truncate: Literal["NONE", "START", "END"] | None = Field(
        default=None,
        description="Where a passage that is too long is cut; `NONE`: it is an error. `END` by "
        "default.",
    )


class NimRank(BaseModel):
    """One passage's place."""

    index: int
    logit: float


class NimUsage(BaseModel):
    """What the request cost."""

    prompt_tokens: int
    total_tokens: int


class NimResponse(BaseModel):
    """The passages, best first."""

    rankings: list[NimRank]
    usage: NimUsage


def ask(asked: NimRequest) -> Sequence[Question]:
    """Return what a request asks."""
    question = Question(
        asked.query.text,
        [Candidate(summary=passage.text) for passage in asked.passages],
        top_k=asked.top_k,
        truncation=Truncation(refuse=asked.truncate == "NONE", keep_end=asked.truncate == "START"),
    )
    return (question,)


def write(_asked: NimRequest, answer: Answer) -> object:
    """Return a `NimResponse` as a dict."""
    rankings = [{"index": place.index, "logit": place.score} for place in answer.ranking.documents]
    return {"rankings": rankings, "usage": answer.usage}


NIM = Dialect(
    request=NimRequest,
    response=NimResponse,
    ask=ask,
    write=write,
    query="query.text",
    documents="passages",
)
