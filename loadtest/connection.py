"""One kept-alive HTTP/1.1 connection with one request on its way."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Self
from urllib.parse import urlsplit

import httptools

REQUEST_TIMEOUT_S = 120.0

FAILURES = (OSError, TimeoutError, ValueError, httptools.HttpParserError)
"""What asking may raise: there was no answer."""


@dataclass(frozen=True, slots=True)
class Reply:
    """A server's answer.

    Attributes:
        status: HTTP status.
        headers: By lower-case name.
        body: The content.
    """

    status: int
    headers: dict[str, str]
    body: bytes


class Connection(asyncio.Protocol):
    """A connection to one server."""

    def __init__(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._headers: dict[str, str] = {}
        self._body: list[bytes] = []
        self._answer: asyncio.Future[Reply] | None = None
        self._transport: asyncio.Transport | None = None

    @classmethod
    async def to(cls, url: str) -> Self:
        """Return an open connection to a URL's host.

        Raises:
            OSError: Nobody listens there.
        """
        parts = urlsplit(url)
        loop = asyncio.get_running_loop()
        address = parts.hostname or "", parts.port or 80
        _, connection = await loop.create_connection(cls, *address)
        return connection

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the way to send."""
        assert isinstance(transport, asyncio.Transport)  # noqa: S101
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Read a part of the answer."""
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._fail(error)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header of the answer."""
        self._headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_body(self, data: bytes) -> None:
        """Keep a part of the answer."""
        self._body.append(data)

    def on_message_complete(self) -> None:
        """Hand the answer over."""
        if self._answer is not None and not self._answer.done():
            status = self._parser.get_status_code()
            self._answer.set_result(Reply(status, self._headers, b"".join(self._body)))
        self._headers, self._body = {}, []
        if not self._parser.should_keep_alive():
            self.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """Fail the request on its way."""
        self._transport = None
        self._fail(exc or ConnectionResetError("the server closed the connection"))

    @property
    def open(self) -> bool:
        """Whether a request can be sent."""
        return self._transport is not None

    async def ask(self, request: bytes) -> Reply:
        """Send a request and return the answer.

        Raises:
            FAILURES: There was none.
        """
        if self._transport is None:
            raise ConnectionResetError("the server closed the connection")
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return await asyncio.wait_for(self._answer, REQUEST_TIMEOUT_S)

    def close(self) -> None:
        """Close the connection."""
        if self._transport is not None:
            self._transport.close()
            self._transport = None

    def _fail(self, error: Exception) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(error)


def post(url: str, body: bytes) -> bytes:
    """Return the bytes of a POST of JSON."""
    parts = urlsplit(url)
    head = f"POST {parts.path or '/'} HTTP/1.1\r\nHost: {parts.netloc}\r\n"
    head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body
