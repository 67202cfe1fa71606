"""Reading a request, and noticing when its client leaves."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from fastapi import Request
from starlette.requests import ClientDisconnect

from service.ranking.errors import BodyTooLargeError, BodyTooSlowError

T = TypeVar("T")


async def read_body(request: Request, *, max_bytes: int, timeout_s: float) -> bytes:
    """Return the body, counted as it arrives, whatever Content-Length says.

    Raises:
        BodyTooLargeError: More than max_bytes came.
        BodyTooSlowError: It took longer than timeout_s.
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
    except TimeoutError:
        value = f"{len(body)} bytes in {timeout_s:g} s"
        raise BodyTooSlowError(
            "the body arrived too slowly", value=value, limit=timeout_s
        ) from None
    return bytes(body)


async def while_connected(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """Return what work returns, cancelling it as soon as the client leaves.

    Raises:
        ClientDisconnect: The client left first.
    """
    task = asyncio.create_task(work)
    gone = asyncio.create_task(_disconnect(request))
    try:
        await asyncio.wait((task, gone), return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientDisconnect
        return task.result()
    finally:
        task.cancel()
        gone.cancel()
        await asyncio.gather(task, gone, return_exceptions=True)


async def _disconnect(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
