"""Connections, bounded in number, and in how large and how slow a request's head may be."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from http import HTTPStatus
from uuid import uuid4

from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from service.api.problems import problem_response
from service.api.record import SECURITY_HEADERS

log = logging.getLogger(__name__)

MAX_HEAD_BYTES = 65_536
"""Of a request line and its headers; uvicorn's parser has no limit of its own."""

HEAD_END = b"\r\n\r\n"

HEAD_TIMEOUT_S = 30
"""For a connection's first head to come, and for a head that began to end."""

REST_TIMEOUT_S = 30
"""For the rest of a body to come when the request was answered without it."""


def bounded_protocol(
    max_connections: int,
    *,
    head_timeout_s: float = HEAD_TIMEOUT_S,
    rest_timeout_s: float = REST_TIMEOUT_S,
) -> type[HttpToolsProtocol]:
    """Return uvicorn's HTTP protocol for at most max_connections at a time.

    One more closes an idle connection, or is closed itself where none is idle.

    Args:
        max_connections: Of clients, at a time.
        head_timeout_s: How long a connection's first head may take to come, and one that began.
        rest_timeout_s: How long to take in what is left of a body that was answered already.
    """

    class BoundedProtocol(HttpToolsProtocol):
        """A connection whose request's head is bounded in bytes and seconds."""

        _head_timer: asyncio.TimerHandle | None = None
        _head_bytes = 0
        _rest_timer: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            self._await_head()
            if len(self.connections) > max_connections:
                (_first_idle(self.connections) or self.transport).close()

        def connection_lost(self, exc: Exception | None) -> None:
            self._end_head()
            self._end_rest()
            super().connection_lost(exc)

        def data_received(self, data: bytes) -> None:
            self._unset_keepalive_if_required()
            if self._is_between_requests():
                self._await_head()
            if self._head_timer is not None:
                self._head_bytes += _head_part(data)
                if self._head_bytes > MAX_HEAD_BYTES:
                    message = f"a request's head has at most {MAX_HEAD_BYTES} bytes"
                    self._refuse(431, "head_too_large", message)
                    return
            try:
                self._feed(data)
            except HttpParserError:
                self.send_400_response("Invalid HTTP request received.")

        def on_message_begin(self) -> None:
            super().on_message_begin()
            self._await_head()

        def on_headers_complete(self) -> None:
            self._end_head()
            if not self.parser.should_upgrade():
                super().on_headers_complete()

        def on_response_complete(self) -> None:
            super().on_response_complete()
            if self.cycle.response_complete and self.cycle.more_body:
                # Reading it keeps the answer deliverable; uvicorn would do so without end.
                self._rest_timer = self.loop.call_later(rest_timeout_s, self.transport.abort)

        def on_message_complete(self) -> None:
            if not self.parser.should_upgrade():
                super().on_message_complete()
                self._end_rest()

        def send_400_response(self, msg: str) -> None:
            """Answer what is no HTTP as every error is answered, and hang up."""
            self._refuse(400, "invalid_http", msg)

        def timeout_keep_alive_handler(self) -> None:
            self.transport.abort()  # a close would wait for a client that never reads its answer

        def _refuse(self, status: int, error_type: str, message: str) -> None:
            request_id = uuid4().hex
            log.warning(message, extra={"fields": {"request_id": request_id}})
            problem = problem_response(
                status=status,
                error_type=error_type,
                detail=message,
                request_id=request_id,
                headers={"connection": "close", "x-request-id": request_id},
            )
            own = self.server_state.default_headers
            headers = [*own, *SECURITY_HEADERS, *problem.raw_headers]
            lines = b"".join(b"%b: %b\r\n" % header for header in headers)
            body = bytes(problem.body)
            line = f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\n".encode()
            self.transport.write(b"%b%b\r\n%b" % (line, lines, body))
            self._end_head()
            self.transport.close()

        def _feed(self, data: bytes) -> None:
            """Parse, and where another protocol is offered, stay with this one.

            Java's client offers h2c with every request, and the parser would take the body for
            that protocol's: what follows such a head is read after the same head without it.
            """
            rest = memoryview(data)
            while rest:
                try:
                    self.parser.feed_data(rest)
                    return
                except HttpParserUpgrade as upgrade:
                    rest = rest[upgrade.args[0] :]
                    head = self._head_without_upgrade()
                    self.parser = HttpRequestParser(self)
                    self.parser.feed_data(head)

        def _head_without_upgrade(self) -> bytes:
            if self.parser.get_method() == b"CONNECT":
                raise HttpParserError("a tunnel")
            version = self.parser.get_http_version().encode()
            line = b"%b %b HTTP/%b\r\n" % (self.parser.get_method(), self.url, version)
            kept = (header for header in self.headers if header[0] != b"upgrade")
            return line + b"".join(b"%b: %b\r\n" % header for header in kept) + b"\r\n"

        def _is_between_requests(self) -> bool:
            done = self.cycle and self.cycle.response_complete and not self.cycle.more_body
            return bool(done) and self._head_timer is None

        def _await_head(self) -> None:
            """Give a head its time and its bytes; one that began keeps what it has used."""
            if self._head_timer is not None:
                return
            self._head_bytes = 0
            self._head_timer = self.loop.call_later(head_timeout_s, self.transport.abort)

        def _end_head(self) -> None:
            if self._head_timer is not None:
                self._head_timer.cancel()
                self._head_timer = None

        def _end_rest(self) -> None:
            if self._rest_timer is not None:
                self._rest_timer.cancel()
                self._rest_timer = None

    return BoundedProtocol


def _head_part(data: bytes) -> int:
    """Return how much of what came while a head was awaited belongs to it."""
    end = data.find(HEAD_END)
    return len(data) if end < 0 else end


def _first_idle(connections: Iterable[object]) -> asyncio.Transport | None:
    """Return the transport of a connection that waits for its client's next request."""
    ours = (one for one in connections if isinstance(one, HttpToolsProtocol))
    return next((one.transport for one in ours if one.timeout_keep_alive_task), None)
