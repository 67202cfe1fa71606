"""Requests and what every error has in common."""

from hashlib import sha256
from typing import Any

import httpx

CAT = {"text": "cat"}


def assert_problem(response: httpx.Response, status: int) -> dict[str, Any]:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    problem: dict[str, Any] = response.json()
    assert problem["status"] == status
    assert problem["detail"] == problem["message"] == problem["error"]
    assert isinstance(problem["detail"], str)
    assert problem["request_id"] == response.headers["x-request-id"]
    assert all(isinstance(problem[name], str) for name in ("type", "title", "error_type"))
    return problem


def request(**fields: Any) -> dict[str, Any]:
    return {"query": "cat", "candidates": [CAT], **fields}


def api_key(name: str, **fields: Any) -> dict[str, Any]:
    """Return the settings of a key that is its own name."""
    return {"name": name, "sha256": sha256(name.encode()).hexdigest(), **fields}


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}
