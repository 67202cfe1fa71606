"""Traces: spans at a real collector, and no harm without one."""

import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from service.contract.bundle import Bundle
from tests.service.asking import request
from tests.service.collector import Collector, attributes_of, collecting
from tests.service.test_server import Server, command, refused, running
from tests.service.traceparents import PARENT, SAMPLED, TRACE, UNSAMPLED

WITHOUT_OPENTELEMETRY = (  # but for its API, which FastAPI imports
    "import sys; sys.modules.update({'opentelemetry.sdk': None, 'opentelemetry.exporter': None}); "
    "from service.__main__ import main; sys.exit(main())"
)
HOSTED = "POST /v1/retrieval/{model}/reranking"


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
