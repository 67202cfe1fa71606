"""pydantic's complaints in our words, with no text of a document in them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from service.ranking.errors import Fault, InvalidRequestError

MAX_FAULTS = 20
MAX_ECHO_CHARS = 64
MAX_ECHO_NUMBER = 1e15

ECHOED = (
    *("top_k", "deadline_ms", "priority", "on_deadline", "return_documents", "id"),
    *("top_n", "truncate", "truncation_direction", "max_tokens_per_doc", "truncate_prompt_tokens"),
)
"""Fields whose strings may be repeated: what they hold is no text."""

_LIMITS = ("max_length", "min_length", "ge", "gt", "le", "lt")
_UNKNOWN = "extra_forbidden"
_MESSAGES = {_UNKNOWN: "unknown field", "missing": "required field is missing"}


def faults_of(error: ValidationError, *, whole: str = "body") -> tuple[Fault, ...]:
    """Return the first `MAX_FAULTS` faults, each with its field, value and limit.

    Args:
        error: What pydantic found.
        whole: The name of the validated thing, where no field of it is to blame.
    """
    details = error.errors(include_url=False)[:MAX_FAULTS]
    return tuple(_fault(detail, whole) for detail in details)


def no_json(body: bytes | bytearray, message: str) -> InvalidRequestError:
    """Return the error for a body that cannot be parsed, without a word of it."""
    return InvalidRequestError(Fault("body", message, value=f"{len(body)} bytes"), status=400)


def echo(value: object) -> str:
    """Return a value, cut to `MAX_ECHO_CHARS`."""
    text = str(value)
    return text if len(text) <= MAX_ECHO_CHARS else f"{text[:MAX_ECHO_CHARS]}…"


def _fault(detail: Mapping[str, Any], whole: str) -> Fault:
    context = detail.get("ctx", {})
    limit = next((context[name] for name in _LIMITS if name in context), None)
    message = _MESSAGES.get(detail["type"], detail["msg"])
    return Fault(_path(detail["loc"]) or whole, message, value=_value(detail), limit=limit)


def _path(loc: tuple[int | str, ...]) -> str:
    path = ""
    for part in loc:
        path += f"[{part}]" if isinstance(part, int) else f".{echo(part)}"
    return path.removeprefix(".")


def _value(detail: Mapping[str, Any]) -> str | int | float | None:
    """Return the value where it cannot be a document's text, else what kind of value it is."""
    value = detail["input"]
    if detail["type"] == "missing":
        return None
    if isinstance(value, int | float):
        return value if abs(value) < MAX_ECHO_NUMBER else echo(value)  # NaN has no JSON
    if isinstance(value, str):
        name = detail["loc"][-1] if detail["loc"] else ""
        known = name in ECHOED and detail["type"] != _UNKNOWN
        return echo(value) if known else f"a string of {len(value)} characters"
    if isinstance(value, list):
        return f"an array of {len(value)} items"
    if value is None:
        return "null"
    return "an object" if isinstance(value, dict) else echo(type(value).__name__)
