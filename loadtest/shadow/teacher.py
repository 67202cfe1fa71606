"""A teacher without a model, in a process of its own: it answers, dawdles, hangs or errs.

It speaks text-embeddings-inference's `/rerank` and takes as little of the cores as it can: a real
one is on another machine.
"""

from __future__ import annotations

import argparse
import asyncio
import json
from typing import Literal, get_args

import httptools

Mode = Literal["answers", "slow", "hung", "crashing", "garbage"]
MODES: tuple[Mode, ...] = get_args(Mode)

ANSWER_S = 0.02
"""As long as a good teacher takes."""

SLOW = 10
"""How much longer a slow one takes."""


class Teacher(asyncio.Protocol):
    """A connection to it."""

    def __init__(self, mode: Mode) -> None:
        self._mode = mode
        self._parser = httptools.HttpRequestParser(self)
        self._body = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the way to answer."""
        assert isinstance(transport, asyncio.Transport)  # noqa: S101
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Read a part of a request."""
        self._parser.feed_data(data)

    def on_body(self, data: bytes) -> None:
        """Keep a part of a body."""
        self._body += data

    def on_message_complete(self) -> None:
        """Answer, or not."""
        body, self._body = self._body, b""
        if self._parser.get_method() == b"GET":
            self._write(b"{}")
        elif self._mode == "crashing" and self._transport is not None:
            self._transport.abort()
        elif self._mode == "garbage":
            self._write(b'[{"index": 0, "score": NaN}]')
        elif self._mode != "hung":
            factor = SLOW if self._mode == "slow" else 1
            loop = asyncio.get_running_loop()
            loop.call_later(factor * ANSWER_S, self._write, _scores(body))

    def _write(self, content: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            head = f"HTTP/1.1 200 OK\r\ncontent-length: {len(content)}\r\n\r\n"
            self._transport.write(head.encode() + content)


def _scores(body: bytes) -> bytes:
    texts = json.loads(body)["texts"]
    return json.dumps(
        [{"index": i, "score": len(text) / 100 + i / 7} for i, text in enumerate(texts)]
    ).encode()


async def _serve(port: int, mode: Mode) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Teacher(mode), "127.0.0.1", port)
    await server.serve_forever()


def main() -> None:
    """Serve until ended."""
    parser = argparse.ArgumentParser(prog="python -m loadtest.shadow.teacher")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--mode", choices=MODES, required=True)
    given = parser.parse_args()
    asyncio.run(_serve(given.port, given.mode))


if __name__ == "__main__":
    main()
