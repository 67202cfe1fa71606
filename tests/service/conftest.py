import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
from fastapi import FastAPI

from service.api.middleware import BeginSpan
from service.app import create_app
from service.contract.bundle import GOLDEN, Bundle, write_bundle
from service.contract.manifest import Precision
from service.engines.engine import Engine
from service.engines.local import LocalEngine
from service.ranking.readiness import Readiness
from service.scorers.onnx import OnnxScorer
from service.server import build_server, listen
from service.settings import Settings
from tests.tiny import tiny_bundle

Client = Callable[..., AbstractAsyncContextManager[httpx.AsyncClient]]


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def bundle_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bundle(tmp_path_factory.mktemp("bundles") / "tiny")


@pytest.fixture(scope="session")
def candidate_path(bundle_path: Path) -> Path:
    """A bundle beside the first one, of other weights."""
    return tiny_bundle(bundle_path.parent / "candidate", name="candidate", seed=1)


@pytest.fixture(scope="session")
def skewed_path(bundle_path: Path) -> Path:
    """An intact bundle that scores otherwise here than where it was made."""
    bundle, path = Bundle.open(bundle_path), bundle_path.parent / "skewed"
    golden = [
        replace(query, scores=tuple(score + 5 for score in query.scores)) for query in bundle.golden
    ]
    files = {name: bundle.root / name for name in bundle.manifest.files if name != GOLDEN}
    write_bundle(path, bundle.manifest, files, golden)
    return path


@pytest.fixture(scope="session")
def bundle(bundle_path: Path) -> Bundle:
    return Bundle.open(bundle_path)


@pytest.fixture(scope="session")
def build_app(bundle: Bundle) -> Callable[..., FastAPI]:
    def build(
        engine: Engine | None = None,
        *,
        precision: Precision = "int8",
        readiness: Readiness | None = None,
        begin_span: BeginSpan | None = None,
        hang_s: float = 60,
        **settings: Any,
    ) -> FastAPI:
        scorer = OnnxScorer(bundle.model_path(precision), threads=1)
        return create_app(
            Settings(bundle=bundle.root, **settings),
            bundle=bundle,
            engine=engine or LocalEngine(scorer),
            precision=precision,
            readiness=readiness,
            begin_span=begin_span,
            hang_s=hang_s,
        )

    return build


@pytest.fixture(scope="session")
def serving(build_app: Callable[..., FastAPI]) -> Client:
    """Return a context manager: the app, started and ready, behind an HTTP client."""

    @asynccontextmanager
    async def run(*args: Any, **kwargs: Any) -> AsyncIterator[httpx.AsyncClient]:
        async with started(build_app(*args, **kwargs)) as client:
            with anyio.fail_after(30):
                while (await client.get("/readyz")).status_code != 200:  # noqa: ASYNC110
                    await anyio.sleep(0.01)
            yield client

    return run


@asynccontextmanager
async def listening(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    """Serve an app on a port of its own, ready, around a client that speaks HTTP to it."""
    with listen("127.0.0.1", 0) as sock:
        server = build_server(app, Settings(), Readiness())
        task = asyncio.create_task(server.serve(sockets=[sock]))
        url = f"http://127.0.0.1:{sock.getsockname()[1]}"
        async with httpx.AsyncClient(base_url=url, timeout=30) as client:
            while (await client.get("/readyz")).status_code != 200:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            yield client
        server.should_exit = True
        await task


@asynccontextmanager
async def started(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    """Run an app's lifespan around a client that speaks to it in process."""
    async with app.router.lifespan_context(app):
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://service") as client:
            yield client
