"""What schemathesis cannot know of the service: loaded by its command line."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NoReturn

import schemathesis
from schemathesis.core.failures import Failure
from schemathesis.openapi.checks import RejectedPositiveData

from service.api.dialects.score import DOCUMENTS, QUERIES
from service.api.problems import MEDIA_TYPE, Problem

AMPLE_MS = 60_000
"""A deadline that a busy machine meets, too; the schema cannot tell what becomes of short ones."""


@schemathesis.hook
def before_call(
    _context: schemathesis.HookContext, case: schemathesis.Case[Any], _options: dict[str, Any]
) -> None:
    """Make a valid deadline an ample one."""
    body = case.body
    if not isinstance(body, dict):
        return
    found = body.get("deadline_ms")
    if isinstance(found, int | float) and not isinstance(found, bool) and 0 < found < AMPLE_MS:
        case.body = {**body, "deadline_ms": AMPLE_MS}


@schemathesis.hook
def filter_failure(
    _context: schemathesis.HookContext,
    failure: Failure,
    case: schemathesis.Case[Any],
    _response: schemathesis.Response,
) -> bool:
    """Return whether a failure is one: not where the request asked for it beyond its schema."""
    asked = case.body if isinstance(case.body, Mapping) else {}
    return not (isinstance(failure, RejectedPositiveData) and breaks_unwritten_rule(asked))


@schemathesis.check
def answer_is_strict_json(
    _context: schemathesis.CheckContext,
    response: schemathesis.Response,
    _case: schemathesis.Case[Any],
) -> None:
    """Hold JSON against its standard, which has no NaN and no Infinity."""
    if "json" in response.headers.get("content-type", [""])[0] and response.content:
        json.loads(response.content, parse_constant=_refuse)


@schemathesis.check
def error_is_a_problem(
    _context: schemathesis.CheckContext,
    response: schemathesis.Response,
    case: schemathesis.Case[Any],
) -> None:
    """Hold every error, documented or not, against the one body that clients can read."""
    not_ready = case.method == "GET" and response.status_code == 503
    if response.status_code >= 400 and response.content and not not_ready:
        found = response.headers["content-type"]
        assert found == [MEDIA_TYPE], f"an error of type {found}"
        problem = Problem.model_validate_json(response.content)
        assert response.headers["x-request-id"] == [problem.request_id]


def breaks_unwritten_rule(asked: Mapping[str, Any]) -> bool:
    """Return whether a request may break one of the rules that JSON Schema has no words for."""
    return (
        _refuses_to_be_cut(asked)
        or _repeats_ids(asked.get("candidates") or [])
        or _lacks_rank_fields(asked)
        or _pairs_unevenly(asked)
        or _falls_or_ends_early(asked.get("steps"))
    )


def _refuses_to_be_cut(asked: Mapping[str, Any]) -> bool:
    return asked.get("truncate") in (False, "NONE") or asked.get("truncation") is False


def _repeats_ids(candidates: list[dict[str, Any]]) -> bool:
    ids = [one["id"] for one in candidates if one.get("id") is not None]
    return len(set(ids)) < len(ids)


def _lacks_rank_fields(asked: Mapping[str, Any]) -> bool:
    fields = asked.get("rank_fields") or []
    objects = [one for one in asked.get("documents") or [] if isinstance(one, Mapping)]
    return any(not isinstance(one.get(field), str) for one in objects for field in fields)


def _pairs_unevenly(asked: Mapping[str, Any]) -> bool:
    """Return whether vLLM's queries are neither one nor as many as the documents."""
    queries, documents = (
        next((asked[name] for name in names if name in asked), None)
        for names in (QUERIES, DOCUMENTS)
    )
    many = len(documents) if isinstance(documents, list) else 1
    return isinstance(queries, list) and len(queries) not in (1, many)


def _falls_or_ends_early(steps: Any) -> bool:
    """Return whether these are a rollout's weights and do not rise to 1."""
    if not isinstance(steps, list) or not all(isinstance(step, int | float) for step in steps):
        return False
    return steps != sorted(set(steps)) or steps[-1:] != [1]


def _refuse(constant: str) -> NoReturn:
    raise AssertionError(f"{constant} is no JSON")
