"""JSON over HTTP to a server that may be busy: asked again, at a limited rate."""

from __future__ import annotations

import random
import threading
from collections.abc import Mapping
from time import monotonic, sleep
from typing import Any

import httpx
from pydantic_core import from_json

from service.scorers.wire import LONGEST_PAUSE_S, asked_pause_s, message_of, start_of

ATTEMPTS = 8
FIRST_PAUSE_S = 0.25
PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})
"""Statuses that another attempt may not get."""


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
        content = self.send(path, body)
        try:
            return from_json(content)
        except ValueError:
            raise RemoteError(
                f"{self.url}{path}: the answer is no JSON: {start_of(content)}"
            ) from None

    def send(self, path: str, body: Mapping[str, Any]) -> bytes:
        """Return what the server answers, unread.

        Raises:
            RemoteError: The server cannot be reached, or refuses.
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
                    return answer.content
                failure = f"{answer.status_code} {message_of(answer.content)}"
                if answer.status_code not in PASSING:
                    break
                pause_s = max(pause_s, asked_pause_s(answer.headers))
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
