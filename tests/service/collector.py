"""A collector of OpenTelemetry traces on loopback, which keeps what it is sent."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span

TIMEOUT_S = 30

Value = str | int


class Collector:
    """What a collector was sent, decoded.

    Attributes:
        bodies: The requests' bodies as they came.
        resources: The attributes of who sent them, one a body.
        spans: All spans.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.bodies: list[bytes] = []
        self.resources: list[dict[str, Value]] = []
        self.spans: list[Span] = []

    def take(self, body: bytes) -> None:
        self.bodies.append(body)
        for sent in ExportTraceServiceRequest.FromString(body).resource_spans:
            self.resources.append(attributes_of(sent.resource.attributes))
            self.spans += [span for scope in sent.scope_spans for span in scope.spans]

    def trace(self, request_id: str) -> tuple[Span, list[Span]]:
        """Return the span of a request and its children by time, once they are here."""
        end = time.monotonic() + TIMEOUT_S
        while time.monotonic() < end:
            for span in list(self.spans):
                if attributes_of(span.attributes).get("disranker.request_id") == request_id:
                    children = [s for s in self.spans if s.parent_span_id == span.span_id]
                    return span, sorted(children, key=lambda s: s.end_time_unix_nano)
            time.sleep(0.01)
        raise AssertionError(f"no span of {request_id} came")


def attributes_of(pairs: Iterator[KeyValue]) -> dict[str, Value]:
    return {
        pair.key: getattr(pair.value, pair.value.WhichOneof("value") or "string_value")
        for pair in pairs
    }


@contextmanager
def collecting() -> Iterator[Collector]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            assert self.path == "/v1/traces"
            assert self.headers["content-type"] == "application/x-protobuf"
            collector.take(self.rfile.read(int(self.headers["content-length"])))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    collector = Collector(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield collector
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
