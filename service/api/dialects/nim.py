"""NVIDIA NIM: `POST /v1/ranking`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from service.api.dialect import Answer, Dialect, Question
from service.api.dialects.fields import Lenient
from service.api.schema import MAX_CANDIDATES, Query, TopK
from service.contract.encoding import Truncation
from service.contract.types import Candidate


class NimQuery(Lenient):
    """A query's text."""

    text: Query


class NimPassage(Lenient):
    """A passage's text."""

    text: str


class NimRequest(Lenient):
    """A query and passages to put in order for it."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "model": "nvidia/llama-3.2-nv-rerankqa-1b-v2",
                    "query": {"text": "how do bees make honey"},
                    "passages": [
                        {"text": "Honeymoon destinations in Europe."},
                        {"text": "Bees turn nectar into honey."},
                    ],
                    "truncate": "END",
                }
            ]
        }
    )

    model: str | None = Field(default=None, description="Ignored: one model is served.")
    query: NimQuery = Field(description="What was searched for.")
    passages: Annotated[
        list[NimPassage],
        Field(min_length=1, max_length=MAX_CANDIDATES, description="Documents to rank."),
    ]
    top_k: TopK | None = Field(
        default=None, description="How many to return, best first; null for all."
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
