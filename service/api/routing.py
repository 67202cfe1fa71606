"""Which model ranks a request, by what the request says of itself."""

from __future__ import annotations

from collections.abc import Iterator

from starlette.datastructures import Headers

from service.api.faults import echo
from service.api.record import RequestRecord
from service.api.schema import MAX_KEY_CHARS
from service.ranking.errors import Fault, InvalidRequestError
from service.rollout.lanes import Choice, Lanes, Variant

WANTED: dict[str, Variant] = {"stable": "stable", "canary": "canary"}
"""What `X-Variant` may ask for; the shadow only mirrors."""


def route(
    lanes: Lanes, record: RequestRecord, headers: Headers, *, routing_key: str | None
) -> Choice:
    """Return where a request goes.

    Args:
        lanes: Where it may go.
        record: The request's; its id is the key where there is no other.
        headers: Of the request; `X-Routing-Key` wins over the body's field.
        routing_key: The field's value.

    Raises:
        InvalidRequestError: A header's value is none.
        NoLaneError: Nothing serves the lane it asks for.
    """
    given = _text(headers.get("x-routing-key", ""))
    if faults := [*_faults(given, record.wanted)]:
        raise InvalidRequestError(*faults)
    key = given or routing_key or record.request_id
    return lanes.choose(key, WANTED[record.wanted] if record.wanted is not None else None)


def _faults(key: str, wanted: str | None) -> Iterator[Fault]:
    if len(key) > MAX_KEY_CHARS:
        value = f"a string of {len(key)} characters"
        message = f"a routing key has at most {MAX_KEY_CHARS} characters"
        yield Fault("X-Routing-Key", message, value=value, limit=MAX_KEY_CHARS)
    if wanted is not None and wanted not in WANTED:
        message = f"no lane to ask for; there are {' and '.join(WANTED)}"
        yield Fault("X-Variant", message, value=echo(wanted))


def _text(header: str) -> str:
    """Return a header's text as the body would have it, where it is UTF-8 as most programs send."""
    try:
        return header.encode("latin-1").decode()
    except UnicodeDecodeError:
        return header
