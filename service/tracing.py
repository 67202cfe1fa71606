"""W3C trace context: the trace a request belongs to, and what those called for it are told."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

_VALID = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")

_outgoing: ContextVar[str | None] = ContextVar("outgoing_traceparent", default=None)


def outgoing_traceparent() -> str | None:
    """Return the `traceparent` header of a call made for the request at hand.

    It names the request's server span where spans are recorded, else what the client sent, as it
    came. None where there is no trace, and outside of requests.

    Known in the request's own task and inside `Engine.score`. A launch with pairs of several
    requests goes by the first of them that has a trace: the header can name only one.
    """
    return _outgoing.get()


@contextmanager
def passing_on(traceparent: str | None) -> Iterator[None]:
    """Make a traceparent the outgoing one."""
    token = _outgoing.set(traceparent)
    try:
        yield
    finally:
        _outgoing.reset(token)


def valid_traceparent(headers: Sequence[str]) -> str | None:
    """Return the one valid header among a request's `traceparent` headers.

    None where there is none, it breaks the format, or there are several.

    Source:
        W3C Trace Context, section 3.2.2; of versions after 00 only the fields of 00 are taken.
    """
    if len(headers) != 1 or not _VALID.fullmatch(headers[0]):
        return None
    return headers[0]


def trace_id(traceparent: str) -> str:
    """Return the trace's id, 32 hexadecimal digits."""
    return traceparent[3:35]
