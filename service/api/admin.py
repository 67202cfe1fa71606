"""What only operators may see and do."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, Protocol

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field

from service.api.record import record_of
from service.settings import Settings

log = logging.getLogger(__name__)


class Cache(Protocol):
    """Something that can be emptied."""

    def clear(self) -> int:
        """Forget everything; return how many entries that was."""
        ...


class Dropped(BaseModel):
    """What was forgotten."""

    tokens: int = Field(description="Documents whose token ids were cached.")
    scores: int = Field(description="Query-document pairs whose scores were cached.")


def admin_router(settings: Settings, *parts: APIRouter, caches: Mapping[str, Cache]) -> APIRouter:
    """Return the router of the admin endpoints.

    Args:
        settings: What is in effect.
        parts: The endpoints about lanes and the shadow.
        caches: By name.
    """
    router = APIRouter(prefix="/admin", tags=["admin"])
    for part in parts:
        router.include_router(part)
    # A key's hash is no secret, but nobody needs it here either.
    shown = settings.model_dump(mode="json", exclude={"keys": {"__all__": {"sha256"}}})

    @router.get("/settings", summary="The settings in effect, keys without their hashes")
    async def settings_in_effect() -> dict[str, Any]:
        return shown

    @router.delete("/caches", summary="Drop all cached token ids and scores")
    async def drop_caches(request: Request) -> Dropped:
        dropped = {name: cache.clear() for name, cache in caches.items()}
        record = record_of(request)
        fields = {"request_id": record.request_id, "key": record.key, **dropped}
        log.info("caches dropped", extra={"fields": fields})
        return Dropped(**dropped)

    return router
