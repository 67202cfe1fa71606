"""What operators and orchestrators ask: alive, ready, metrics, and where things are."""

from __future__ import annotations

from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_LATEST
from pydantic import BaseModel, Field

from service.api.schema import ServedModel
from service.ranking.readiness import Readiness
from service.telemetry import Telemetry


class Liveness(BaseModel):
    """Says that the process answers."""

    status: str = "alive"


class ReadinessReport(BaseModel):
    """Whether traffic should come here."""

    ready: bool
    reason: str | None = Field(description="Why not; null when ready.")


class Pointers(BaseModel):
    """Where things are."""

    service: str = "disranker"
    model: ServedModel
    rank: str = "POST /rank"
    docs: str = "/docs"
    openapi: str = "/openapi.json"
    ready: str = "/readyz"
    metrics: str = "/metrics"


def operations_router(
    *, readiness: Readiness, telemetry: Telemetry, model: ServedModel
) -> APIRouter:
    """Return the router of the operations endpoints."""
    router = APIRouter(tags=["operations"])

    @router.get("/", summary="Where things are")
    async def pointers() -> Pointers:
        return Pointers(model=model)

    @router.get("/livez", summary="Whether the process answers; no dependency is checked")
    async def livez() -> Liveness:
        return Liveness()

    @router.get(
        "/readyz",
        summary="Whether traffic should come: the golden scores matched on this host",
        responses={503: {"model": ReadinessReport, "description": "Not ready, and why."}},
    )
    async def readyz(response: Response) -> ReadinessReport:
        reason = readiness.reason
        response.status_code = 200 if reason is None else 503
        return ReadinessReport(ready=reason is None, reason=reason)

    @router.get("/metrics", summary="Prometheus metrics", response_class=Response)
    def metrics() -> Response:  # not async: rendering runs off the event loop
        return Response(telemetry.exposition(), media_type=CONTENT_TYPE_LATEST)

    return router
