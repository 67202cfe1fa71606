"""`POST /rank`: the service's own request and response."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Self

from fastapi import APIRouter, Request, Response
from fastapi.routing import APIRoute
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import PydanticCustomError, to_json

from service.api.body import read_body, while_connected
from service.api.faults import echo, faults_of
from service.api.intake import Intake
from service.api.openapi import problem_responses, request_body
from service.api.record import record_of
from service.contract.types import Candidate
from service.ranking.errors import Fault, InvalidRequestError
from service.ranking.ranker import Ranker, Ranking
from service.settings import Settings
from service.telemetry import Telemetry

MAX_CANDIDATES = 1000
MAX_DEADLINE_MS = 3_600_000
MB = 1_000_000


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class RankCandidate(_Request):
    """A document to rank: a title and a summary, or one of them, or a text."""

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
                }
            ]
        }
    )

    query: str = Field(description="What was searched for.")
    candidates: list[RankCandidate] = Field(
        min_length=1, max_length=MAX_CANDIDATES, description="Documents to rank."
    )
    top_k: int | None = Field(
        default=None, ge=1, description="How many to return, best first; all by default."
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
    routing_key: str | None = Field(
        default=None,
        max_length=256,
        description="Makes the choice of the model variant sticky once several variants are "
        "served: equal keys get the same variant. Use a user's or a session's id.",
    )
    return_documents: bool | None = Field(
        default=None, description="Return the documents with the results; false by default."
    )


class ServedModel(BaseModel):
    """The model that ranked."""

    name: str = Field(description="The bundle's name.")
    version: str = Field(description="The bundle's fingerprint, its first twelve digits.")
    variant: str = Field(description="Which of the variants served here ranked this request.")


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
    score: float = Field(description="The model's raw score; only differences within a query mean.")
    relevance: float = Field(description="Calibrated relevance, from 0 to 1.")
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
    degraded: bool = Field(description="Whether the ranking is less than the model can do.")
    usage: Usage
    timings: Timings


class _RawRoute(APIRoute):
    """Calls its endpoint with the request, without FastAPI's parsing, which it has no use for."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return the endpoint."""
        return self.endpoint


def rank_router(
    ranker: Ranker, *, model: ServedModel, settings: Settings, telemetry: Telemetry
) -> APIRouter:
    """Return the router of `POST /rank`."""
    router = APIRouter(tags=["ranking"], route_class=_RawRoute)
    intake = Intake(max_requests=settings.max_requests, max_bytes=settings.max_bodies_mb * MB)
    served = model.model_dump()

    @router.post(
        "/rank",
        summary="Rank documents for a query",
        response_model=RankResponse,
        responses=problem_responses(400, 408, 413, 422, 429, 500, 503, 504),
        openapi_extra=request_body(RankRequest),
    )
    async def rank(request: Request) -> Response:
        record = record_of(request)
        with intake.request() as held:
            body = await read_body(
                request,
                held,
                max_bytes=settings.max_body_bytes,
                timeout_s=settings.default_deadline_ms / 1000,
            )
            asked = parse(body, max_query_chars=settings.max_query_chars)
            del body  # the longer part of a request's life is the queue
            record.candidates = len(asked.candidates)
            work = ranker.rank(
                asked.query,
                [candidate.candidate() for candidate in asked.candidates],
                arrived=record.began,
                allowed_s=(asked.deadline_ms or settings.default_deadline_ms) / 1000,
                top_k=asked.top_k,
            )
            ranking = await while_connected(request, work)
        record.tokens = ranking.real_tokens
        record.stages_s = ranking.stages_s
        total_s = record.elapsed_s
        telemetry.observe_ranking(
            pairs=len(asked.candidates),
            real_tokens=ranking.real_tokens,
            padded_tokens=ranking.padded_tokens,
            stages_s=ranking.stages_s,
        )
        answer = {
            "request_id": record.request_id,
            "model": served,
            "results": _results(asked, ranking),
            "degraded": False,
            "usage": {
                "prompt_tokens": ranking.real_tokens,
                "padded_tokens": ranking.padded_tokens,
                "total_tokens": ranking.real_tokens,
            },
            "timings": _timings(ranking, total_s),
        }
        return Response(to_json(answer), media_type="application/json")

    return router


def parse(body: bytes | bytearray, *, max_query_chars: int) -> RankRequest:
    """Return the request in body.

    Raises:
        InvalidRequestError: It is no JSON (400), or breaks a rule (422).
    """
    try:
        asked = RankRequest.model_validate_json(body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        if first["type"] == "json_invalid":
            fault = Fault("body", first["msg"], value=f"{len(body)} bytes")
            raise InvalidRequestError(fault, status=400) from None
        raise InvalidRequestError(*faults_of(error), total=error.error_count()) from None
    if faults := request_faults(asked.query, asked.candidates, max_query_chars=max_query_chars):
        raise InvalidRequestError(*faults)
    return asked


def request_faults(
    query: str, candidates: Sequence[RankCandidate | Candidate], *, max_query_chars: int
) -> list[Fault]:
    """Return what is wrong with a query and candidates that are each well formed."""
    return [*_query_faults(query, max_query_chars), *_id_faults(candidates)]


def _query_faults(query: str, max_chars: int) -> list[Fault]:
    value = f"a string of {len(query)} characters"
    if not query.strip():
        return [Fault("query", "a query needs non-blank text", value=value, limit=1)]
    if len(query) > max_chars:
        message = f"a query has at most {max_chars} characters, this has {len(query)}"
        return [Fault("query", message, value=value, limit=max_chars)]
    return []


def _id_faults(candidates: Sequence[RankCandidate | Candidate]) -> list[Fault]:
    first: dict[str, int] = {}
    for index, candidate in enumerate(candidates):
        if candidate.id is None:
            continue
        if (other := first.setdefault(candidate.id, index)) != index:
            message = f"candidates[{index}] has the same id as candidates[{other}]"
            return [Fault(f"candidates[{index}].id", message, value=echo(candidate.id))]
    return []


def _results(asked: RankRequest, ranking: Ranking) -> list[dict[str, Any]]:
    """Return each `RankResult` as a dict, which costs a third of making and dumping models."""
    results = [
        {
            "id": document.id,
            "index": document.index,
            "rank": document.rank,
            "score": document.score,
            "relevance": relevance,
        }
        for document, relevance in zip(ranking.documents, ranking.relevance.tolist(), strict=True)
    ]
    if asked.return_documents:
        for result in results:
            candidate = asked.candidates[result["index"]]
            result["document"] = candidate.model_dump(exclude={"id"}, exclude_none=True)
    return results


def _timings(ranking: Ranking, total_s: float) -> dict[str, float]:
    stages_ms = {f"{stage}_ms": round(1000 * s, 3) for stage, s in ranking.stages_s.items()}
    return {**stages_ms, "total_ms": round(1000 * total_s, 3)}
