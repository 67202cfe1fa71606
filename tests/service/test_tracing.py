"""Traces: spans at a real collector, the trace passed on to engines, and no harm without either."""

import asyncio
import json
import logging
import re
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from time import monotonic

import anyio
import httpx
import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status
from opentelemetry.trace import get_current_span
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from service.api.spans import Spans
from service.contract.bundle import Bundle
from service.contract.encoding import TokenPair
from service.contract.types import Candidate, Scores
from service.engines.local import LocalEngine
from service.logs import JsonFormatter
from service.ranking.admission import Ticket
from service.ranking.caches import DocumentTokenCache, ScoreCache
from service.ranking.lane import LocalLane
from service.scorers.onnx import OnnxScorer
from service.tracing import outgoing_traceparent, passing_on, valid_traceparent
from tests.service.asking import request
from tests.service.collector import Collector, attributes_of, collecting
from tests.service.conftest import Client
from tests.service.fakes import Unqueued
from tests.service.test_operations import samples
from tests.service.test_server import Server, command, refused, running

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
SAMPLED, UNSAMPLED = f"00-{TRACE}-{PARENT}-01", f"00-{TRACE}-{PARENT}-00"
OTHER = "00-0123456789abcdef0123456789abcdef-0123456789abcdef-01"
WITHOUT_OPENTELEMETRY = (  # but for its API, which FastAPI imports
    "import sys; sys.modules.update({'opentelemetry.sdk': None, 'opentelemetry.exporter': None}); "
    "from service.__main__ import main; sys.exit(main())"
)
HOSTED = "POST /v1/retrieval/{model}/reranking"
NOT_VALID = [
    "",
    "00",
    SAMPLED.upper(),
    SAMPLED + "-00",
    SAMPLED + " ",
    SAMPLED.replace("-", "_"),
    SAMPLED.replace(TRACE, "0" * 32),
    SAMPLED.replace(PARENT, "0" * 16),
    "ff" + SAMPLED[2:],
    "٠٠" + SAMPLED[2:],
    SAMPLED + "\n",
]


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with collecting() as found:
        yield found


@pytest.fixture(scope="module")
def server(bundle_path: Path, collector: Collector) -> Iterator[Server]:
    """Return a server process that sends its spans every few milliseconds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OTEL_BSP_SCHEDULE_DELAY", "20")
        patch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test")
        with running(bundle_path, "--otlp-endpoint", collector.url) as found:
            yield found


def ask(server: Server, name: str, traceparent: str = "", **more: str) -> httpx.Response:
    headers = {"X-Request-Id": name, **more}
    if traceparent:
        headers["traceparent"] = traceparent
    body = request(candidates=[{"text": f"sesquipedalian {name}"}, {"text": "dog"}])
    return httpx.post(f"{server.url}/rank", json=body, headers=headers, timeout=30)


def logged(server: Server, name: str) -> dict[str, object]:
    while True:
        for line in list(server.log):
            if line.get("request_id") == name:
                return line
        time.sleep(0.01)


def test_a_request_is_a_span_with_a_child_a_stage(
    server: Server, collector: Collector, bundle: Bundle
) -> None:
    answer = ask(server, "whole").json()
    span, stages = collector.trace("whole")
    assert (span.name, span.kind) == ("POST /rank", Span.SPAN_KIND_SERVER)
    assert attributes_of(span.attributes) == {
        "http.request.method": "POST",
        "http.route": "/rank",
        "http.response.status_code": 200,
        "url.path": "/rank",
        "url.scheme": "http",
        "disranker.request_id": "whole",
        "disranker.outcome": "ok",
        "disranker.candidates": 2,
        "disranker.tokens": answer["usage"]["total_tokens"],
        "disranker.model.name": bundle.manifest.name,
        "disranker.model.version": bundle.short_version,
        "disranker.model.variant": "stable",
    }
    assert span.status.code == Status.STATUS_CODE_UNSET
    assert [stage.name for stage in stages] == ["tokenise", "queue", "infer", "order"]
    at = span.start_time_unix_nano
    for stage in stages:
        assert stage.trace_id == span.trace_id
        assert stage.start_time_unix_nano >= at
        length_ms = (stage.end_time_unix_nano - stage.start_time_unix_nano) / 1e6
        assert length_ms == pytest.approx(answer["timings"][f"{stage.name}_ms"], abs=1e-3)
        at = stage.end_time_unix_nano
    assert span.end_time_unix_nano >= at


def test_a_stage_that_was_not_needed_has_no_span(server: Server, collector: Collector) -> None:
    ask(server, "scored")
    body = request(candidates=[{"text": "sesquipedalian scored"}])
    httpx.post(f"{server.url}/rank", json=body, headers={"X-Request-Id": "known"})
    _, stages = collector.trace("known")
    assert [stage.name for stage in stages] == ["tokenise", "order"]


def test_who_sends_is_named_and_may_be_named_otherwise(
    server: Server, collector: Collector
) -> None:
    ask(server, "named")
    collector.trace("named")
    resource = collector.resources[-1]
    assert resource["service.name"] == "disranker"
    assert resource["deployment.environment.name"] == "test"


def test_no_text_is_sent(server: Server, collector: Collector) -> None:
    ask(server, "textless")
    collector.trace("textless")
    assert not any(b"sesquipedalian" in body or b"dog" in body for body in collector.bodies)


def test_a_span_continues_its_clients_trace(server: Server, collector: Collector) -> None:
    ask(server, "continued", SAMPLED, tracestate="vendor=value")
    span, stages = collector.trace("continued")
    assert (span.trace_id.hex(), span.parent_span_id.hex()) == (TRACE, PARENT)
    assert span.trace_state == "vendor=value"
    assert {stage.trace_id.hex() for stage in stages} == {TRACE}
    assert logged(server, "continued")["trace_id"] == TRACE


def test_an_invalid_parent_is_ignored(server: Server, collector: Collector) -> None:
    ask(server, "orphan", SAMPLED + "-00")
    span, _ = collector.trace("orphan")
    assert not span.parent_span_id
    assert span.trace_id.hex() != TRACE
    assert logged(server, "orphan")["trace_id"] == span.trace_id.hex()


def test_what_the_client_does_not_sample_is_not_sent(server: Server, collector: Collector) -> None:
    ask(server, "unsampled", UNSAMPLED)
    ask(server, "next", SAMPLED)
    collector.trace("next")
    ids = [attributes_of(span.attributes).get("disranker.request_id") for span in collector.spans]
    assert "unsampled" not in ids
    assert logged(server, "unsampled")["trace_id"] == TRACE


def test_only_requests_to_rank_have_spans_and_their_faults_are_no_errors(
    server: Server, collector: Collector
) -> None:
    httpx.get(f"{server.url}/readyz")
    headers = {"X-Request-Id": "faulty"}
    httpx.post(f"{server.url}/rank", content=b"{}", headers=headers)
    httpx.request("PROPFIND", f"{server.url}/rank", headers={"X-Request-Id": "strange"})
    span, stages = collector.trace("faulty")
    assert attributes_of(span.attributes)["http.response.status_code"] == 422
    assert attributes_of(span.attributes)["disranker.outcome"] == "client_error"
    assert span.status.code == Status.STATUS_CODE_UNSET
    assert stages == []
    assert collector.trace("strange")[0].name == "HTTP /rank"
    names = {span.name for span in collector.spans if span.kind == Span.SPAN_KIND_SERVER}
    assert names <= {"POST /rank", "HTTP /rank", HOSTED}


def test_a_route_has_no_word_of_the_clients(server: Server, collector: Collector) -> None:
    path = f"/v1/retrieval/{'m' * 500}/reranking"
    httpx.post(f"{server.url}{path}", content=b"{}", headers={"X-Request-Id": "hosted"})
    span, _ = collector.trace("hosted")
    assert span.name == HOSTED
    assert attributes_of(span.attributes)["http.route"] == HOSTED.removeprefix("POST ")
    assert attributes_of(span.attributes)["url.path"] == path[:128]


class Listener:
    """The real engine, behind a gate, with an ear for the trace that each launch belongs to."""

    def __init__(self, bundle: Bundle) -> None:
        self.open = asyncio.Event()
        self.open.set()
        self.heard: list[str | None] = []
        self.broken = False
        self._engine = LocalEngine(OnnxScorer(bundle.model_path("int8"), threads=1))

    async def score(self, pairs: Sequence[TokenPair], deadline: float) -> Scores:
        self.heard.append(outgoing_traceparent())
        await self.open.wait()
        if self.broken:
            raise RuntimeError("the engine broke")
        return await self._engine.score(pairs, deadline)


@pytest.fixture
def engine(bundle: Bundle) -> Listener:
    return Listener(bundle)


@pytest.mark.anyio
async def test_engines_are_told_the_clients_trace_as_it_came(
    serving: Client, engine: Listener, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with serving(engine) as client:
        assert set(engine.heard) == {None}
        for name, traceparent in (("is", UNSAMPLED), ("bad", "00-1"), ("none", None)):
            headers = {"traceparent": traceparent} if traceparent else {}
            await client.post("/rank", json=request(query=name), headers=headers)
        assert engine.heard[-3:] == [UNSAMPLED, None, None]
    assert outgoing_traceparent() is None
    lines = [json.loads(JsonFormatter().format(record)) for record in caplog.records]
    traces = [line["trace_id"] for line in lines if line["logger"] == "service.requests"]
    assert traces == [TRACE, None, None]


@pytest.mark.anyio
async def test_a_launch_of_several_requests_goes_by_the_first_of_them_with_a_trace(
    serving: Client, engine: Listener
) -> None:
    async with serving(engine, launch_tokens=5_000) as client:
        engine.open.clear()
        before = len(engine.heard)
        tasks = []
        asked = [("a", OTHER), ("b", None), ("c", SAMPLED), ("d", OTHER)]
        with anyio.fail_after(10):
            for n, (query, traceparent) in enumerate(asked):
                headers = {"traceparent": traceparent} if traceparent else {}
                body = request(query=query, deadline_ms=20_000 + n)
                tasks.append(asyncio.create_task(client.post("/rank", json=body, headers=headers)))
                while (await samples(client))["disranker_queue_requests", ""] != n or not n:
                    if not n and len(engine.heard) > before:
                        break
                    await asyncio.sleep(0.001)
        engine.open.set()
        assert {answer.status_code for answer in await asyncio.gather(*tasks)} == {200}
        assert engine.heard[before:] == [OTHER, SAMPLED]


@pytest.mark.anyio
async def test_many_questions_of_a_request_are_one_trace(serving: Client, engine: Listener) -> None:
    body = {"text_1": ["cat", "dog"], "text_2": ["kettle", "water"]}
    async with serving(engine) as client:
        before = len(engine.heard)
        answer = await client.post("/score", json=body, headers={"traceparent": SAMPLED})
        assert answer.status_code == 200, answer.text
        assert set(engine.heard[before:]) == {SAMPLED}


@pytest.mark.anyio
async def test_an_engine_without_a_queue_is_told_each_requests_trace(
    bundle: Bundle, engine: Listener
) -> None:
    lane = LocalLane(
        bundle.encoder(),
        Unqueued(engine),
        model="tiny",
        tokens=DocumentTokenCache(max_bytes=0),
        scores=ScoreCache(max_bytes=0),
    )

    async def score(traceparent: str) -> None:
        with passing_on(traceparent):
            await lane.score("cat", [Candidate(summary="dog")], Ticket(monotonic() + 30))

    await asyncio.gather(score(SAMPLED), score(OTHER))
    assert sorted(filter(None, engine.heard)) == sorted([SAMPLED, OTHER])
    lane.close()


@pytest.mark.anyio
async def test_engines_are_told_the_servers_own_span_and_their_failure_is_its_error(
    serving: Client, engine: Listener, collector: Collector
) -> None:
    spans = Spans(collector.url)
    async with serving(engine, begin_span=spans.begin) as client:
        engine.broken = True
        for name, traceparent in (("sampled", SAMPLED), ("left out", UNSAMPLED)):
            headers = {"X-Request-Id": f"own-{name}", "traceparent": traceparent}
            answer = await client.post("/rank", json=request(query=name), headers=headers)
            assert answer.status_code == 500
    spans.close()
    span, stages = collector.trace("own-sampled")
    told, left_out = engine.heard[-2:]
    assert told == f"00-{TRACE}-{span.span_id.hex()}-01"
    assert left_out is not None
    assert re.fullmatch(rf"00-{TRACE}-(?!{PARENT})[0-9a-f]{{16}}-00", left_out)
    assert span.status.code == Status.STATUS_CODE_ERROR
    assert attributes_of(span.attributes)["error.type"] == "500"
    assert attributes_of(span.attributes)["disranker.outcome"] == "error"
    assert stages == []


@pytest.mark.parametrize("header", [SAMPLED, UNSAMPLED, OTHER, f"01{SAMPLED[2:]}", *NOT_VALID])
def test_a_traceparent_is_valid_where_opentelemetry_finds_a_parent_in_it(header: str) -> None:
    carrier = {"traceparent": header}
    found = get_current_span(TraceContextTextMapPropagator().extract(carrier)).get_span_context()
    spaced = header != header.rstrip()  # a server strips a header's ends
    assert valid_traceparent([header]) == (header if found.is_valid and not spaced else None)
    assert header not in NOT_VALID or valid_traceparent([header]) is None


def test_several_traceparents_are_none() -> None:
    assert valid_traceparent([]) is None
    assert valid_traceparent([SAMPLED, OTHER]) is None


def bare(bundle_path: Path, *flags: str) -> list[str]:
    """Return the command of a service that fails wherever OpenTelemetry is imported."""
    python, _module, _service, *arguments = command(bundle_path, *flags)
    return [python, "-c", WITHOUT_OPENTELEMETRY, *arguments]


def test_a_service_that_does_not_trace_never_imports_opentelemetry(bundle_path: Path) -> None:
    process = subprocess.Popen(bare(bundle_path), stderr=subprocess.PIPE, text=True)
    try:
        server = Server(process)
        assert ask(server, "untraced", SAMPLED).status_code == 200
        assert logged(server, "untraced")["trace_id"] == TRACE
        assert server.stop() == 0
    finally:
        process.kill()
        process.wait()


def test_tracing_without_the_extra_says_what_to_install(bundle_path: Path) -> None:
    found = subprocess.run(
        bare(bundle_path, "--otlp-endpoint", "http://127.0.0.1:1"),
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert found.returncode == 2
    assert found.stderr.count("\n") == 1
    assert "otlp_endpoint: opentelemetry." in found.stderr
    assert "is not installed: pip install '.[otel]'" in found.stderr


def test_what_cannot_work_is_refused_at_start(bundle_path: Path) -> None:
    for endpoint in ("localhost:4318", "http://", "http://name:secret@host:4318"):
        assert "otlp_endpoint: " in refused(bundle_path, "--otlp-endpoint", endpoint)
    flags = ("--otlp-endpoint", "http://127.0.0.1:1")
    assert "max_queue_size" in refused(bundle_path, *flags, OTEL_BSP_MAX_QUEUE_SIZE="0")


def test_a_stop_sends_the_last_spans(bundle_path: Path, collector: Collector) -> None:
    with running(bundle_path, "--otlp-endpoint", f"{collector.url}/") as server:
        ask(server, "last")
        assert server.stop() == 0
    collector.trace("last")


@pytest.mark.parametrize("listening", [False, True], ids=["closed", "silent"])
def test_a_collector_out_of_reach_costs_one_log_line_and_no_request(
    bundle_path: Path, monkeypatch: pytest.MonkeyPatch, listening: bool
) -> None:
    """The silent one takes connections and never answers, for longer than the test may take."""
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "10")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "600")
    with socket.create_server(("127.0.0.1", 0)) as sock:
        endpoint = f"http://127.0.0.1:{sock.getsockname()[1]}"
        if not listening:
            sock.close()
        with running(bundle_path, "--otlp-endpoint", endpoint) as server:
            statuses = {ask(server, f"lost-{n}").status_code for n in range(20)}
            if not listening:
                server.wait_for("Transient error")
            statuses |= {ask(server, f"lost-{n}").status_code for n in range(20, 40)}
            server.process.send_signal(signal.SIGTERM)
            assert server.process.wait(15) == 0  # OpenTelemetry itself would try for 30 s
    assert statuses == {200}
    told = [line for line in server.log if line["logger"].startswith(("opentelemetry", "urllib3"))]
    assert len(told) == (0 if listening else 1)
