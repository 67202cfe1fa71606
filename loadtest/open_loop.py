"""An open-loop HTTP client in a process of its own: it sends when it is due, answered or not.

A closed-loop client waits for an answer before it asks again, so a server that stalls is asked
less while it stalls, and the wait of all who would have come is not measured.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Literal

from loadtest.arrivals import Schedule
from loadtest.client import START_TIMEOUT_S, ClientError
from loadtest.connection import FAILURES, REQUEST_TIMEOUT_S, Connection, Reply, post
from loadtest.statistics import percentile

Outcome = Literal["ok", "rejected", "expired", "error", "lost", "unsent"]
OUTCOMES: tuple[Outcome, ...] = ("ok", "rejected", "expired", "error", "lost", "unsent")

CONNECTIONS = 512
"""Most at a time; more requests without an answer are not sent, and counted as unsent."""

IDLE_S = 2.0
"""A connection unused for longer is not used again, since the server may be closing it."""

LAG_LIMIT_S = 0.02
"""A client that sends one in a hundred requests later than this is behind its schedule."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """What became of one scheduled request.

    Attributes:
        body: Which of the bodies it had.
        due_s: When it was scheduled, since the load began.
        sent_s: When the client came to send it; NaN where it never did.
        latency_s: From when it was due to the last byte of the answer; NaN without one.
        status: HTTP status; 0 without an answer.
        handler_s: The service's own time for it, as `Server-Timing` tells; NaN where it does not.
        text: The answer, or what went wrong.
    """

    body: int
    due_s: float
    sent_s: float
    latency_s: float
    status: int
    handler_s: float
    text: str

    @property
    def outcome(self) -> Outcome:
        """What became of it."""
        if self.status == 0:
            return "unsent" if math.isnan(self.sent_s) else "lost"
        named: dict[int, Outcome] = {200: "ok", 429: "rejected", 504: "expired"}
        return named.get(self.status, "error")


@dataclass(frozen=True, slots=True)
class OpenLoad:
    """What a schedule brought.

    Attributes:
        arrivals: All requests, as they were due.
    """

    arrivals: tuple[Arrival, ...]

    @property
    def outcomes(self) -> Counter[Outcome]:
        """How many requests came to which end."""
        return Counter(arrival.outcome for arrival in self.arrivals)

    @property
    def lag_p99_s(self) -> float:
        """How late the client was: the 99th percentile from due to sent; 0 if it sent nothing."""
        lags = [a.sent_s - a.due_s for a in self.arrivals if a.outcome != "unsent"]
        return percentile(lags or [0.0], 99)

    @property
    def behind(self) -> bool:
        """Whether the client could not keep to its schedule, so that less was offered."""
        return self.outcomes["unsent"] > 0 or self.lag_p99_s > LAG_LIMIT_S


def send(
    url: str, bodies: Sequence[bytes], schedule: Schedule, *, connections: int = CONNECTIONS
) -> OpenLoad:
    """Send bodies when they are due, and wait for the last answer.

    Args:
        url: Where to POST.
        bodies: JSON bodies without line breaks, sent in order and again from the first.
        schedule: When to send.
        connections: Most requests without an answer.

    Raises:
        ClientError: The client process failed.
    """
    with tempfile.TemporaryDirectory() as scratch:
        source, due, target = (Path(scratch) / name for name in ("bodies", "due", "arrivals"))
        source.write_bytes(b"\n".join(bodies))
        due.write_text(json.dumps(schedule), encoding="utf-8")
        command = [sys.executable, "-m", "loadtest.open_loop", url]
        command += [str(source), str(due), str(target), "--connections", str(connections)]
        limit_s = START_TIMEOUT_S + max(schedule, default=0.0) + 2 * REQUEST_TIMEOUT_S
        done = subprocess.run(command, capture_output=True, text=True, timeout=limit_s)  # noqa: S603
        if done.returncode:
            raise ClientError(f"the load client failed: {done.stderr.strip()[-500:]}")
        lines = target.read_text(encoding="utf-8").splitlines()
    arrivals = (Arrival(*json.loads(line)) for line in lines)
    return OpenLoad(tuple(sorted(arrivals, key=lambda a: a.due_s)))


class _Pool:
    """Kept-alive connections to one server, used latest first."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._idle: list[tuple[float, Connection]] = []

    async def ask(self, request: bytes) -> Reply:
        """Send a request over a connection of its own and return the answer."""
        connection = self._kept() or await Connection.to(self._url)
        try:
            reply = await connection.ask(request)
        except BaseException:
            connection.close()
            raise
        self._idle.append((time.monotonic(), connection))
        return reply

    def close(self) -> None:
        """Close what is idle."""
        for _, connection in self._idle:
            connection.close()

    def _kept(self) -> Connection | None:
        while self._idle:
            since, connection = self._idle.pop()
            if connection.open and time.monotonic() - since < IDLE_S:
                return connection
            connection.close()
        return None


async def _send_all(
    url: str, bodies: Sequence[bytes], schedule: Sequence[float], connections: int
) -> list[Arrival]:
    """Return the arrivals as they ended."""
    requests = [post(url, body) for body in bodies]
    pool = _Pool(url)
    arrivals: list[Arrival] = []
    waiting = 0
    loop = asyncio.get_running_loop()
    began = loop.time()

    async def ask(body: int, due_s: float) -> None:
        nonlocal waiting
        sent_s, latency_s, handler_s, status = loop.time() - began, math.nan, math.nan, 0
        waiting += 1
        try:
            reply = await pool.ask(requests[body])
            latency_s = loop.time() - began - due_s
            status, text = reply.status, reply.body.decode()
            handler_s = _handler_s(reply.headers.get("server-timing", ""))
        except FAILURES as error:
            text = repr(error)
        finally:
            waiting -= 1
        arrivals.append(Arrival(body, due_s, sent_s, latency_s, status, handler_s, text))

    async with asyncio.TaskGroup() as group:
        for number, due_s in enumerate(schedule):
            await asyncio.sleep(max(0.0, began + due_s - loop.time()))
            body = number % len(requests)
            if waiting < connections:
                group.create_task(ask(body, due_s))
            else:
                text = f"{waiting} requests were without an answer"
                arrivals.append(Arrival(body, due_s, math.nan, math.nan, 0, math.nan, text))
    pool.close()
    return arrivals


def _handler_s(server_timing: str) -> float:
    """Return the `total` of a Server-Timing header in seconds; NaN without one."""
    for metric in server_timing.split(","):
        name, *fields = (part.strip() for part in metric.split(";"))
        for field in fields:
            if name == "total" and field.startswith("dur="):
                return float(field.removeprefix("dur=")) / 1000
    return math.nan


def main() -> None:
    """Send one schedule and write what became of it."""
    parser = argparse.ArgumentParser(prog="python -m loadtest.open_loop")
    parser.add_argument("url")
    parser.add_argument("bodies", type=Path)
    parser.add_argument("due", type=Path)
    parser.add_argument("arrivals", type=Path)
    parser.add_argument("--connections", type=int, default=CONNECTIONS)
    given = parser.parse_args()
    bodies = given.bodies.read_bytes().split(b"\n")
    schedule = json.loads(given.due.read_text(encoding="utf-8"))
    arrivals = asyncio.run(_send_all(given.url, bodies, schedule, given.connections))
    lines = (json.dumps(astuple(arrival)) for arrival in arrivals)
    given.arrivals.write_text("\n".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main()
