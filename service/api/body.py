"""Reading a request, and noticing when its client leaves."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar, cast

from fastapi import Request
from starlette.requests import ClientDisconnect

from service.api.intake import Held
from service.ranking.errors import BodyTooLargeError, BodyTooSlowError

T = TypeVar("T")


async def read_body(request: Request, held: Held, *, max_bytes: int, timeout_s: float) -> bytearray:
    """Return the body, counted as it arrives, whatever Content-Length says.

    Raises:
        BodyTooLargeError: More than max_bytes came.
        BodyTooSlowError: It took longer than timeout_s.
        OverloadedError: Other bodies leave no room.
        ClientDisconnect: The client left.
    """
    body = bytearray()
    try:
        async with asyncio.timeout(timeout_s):
            async for chunk in request.stream():
                body += chunk
                if len(body) > max_bytes:
                    value = f"more than {max_bytes} bytes"
                    raise BodyTooLargeError("the body is too large", value=value, limit=max_bytes)
                held.grow(len(chunk))
    except TimeoutError:
        value = f"{len(body)} bytes in {timeout_s:g} s"
        raise BodyTooSlowError(
            "the body arrived too slowly", value=value, limit=timeout_s
        ) from None
    return body


async def while_connected(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """Return what work returns, cancelling it as soon as the client leaves.

    Raises:
        ClientDisconnect: The client left first.
    """
    task = cast("asyncio.Task[Any]", asyncio.current_task())
    left = False

    async def watch() -> None:
        nonlocal left
        await _disconnect(request)
        left = True
        task.cancel()

    watcher = asyncio.create_task(watch())
    try:
        return await work
    except asyncio.CancelledError:
        if left and not task.uncancel():  # else somebody else cancelled us, too
            raise ClientDisconnect from None
        raise
    finally:
        watcher.cancel()  # not awaited: it cannot cancel us any more, and others would go first


async def _disconnect(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
