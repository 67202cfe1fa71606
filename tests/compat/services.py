"""The services that the clients are run against: one with keys, and one that stays busy."""

from __future__ import annotations

import json
import socket
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import httpx

from loadtest.server import ROOT, Server, our_service
from tests.compat.programs.checks import BLANK, WRONG_KEY, Task

BUNDLE = ROOT / "models" / "default"
KEY, RATED_KEY = "the-key-of-the-compat-tests", "the-rated-key-of-the-compat-tests"

QUERY = "how do bees make honey"
DOCUMENTS = (
    "The best honeymoon islands in Europe.",
    "Bees thicken nectar by fanning it with their wings until it is honey.",
    "The spelling bee was won by a girl of nine.",
    "Worker bees store nectar in wax combs, where enzymes turn it to honey.",
    "Wasps build their nests of paper and make no honey.",
    "A kettle boils water in three minutes.",
)

WAIT_S = 2.5
"""How long the rated key waits for its next request; between the second and the third try of
clients that do not look at Retry-After."""

BURST_S = 0.1
HOLD_S = 3600
LOGGED = ("--log-level", "info")
READY_TIMEOUT_S = 10
HEAD = b"POST /rank HTTP/1.1\r\nhost: busy\r\ncontent-length: 9\r\nexpect: 100-continue\r\n\r\n"
CONTINUE = b"HTTP/1.1 100 Continue"


@dataclass(frozen=True, slots=True)
class Attempt:
    """One request that a service logged.

    Attributes:
        path: Where to.
        status: What was answered.
    """

    path: str
    status: int


class Services:
    """Both services, and what they logged of whom."""

    def __init__(self, task: Task, serving: Server, busy: Server) -> None:
        self.task = task
        self._logs = {"serving": serving.log, "busy": busy.log}

    def mark(self) -> dict[str, int]:
        """Return where the logs end now."""
        return {name: log.stat().st_size for name, log in self._logs.items()}

    def since(self, mark: dict[str, int], name: str, *, key: str | None = None) -> list[Attempt]:
        """Return the requests that a service logged after a mark, of one key or of all."""
        lines = self._logs[name].read_bytes()[mark[name] :].splitlines()
        logged = [line for line in map(json.loads, lines) if line["message"] == "request"]
        return [
            Attempt(line["path"], line["status"])
            for line in logged
            if key is None or line["key"] == key
        ]


@contextmanager
def services(bundle: Path = BUNDLE) -> Iterator[Services]:
    """Start both services on a bundle; end them with the block."""
    with ExitStack() as stack:
        hold = ("--max-requests", "1", "--default-deadline-ms", str(1000 * HOLD_S))
        busy = stack.enter_context(our_service(bundle, *hold, *LOGGED))
        with httpx.Client() as client:
            truth = client.post(f"{busy.url}/rank", json=question()).raise_for_status().json()
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            settings = settings_file(folder, truth["usage"]["total_tokens"] / WAIT_S)
            serving = stack.enter_context(our_service(bundle, "--config", str(settings), *LOGGED))
            stack.enter_context(held(busy.url))
            task = Task(
                url=serving.url,
                busy_url=busy.url,
                key=KEY,
                rated_key=RATED_KEY,
                query=QUERY,
                documents=[*DOCUMENTS],
                truth=truth["results"],
                reasons=reasons(client, serving.url, busy.url),
            )
        yield Services(task, serving, busy)


def question(query: str = QUERY) -> dict[str, Any]:
    """Return the same request for `/rank`."""
    return {"query": query, "candidates": [{"text": text} for text in DOCUMENTS]}


def settings_file(folder: Path, tokens_per_s: float) -> Path:
    """Write settings with a key for anything, and one that has to wait."""
    path = folder / "settings.toml"
    path.write_text(
        key_table("free", KEY)
        + key_table("rated", RATED_KEY)
        + f"tokens_per_s = {tokens_per_s}\nburst_s = {BURST_S}\n",
        encoding="utf-8",
    )
    return path


def key_table(name: str, key: str) -> str:
    """Return the settings of a key."""
    digest = sha256(key.encode()).hexdigest()
    return f'[[keys]]\nname = "{name}"\nsha256 = "{digest}"\n'


@contextmanager
def held(url: str) -> Iterator[None]:
    """Keep the only request that a service takes in progress: a body that never comes."""
    host, port = url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=READY_TIMEOUT_S) as sock:
        sock.sendall(HEAD)
        assert sock.recv(len(CONTINUE)) == CONTINUE  # it is waiting for the body
        yield


def reasons(client: httpx.Client, url: str, busy_url: str) -> dict[str, str]:
    """Return the words that the services give for each status."""
    cases: Sequence[tuple[str, str, str]] = (
        (url, WRONG_KEY, QUERY),
        (url, KEY, BLANK),
        (busy_url, KEY, QUERY),
    )
    found = {}
    for base, key, query in cases:
        answer = client.post(
            f"{base}/rank", json=question(query), headers={"authorization": f"Bearer {key}"}
        )
        # Without the field, whose name is the dialect's.
        found[str(answer.status_code)] = answer.json()["detail"].rpartition(": ")[2]
    return found
