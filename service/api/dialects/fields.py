"""What several dialects have in common."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, cast

from pydantic import BaseModel, ConfigDict, Field, GetCoreSchemaHandler, Strict
from pydantic_core import CoreSchema

from service.api.schema import MAX_CANDIDATES, WHOLE
from service.contract.encoding import Truncation

MAX_TOKENS = 1_000_000
"""More than any client asks for, and still a number."""


class Lenient(BaseModel):
    """A request of which unknown fields are ignored, as its clients expect."""

    model_config = ConfigDict(extra="ignore", frozen=True)


@dataclass(frozen=True, slots=True)
class OneFault:
    """Says once what is wrong with a value, where a union says it once a choice.

    Attributes:
        message: What is wrong.
    """

    message: str

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        """Return the union's schema with the message in it."""
        message = {"custom_error_type": "choice", "custom_error_message": self.message}
        return cast(CoreSchema, {**handler(source), **message})


Texts = Annotated[
    list[str],
    Field(min_length=1, max_length=MAX_CANDIDATES, description="Documents to rank."),
]

PairTokens = Annotated[
    int,
    Strict(),
    Field(
        ge=-1,
        le=MAX_TOKENS,
        description="Most tokens read of query and document together; -1 and 0 for the model's.",
    ),
    WHOLE,
]

DocumentTokens = Annotated[
    int,
    Strict(),
    Field(ge=0, le=MAX_TOKENS, description="Most tokens read of a document; 0 for the model's."),
    WHOLE,
]

Priority = Annotated[
    int,
    Strict(),
    Field(description="Above 0: ranked only while nothing else waits."),
    WHOLE,
]

TopN = Annotated[int, Strict(), Field(ge=0), WHOLE]


def truncation_of(pair_tokens: int | None, document_tokens: int | None) -> Truncation:
    """Return the truncation of vLLM's and Cohere's fields; 0 and below mean the model's limit."""
    longest = pair_tokens if pair_tokens and pair_tokens > 0 else None
    return Truncation(max_pair_tokens=longest, max_document_tokens=document_tokens or None)
