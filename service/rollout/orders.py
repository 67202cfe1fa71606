"""What people may tell a rollout, on the command line and by HTTP, and within which limits."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator
from pydantic_core import PydanticCustomError

from service.rollout.canary import Plan
from service.rollout.guardrails import Bounds, Needs
from service.rollout.progress import Rollout, ask, hold, promote, roll_back

DEFAULT = Plan()

Request = TypeVar("Request", bound="_Request")


class OrderError(Exception):
    """An order that makes no sense; the message names the field, its value and the limit."""


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class ReasonRequest(_Request):
    """Why people tell it to do something."""

    reason: str = Field(
        default="asked to",
        min_length=1,
        max_length=500,
        pattern=r"^[^\x00-\x1f\x7f-\x9f]+$",  # what would drive the terminal that shows it
        description="For the log and the view.",
    )

    @property
    def arguments(self) -> dict[str, Any]:
        """What the change is called with, beside the time."""
        return {"reason": self.reason}


class StartRequest(_Request):
    """How a rollout is to go; a held one goes on by its own plan, and takes no other."""

    steps: tuple[Annotated[float, Field(gt=0, le=1)], ...] = Field(
        default=DEFAULT.steps, min_length=1, max_length=100, description="Weights, rising to 1."
    )
    step_s: float = Field(
        default=DEFAULT.step_s,
        ge=0,
        le=2_592_000,
        allow_inf_nan=False,
        description="Least time at each.",
    )
    min_requests: int = Field(
        default=DEFAULT.needs.requests,
        ge=1,
        le=1_000_000_000,
        description="Least requests of each lane at each.",
    )
    min_sampled: int = Field(
        default=DEFAULT.needs.sampled,
        ge=1,
        le=1_000_000_000,
        description="Least requests that are compared at each.",
    )
    min_tau_b: float = Field(
        default=DEFAULT.bounds.tau_b,
        ge=-1,
        le=1,
        allow_inf_nan=False,
        description="Least mean τ-b of both models.",
    )
    min_overlap_10: float = Field(
        default=DEFAULT.bounds.overlap_10,
        ge=0,
        le=1,
        allow_inf_nan=False,
        description="Least mean overlap at 10.",
    )
    max_psi: float = Field(
        default=DEFAULT.bounds.stability,
        ge=0,
        le=1_000,
        allow_inf_nan=False,
        description="Largest stability index of the scores.",
    )

    @field_validator("steps")
    @classmethod
    def _check_steps(cls, steps: tuple[float, ...]) -> tuple[float, ...]:
        if steps[-1] != 1 or any(a >= b for a, b in pairwise(steps)):
            raise PydanticCustomError("steps", "weights rise from above 0 to 1")
        return steps

    @property
    def arguments(self) -> dict[str, Any]:
        """What the change is called with, beside the time: no plan where nothing is said of it."""
        if not self.model_fields_set:
            return {"plan": None}
        plan = Plan(
            steps=self.steps,
            step_s=self.step_s,
            needs=Needs(self.min_requests, self.min_sampled),
            bounds=Bounds(self.min_tau_b, self.min_overlap_10, self.max_psi),
        )
        return {"plan": plan}


@dataclass(frozen=True, slots=True)
class Order:
    """Something that people may tell a rollout.

    Attributes:
        name: Its command and the end of its path.
        text: What it does, in words.
        request: What is to be said with it.
        change: What it makes of a rollout, by the request's arguments and the time.
    """

    name: str
    text: str
    request: type[StartRequest | ReasonRequest]
    change: Callable[..., Rollout]


START = Order(
    "start",
    "Begin a rollout of the canary that is served, or go on with one that is held.",
    StartRequest,
    ask,
)
ORDERS = (
    START,
    Order(
        "hold",
        "Stay at this weight; guardrails go on watching. start goes on.",
        ReasonRequest,
        hold,
    ),
    Order(
        "promote",
        "Give the canary all requests now, whatever the guardrails say.",
        ReasonRequest,
        promote,
    ),
    Order("rollback", "Give the canary none from now on.", ReasonRequest, roll_back),
)


def read_flags(model: type[Request], flags: Mapping[str, Any]) -> Request:
    """Return what a command line's flags say; their values are text.

    Raises:
        OrderError: One is out of its limits.
    """
    try:
        return model.model_validate(flags, strict=False)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        flag = str(first["loc"][0]).replace("_", "-")
        raise OrderError(f"--{flag}: {first['msg']}, got {first['input']!r}") from None
