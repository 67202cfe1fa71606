"""A server whose engine and routes fail with exceptions that quote what they were given."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from fastapi import FastAPI, Request
from starlette.responses import StreamingResponse
from tokenizers import Tokenizer

from service.app import create_app
from service.contract.bundle import Bundle
from service.contract.encoding import TokenPair
from service.contract.types import Scores
from service.engines.local import LocalEngine
from service.logs import configure_logging
from service.ranking.readiness import Readiness
from service.scorers.onnx import OnnxScorer
from service.server import build_server, listen
from service.settings import load_settings

BREAKS_ON = "unscorable"


class QuotingEngine:
    """Scores what does not hold `BREAKS_ON`; says what did."""

    def __init__(self, bundle: Bundle) -> None:
        self._engine = LocalEngine(OnnxScorer(bundle.model_path("int8"), threads=1))
        self._tokenizer = Tokenizer.from_file(str(bundle.root / "tokenizer.json"))

    async def score(self, pairs: Sequence[TokenPair], deadline: float) -> Scores:
        for pair in pairs:
            text = self._tokenizer.decode(pair.input_ids.tolist())
            if BREAKS_ON in text:
                raise ValueError(f"cannot score {text}")
        return await self._engine.score(pairs, deadline)


def add_failing_routes(app: FastAPI) -> None:
    """Add routes whose failures reach the logs of this service, of uvicorn and of asyncio."""

    @app.post("/fail/handler")
    async def handler(request: Request) -> None:
        try:
            raise KeyError(await request.body())
        except KeyError as error:
            raise ExceptionGroup("several", [ValueError(f"{dict(request.headers)}")]) from error

    @app.post("/fail/stream")
    async def stream(request: Request) -> StreamingResponse:
        body = await request.body()

        async def parts() -> AsyncIterator[bytes]:
            yield b"some"
            raise ValueError(body)

        return StreamingResponse(parts())

    @app.post("/fail/task")
    async def task(request: Request) -> None:
        async def fail(text: bytes) -> None:
            raise ValueError(text)

        await asyncio.wait([asyncio.create_task(fail(await request.body()))])


def main(bundle_path: Path, keys: str) -> None:
    settings = load_settings({"bundle": bundle_path, "keys": keys, "log_level": "debug"})
    bundle = Bundle.open(bundle_path)
    readiness = Readiness()
    app = create_app(
        settings,
        bundle=bundle,
        engine=QuotingEngine(bundle),
        precision="int8",
        readiness=readiness,
    )
    add_failing_routes(app)
    configure_logging(settings.log_level)
    with listen("127.0.0.1", 0) as sock:
        print(sock.getsockname()[1], flush=True)
        build_server(app, settings, readiness).run(sockets=[sock])


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
