"""The outermost layer: request ids, timings, the request log, and a last answer."""

from __future__ import annotations

import logging
from collections.abc import Callable

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api.problems import unexpected
from service.api.record import RequestRecord
from service.rollout.lanes import Lanes
from service.telemetry import Telemetry
from service.tracing import passing_on

log = logging.getLogger(__name__)

BeginSpan = Callable[[RequestRecord, Scope], Callable[[float], None]]
"""Begins the span of a request, puts its traceparent on the record, and returns what ends it.

That is called once, with the seconds the request took.
"""


class RecordRequests:
    """Gives each request its record, and tells the log and the metrics how it ended."""

    def __init__(
        self,
        app: ASGIApp,
        lanes: Lanes,
        telemetry: Telemetry,
        begin_span: BeginSpan | None = None,
    ) -> None:
        self._app = app
        self._lanes = lanes
        self._telemetry = telemetry
        self._begin_span = begin_span

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request; an error nobody foresaw becomes a fixed 500."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        record = RequestRecord.of_scope(scope, self._lanes.stable.labels)
        scope.setdefault("state", {})["record"] = record
        end_span = None
        if self._begin_span is not None and record.is_ranking:
            end_span = self._begin_span(record, scope)

        async def send_recorded(message: Message) -> None:
            if message["type"] == "http.response.start":
                record.status = message["status"]
                record.add_headers(MutableHeaders(scope=message))
            await send(message)

        try:
            with passing_on(record.traceparent):
                await self._app(scope, receive, send_recorded)
        except Exception:
            fields = {"request_id": record.request_id}
            log.exception("unexpected error", extra={"fields": fields})
            if record.status:  # too late for another answer: let the connection break
                raise
            await unexpected(record.request_id)(scope, receive, send_recorded)
        finally:
            record.write_log()
            if record.is_ranking:
                self._telemetry.of(record.lane).observe_request(record.outcome, record.elapsed_s)
            if end_span is not None:
                end_span(record.elapsed_s)
