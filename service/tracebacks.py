"""Exceptions for the log, without what they may quote."""

from __future__ import annotations

import traceback


def describe(error: BaseException) -> str:
    """Return an exception, and what it came from, as places, types and our own messages.

    Others' messages are left out: they like to quote what they choked on, which may be a document,
    a query or a key.
    """
    stories = []
    seen: set[int] = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        stories.append(_story(cause))
        cause = cause.__cause__ or (None if cause.__suppress_context__ else cause.__context__)
    return "which came from\n".join(stories)


def _story(error: BaseException) -> str:
    kind = type(error)
    places = "".join(traceback.format_tb(error.__traceback__))
    message = f": {error}" if kind.__module__.partition(".")[0] == "service" else ""
    inner = error.exceptions if isinstance(error, BaseExceptionGroup) else ()
    parts = "".join(f"one of\n{describe(part)}" for part in inner)
    return f"{places}{kind.__module__}.{kind.__qualname__}{message}\n{parts}"
