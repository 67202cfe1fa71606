"""`POST /shadow`: one request ranked by both models at once, for people and for scripts."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from time import monotonic
from typing import Any, TypeVar, cast

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, Field

from service.api.body import read_body, while_connected
from service.api.dialect import Question
from service.api.intake import Intake
from service.api.native import NATIVE, results_of
from service.api.openapi import headers, problem_responses, request_body
from service.api.record import RequestRecord, record_of
from service.api.routes import RawRoute
from service.api.schema import RankRequest, RankResult, ServedModel
from service.api.serving import MB, read_request
from service.ranking.ranker import ranked
from service.rollout.compare import compare, rounded
from service.rollout.lanes import Lanes, Served
from service.rollout.shadow import Shadow
from service.settings import Settings

T = TypeVar("T")

AT_A_TIME = 8
"""Requests in progress: a person's, not a load's."""


class Side(BaseModel):
    """One model's ranking."""

    model: ServedModel
    results: list[RankResult] = Field(
        description="Best first; ties in the request's order. The shadow's have no relevance."
    )
    total_ms: float = Field(description="How long it took.")


class ComparisonReport(BaseModel):
    """How far the two rankings agree, over all candidates."""

    candidates: int
    tau_b: float | None = Field(
        description="Kendall's τ-b, -1 to 1; null where a side's scores are all the same."
    )
    rbo: float = Field(description="Rank-biased overlap with p = 0.9, 0 to 1.")
    overlap_1: float = Field(description="Share of one's top 1 that is in the other's.")
    overlap_3: float = Field(description="The same of the top 3.")
    overlap_10: float = Field(description="The same of the top 10.")
    ndcg_10: float = Field(
        description="nDCG@10 of the stable order, where the shadow's best ten are worth 10, 9, … 1."
    )
    largest_delta: float = Field(
        description="Largest difference of a document's two raw scores; means nothing where the "
        "models' scales differ."
    )


class ShadowResponse(BaseModel):
    """Both rankings, and how far they agree."""

    request_id: str = Field(description="Names this request in the service's log.")
    stable: Side = Field(description="What a client is answered.")
    shadow: Side = Field(description="What it is compared with.")
    comparison: ComparisonReport


class SideBySide:
    """Ranks with the stable model and the shadow at the same time."""

    def __init__(self, lanes: Lanes, shadow: Shadow, settings: Settings) -> None:
        self._lanes = lanes
        self._shadow = shadow
        self._settings = settings
        self._intake = Intake(max_requests=AT_A_TIME, max_bytes=settings.max_bodies_mb * MB)

    async def answer(self, request: Request) -> Response:
        """Return both rankings of a request.

        Raises:
            RankError: One of them is missing.
            ClientDisconnect: The client left.
        """
        record = record_of(request)
        settings = self._settings
        with self._intake.request() as held:
            body = await read_body(
                request,
                held,
                max_bytes=settings.max_body_bytes,
                timeout_s=settings.default_deadline_ms / 1000,
            )
            read = read_request(body, (NATIVE,), max_query_chars=settings.max_query_chars)
            (question,) = read.questions
            record.candidates = len(question.candidates)
            served = self._lanes.stable
            with served.model.held():
                answer = await while_connected(
                    request, self._both(served, cast(RankRequest, read.asked), question, record)
                )
        return Response(answer.model_dump_json(), media_type="application/json")

    async def _both(
        self, served: Served, asked: RankRequest, question: Question, record: RequestRecord
    ) -> ShadowResponse:
        """Ask both.

        Raises:
            RankError: One of them failed; then the other is given up.
        """
        query, candidates = question.query, question.candidates
        allowed_s = (question.deadline_ms or self._settings.default_deadline_ms) / 1000
        rank = served.model.ranker.rank(
            query,
            candidates,
            arrived=record.began,
            allowed_s=allowed_s,
            top_k=question.top_k,
            low=question.low,
        )
        score = self._shadow.score(query, candidates, record.began + allowed_s)
        try:
            async with asyncio.TaskGroup() as group:
                ranking = group.create_task(_timed(rank))
                scoring = group.create_task(_timed(score))
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from None
        (answered, answered_s), ((target, scores), scores_s) = ranking.result(), scoring.result()
        record.tokens = answered.real_tokens
        others = ranked(candidates, scores, top_k=question.top_k)
        comparison = await asyncio.to_thread(compare, answered.scores.values, scores)
        return ShadowResponse.model_validate(
            {
                "request_id": record.request_id,
                "stable": {
                    "model": ServedModel.of(served.labels),
                    "results": results_of(asked, answered.documents, answered.relevance.tolist()),
                    "total_ms": round(1000 * answered_s, 3),
                },
                "shadow": {
                    "model": ServedModel.of((target.name, target.version, "shadow")),
                    "results": results_of(asked, others, ()),
                    "total_ms": round(1000 * scores_s, 3),
                },
                "comparison": rounded(comparison),
            }
        )


async def _timed(work: Coroutine[Any, Any, T]) -> tuple[T, float]:
    began = monotonic()
    return await work, monotonic() - began


def shadow_router(both: SideBySide) -> APIRouter:
    """Return the router of `POST /shadow`."""
    router = APIRouter(tags=["ranking"], route_class=RawRoute)
    router.add_api_route(
        "/shadow",
        both.answer,
        methods=["POST"],
        summary="Rank with the stable model and the shadow, and compare",
        response_model=ShadowResponse,
        responses={
            200: {"headers": headers(200)},
            **problem_responses(400, 408, 409, 413, 422, 429, 500, 502, 503, 504),
        },
        openapi_extra=request_body(NATIVE),
    )
    return router
