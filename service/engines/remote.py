"""A reranker elsewhere, asked over HTTP for texts: vLLM, TEI, or another instance of ours."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from time import monotonic

import aiohttp
import numpy as np
from pydantic_core import to_json

from service.contract.types import Candidate, Float32s
from service.engines.engine import (
    EngineAnswerError,
    EngineError,
    EngineLateError,
    EngineOverloadedError,
    EngineRefusedError,
    EngineUnavailableError,
)
from service.runtime import step_back
from service.scorers.wire import Wire, asked_pause_s

ATTEMPTS = 3
FIRST_PAUSE_S = 0.05
MAX_CONNECTIONS = 64
MAX_ANSWER_BYTES = 1_000_000
"""Of one part's answer; a hundred times what 32 scores take."""

PART = 32
"""Candidates asked for at a time: text-embeddings-inference takes no more by default."""


class RemoteReranker:
    """Has raw scores computed elsewhere, for many requests side by side.

    The parts of a request are asked for at the same time, and all of them are answered or none. A
    part is tried again after a random, growing pause where nobody listened, or the server was busy
    (429) or not ready (503), as long as the deadline allows. Errors name the server and the status,
    never what it wrote, which may be a part of a document.
    """

    def __init__(self, url: str, wire: Wire, *, key: str | None = None, part: int = PART) -> None:
        """Take a server; nothing is sent yet.

        Args:
            url: Where it is, without the path that ranks.
            wire: What it speaks.
            key: Bearer key.
            part: Most candidates asked for at a time.
        """
        self._url = url.rstrip("/") + wire.path
        self._wire = wire
        self._part = part
        headers = {"content-type": "application/json", "accept-encoding": "identity"}
        if key:
            headers["authorization"] = f"Bearer {key}"
        self._headers = headers
        self._session: aiohttp.ClientSession | None = None
        self._threads = ThreadPoolExecutor(1, "remote", initializer=step_back)

    async def score(self, query: str, candidates: Sequence[Candidate], deadline: float) -> Float32s:
        """Return the raw score of each candidate, float32 [n].

        Args:
            query: Query text.
            candidates: The documents, at least one.
            deadline: When the answer stops being useful, in `time.monotonic()` seconds.

        Raises:
            EngineLateError: There was no answer by the deadline.
            EngineUnavailableError: Nobody listens, or the server is not ready.
            EngineOverloadedError: It is busy.
            EngineRefusedError: It says that the request is wrong, or that we may not ask.
            EngineAnswerError: It answers with something else than scores.
            EngineError: It failed.
        """
        starts = range(0, len(candidates), self._part)
        parts = [candidates[start : start + self._part] for start in starts]
        try:
            async with asyncio.timeout(max(0.0, deadline - monotonic())):
                bodies = await asyncio.get_running_loop().run_in_executor(
                    self._threads, self._bodies, query, parts
                )
                async with asyncio.TaskGroup() as group:
                    tasks = [
                        group.create_task(self._score(body, len(part), deadline))
                        for body, part in zip(bodies, parts, strict=True)
                    ]
        except TimeoutError:
            raise EngineLateError(f"{self._url} did not answer in time") from None
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from None
        return np.concatenate([task.result() for task in tasks])

    async def close(self) -> None:
        """Close the connections; what is on its way fails."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        if self._session is not None:
            await self._session.close()

    @property
    def _http(self) -> aiohttp.ClientSession:
        """The connections, made where they are first needed: they belong to the running loop."""
        if self._session is None:
            self._session = aiohttp.ClientSession(
                headers=self._headers,
                timeout=aiohttp.ClientTimeout(total=None),  # every request has its deadline
                connector=aiohttp.TCPConnector(limit=MAX_CONNECTIONS),
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,  # an answer stays as long as it came
            )
        return self._session

    def _bodies(self, query: str, parts: Sequence[Sequence[Candidate]]) -> list[bytes]:
        return [to_json(self._wire.body(query, part)) for part in parts]

    async def _score(self, body: bytes, n: int, deadline: float) -> Float32s:
        for attempt in range(1, ATTEMPTS + 1):
            pause_s = FIRST_PAUSE_S * 2**attempt * random.uniform(0.5, 1)
            failure: EngineError
            try:
                status, headers, content = await self._post(body)
            except aiohttp.ClientConnectionError as error:
                failure = EngineUnavailableError(f"{self._url}: {type(error).__name__}")
            except aiohttp.ClientError as error:
                raise EngineAnswerError(f"{self._url}: {type(error).__name__}") from None
            else:
                if status == 200:
                    return self._read(content, n)
                failure = _failure(status, f"{self._url}: {status}")
                if status not in (429, 503):
                    raise failure
                pause_s = max(pause_s, asked_pause_s(headers))
            if attempt == ATTEMPTS or monotonic() + pause_s >= deadline:
                raise failure
            await asyncio.sleep(pause_s)
        raise AssertionError("unreachable")

    async def _post(self, body: bytes) -> tuple[int, Mapping[str, str], bytes]:
        """Return what comes back, unless it is far longer than scores are.

        Raises:
            aiohttp.ClientError: There was no answer, or none that is HTTP.
            EngineAnswerError: It is too long.
        """
        async with self._http.post(self._url, data=body, allow_redirects=False) as answer:
            content = bytearray()
            async for chunk in answer.content.iter_any():
                content += chunk
                if len(content) > MAX_ANSWER_BYTES:
                    raise EngineAnswerError(f"{self._url}: over {MAX_ANSWER_BYTES} bytes")
            return answer.status, answer.headers, bytes(content)

    def _read(self, content: bytes, n: int) -> Float32s:
        try:
            return self._wire.scores(content, n)
        except ValueError:  # its message may quote the answer, and the answer a document
            raise EngineAnswerError(f"{self._url}: not {n} finite scores") from None


def _failure(status: int, message: str) -> EngineError:
    if status == 429:
        return EngineOverloadedError(message)
    if status in (502, 503, 504):
        return EngineUnavailableError(message)
    return EngineRefusedError(message) if 300 <= status < 500 else EngineError(message)
