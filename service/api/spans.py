"""The spans of ranking requests, on their way to an OpenTelemetry collector."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from threading import Thread
from time import monotonic

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import Span as RecordedSpan
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Span, SpanKind, StatusCode, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from starlette.datastructures import Headers
from starlette.types import Scope

from service.api.record import RequestRecord

MAX_PATH_CHARS = 128
"""Clients of one dialect put a model's name into it."""

LATER_S = 0.001
"""After a response, when its spans are made.

It takes a fifth of a millisecond; at once, it takes them from whoever reads the response where
cores are scarce.
"""

FLUSH_S = 2.0
"""For the last spans when the service stops; a collector out of reach must not hold it up."""

QUIET_S = 60.0
"""Between two log lines of the exporter, which has several to say of every batch it loses."""

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"})
"""What span names and attributes may hold; the others are one."""


class Spans:
    """Records one server span a ranking request, with a child a stage, and exports them.

    Recording only appends to a bounded queue; a thread empties it in batches. Spans that the
    collector does not take are lost, and no request notices.
    """

    def __init__(self, endpoint: str) -> None:
        """Start the exporting thread; nothing is sent yet.

        What is not given here comes from OpenTelemetry's own variables (`OTEL_…`).

        Args:
            endpoint: The collector's base URL, as in `OTEL_EXPORTER_OTLP_ENDPOINT`.

        Raises:
            ValueError: One of OpenTelemetry's variables makes no sense.
        """
        _quieten()
        service = Resource({"service.name": "disranker", "service.version": version("disranker")})
        named = Resource.create().merge(service).merge(OTELResourceDetector().detect())
        self._provider = TracerProvider(resource=named, shutdown_on_exit=False)
        exporter = OTLPSpanExporter(endpoint=f"{endpoint.rstrip('/')}/v1/traces")
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("disranker", version("disranker"))
        self._propagator = TraceContextTextMapPropagator()
        self._ended: deque[Callable[[], None]] = deque()

    def begin(self, record: RequestRecord, scope: Scope) -> Callable[[float], None]:
        """Begin a request's span, and return what ends it, given the seconds the request took.

        The record's traceparent becomes the span's.
        """
        carrier: dict[str, str | list[str]] = {}
        if record.traceparent:
            carrier["traceparent"] = record.traceparent
            carrier["tracestate"] = Headers(scope=scope).getlist("tracestate")
        method = record.method if record.method in METHODS else "_OTHER"
        route = record.route or ""
        span = self._tracer.start_span(
            f"{method if method in METHODS else 'HTTP'} {route}",
            self._propagator.extract(carrier, Context()),
            SpanKind.SERVER,
            {
                "http.request.method": method,
                "http.route": route,
                "url.path": record.path[:MAX_PATH_CHARS],
                "url.scheme": scope.get("scheme", "http"),
                "disranker.request_id": record.request_id,
            },
        )
        record.traceparent = _traceparent(span) or record.traceparent
        return partial(self._end_later, span, record)

    def close(self) -> None:
        """Send what is left, for `FLUSH_S` at most; the event loop must have ended."""
        while self._ended:
            self._end_next()
        closing = Thread(target=self._provider.shutdown, name="last-spans", daemon=True)
        closing.start()
        closing.join(FLUSH_S)

    def _end_later(self, span: Span, record: RequestRecord, elapsed_s: float) -> None:
        if not isinstance(span, RecordedSpan):  # not sampled
            return
        self._ended.append(partial(self._end, span, record, elapsed_s))
        asyncio.get_running_loop().call_later(LATER_S, self._end_next)

    def _end_next(self) -> None:
        if self._ended:
            self._ended.popleft()()

    def _end(self, span: RecordedSpan, record: RequestRecord, elapsed_s: float) -> None:
        began_ns = span.start_time or 0
        span.set_attribute("disranker.outcome", record.outcome)
        for name, value in zip(("name", "version", "variant"), record.lane, strict=True):
            span.set_attribute(f"disranker.model.{name}", value)
        if record.candidates is not None:
            span.set_attribute("disranker.candidates", record.candidates)
        if record.tokens is not None:
            span.set_attribute("disranker.tokens", record.tokens)
        if record.status:
            span.set_attribute("http.response.status_code", record.status)
        if record.status >= 500:
            span.set_attribute("error.type", str(record.status))
            span.set_status(StatusCode.ERROR)
        self._add_stages(span, record, began_ns)
        span.end(began_ns + _ns(elapsed_s))

    def _add_stages(self, span: Span, record: RequestRecord, began_ns: int) -> None:
        """Lay the stages end to end, up to the moment the response began.

        Only their lengths were measured: what came before them is reading and parsing the body. A
        stage of no length was not needed, as inference is not for cached scores.
        """
        if record.answered is None:
            return
        parent = set_span_in_context(span, Context())
        start_s = record.answered - record.began - sum(record.stages_s.values())
        for stage, stage_s in record.stages_s.items():
            if stage_s > 0:
                start_ns, start_s = began_ns + _ns(start_s), start_s + stage_s
                child = self._tracer.start_span(stage, parent, start_time=start_ns)
                child.end(began_ns + _ns(start_s))


class Quiet(logging.Handler):
    """Hands on one record in `QUIET_S` and drops the others."""

    _next = 0.0

    def emit(self, record: logging.LogRecord) -> None:
        """Hand a record on to the service's log, unless it comes too soon."""
        if monotonic() >= self._next:
            self._next = monotonic() + QUIET_S
            logging.getLogger().handle(record)


def _quieten() -> None:
    quiet = Quiet()
    for name in ("opentelemetry.sdk", "opentelemetry.exporter"):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [quiet], False
    # Its warnings repeat what clients wrote into their headers.
    logging.getLogger("opentelemetry.trace").setLevel(logging.ERROR)


def _traceparent(span: Span) -> str | None:
    """Return the header that names a span; None where tracing is disabled."""
    context = span.get_span_context()
    if not context.is_valid:
        return None
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"


def _ns(seconds: float) -> int:
    return round(1e9 * seconds)
