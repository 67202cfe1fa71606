"""The shadow's switch, for operators."""

from __future__ import annotations

import logging

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field

from service.api.openapi import json_body, problem_responses
from service.api.record import record_of
from service.api.rollout_admin import read_asked
from service.rollout.shadow import Shadow

log = logging.getLogger(__name__)


class SampleRequest(BaseModel):
    """How much the shadow is offered."""

    model_config = ConfigDict(extra="forbid", strict=True)

    sample: float = Field(
        ge=0, le=1, allow_inf_nan=False, description="Share of the answered requests; 0 for none."
    )


def shadow_admin_router(shadow: Shadow) -> APIRouter:
    """Return the router of the endpoint about the shadow, below `/admin`."""
    router = APIRouter()

    @router.put(
        "/shadow",
        summary="Offer the shadow more or fewer requests, until the next start",
        responses=problem_responses(400, 408, 413, 422),
        openapi_extra=json_body(SampleRequest),
    )
    async def sample(request: Request) -> SampleRequest:
        asked = await read_asked(request, SampleRequest)
        shadow.sample = asked.sample
        record = record_of(request)
        fields = {"request_id": record.request_id, "key": record.key, "sample": asked.sample}
        log.info("shadow sampling set", extra={"fields": fields})
        return asked

    return router
