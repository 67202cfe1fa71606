"""A model in NVIDIA Triton, asked over gRPC."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from time import monotonic
from typing import Any

import numpy as np
from tritonclient.grpc import InferInput, InferRequestedOutput, InferResult
from tritonclient.grpc.aio import InferenceServerClient
from tritonclient.utils import InferenceServerException

from service.contract.encoding import TokenPair
from service.contract.manifest import Manifest
from service.contract.triton import (
    BUNDLE_PARAMETER,
    LOW,
    MAX_BATCH,
    NORMAL,
    PRECISION_PARAMETER,
    TritonPrecision,
    padding,
    widths,
)
from service.contract.types import Float32s, Scores
from service.engines.engine import EngineError, EngineOverloadedError, EngineUnavailableError
from service.scorers.buckets import Part, by_width, padded
from service.tracing import outgoing_traceparent

CHECK_S = 5.0
"""For Triton to say what it serves; it does so while it computes."""

CHANNEL = [
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    # One channel takes all requests; behind a name of several addresses it takes them in turn.
    ("grpc.lb_policy_name", "round_robin"),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
]

# As Triton 2.51 words them; all three, and a lost connection, are UNAVAILABLE.
QUEUE_FULL = "Exceeds maximum queue size"
QUEUE_TIMEOUT = "Request timeout expired"


class TritonEngine:
    """Pads pairs to the widths that the repository was made for, and leaves batching to Triton.

    Pairs of a request are split by width, at `MAX_BATCH` pairs, and asked for at the same time;
    Triton merges parts of one width, of any requests. The deadline goes along and is kept here too:
    what was not answered by then counts as not scored. A cancelled call is cancelled in Triton,
    where it costs nothing as long as it waits. The channel connects again by itself.
    """

    def __init__(
        self, url: str, *, model: str, manifest: Manifest, precision: TritonPrecision
    ) -> None:
        """Take what to ask for; nothing is asked yet.

        Args:
            url: Host and port of Triton's gRPC.
            model: What Triton calls the model.
            manifest: Of the bundle that it must have been made from.
            precision: What it must run.
        """
        self._url = url
        self._model = model
        self._expected = {BUNDLE_PARAMETER: manifest.version, PRECISION_PARAMETER: precision}
        self._inputs = manifest.inputs
        self._output = InferRequestedOutput(manifest.output)
        self._widths = widths(manifest.max_length)
        self._pad = padding(manifest)
        self._connection: InferenceServerClient | None = None
        self._version: str | None = None  # of the model that was last found to be the right one

    @property
    def served_version(self) -> float:
        """Triton's number of the model that answered last, NaN before."""
        return math.nan if self._version is None else float(self._version)

    async def score(
        self, pairs: Sequence[TokenPair], deadline: float, *, low: bool = False
    ) -> Scores:
        """Return one score a pair, 0 tokens and not `scored` where the deadline passed first.

        Raises:
            EngineOverloadedError: Triton's queue is full.
            EngineUnavailableError: It cannot be reached, or serves another model.
            EngineError: It failed on these pairs.
        """
        values = np.zeros(len(pairs), dtype=np.float32)
        scored = np.zeros(len(pairs), dtype=np.bool_)
        real_tokens = padded_tokens = 0
        parts = [*by_width(pairs, self._widths, MAX_BATCH)]
        calls = [asyncio.ensure_future(self._ask(pairs, part, deadline, low)) for part in parts]
        try:
            answers = await asyncio.gather(*calls)
        finally:
            for call in calls:
                call.cancel()
            await asyncio.gather(*calls, return_exceptions=True)
        for part, answer in zip(parts, answers, strict=True):
            if answer is not None:
                values[part.places], scored[part.places] = answer, True
                real_tokens += sum(len(pairs[place]) for place in part.places)
                padded_tokens += len(part.places) * part.width
        return Scores(values, scored, real_tokens, padded_tokens)

    async def check(self) -> None:
        """Pass where Triton has the model ready, made from the bundle, in the precision.

        Raises:
            EngineUnavailableError: It has not, or cannot be reached.
        """
        try:
            ready = await self._client.is_model_ready(self._model, client_timeout=CHECK_S)
            answer = await self._client.get_model_config(self._model, client_timeout=CHECK_S)
        except InferenceServerException as error:
            raise EngineUnavailableError(f"Triton at {self._url}: {error.message()}") from error
        if not ready:
            raise EngineUnavailableError(f"Triton at {self._url}: {self._model} is not ready")
        for key, expected in self._expected.items():
            found = answer.config.parameters[key].string_value
            if found != expected:
                raise EngineUnavailableError(
                    f"Triton at {self._url}: {self._model} has {key} {found or 'none'}, "
                    f"this service serves {expected}"
                )

    async def close(self) -> None:
        """Close the channel."""
        if self._connection is not None:
            await self._connection.close()

    @property
    def _client(self) -> Any:
        """The channel, opened where it is first needed: it belongs to the running event loop."""
        if self._connection is None:
            self._connection = InferenceServerClient(self._url, channel_args=CHANNEL)
        return self._connection

    async def _ask(
        self, pairs: Sequence[TokenPair], part: Part, deadline: float, low: bool
    ) -> Float32s | None:
        """Return a part's scores, None where the deadline passed first."""
        left_s = deadline - monotonic()
        if left_s <= 0:
            return None
        traceparent = outgoing_traceparent()
        try:
            result = await self._client.infer(
                self._model,
                self._tensors([pairs[place] for place in part.places], part.width),
                outputs=[self._output],
                priority=LOW if low else NORMAL,
                timeout=max(1, int(left_s * 1e6)),
                client_timeout=left_s,
                headers={"traceparent": traceparent} if traceparent else None,
            )
        except InferenceServerException as error:
            if _is_late(error):
                return None
            raise _failure(error, self._url) from error
        await self._trust(result.get_response().model_version)
        return self._scores_of(result, len(part.places))

    async def _trust(self, version: str) -> None:
        """Check the model again where another version of it answers than before."""
        if version != self._version:
            await self.check()
            self._version = version

    def _tensors(self, pairs: Sequence[TokenPair], width: int) -> list[InferInput]:
        known = padded(pairs, width, self._pad)
        tensors = [InferInput(name, [len(pairs), width], "INT64") for name in self._inputs]
        for tensor in tensors:
            tensor.set_data_from_numpy(known[tensor.name()])
        return tensors

    def _scores_of(self, result: InferResult, n: int) -> Float32s:
        scores = result.as_numpy(self._output.name())
        if scores is None or scores.shape != (n, 1) or scores.dtype != np.float32:
            found = None if scores is None else (scores.shape, scores.dtype)
            raise EngineError(f"Triton answered {found} for {n} pairs")
        if not np.isfinite(scores).all():
            raise EngineError(f"Triton scored {n} pairs as {scores[:, 0]}")
        return np.asarray(scores[:, 0])


def _is_late(error: InferenceServerException) -> bool:
    """Tell whether the deadline passed, here or in Triton's queue."""
    if error.status() == "StatusCode.DEADLINE_EXCEEDED":
        return True
    return error.status() == "StatusCode.UNAVAILABLE" and QUEUE_TIMEOUT in error.message()


def _failure(error: InferenceServerException, url: str) -> EngineError:
    status, message = error.status(), f"Triton at {url}: {error.message()}"
    if status == "StatusCode.UNAVAILABLE" and QUEUE_FULL in message:
        return EngineOverloadedError(message)
    if status in ("StatusCode.UNAVAILABLE", "StatusCode.NOT_FOUND", "StatusCode.CANCELLED"):
        return EngineUnavailableError(message)
    return EngineError(f"{status}: {message}")
