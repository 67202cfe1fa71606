"""Every error as one JSON body that RFC 9457 programs and the rerank clients can read."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from http import HTTPStatus

from fastapi import FastAPI, Request, Response
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from service.api.record import record_of
from service.ranking.errors import Fault, OverloadedError, RankError

log = logging.getLogger(__name__)

MEDIA_TYPE = "application/problem+json"
CLIENT_LEFT = 499


class ProblemField(BaseModel):
    """One fault of the request."""

    field: str = Field(description="Where, as a path like `candidates[3].title`.")
    value: str | bool | int | float | None = Field(description="The value found, or its kind.")
    limit: int | float | None = Field(description="The limit it breaks, where there is one.")
    message: str = Field(description="What is wrong.")


class Problem(BaseModel):
    """An error (RFC 9457), with the keys that the known rerank clients look for."""

    type: str = Field(description="URI of the kind of problem.")
    title: str = Field(description="The status in words.")
    status: int = Field(description="The HTTP status.")
    detail: str = Field(description="What went wrong, for people.")
    message: str = Field(description="The same as `detail`.")
    error: str = Field(description="The same as `detail`.")
    error_type: str = Field(description="What went wrong, for programs.")
    request_id: str = Field(description="Names this request in the service's log.")
    predicted_wait_ms: int | None = Field(
        default=None,
        exclude_if=lambda value: value is None,
        description="How long ranking would have taken at the current load, where it is refused "
        "for that.",
    )
    errors: list[ProblemField] | None = Field(
        default=None,
        exclude_if=lambda value: value is None,
        description="What is wrong with which field, where the request is to blame.",
    )


def problem_response(
    *,
    status: int,
    error_type: str,
    detail: str,
    request_id: str,
    faults: tuple[Fault, ...] = (),
    predicted_wait_ms: int | None = None,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """Return the response for a problem."""
    fields = [
        ProblemField(field=f.field, value=f.value, limit=f.limit, message=f.message) for f in faults
    ]
    problem = Problem(
        type=f"urn:disranker:problem:{error_type}",
        title=_title(status),
        status=status,
        detail=detail,
        message=detail,
        error=detail,
        error_type=error_type,
        request_id=request_id,
        predicted_wait_ms=predicted_wait_ms,
        errors=fields or None,
    )
    return Response(problem.model_dump_json(), status, headers, MEDIA_TYPE)


def rank_problem(error: RankError, request_id: str) -> Response:
    """Return the response for a request without a ranking."""
    return problem_response(
        status=error.status,
        error_type=error.error_type,
        detail=error.message,
        request_id=request_id,
        faults=error.faults,
        predicted_wait_ms=_predicted_wait_ms(error),
        headers=_headers(error),
    )


def unexpected(request_id: str) -> Response:
    """Return the response for an error nobody foresaw."""
    return problem_response(
        status=500, error_type="internal", detail="internal error", request_id=request_id
    )


def install(app: FastAPI) -> None:
    """Make the app answer every error with a problem."""
    app.add_exception_handler(RankError, _on_rank_error)
    app.add_exception_handler(HTTPException, _on_http_exception)
    app.add_exception_handler(ClientDisconnect, _on_client_left)


async def _on_rank_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, RankError)  # noqa: S101 - Starlette types handlers by the base class
    record = record_of(request)
    if error.status == 500:  # the others are overload and start-up, told by the request's line
        fields = {"request_id": record.request_id, "error_type": error.error_type}
        log.error("ranking failed", exc_info=error, extra={"fields": fields})
    return rank_problem(error, record.request_id)


async def _on_http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101
    title = _title(error.status_code)
    return problem_response(
        status=error.status_code,
        error_type=title.lower().replace(" ", "_"),
        detail=f"{title.lower()}; /docs lists what is served",
        request_id=record_of(request).request_id,
        headers=error.headers,
    )


async def _on_client_left(request: Request, _error: Exception) -> Response:
    return problem_response(
        status=CLIENT_LEFT,
        error_type="client_left",
        detail="the client left",
        request_id=record_of(request).request_id,
    )


def _predicted_wait_ms(error: RankError) -> int | None:
    if not isinstance(error, OverloadedError) or error.predicted_wait_s is None:
        return None
    return math.ceil(1000 * error.predicted_wait_s)


def _headers(error: RankError) -> dict[str, str]:
    headers = {}
    if error.retry_after_s is not None:
        # Clients read 0 as absent, and round trips make less than a second no kindness.
        headers["retry-after"] = str(max(1, math.ceil(error.retry_after_s)))
        headers["retry-after-ms"] = str(max(1, math.ceil(1000 * error.retry_after_s)))
    if error.status == 401:
        headers["www-authenticate"] = "Bearer"
    if error.status == 408:
        headers["connection"] = "close"  # the rest of the body is not awaited
    return headers


def _title(status: int) -> str:
    return "Client Closed Request" if status == CLIENT_LEFT else HTTPStatus(status).phrase
