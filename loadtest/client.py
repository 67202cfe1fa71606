"""A closed-loop HTTP client in a process of its own: `drive` runs it and returns its answers."""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loadtest.connection import FAILURES, REQUEST_TIMEOUT_S, Connection, post

START_TIMEOUT_S = 60.0


class ClientError(Exception):
    """The client process failed; the message is what it wrote last."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of one request.

    Attributes:
        body: Which of the bodies was sent.
        began_s: When it was sent, since the load began.
        latency_s: From sending the first byte to having the last of the answer.
        status: HTTP status; 0 where no answer came.
        text: The answer, or what went wrong.
    """

    body: int
    began_s: float
    latency_s: float
    status: int
    text: str

    @property
    def ok(self) -> bool:
        """Whether the request was answered as asked."""
        return self.status == 200

    @property
    def value(self) -> Any:
        """The answer's JSON."""
        return json.loads(self.text)


@dataclass(frozen=True, slots=True)
class Load:
    """What a load brought.

    Attributes:
        answers: All requests, in the order of their ends.
        cpu_share: The client's own CPU time over the wall time: near 1 it was the bottleneck.
    """

    answers: tuple[Answer, ...]
    cpu_share: float

    @property
    def ok(self) -> tuple[Answer, ...]:
        """The answered requests: no failed one counts as a fast one."""
        return tuple(answer for answer in self.answers if answer.ok)

    @property
    def failures(self) -> tuple[Answer, ...]:
        """The requests that were refused, failed or timed out."""
        return tuple(answer for answer in self.answers if not answer.ok)

    @property
    def wall_s(self) -> float:
        """From the first request's begin to the last one's end, failed ones included."""
        return max((a.began_s + a.latency_s for a in self.answers), default=0.0)


def drive(
    url: str,
    bodies: Sequence[bytes],
    *,
    clients: int = 1,
    seconds: float | None = None,
    requests: int | None = None,
) -> Load:
    """Send bodies in turn over kept-alive connections, each client one at a time.

    Args:
        url: Where to POST.
        bodies: JSON bodies without line breaks, sent in order and again from the first.
        clients: Requests on their way at a time.
        seconds: Begin no request after that long; those begun are waited for.
        requests: Send at most so many; by default each body once, or with seconds no limit.

    Raises:
        ClientError: The client process failed.
    """
    if requests is None and seconds is None:
        requests = len(bodies)
    with tempfile.TemporaryDirectory() as scratch:
        source, target = Path(scratch) / "bodies", Path(scratch) / "answers"
        source.write_bytes(b"\n".join(bodies))
        command = [sys.executable, "-m", "loadtest.client", url, str(source), str(target)]
        command += ["--clients", str(clients)]
        command += [] if seconds is None else ["--seconds", str(seconds)]
        command += [] if requests is None else ["--requests", str(requests)]
        limit_s = START_TIMEOUT_S + (seconds or 0) + REQUEST_TIMEOUT_S * (1 + (requests or 0))
        done = subprocess.run(command, capture_output=True, text=True, timeout=limit_s)  # noqa: S603
        if done.returncode:
            raise ClientError(f"the load client failed: {done.stderr.strip()[-500:]}")
        first, *rest = target.read_text(encoding="utf-8").split("\n")
    answers = tuple(Answer(*json.loads(line)) for line in rest if line)
    return Load(answers, json.loads(first)["cpu_share"])


async def _load(
    url: str, bodies: Sequence[bytes], *, clients: int, seconds: float, requests: int
) -> tuple[list[Answer], float]:
    """Return the answers and the share of a core that it took to get them."""
    ready = [post(url, body) for body in bodies]
    answers: list[Answer] = []
    numbers: Iterator[int] = iter(range(requests))
    loop = asyncio.get_running_loop()
    began = loop.time()

    async def client() -> None:
        connection: Connection | None = None
        for number in numbers:
            sent = loop.time()
            if sent - began > seconds:
                break
            try:
                if connection is None or not connection.open:
                    connection = await Connection.to(url)
                reply = await connection.ask(ready[number % len(ready)])
                status, text = reply.status, reply.body.decode()
            except FAILURES as error:
                status, text = 0, repr(error)
                if connection is not None:
                    connection.close()
            answers.append(
                Answer(number % len(ready), sent - began, loop.time() - sent, status, text)
            )
        if connection is not None:
            connection.close()

    cpu = time.process_time()
    await asyncio.gather(*(client() for _ in range(clients)))
    wall = loop.time() - began
    return answers, (time.process_time() - cpu) / wall


def main() -> None:
    """Run one load and write its answers."""
    parser = argparse.ArgumentParser(prog="python -m loadtest.client")
    parser.add_argument("url")
    parser.add_argument("bodies", type=Path)
    parser.add_argument("answers", type=Path)
    parser.add_argument("--clients", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=float("inf"))
    parser.add_argument("--requests", type=int, default=sys.maxsize)
    given = parser.parse_args()
    answers, cpu_share = asyncio.run(
        _load(
            given.url,
            given.bodies.read_bytes().split(b"\n"),
            clients=given.clients,
            seconds=given.seconds,
            requests=given.requests,
        )
    )
    rows = [[a.body, a.began_s, a.latency_s, a.status, a.text] for a in answers]
    lines = [json.dumps({"cpu_share": cpu_share}), *(json.dumps(row) for row in rows)]
    given.answers.write_text("\n".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main()
