"""The rollout that a decider leads, for operators to look at and to tell what to do."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from time import time
from typing import Any

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field

from service.api.openapi import json_body, problem_responses
from service.api.record import record_of
from service.api.rollout_admin import read_asked
from service.ranking.errors import ConflictError, Fault
from service.rollout.guardrails import Finding
from service.rollout.orders import ORDERS, Order
from service.rollout.progress import Event, Rollout, Status, WrongStateError
from service.rollout.store import Store, StoreError

log = logging.getLogger(__name__)

WAIT_S = 10.0

DECIDER_REQUESTS = tuple({order.request: None for order in ORDERS})


class RolloutState(BaseModel):
    """Where a rollout is."""

    status: Status = Field(
        description="asked, until the metrics show a canary; finished at full weight."
    )
    stable: str = Field(description="Version of the stable model when it began.")
    canary: str = Field(description="Version of the candidate.")
    steps: tuple[float, ...] = Field(description="Weights, one after the other.")
    step: int = Field(description="Place of the step in them, from 0.")
    step_s: float = Field(description="Least time at each.")
    step_began: float = Field(description="When this one began, in seconds since 1970.")
    weight: float = Field(description="What part of the routing keys the canary is to have.")
    generation: int = Field(description="Number of the decision for that weight.")
    requests: int = Field(description="The canary's of this step.")
    control_requests: int = Field(description="The stable model's of this step.")
    compared: int = Field(description="Requests of this step that were compared.")
    looks: int = Field(description="Looks of this step that might have ended the rollout.")
    findings: tuple[Finding, ...] = Field(description="What the guardrails said last.")
    reason: str | None = Field(description="Of the last event.")
    untold: str = Field(description="Why a ConfigMap lacks the weight; empty where it does not.")
    events: tuple[Event, ...] = Field(
        description="What happened, the newest last; times in seconds since 1970."
    )


def decider_router(weights: Path, *, wait_s: float = WAIT_S) -> APIRouter:
    """Return the router of the endpoints about the rollout, below `/admin`.

    Args:
        weights: The file that this replica follows; the rollout's state is beside it, or elsewhere.
        wait_s: How long its folder may take to answer.
    """
    router = APIRouter(prefix="/rollout")
    desk = _Desk(weights, wait_s)
    refusals = problem_responses(400, 408, 409, 413, 422)

    @router.get("", summary="Where the rollout is", responses=problem_responses(409))
    async def show() -> RolloutState:
        return _state(await desk.ask(Store.load))

    for order in ORDERS:
        router.add_api_route(
            f"/{order.name}",
            _telling(desk, order),
            methods=["POST"],
            summary=order.text,
            responses=refusals,
            openapi_extra=json_body(order.request, required=False),
        )
    return router


class _Desk:
    """The store beside the weights, asked from the event loop."""

    def __init__(self, weights: Path, wait_s: float) -> None:
        self._weights = weights
        self._wait_s = wait_s
        # A thread of its own: texts are tokenised in the others, and locks and disks may hang.
        self._thread = ThreadPoolExecutor(1, "rollout")

    async def ask(self, work: Callable[[Store], Rollout]) -> Rollout:
        """Return what comes of some work.

        Raises:
            ConflictError: The state is not here, cannot be read or written, or does not go with it.
        """
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self._wait_s):
                return await loop.run_in_executor(self._thread, self._done, work)
        except TimeoutError:
            message = f"its folder did not answer in {self._wait_s:g} s; ask again what is"
        except (StoreError, WrongStateError) as error:
            message = str(error)
        except OSError as error:
            message = (
                f"the state is out of reach here ({error}): ask where `python -m service rollout "
                "run` keeps its folder"
            )
        raise ConflictError(Fault("rollout", message))

    def _done(self, work: Callable[[Store], Rollout]) -> Rollout:
        return work(Store.beside(self._weights))


def _telling(desk: _Desk, order: Order) -> Any:
    async def tell(request: Request) -> RolloutState:
        asked = await read_asked(request, order.request)
        change = partial(order.change, **asked.arguments, now=time())
        rollout = await desk.ask(lambda store: store.change(change))
        _log_told(request, order.name, rollout)
        return _state(rollout)

    return tell


def _log_told(request: Request, name: str, rollout: Rollout) -> None:
    record = record_of(request)
    fields = {
        "request_id": record.request_id,
        "key": record.key,
        "reason": rollout.events[-1].reason,
        "status": rollout.status,
        "canary": rollout.canary,
        "weight": rollout.weight,
        "generation": rollout.generation,
    }
    log.info("rollout told: %s", name, extra={"fields": fields})


def _state(rollout: Rollout) -> RolloutState:
    canary, stage = rollout.seen.canary, rollout.stage
    return RolloutState(
        status=rollout.status,
        stable=rollout.stable,
        canary=rollout.canary,
        steps=rollout.plan.steps,
        step=stage.step,
        step_s=rollout.plan.step_s,
        step_began=stage.began,
        weight=rollout.weight,
        generation=rollout.generation,
        requests=canary.arm.requests,
        control_requests=rollout.seen.control.arm.requests,
        compared=canary.paired.compared + canary.taught.compared,
        looks=stage.looks,
        findings=rollout.findings,
        reason=rollout.events[-1].reason if rollout.events else None,
        untold=rollout.untold,
        events=rollout.events,
    )
