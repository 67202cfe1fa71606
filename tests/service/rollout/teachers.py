"""Teachers over HTTP that do as they are told: answer, hang, crash, dawdle or talk nonsense."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

Behaviour = Callable[["Teacher", dict[str, Any]], Awaitable[bytes | None]]
"""Returns what is written for a body, the status line included; None closes the connection."""


def reply(status: int, content: object, **headers: str) -> bytes:
    """Return an HTTP answer."""
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    fields = {"content-length": str(len(body)), **headers}
    head = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in fields.items())
    return f"HTTP/1.1 {status} X\r\n{head}\r\n".encode() + body


def scored(body: dict[str, Any]) -> list[dict[str, Any]]:
    """Return TEI's answer: a text scores its length."""
    return [{"index": i, "score": float(len(t))} for i, t in enumerate(body["texts"])][::-1]


async def answers(_: Teacher, body: dict[str, Any]) -> bytes:
    return reply(200, scored(body))


async def hangs(teacher: Teacher, _: dict[str, Any]) -> None:
    await teacher.closing.wait()


async def crashes(*_: object) -> None:
    return None


async def talks_nonsense(teacher: Teacher, body: dict[str, Any]) -> bytes:
    """Take a different kind of nonsense each time."""
    kinds = [
        reply(200, b"<html>"),
        reply(200, b'[{"index": 0, "score": NaN}]'),
        reply(200, [{"index": 0, "score": 1e300}] * len(body["texts"])),
        reply(200, scored(body)[1:]),
        reply(200, {"results": None}),
        reply(200, b"[" * 100_000),
        reply(200, b"x" * 1_200_000),
        b"SMTP ready\r\n\r\n",
        reply(200, b"\x1f\x8b\x08", content_encoding="gzip"),
        reply(418, b"\xff\xfe"),
    ]
    return kinds[len(teacher.bodies) % len(kinds)]


class Teacher:
    """A server on loopback.

    Attributes:
        behaviour: What it does with a request; may be changed while it runs.
        bodies: What it was asked.
        heads: The heads of those requests.
    """

    def __init__(self, behaviour: Behaviour = answers) -> None:
        self.behaviour = behaviour
        self.bodies: list[dict[str, Any]] = []
        self.heads: list[bytes] = []
        self._writers: set[asyncio.StreamWriter] = set()
        self.closing = asyncio.Event()
        self.url = ""

    @property
    def connections(self) -> int:
        """How many it has."""
        return len(self._writers)

    @asynccontextmanager
    async def run(self) -> AsyncIterator[Teacher]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        try:
            yield self
        finally:
            self.closing.set()
            server.close()
            for writer in [*self._writers]:
                writer.close()
            while self._writers:  # noqa: ASYNC110
                await asyncio.sleep(0.01)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            with suppress(asyncio.IncompleteReadError, ConnectionError):
                while not self.closing.is_set():
                    head = await reader.readuntil(b"\r\n\r\n")
                    size = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
                    body = json.loads(await reader.readexactly(size))
                    self.heads.append(head)
                    self.bodies.append(body)
                    answer = await self.behaviour(self, body)
                    if answer is None:
                        return
                    writer.write(answer)
                    await writer.drain()
        finally:
            self._writers.discard(writer)
            writer.close()
