"""The application: what is served, from start to stop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial
from importlib.metadata import version

from fastapi import FastAPI
from fastapi.middleware.cors import CORSMiddleware

from service.api import openapi, problems
from service.api.admin import admin_router
from service.api.guard import Guard, needed_scope
from service.api.keys import Keys
from service.api.middleware import BeginSpan, RecordRequests
from service.api.operations import Info, operations_router
from service.api.routes import ROUTES, ranking_router
from service.api.schema import MAX_CANDIDATES, ServedModel
from service.api.serving import Serving
from service.contract.bundle import Bundle
from service.contract.triton import TritonPrecision, tolerance
from service.engines.engine import Engine, EngineKind, RemoteEngine
from service.ranking.admission import Admission
from service.ranking.batcher import Batcher
from service.ranking.caches import DocumentTokenCache, ScoreCache
from service.ranking.golden import probe
from service.ranking.health import HANG_S, Recovery, WatchedEngine
from service.ranking.lane import LocalLane
from service.ranking.pace import Pace
from service.ranking.ranker import Ranker
from service.ranking.readiness import Readiness
from service.ranking.relay import Relay
from service.ranking.startup import accompany, warm_up
from service.settings import Settings
from service.telemetry import Telemetry

VARIANT = "primary"
"""The one variant until there are several."""

MB = 1_000_000

STOP_S = 1.0
"""For the batcher's last launch; every request is answered by then, only a hung engine is not."""


def create_app(
    settings: Settings,
    *,
    bundle: Bundle,
    engine: Engine | RemoteEngine,
    precision: TritonPrecision,
    engine_name: EngineKind = "onnx",
    concurrency: int = 1,
    readiness: Readiness | None = None,
    begin_span: BeginSpan | None = None,
    hang_s: float = HANG_S,
) -> FastAPI:
    """Return the application that serves a bundle.

    Args:
        settings: The service's settings.
        bundle: The opened bundle.
        engine: Scores the bundle's token pairs; a remote one batches them itself.
        precision: Which of the bundle's models the engine runs.
        engine_name: What the metrics call the engine.
        concurrency: Calls that the engine runs side by side.
        readiness: Shared with the server, which turns it red when asked to stop.
        begin_span: Records requests to rank as spans; None where nothing is traced.
        hang_s: How long a call of an engine in this process may take.
    """
    manifest = bundle.manifest
    readiness = readiness or Readiness()
    telemetry = Telemetry(
        bundle,
        variant=VARIANT,
        precision=precision,
        engine=engine_name,
        budget_s=settings.budget_ms / 1000,
    )
    model = ServedModel(name=manifest.name, version=bundle.short_version, variant=VARIANT)
    recovery = Recovery(readiness)
    pace = Pace(concurrency=concurrency)
    admission = Admission(pace, max_backlog_tokens=settings.max_backlog_tokens)
    queue: Batcher | Relay
    remote = engine if isinstance(engine, RemoteEngine) else None
    if remote is not None:
        queue = Relay(remote, pace=pace, on_fault=recovery.suspect)
        telemetry.watch_triton(lambda: remote.served_version)
    else:
        engine = WatchedEngine(engine, on_fault=recovery.suspect, hang_s=hang_s)
        queue = Batcher(
            engine, pace=pace, max_batch=settings.max_batch, launch_tokens=settings.launch_tokens
        )
    tokens = DocumentTokenCache(max_bytes=settings.token_cache_mb * MB)
    scores = ScoreCache(max_bytes=settings.score_cache_mb * MB)
    encoder = bundle.encoder()
    lane = LocalLane(
        encoder,
        queue,
        model=f"{manifest.version} {precision}",
        tokens=tokens,
        scores=scores,
    )
    ranker = Ranker(
        lane, admission=admission, readiness=readiness, relevance=manifest.score.relevance
    )

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        bound = tolerance(manifest, bundle.golden, precision)
        golden = bundle.golden[0]
        pairs = encoder.encode(golden.query, golden.candidates)

        async def prove() -> None:
            if remote is not None:
                await remote.check()
            await probe(engine, pairs, golden, tolerance=bound)

        async def begin() -> None:
            start = partial(warm_up, lane, bundle, tolerance=bound, readiness=readiness)
            if remote is None:
                await start()
            else:
                await accompany(remote, start, readiness=readiness, recovery=recovery)

        if isinstance(queue, Batcher):
            queue.start()
        tasks = [asyncio.create_task(begin()), asyncio.create_task(recovery.run(prove))]
        yield
        readiness.stopping = True
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if isinstance(queue, Batcher):
            with suppress(TimeoutError):
                async with asyncio.timeout(STOP_S):
                    await queue.stop()
        if remote is not None:
            await remote.close()
        lane.close()

    telemetry.watch_readiness(lambda: readiness.reason is None)
    telemetry.watch_queue(lambda: queue.depth)
    telemetry.watch_engine(pace, wasted_tokens=lambda: queue.wasted_tokens)
    telemetry.watch_caches({"tokens": lambda: tokens.stats, "scores": lambda: scores.stats})
    app = FastAPI(
        title="DisRanker-serve",
        version=version("disranker"),
        lifespan=lifespan,
        redirect_slashes=False,  # a redirect would lose the body; 404 says what is served
        redoc_url=None,
        # Spans are ours (`api/spans.py`); FastAPI's would tell query strings and exceptions' texts.
        telemetry={"tracing": False, "metrics": False, "logs": False},
    )
    serving = Serving(ranker, model=model, settings=settings, telemetry=telemetry)
    app.include_router(ranking_router(serving))
    app.include_router(
        operations_router(
            readiness=readiness,
            telemetry=telemetry,
            model=model,
            info=_info(settings, bundle, precision),
        )
    )
    if settings.admin:
        app.include_router(admin_router(settings, caches={"tokens": tokens, "scores": scores}))
    problems.install(app)
    requests = {dialect.request: None for route in ROUTES for dialect in route.dialects}
    openapi.describe(app, *requests, max_query_chars=settings.max_query_chars)
    _guard(app, settings, telemetry)
    app.add_middleware(RecordRequests, telemetry=telemetry, begin_span=begin_span)
    return app


def _guard(app: FastAPI, settings: Settings, telemetry: Telemetry) -> None:
    """Let nobody in without a key where there are keys, nor from other pages where not allowed."""
    if settings.keys:
        keys = Keys(settings.keys)
        telemetry.watch_keys(keys)
        app.add_middleware(Guard, keys=keys)
        openapi.require_keys(app, lambda path: needed_scope(path, keys) is not None)
    if settings.cors_origins:  # outside the guard: a preflight comes without a key
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_methods=("GET", "POST"),
            allow_headers=("*",),
            expose_headers=("x-request-id", "server-timing", "retry-after", "retry-after-ms"),
        )


def _info(settings: Settings, bundle: Bundle, precision: TritonPrecision) -> Info:
    manifest = bundle.manifest
    return Info(
        model_id=manifest.name,
        model_sha=manifest.version,
        model_dtype={"fp32": "float32", "fp16": "float16"}.get(precision, precision),
        max_concurrent_requests=settings.max_requests,
        max_input_length=manifest.max_length,
        max_batch_tokens=settings.launch_tokens,
        max_client_batch_size=MAX_CANDIDATES,
        version=version("disranker"),
    )
