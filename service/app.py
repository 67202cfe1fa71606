"""The application: what is served, from start to stop."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from importlib.metadata import version
from pathlib import Path

from fastapi import FastAPI
from fastapi.middleware.cors import CORSMiddleware

from service.api import openapi, problems
from service.api.admin import Cache, admin_router
from service.api.decider_admin import DECIDER_REQUESTS, decider_router
from service.api.guard import Guard, needed_scopes
from service.api.keys import Keys
from service.api.middleware import BeginSpan, RecordRequests
from service.api.operations import Info, operations_router
from service.api.rollout_admin import ADMIN_REQUESTS, rollout_router
from service.api.routes import ROUTES, ranking_router
from service.api.schema import MAX_CANDIDATES
from service.api.serving import Serving
from service.api.shadow import SideBySide, shadow_router
from service.api.shadow_admin import SampleRequest, shadow_admin_router
from service.contract.bundle import Bundle
from service.contract.triton import TritonPrecision
from service.engines.engine import Engine, EngineKind, RemoteEngine, Runner
from service.ranking.admission import Backlog
from service.ranking.caches import DocumentTokenCache, ScoreCache
from service.ranking.cores import Cores
from service.ranking.encoders import Encoders
from service.ranking.errors import ConflictError, Fault
from service.ranking.health import HANG_S
from service.ranking.model import Model, Shared
from service.ranking.readiness import Readiness
from service.rollout.lanes import Lanes
from service.rollout.loading import Loader
from service.rollout.split import Split, Weight
from service.rollout.weights import WeightsFile
from service.runner import choose_runner
from service.settings import Settings
from service.shadowing import Shadowing
from service.telemetry import Telemetry

MB = 1_000_000


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
    tokens = DocumentTokenCache(max_bytes=settings.token_cache_mb * MB)
    scores = ScoreCache(max_bytes=settings.score_cache_mb * MB)
    shared = Shared(
        cores=Cores(concurrency),
        backlog=Backlog(max_tokens=settings.max_backlog_tokens),
        encoders=Encoders(),
        tokens=tokens,
        scores=scores,
        max_batch=settings.max_batch,
        launch_tokens=settings.launch_of(bundle.manifest.max_length),
        hang_s=hang_s,
    )
    stable = Model(bundle, Runner(engine_name, engine, precision, concurrency), shared)
    split = Split(settings.split_salt, Weight(settings.canary_weight))
    lanes = Lanes(stable, readiness=readiness or Readiness(), split=split)
    open_model = partial(_open, settings, shared)
    if settings.canary:
        lanes.put("canary", open_model(settings.canary))
    if settings.shadow:
        lanes.put("shadow", open_model(settings.shadow))
    telemetry = Telemetry(lanes, budget_s=settings.budget_ms / 1000)
    telemetry.watch_caches({"tokens": lambda: tokens.stats, "scores": lambda: scores.stats})
    weights = WeightsFile(settings.rollout_weights, lanes, telemetry.registry)
    shadowing = Shadowing(settings, lanes, telemetry.registry)
    shadow = shadowing.shadow

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        lanes.start()
        shadowing.start()
        weights.start()
        settling = asyncio.create_task(_settle(lanes.stable.model))
        yield
        lanes.readiness.stopping = True
        settling.cancel()
        weights.stop()
        await shadowing.stop()
        await lanes.stop()

    app = FastAPI(
        title="DisRanker-serve",
        version=version("disranker"),
        lifespan=lifespan,
        redirect_slashes=False,  # a redirect would lose the body; 404 says what is served
        redoc_url=None,
        # Spans are ours (`api/spans.py`); FastAPI's would tell query strings and exceptions' texts.
        telemetry={"tracing": False, "metrics": False, "logs": False},
    )
    serving = Serving(lanes, shadow=shadow, settings=settings, telemetry=telemetry)
    app.include_router(ranking_router(serving))
    app.include_router(shadow_router(SideBySide(lanes, shadow, settings)))
    info = partial(_info, settings, lanes)
    app.include_router(operations_router(lanes, telemetry=telemetry, info=info))
    if settings.admin:
        loader = Loader(lanes, open_model=open_model, root=settings.bundles_root)
        parts = [rollout_router(lanes, loader), shadow_admin_router(shadow)]
        if settings.rollout_weights is not None:
            parts.append(decider_router(settings.rollout_weights))
        caches: dict[str, Cache] = {"tokens": tokens, "scores": scores}
        app.include_router(admin_router(settings, *parts, caches=caches))
    problems.install(app)
    requests = dict.fromkeys(dialect.request for route in ROUTES for dialect in route.dialects)
    admin = (*ADMIN_REQUESTS, SampleRequest, *DECIDER_REQUESTS) if settings.admin else ()
    openapi.describe(app, *requests, *admin, max_query_chars=settings.max_query_chars)
    _guard(app, settings, telemetry)
    app.add_middleware(RecordRequests, lanes=lanes, telemetry=telemetry, begin_span=begin_span)
    return app


def _guard(app: FastAPI, settings: Settings, telemetry: Telemetry) -> None:
    """Let nobody in without a key where there are keys, nor from other pages where not allowed."""
    if settings.keys:
        keys = Keys(settings.keys)
        telemetry.watch_keys(keys)
        app.add_middleware(Guard, keys=keys)
        openapi.require_keys(app, lambda path: bool(needed_scopes(path, keys)))
    if settings.cors_origins:  # outside the guard: a preflight comes without a key
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_methods=("GET", "POST"),
            allow_headers=("*",),
            expose_headers=(
                "x-request-id",
                "x-variant",
                "server-timing",
                "retry-after",
                "retry-after-ms",
            ),
        )


async def _settle(model: Model) -> None:
    """Keep the collector from walking again and again what lives long, once it is there."""
    await model.judged()
    gc.collect()
    gc.freeze()


def _open(settings: Settings, shared: Shared, path: Path, triton_model: str | None = None) -> Model:
    """Return a bundle beside the stable one, run by what the settings ask for.

    Raises:
        BundleError: It cannot be opened or run.
        ConflictError: It has a name for Triton, which is not asked here.
    """
    if triton_model is not None and settings.engine != "triton":
        raise ConflictError(Fault("triton_model", "is for the engine triton", value=triton_model))
    bundle = Bundle.open(path)
    return Model(
        bundle,
        choose_runner(settings.model_copy(update={"triton_model": triton_model}), bundle),
        shared,
    )


def _info(settings: Settings, lanes: Lanes) -> Info:
    model = lanes.stable.model
    manifest, precision = model.bundle.manifest, model.runner.precision
    return Info(
        model_id=manifest.name,
        model_sha=manifest.version,
        model_dtype={"fp32": "float32", "fp16": "float16"}.get(precision, precision),
        max_concurrent_requests=settings.max_requests,
        max_input_length=manifest.max_length,
        max_batch_tokens=settings.launch_of(manifest.max_length),
        max_client_batch_size=MAX_CANDIDATES,
        version=version("disranker"),
    )
