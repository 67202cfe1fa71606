"""Which models are served, for operators to see and change."""

from __future__ import annotations

import logging
from typing import Any, TypeVar

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from service.api.body import read_body
from service.api.faults import faults_of, no_json
from service.api.intake import Held, Intake
from service.api.openapi import json_body, problem_responses
from service.api.record import record_of
from service.ranking.errors import ConflictError, Fault, InvalidRequestError
from service.ranking.model import Model
from service.rollout.lanes import VARIANTS, Lanes, Served, Variant
from service.rollout.loading import Loader
from service.rollout.split import StaleWeightError, Weight

log = logging.getLogger(__name__)

MAX_BODY_BYTES = 10_000
BODY_S = 10.0

Body = TypeVar("Body", bound=BaseModel)


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class LoadRequest(_Request):
    """A bundle to load."""

    bundle: str = Field(
        min_length=1, max_length=1024, description="Its path under the setting `bundles_root`."
    )
    triton_model: str | None = Field(
        default=None,
        max_length=256,
        description="What Triton calls its model, for the engine triton; by default what `python "
        "-m export triton` called it.",
    )


class WeightRequest(_Request):
    """A weight for the canary."""

    weight: float = Field(
        ge=0, le=1, allow_inf_nan=False, description="Part of the routing keys that go to it."
    )
    generation: int | None = Field(
        default=None,
        ge=1,
        le=2**53,
        description="Number of the decision, larger than any before; the next one by default.",
    )


ADMIN_REQUESTS = (LoadRequest, WeightRequest)


class LeavingModel(BaseModel):
    """A model that answers what it has taken and will then be gone."""

    model: str
    version: str
    requests: int = Field(description="Requests that it still answers.")


class LaneState(BaseModel):
    """A lane and what serves it."""

    lane: Variant
    model: str
    version: str
    bundle: str = Field(description="Where it was loaded from.")
    precision: str
    engine: str
    weight: float = Field(description="Part of the routing keys that go to it.")
    ready: bool
    fault: str | None = Field(description="Why it is not ready.")
    requests: int = Field(description="Requests that it is ranking.")


class LanesState(BaseModel):
    """All lanes."""

    generation: int = Field(description="Of the decision that set the weights.")
    lanes: list[LaneState]
    leaving: list[LeavingModel]


def rollout_router(lanes: Lanes, loader: Loader) -> APIRouter:
    """Return the router of the endpoints about lanes, below `/admin`."""
    router = APIRouter(prefix="/lanes")
    refusals = problem_responses(400, 408, 409, 413, 422)

    @router.get("", summary="The lanes, their models and weights")
    async def show() -> LanesState:
        return _state(lanes)

    for variant in VARIANTS:
        router.add_api_route(
            f"/{variant}",
            _loading(lanes, loader, variant),
            methods=["PUT"],
            summary=f"Load a bundle beside what runs, and make it the {variant} once it is proven",
            responses=refusals,
            openapi_extra=json_body(LoadRequest),
        )
    for variant in ("canary", "shadow"):
        # Not DELETE: a 405 would name the methods of one of two routes on a path.
        router.add_api_route(
            f"/{variant}/unload",
            _unloading(lanes, loader, variant),
            methods=["POST"],
            summary=f"Let the {variant} finish what it has, and free its memory",
            responses=problem_responses(409),
        )

    @router.post(
        "/canary/promote",
        summary="Make the canary the stable model",
        responses=problem_responses(409),
    )
    async def promote(request: Request) -> LanesState:
        loader.promote()
        return _changed(lanes, request, "canary promoted")

    @router.put(
        "/canary/weight",
        summary="Set which part of the routing keys goes to the canary",
        responses=refusals,
        openapi_extra=json_body(WeightRequest),
    )
    async def weigh(request: Request) -> LanesState:
        asked = await read_asked(request, WeightRequest)
        generation = asked.generation or lanes.split.weight.generation + 1
        if lanes.get("canary") is None:
            raise ConflictError(Fault("canary", "the lane is empty"))
        try:
            lanes.split.apply(Weight(asked.weight, generation))
        except StaleWeightError as error:
            raise ConflictError(Fault("generation", str(error), value=generation)) from None
        return _changed(lanes, request, "canary weighed")

    return router


def _loading(lanes: Lanes, loader: Loader, variant: Variant) -> Any:
    async def load(request: Request) -> LanesState:
        asked = await read_asked(request, LoadRequest)
        await loader.load(variant, asked.bundle, triton_model=asked.triton_model)
        return _changed(lanes, request, f"{variant} loaded")

    return load


def _unloading(lanes: Lanes, loader: Loader, variant: Variant) -> Any:
    async def unload(request: Request) -> LanesState:
        loader.unload(variant)
        return _changed(lanes, request, f"{variant} unloaded")

    return unload


async def read_asked(request: Request, model: type[Body]) -> Body:
    """Return a request's body; one that is empty has no fields.

    Raises:
        BodyError: It is too large or too slow.
        InvalidRequestError: It is no JSON (400), or not what is expected (422).
    """
    held = Held(Intake(max_requests=1, max_bytes=MAX_BODY_BYTES))
    body = await read_body(request, held, max_bytes=MAX_BODY_BYTES, timeout_s=BODY_S)
    try:
        return model.model_validate_json(body or b"{}")
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        if first["type"] == "json_invalid":
            raise no_json(body, first["msg"]) from None
        raise InvalidRequestError(*faults_of(error), total=error.error_count()) from None


def _changed(lanes: Lanes, request: Request, what: str) -> LanesState:
    """Log who changed what, and return what it is now."""
    record, state = record_of(request), _state(lanes)
    fields = {
        "request_id": record.request_id,
        "key": record.key,
        "generation": state.generation,
        "lanes": {lane.lane: [lane.model, lane.version, lane.weight] for lane in state.lanes},
    }
    log.info(what, extra={"fields": fields})
    return state


def _state(lanes: Lanes) -> LanesState:
    return LanesState(
        generation=lanes.split.weight.generation,
        lanes=[_lane(lanes, served) for served in lanes],
        leaving=[_leaving(model) for model in lanes.leaving],
    )


def _lane(lanes: Lanes, served: Served) -> LaneState:
    model, (name, version, variant) = served.model, served.labels
    return LaneState(
        lane=variant,
        model=name,
        version=version,
        bundle=str(model.bundle.root),
        precision=model.runner.precision,
        engine=model.runner.name,
        weight=lanes.weight_of(variant),
        ready=model.trust.fault is None,
        fault=model.trust.fault,
        requests=model.requests,
    )


def _leaving(model: Model) -> LeavingModel:
    bundle = model.bundle
    return LeavingModel(
        model=bundle.manifest.name, version=bundle.short_version, requests=model.requests
    )
