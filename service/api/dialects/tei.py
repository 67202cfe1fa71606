"""text-embeddings-inference: `POST /rerank` with `texts`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StrictBool

from service.api.dialect import Answer, Dialect, Question
from service.api.dialects.fields import Lenient, Texts
from service.api.schema import Query
from service.contract.encoding import Truncation
from service.contract.types import Candidate

Direction = Annotated[
    Literal["left", "right"],
    BeforeValidator(
        lambda value: value.lower() if isinstance(value, str) else value,
        json_schema_input_type=Annotated[
            str, Field(pattern="^([Ll][Ee][Ff][Tt]|[Rr][Ii][Gg][Hh][Tt])$")
        ],
    ),
]


class TeiRequest(Lenient):
    """A query and texts to put in order for it."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "query": "how do bees make honey",
                    "texts": ["Honeymoon destinations in Europe.", "Bees turn nectar into honey."],
                    "truncate": True,
                    "truncation_direction": "Right",
                    "raw_scores": False,
                    "return_text": True,
                }
            ]
        }
    )

    query: Query = Field(description="What was searched for.")
    texts: Texts
    truncate: StrictBool | None = Field(
        default=None, description="false: a text that is too long is an error; else it is cut."
    )
    truncation_direction: Direction | None = Field(
        default=None,
        description="Where a text that is too long is cut, in any case; `right` by default.",
    )
    raw_scores: StrictBool | None = Field(
        default=None, description="Give the model's logits instead of relevance from 0 to 1."
    )
    return_text: StrictBool | None = Field(default=None, description="Return the texts.")


class TeiRank(BaseModel):
    """One text's place."""

    index: int
    score: float
    text: str | None = Field(default=None, exclude_if=lambda value: value is None)


def ask(asked: TeiRequest) -> Sequence[Question]:
    """Return what a request asks."""
    truncation = Truncation(
        refuse=asked.truncate is False, keep_end=asked.truncation_direction == "left"
    )
    candidates = [Candidate(summary=text) for text in asked.texts]
    return (Question(asked.query, candidates, truncation=truncation),)


def write(asked: TeiRequest, answer: Answer) -> object:
    """Return all texts' ranks, best first."""
    ranking = answer.ranking
    results = [
        {"index": place.index, "score": place.score if asked.raw_scores else relevance}
        for place, relevance in zip(ranking.documents, ranking.relevance.tolist(), strict=True)
    ]
    if asked.return_text:
        return [
            {**result, "text": asked.texts[place.index]}
            for result, place in zip(results, ranking.documents, strict=True)
        ]
    return results


TEI = Dialect(
    request=TeiRequest,
    response=list[TeiRank],
    ask=ask,
    write=write,
    keys=frozenset({"texts"}),
    documents="texts",
)
