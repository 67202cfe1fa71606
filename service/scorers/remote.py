"""A reranker on another machine, asked over HTTP: TEI, vLLM, or another DisRanker."""

from __future__ import annotations

import random
import threading
from collections.abc import Mapping, Sequence
from time import monotonic, sleep
from typing import Any, Literal

import httpx
import numpy as np

from service.contract.decoder_encoding import DecoderPairEncoder
from service.contract.template import document_text
from service.contract.types import Candidate, Float32s

Protocol = Literal["disranker", "tei", "vllm", "vllm-classify"]

ATTEMPTS = 8
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.25, 30.0
PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})
"""Statuses that another attempt may not get."""

MAX_MESSAGE_CHARS = 300


class RemoteError(Exception):
    """A reranker that did not answer as it should; the message names it and says why."""


class RemoteScorer:
    """Has raw scores computed elsewhere; several threads may ask at once.

    A request that fails for a passing reason is tried again, after what the server asks for or
    after a growing, random pause. The server reads texts, so it tokenises and cuts them as its own
    model does; vLLM's `/classify`, for decoders, reads token ids of ours (vLLM 0.15 or newer).
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
        if (protocol == "vllm-classify") != (encoder is not None):
            raise ValueError("vllm-classify and an encoder need each other")
        self.url = url.rstrip("/")
        self._protocol = protocol
        self._model = model
        self._encoder = encoder
        self._pacer = _Pacer(requests_per_s)
        headers = {"authorization": f"Bearer {key}"} if key else {}
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
        self._http = httpx.Client(timeout=timeout_s, headers=headers, limits=limits)

    def score(self, query: str, candidates: Sequence[Candidate]) -> Float32s:
        """Return the raw score of each candidate, float32 [n].

        Raises:
            RemoteError: The server cannot be reached, refuses, or answers with something else.
        """
        path, body = self._request(query, candidates)
        answer = self._post(path, body)
        try:
            return _scores(self._protocol, answer, len(candidates))
        except (KeyError, TypeError, ValueError) as error:
            raise RemoteError(f"{self.url}{path}: not {len(candidates)} scores: {error}") from None

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def _request(self, query: str, candidates: Sequence[Candidate]) -> tuple[str, dict[str, Any]]:
        if self._protocol == "disranker":
            documents = [{"title": c.title, "summary": c.summary} for c in candidates]
            return "/rank", {"query": query, "candidates": documents}
        fields = {"model": self._model} if self._model else {}
        if self._encoder is not None:
            pairs = self._encoder.encode(query, candidates)
            rows = [pair.input_ids.tolist() for pair in pairs]
            return "/classify", {"input": rows, "use_activation": False, **fields}
        texts = [document_text(candidate) for candidate in candidates]
        if self._protocol == "tei":
            body = {"query": query, "texts": texts, "raw_scores": True, "truncate": True}
            return "/rerank", body
        cut = {"truncate_prompt_tokens": -1, "use_activation": False}
        return "/score", {"queries": query, "documents": texts, **cut, **fields}

    def _post(self, path: str, body: Mapping[str, Any]) -> Any:
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


def _scores(protocol: Protocol, answer: Any, n: int) -> Float32s:
    """Return the scores in the request's order.

    Raises:
        KeyError: A part is missing.
        TypeError: A part is of another kind.
        ValueError: There are not n scores, or one is not finite.
    """
    places = {"disranker": "results", "vllm": "data", "vllm-classify": "data"}
    results = answer if protocol == "tei" else answer[places[protocol]]
    found = {int(result["index"]): _score(result) for result in results}
    if sorted(found) != [*range(n)] or len(results) != n:
        raise ValueError(f"there are {len(results)} for {len(found)} documents")
    values = np.array([found[index] for index in range(n)], dtype=np.float32)
    if not np.isfinite(values).all():
        raise ValueError("one is not finite")
    return values


def _score(result: Mapping[str, Any]) -> float:
    """Return a result's score; `/classify` has one a class, of which a ranker has one."""
    if "probs" not in result:
        return float(result["score"])
    if len(result["probs"]) != 1:
        raise ValueError(f"the model has {len(result['probs'])} classes; a ranker has 1")
    return float(result["probs"][0])
