"""The OpenAPI document's parts that FastAPI cannot see, because bodies are read raw."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel

from service.api.dialect import Dialect
from service.api.problems import MEDIA_TYPE, Problem
from service.api.schema import QUERY_MARK

DESCRIPTION = """\
An LLM's ranking skill, distilled and served inside a latency budget.

Bodies are read as JSON whatever `Content-Type` says. Every error is `application/problem+json`:
beside those of its operation, 404 for a path that is not here and 405, with `Allow`, for a method
that it does not take. Where `GET` is answered, so is `HEAD`.
"""

_REFERENCE = "#/components/schemas/{model}"


def _header(description: str, **schema: Any) -> dict[str, Any]:
    return {"description": description, "required": True, "schema": schema}


HEADERS = {
    "X-Request-Id": _header(
        "Names the request in the service's log; the one that was sent, where it is safe to repeat",
        type="string",
    ),
    "X-Variant": _header("The lane that ranked", type="string", enum=["stable", "canary"]),
    "Server-Timing": _header("Milliseconds spent, in all and in each stage", type="string"),
    "Retry-After": _header("Seconds after which trying again may help", type="integer", minimum=1),
    "Retry-After-Ms": _header("The same in milliseconds", type="integer", minimum=1),
}
RETRIED = (429, 503)
"""Statuses after which trying again may help."""


def headers(status: int, *, ranked: bool = False) -> dict[str, Any]:
    """Return the description of the headers of an answer with a status."""
    names = ["X-Request-Id", "Server-Timing"]
    if ranked:
        names.append("X-Variant")
    if status in RETRIED:
        names += ["Retry-After", "Retry-After-Ms"]
    return {name: {"$ref": f"#/components/headers/{name}"} for name in names}


def request_body(*dialects: Dialect[Any]) -> dict[str, Any]:
    """Return the description of a JSON body in one of dialects that the handler reads by itself.

    Args:
        dialects: As `read_request` takes them.
    """
    *others, usual = dialects
    schema = _reference(usual.request)
    if others:
        found = [_all_of(_reference(other.request), _any_key(other.keys)) for other in others]
        keys = frozenset[str]().union(*(other.keys for other in others))
        schema = {"anyOf": [*found, _all_of(schema, {"not": _any_key(keys)})]}
    return _body(schema)


def json_body(model: type[BaseModel], *, required: bool = True) -> dict[str, Any]:
    """Return the description of a JSON body that the handler reads by itself."""
    return _body(_reference(model), required=required)


def problem_responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return the description of the problems that an operation may answer with."""
    content = {MEDIA_TYPE: {"schema": _reference(Problem)}}
    return {
        status: {
            "description": HTTPStatus(status).phrase,
            "content": content,
            "headers": headers(status),
        }
        for status in statuses
    }


def require_keys(app: FastAPI, guarded: Callable[[str], bool]) -> None:
    """Make the app's OpenAPI document say which paths need a key; call it after `describe`."""
    document_of = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = document_of()
            scheme = {"type": "http", "scheme": "bearer"}
            document["components"]["securitySchemes"] = {"key": scheme}
            for path in filter(guarded, document["paths"]):
                for operation in document["paths"][path].values():
                    operation["security"] = [{"key": []}]
                    for status, response in problem_responses(401, 403).items():
                        operation["responses"].setdefault(str(status), response)
        return app.openapi_schema or {}

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's documented extension point


def describe(app: FastAPI, *models: type[BaseModel], max_query_chars: int) -> None:
    """Make the app's OpenAPI document name these models, beside the problem.

    Args:
        app: Its description is replaced.
        models: Of requests.
        max_query_chars: Longest query that they may have.
    """

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = get_openapi(
                title=app.title,
                version=app.version,
                description=DESCRIPTION,
                routes=app.routes,
            )
            components = document.setdefault("components", {})
            components["headers"] = HEADERS
            schemas = components.setdefault("schemas", {})
            raw: tuple[type[BaseModel], ...] = (Problem, *models)
            for model in raw:
                schema = model.model_json_schema(ref_template=_REFERENCE)
                schemas.update(schema.pop("$defs", {}))
                schemas[model.__name__] = schema
            _limit_queries(schemas, max_query_chars)
            app.openapi_schema = document
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's documented extension point


def _body(schema: dict[str, Any], *, required: bool = True) -> dict[str, Any]:
    content = {"application/json": {"schema": schema}}
    return {"requestBody": {"required": required, "content": content}}


def _reference(model: type[BaseModel]) -> dict[str, Any]:
    return {"$ref": _REFERENCE.format(model=model.__name__)}


def _all_of(*schemas: dict[str, Any]) -> dict[str, Any]:
    return {"allOf": [*schemas]}


def _any_key(keys: Iterable[str]) -> dict[str, Any]:
    null = {"type": "null"}
    return {
        "anyOf": [{"required": [key], "properties": {key: {"not": null}}} for key in sorted(keys)]
    }


def _limit_queries(node: Any, max_chars: int) -> None:
    """Put the limit wherever a schema is marked as a query's."""
    if isinstance(node, dict):
        if node.pop(QUERY_MARK, False):
            node["maxLength"] = max_chars
        node = [*node.values()]
    if isinstance(node, list):
        for part in node:
            _limit_queries(part, max_chars)
