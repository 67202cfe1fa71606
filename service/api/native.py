"""`POST /rank`: the service's own way to ask for a ranking."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.routing import APIRoute
from pydantic import ValidationError
from pydantic_core import to_json

from service.api.body import read_body, while_connected
from service.api.faults import echo, faults_of
from service.api.intake import Intake
from service.api.openapi import problem_responses, request_body
from service.api.record import record_of
from service.api.schema import RankCandidate, RankRequest, RankResponse, ServedModel
from service.contract.types import Candidate
from service.ranking.errors import Fault, InvalidRequestError
from service.ranking.ranker import Ranker, Ranking
from service.settings import Settings
from service.telemetry import Telemetry

MB = 1_000_000


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
                low=asked.priority == "low",
                partial=asked.on_deadline == "partial",
            )
            ranking = await while_connected(request, work)
        record.tokens = ranking.real_tokens
        record.stages_s = ranking.stages_s
        record.degraded = ranking.scored < len(asked.candidates)
        total_s = record.elapsed_s
        telemetry.observe_ranking(
            pairs=ranking.scored,
            real_tokens=ranking.real_tokens,
            padded_tokens=ranking.padded_tokens,
            stages_s=ranking.stages_s,
        )
        answer = {
            "request_id": record.request_id,
            "model": served,
            "results": _results(asked, ranking),
            "degraded": record.degraded,
            "scored": ranking.scored,
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
    unscored = len(ranking.documents) - len(ranking.relevance)
    relevances = [*ranking.relevance.tolist(), *[None] * unscored]
    results = [
        {
            "id": document.id,
            "index": document.index,
            "rank": document.rank,
            "score": document.score,
            "relevance": relevance,
        }
        for document, relevance in zip(ranking.documents, relevances, strict=True)
    ]
    if asked.return_documents:
        for result in results:
            candidate = asked.candidates[result["index"]]
            result["document"] = candidate.model_dump(exclude={"id"}, exclude_none=True)
    return results


def _timings(ranking: Ranking, total_s: float) -> dict[str, float]:
    stages_ms = {f"{stage}_ms": round(1000 * s, 3) for stage, s in ranking.stages_s.items()}
    return {**stages_ms, "total_ms": round(1000 * total_s, 3)}
