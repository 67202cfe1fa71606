"""JSON over HTTP to a server that may be busy: asked again, at a limited rate."""

from __future__ import annotations

import random
import threading
from collections.abc import Mapping
from time import monotonic, sleep
from typing import Any

import httpx

ATTEMPTS = 8
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.25, 30.0
PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})
"""Statuses that another attempt may not get."""

MAX_MESSAGE_CHARS = 300


class RemoteError(Exception):
    """A server that did not answer as it should; the message names it and says why."""


class JsonClient:
    """Posts JSON to one server; several threads may ask at once.

    A request that fails for a passing reason is tried again, after what the server asks for or
    after a growing, random pause.
    """

    def __init__(
        self,
        url: str,
        *,
        key: str | None = None,
        requests_per_s: float | None = None,
        timeout_s: float = 60.0,
    ) -> None:
        """Take a server.

        Args:
            url: Where it is, without the paths that are posted to.
            key: Bearer key.
            requests_per_s: Most requests a second, attempts included; None for no limit.
            timeout_s: How long one attempt may take.
        """
        self.url = url.rstrip("/")
        self._pacer = _Pacer(requests_per_s)
        headers = {"authorization": f"Bearer {key}"} if key else {}
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
        self._http = httpx.Client(timeout=timeout_s, headers=headers, limits=limits)

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def post(self, path: str, body: Mapping[str, Any]) -> Any:
        """Return the JSON that the server answers.

        Raises:
            RemoteError: The server cannot be reached, refuses, or answers with something else.
        """
        url = self.url + path
        for attempt in range(ATTEMPTS):
            self._pacer.wait()
            pause_s = _pause_s(attempt)
            try:
                answer = self._http.post(url, json=body)
            except httpx.TransportError as error:
                failure = f"{type(error).__name__} {error}".strip()
            else:
                if answer.is_success:
                    return _json(answer)
                failure = f"{answer.status_code} {_message(answer)}"
                if answer.status_code not in PASSING:
                    break
                pause_s = max(pause_s, _asked_pause_s(answer))
            if attempt < ATTEMPTS - 1:
                sleep(pause_s)
        raise RemoteError(f"{url}: {failure} (attempt {attempt + 1} of {ATTEMPTS})")


class _Pacer:
    """Lets so many pass a second, evenly."""

    def __init__(self, per_s: float | None) -> None:
        self._gap_s = 1 / per_s if per_s else 0.0
        self._next = 0.0
        self._lock = threading.Lock()

    def wait(self) -> None:
        if not self._gap_s:
            return
        with self._lock:
            turn = max(self._next, monotonic())
            self._next = turn + self._gap_s
        sleep(max(0.0, turn - monotonic()))


def _pause_s(attempt: int) -> float:
    longest = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2.0**attempt)
    return longest * random.uniform(0.5, 1)  # so that many clients do not come back together


def _asked_pause_s(answer: httpx.Response) -> float:
    """Return how long the server asks to wait; 0 where it does not say in seconds."""
    for name, unit_s in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        try:
            return min(LONGEST_PAUSE_S, float(answer.headers[name]) * unit_s)
        except (KeyError, ValueError):
            continue
    return 0.0


def _json(answer: httpx.Response) -> Any:
    try:
        return answer.json()
    except ValueError:
        raise RemoteError(f"{answer.url}: the answer is no JSON: {_start(answer)}") from None


def _message(answer: httpx.Response) -> str:
    """Return what the server says, whatever the key it says it under."""
    try:
        body = answer.json()
        found = next(body[key] for key in ("detail", "message", "error") if body.get(key))
        return str(found)[:MAX_MESSAGE_CHARS]
    except (ValueError, AttributeError, StopIteration):
        return _start(answer)


def _start(answer: httpx.Response) -> str:
    return answer.text[:MAX_MESSAGE_CHARS]
