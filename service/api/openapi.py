"""The OpenAPI document's parts that FastAPI cannot see, because bodies are read raw."""

from __future__ import annotations

from collections.abc import Callable
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel

from service.api.problems import MEDIA_TYPE, Problem

_REFERENCE = "#/components/schemas/{model}"


def request_body(*models: type[BaseModel]) -> dict[str, Any]:
    """Return the description of a JSON body, one of models, that the handler reads by itself."""
    refs = [{"$ref": _REFERENCE.format(model=model.__name__)} for model in models]
    schema = refs[0] if len(refs) == 1 else {"anyOf": refs}
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


def problem_responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return the description of the problems that an operation may answer with."""
    content = {MEDIA_TYPE: {"schema": {"$ref": _REFERENCE.format(model=Problem.__name__)}}}
    return {
        status: {"description": HTTPStatus(status).phrase, "content": content}
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


def describe(app: FastAPI, *models: type[BaseModel]) -> None:
    """Make the app's OpenAPI document name these models, beside the problem."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = get_openapi(
                title=app.title,
                version=app.version,
                description=app.description,
                routes=app.routes,
            )
            schemas = document.setdefault("components", {}).setdefault("schemas", {})
            raw: tuple[type[BaseModel], ...] = (Problem, *models)
            for model in raw:
                schema = model.model_json_schema(ref_template=_REFERENCE)
                schemas.update(schema.pop("$defs", {}))
                schemas[model.__name__] = schema
            app.openapi_schema = document
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's documented extension point
