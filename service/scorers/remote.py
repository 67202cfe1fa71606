"""A reranker on another machine, asked over HTTP: TEI, vLLM, or another DisRanker."""

from __future__ import annotations

import random
import threading
from collections.abc import Mapping, Sequence
from time import monotonic, sleep
from typing import Any

import httpx

from service.contract.decoder_encoding import DecoderPairEncoder
from service.contract.types import Candidate, Float32s
from service.scorers.wire import LONGEST_PAUSE_S, Protocol, Wire, asked_pause_s, message_of

ATTEMPTS = 8
FIRST_PAUSE_S = 0.25
PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})
"""Statuses that another attempt may not get."""


class RemoteError(Exception):
    """A reranker that did not answer as it should; the message names it and says why."""


class RemoteScorer:
    """Has raw scores computed elsewhere; several threads may ask at once.

    A request that fails for a passing reason is tried again, after what the server asks for or
    after a growing, random pause.
    """

    def __init__(
        self,
        url: str,
        protocol: Protocol,
        *,
        model: str | None = None,
        encoder: DecoderPairEncoder | None = None,
        key: str | None = None,
        requests_per_s: float | None = None,
        timeout_s: float = 60.0,
    ) -> None:
        """Take a server.

        Args:
            url: Where it is, without the path that ranks.
            protocol: What it speaks.
            model: What it calls its model; vLLM needs it.
            encoder: Makes the token ids that vLLM's `/classify` is given, which needs one.
            key: Bearer key.
            requests_per_s: Most requests a second, attempts included; None for no limit.
            timeout_s: How long one attempt may take.

        Raises:
            ValueError: An encoder is missing, or there is one for a server that reads texts.
        """
        self._wire = Wire(protocol, model=model, encoder=encoder)
        self.url = url.rstrip("/")
        self._pacer = _Pacer(requests_per_s)
        headers = {"authorization": f"Bearer {key}"} if key else {}
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
        self._http = httpx.Client(timeout=timeout_s, headers=headers, limits=limits)

    def score(self, query: str, candidates: Sequence[Candidate]) -> Float32s:
        """Return the raw score of each candidate, float32 [n].

        Raises:
            RemoteError: The server cannot be reached, refuses, or answers with something else.
        """
        url = self.url + self._wire.path
        answer = self._post(url, self._wire.body(query, candidates))
        try:
            return self._wire.scores(answer, len(candidates))
        except ValueError as error:
            raise RemoteError(f"{url}: {error}") from None

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def _post(self, url: str, body: Mapping[str, Any]) -> bytes:
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
