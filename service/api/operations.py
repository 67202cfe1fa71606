"""What operators and orchestrators ask: alive, ready, metrics, and where things are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_LATEST
from pydantic import BaseModel, Field

from service.api.record import RANKING_PATHS
from service.api.schema import ServedModel
from service.rollout.lanes import Lanes
from service.telemetry import Telemetry

Handler = TypeVar("Handler", bound=Callable[..., Any])


class Liveness(BaseModel):
    """Says that the process answers."""

    status: str = "alive"


class ReadinessReport(BaseModel):
    """Whether traffic should come here."""

    ready: bool
    reason: str | None = Field(description="Why not; null when ready.")


class ModelCard(BaseModel):
    """A model that is served, as OpenAI's clients know it."""

    id: str
    object: str = "model"
    created: int = 0
    owned_by: str = "disranker"
    max_model_len: int


class ModelList(BaseModel):
    """The models that are served."""

    object: str = "list"
    data: list[ModelCard]


class Reranker(BaseModel):
    """A model without classes of its own."""

    id2label: dict[str, str] = {"0": "LABEL_0"}
    label2id: dict[str, int] = {"LABEL_0": 0}


class ModelType(BaseModel):
    """What a model does."""

    reranker: Reranker = Reranker()


class Info(BaseModel):
    """The model and the limits, as text-embeddings-inference's clients know them."""

    model_id: str
    model_sha: str = Field(description="The bundle's fingerprint.")
    model_dtype: str
    model_type: ModelType = ModelType()
    max_concurrent_requests: int
    max_input_length: int = Field(description="Tokens of the longest pair.")
    max_batch_tokens: int
    max_client_batch_size: int = Field(description="Most documents a request.")
    auto_truncate: bool = True
    version: str


class Pointers(BaseModel):
    """Where things are."""

    service: str = "disranker"
    model: ServedModel
    rank: str = "POST /rank"
    dialects: tuple[str, ...] = Field(description="Where clients of other rerankers may ask.")
    docs: str = "/docs"
    openapi: str = "/openapi.json"
    ready: str = "/readyz"
    metrics: str = "/metrics"


LIVE = ("/livez", "/v1/health/live", "/v2/health/live")
READY = ("/readyz", "/healthz", "/health", "/v1/health/ready", "/v2/health/ready")
MODELS = ("/v1/models", "/models")
"""Each thing where our documentation says, then where clients and supervisors of others look."""


def operations_router(lanes: Lanes, *, telemetry: Telemetry, info: Callable[[], Info]) -> APIRouter:
    """Return the router of the operations endpoints.

    Args:
        lanes: What is served.
        telemetry: What the metrics are.
        info: Returns the stable model and the limits, in other words.
    """
    router = APIRouter(tags=["operations"])

    def get(paths: tuple[str, ...], summary: str, **options: Any) -> Callable[[Handler], Handler]:
        def add(handler: Handler) -> Handler:
            for path in paths:
                router.add_api_route(path, handler, methods=["GET"], summary=summary, **options)
                router.add_api_route(path, handler, methods=["HEAD"], include_in_schema=False)
            return handler

        return add

    @get(("/",), "Where things are")
    async def pointers() -> Pointers:
        model = ServedModel.of(lanes.stable.labels)
        return Pointers(model=model, dialects=tuple(sorted(RANKING_PATHS - {"/rank"})))

    @get(LIVE, "Whether the process answers; no dependency is checked")
    async def livez() -> Liveness:
        return Liveness()

    @get(
        READY,
        "Whether traffic should come: the golden scores matched on this host",
        responses={503: {"model": ReadinessReport, "description": "Not ready, and why."}},
    )
    async def readyz(response: Response) -> ReadinessReport:
        reason = lanes.readiness.reason
        response.status_code = 200 if reason is None else 503
        return ReadinessReport(ready=reason is None, reason=reason)

    @get(MODELS, "The models served, for clients that ask before they rank")
    async def models() -> ModelList:
        manifest = lanes.stable.model.bundle.manifest
        card = ModelCard(id=manifest.name, max_model_len=manifest.max_length)
        return ModelList(data=[card])

    @get(("/info",), "The model and the limits, as text-embeddings-inference tells them")
    async def about() -> Info:
        return info()

    @get(
        ("/metrics",),
        "Prometheus metrics",
        response_class=Response,
        responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
    )
    def metrics() -> Response:  # not async: rendering runs off the event loop
        return Response(telemetry.exposition(), media_type=CONTENT_TYPE_LATEST)

    return router
