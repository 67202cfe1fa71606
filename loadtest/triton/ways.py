"""Three ways to the same scores: in this process, by gRPC, by gRPC and shared memory."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from tritonclient.grpc import InferInput, InferRequestedOutput
from tritonclient.grpc.aio import InferenceServerClient
from tritonclient.utils import InferenceServerException, shared_memory

from service.contract.types import Float32s
from service.scorers.onnx import OUTPUT, open_session

Feeds = dict[str, NDArray[np.int64]]

MESSAGES = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]

RELEASES, RELEASE_S = 100, 0.02
"""How often Triton is asked to forget a region, and how long it has in between."""


class Way(Protocol):
    """Scores a request's padded pairs."""

    async def score(self, feeds: Feeds) -> Float32s:
        """Return the raw logit of each row, float32 [n]."""
        ...


class InProcess:
    """ONNX Runtime beside the event loop, one call at a time with all cores, as Triton has it."""

    def __init__(self, model: Path) -> None:
        self._session = open_session(model)
        self._thread = ThreadPoolExecutor(1)

    async def score(self, feeds: Feeds) -> Float32s:
        """Return the scores."""
        run = asyncio.get_running_loop().run_in_executor
        (logits,) = await run(self._thread, self._session.run, [OUTPUT], feeds)
        return np.asarray(logits[:, 0])


class ByMessage:
    """Triton, asked as the service asks it: tensors in the messages."""

    def __init__(self, client: InferenceServerClient, model: str) -> None:
        self._client, self._model = client, model
        self._output = InferRequestedOutput(OUTPUT)

    async def score(self, feeds: Feeds) -> Float32s:
        """Return the scores."""
        tensors = [InferInput(name, [*values.shape], "INT64") for name, values in feeds.items()]
        for tensor in tensors:
            tensor.set_data_from_numpy(feeds[tensor.name()])
        answer = await self._client.infer(self._model, tensors, outputs=[self._output])
        return np.asarray(answer.as_numpy(OUTPUT)[:, 0])


class BySharedMemory:
    """Triton on this host: tensors and scores in a region of one client's own."""

    def __init__(self, client: InferenceServerClient, model: str, region: Any, name: str) -> None:
        self._client, self._model = client, model
        self._region, self._name = region, name

    async def score(self, feeds: Feeds) -> Float32s:
        """Return the scores."""
        shared_memory.set_shared_memory_region(self._region, [*feeds.values()])
        tensors, offset = [], 0
        for name, values in feeds.items():
            tensor = InferInput(name, [*values.shape], "INT64")
            tensor.set_shared_memory(self._name, values.nbytes, offset)
            tensors.append(tensor)
            offset += values.nbytes
        rows = len(values)
        output = InferRequestedOutput(OUTPUT)
        output.set_shared_memory(self._name, 4 * rows, offset)
        await self._client.infer(self._model, tensors, outputs=[output])
        scores = shared_memory.get_contents_as_numpy(
            self._region, np.float32, [rows, 1], offset=offset
        )
        return np.array(scores[:, 0])


@asynccontextmanager
async def by_message(url: str, model: str) -> AsyncIterator[ByMessage]:
    """Open a channel of the service's kind."""
    async with InferenceServerClient(url, channel_args=MESSAGES) as client:
        yield ByMessage(client, model)


@asynccontextmanager
async def by_shared_memory(url: str, model: str, n_bytes: int) -> AsyncIterator[BySharedMemory]:
    """Open a channel, and a region of so many bytes that Triton knows."""
    name = f"disranker-{uuid.uuid4().hex[:12]}"
    async with InferenceServerClient(url, channel_args=MESSAGES) as client:
        region = shared_memory.create_shared_memory_region(name, f"/{name}", n_bytes)
        try:
            await client.register_system_shared_memory(name, f"/{name}", n_bytes)
            yield BySharedMemory(client, model, region, name)
            await _unregister(client, name)
        finally:
            shared_memory.destroy_shared_memory_region(region)


async def _unregister(client: InferenceServerClient, name: str) -> None:
    """Have Triton forget a region, which it lets go of a moment after the answer."""
    for _ in range(RELEASES):
        try:
            await client.unregister_system_shared_memory(name)
        except InferenceServerException:
            await asyncio.sleep(RELEASE_S)
        else:
            return
    await client.unregister_system_shared_memory(name)
