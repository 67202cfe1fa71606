"""The OpenAPI document, held against what the service does; `tests/fuzz` holds it further."""

import json
import re
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from pydantic import TypeAdapter

from service.api.dialect import Dialect
from service.api.routes import ROUTES
from service.api.schema import NON_BLANK, QUERY_MARK
from tests.service.conftest import Client

pytestmark = pytest.mark.anyio

DIALECTS = [(route.path, dialect) for route in ROUTES for dialect in route.dialects]


@pytest.fixture(scope="module")
async def client(serving: Client) -> AsyncIterator[httpx.AsyncClient]:
    async with serving(max_query_chars=50) as client:
        yield client


@pytest.fixture(scope="module")
async def document(client: httpx.AsyncClient) -> dict[str, Any]:
    found: dict[str, Any] = (await client.get("/openapi.json")).json()
    return found


@pytest.mark.parametrize(
    ("path", "dialect"), DIALECTS, ids=[f"{path}-{d.request.__name__}" for path, d in DIALECTS]
)
async def test_every_documented_example_is_answered_as_documented(
    client: httpx.AsyncClient, document: dict[str, Any], path: str, dialect: Dialect[Any]
) -> None:
    (operation,) = document["paths"][path.replace(":path", "")].values()
    for parameter in operation["parameters"]:
        if parameter["in"] == "path":
            path = path.replace("{model:path}", parameter["example"])
    examples = document["components"]["schemas"][dialect.request.__name__]["examples"]
    assert examples
    for example in examples:
        response = await client.post(path, json=example)
        assert response.status_code == 200, response.text
        TypeAdapter(dialect.response).validate_json(response.content, strict=True)


async def test_every_reference_of_the_document_leads_somewhere(document: dict[str, Any]) -> None:
    for kind in ("schemas", "headers"):
        found = json.dumps(document).split(f"#/components/{kind}/")[1:]
        assert {part.split('"')[0] for part in found} <= document["components"][kind].keys()


async def test_refusals_that_may_be_retried_document_their_hints(
    document: dict[str, Any],
) -> None:
    for path, operations in document["paths"].items():
        for status, response in operations.get("post", {"responses": {}})["responses"].items():
            assert {"X-Request-Id", "Server-Timing"} <= response["headers"].keys(), path
            assert ("Retry-After" in response["headers"]) is (status in ("429", "503"))
            assert ("Retry-After-Ms" in response["headers"]) is (status in ("429", "503"))


async def test_a_querys_limit_is_the_setting(document: dict[str, Any]) -> None:
    assert QUERY_MARK not in json.dumps(document)
    schemas = document["components"]["schemas"]
    assert schemas["RankRequest"]["properties"]["query"]["maxLength"] == 50
    assert schemas["NimQuery"]["properties"]["text"]["maxLength"] == 50
    assert "maxLength" not in schemas["NimPassage"]["properties"]["text"]


def test_a_blank_query_is_blank_in_the_document_too() -> None:
    pattern = re.compile(NON_BLANK)
    characters = [chr(code) for code in range(0x110000)]
    assert [c for c in characters if bool(pattern.search(c)) != bool(c.strip())] == []
