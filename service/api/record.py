"""What is known of a request while it runs, and what is said of it when it ends."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from time import monotonic
from typing import cast
from uuid import uuid4

from fastapi import Request
from starlette._utils import get_route_path  # the router's own, so that all see the same path
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import Scope

from service.rollout.lanes import Choice, Labels, Reason
from service.tracing import trace_id, valid_traceparent

log = logging.getLogger("service.requests")

RANKING_PATTERN = re.compile(r"/v1/retrieval/.*/reranking")
PATTERN_ROUTE = "/v1/retrieval/{model}/reranking"
RANKING_PATHS = frozenset(
    {
        *("/rank", "/rerank", "/v1/rerank", "/v2/rerank"),
        *("/ranking", "/v1/ranking", "/score", "/v1/score"),
    }
)
COMPARING_PATH = "/shadow"
"""Logged as a request to rank, but in none of their figures: it waits for a model elsewhere."""

SECURITY_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-store"),
)
"""Of every answer. None of them is of use to a cache: rankings are private, probes are of now."""

SERVER_TIMING = {"tokenise": "tok", "queue": "queue", "infer": "infer", "order": "order"}

_SAFE_ID = re.compile(r"[A-Za-z0-9._:+/=@-]{1,128}")
_OUTCOMES = {429: "rejected", 499: "cancelled", 503: "not_ready", 504: "expired"}


@dataclass(slots=True)
class RequestRecord:
    """One request's story; handlers fill it in.

    Attributes:
        request_id: The client's `X-Request-Id` where it is safe to repeat, else a new one.
        method: HTTP method.
        path: Path as the router matches it, without the query string.
        lane: Which model in which lane serves it; the stable one until another was chosen.
        wanted: The lane it asks for by `X-Variant`.
        reason: Why it is in its lane, once that was chosen.
        traceparent: Of the span that stands for the request, ours or else its client's.
        began: When the request arrived, in `time.monotonic()` seconds.
        answered: When the response began.
        status: HTTP status, 0 before the response starts.
        candidates: How many the request offered, once known.
        tokens: Real tokens scored.
        key: The name of the key it came with, once checked.
        degraded: Whether only a part was scored.
        stages_s: Seconds spent in each stage.
    """

    request_id: str
    method: str
    path: str
    lane: Labels
    traceparent: str | None = None
    wanted: str | None = None
    reason: Reason | None = None
    began: float = field(default_factory=monotonic)
    answered: float | None = None
    status: int = 0
    candidates: int | None = None
    tokens: int | None = None
    key: str | None = None
    degraded: bool = False
    stages_s: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def of_scope(cls, scope: Scope, lane: Labels) -> RequestRecord:
        """Return the record of a request that has just arrived."""
        headers = Headers(scope=scope)
        given = headers.get("x-request-id", "")
        request_id = given if _SAFE_ID.fullmatch(given) else uuid4().hex
        traceparent = valid_traceparent(headers.getlist("traceparent"))
        wanted = headers.get("x-variant")
        path = get_route_path(scope)
        return cls(request_id, scope["method"], path, lane, traceparent, wanted)

    def go(self, choice: Choice) -> None:
        """Note where the request goes."""
        self.lane, self.reason = choice.served.labels, choice.reason

    @property
    def elapsed_s(self) -> float:
        """Seconds since the request arrived."""
        return monotonic() - self.began

    @property
    def outcome(self) -> str:
        """What became of the request, as a metric label."""
        if 200 <= self.status < 400:
            return "degraded" if self.degraded else "ok"
        if self.status in _OUTCOMES:
            return _OUTCOMES[self.status]
        if self.status == 0:
            return "cancelled"
        return "client_error" if self.status < 500 else "error"

    @property
    def route(self) -> str | None:
        """The path to rank at, without what clients put into it; None for a probe or a page."""
        if self.path in RANKING_PATHS:
            return self.path
        return PATTERN_ROUTE if RANKING_PATTERN.fullmatch(self.path) else None

    @property
    def is_ranking(self) -> bool:
        """Whether this is a request to rank, as opposed to a probe or a page."""
        return self.route is not None

    def add_headers(self, headers: MutableHeaders) -> None:
        """Add `X-Request-Id`, `Server-Timing` and `SECURITY_HEADERS`; the response begins now.

        A request that was sent to a lane is told which by `X-Variant`.
        """
        self.answered = monotonic()
        timings = {SERVER_TIMING[stage]: s for stage, s in self.stages_s.items()}
        timings["total"] = self.answered - self.began
        headers["x-request-id"] = self.request_id
        headers["server-timing"] = ", ".join(
            f"{name};dur={1000 * seconds:.3f}" for name, seconds in timings.items()
        )
        if self.reason is not None:
            headers["x-variant"] = self.lane[2]
        headers.raw.extend(SECURITY_HEADERS)

    def write_log(self) -> None:
        """Write the request's one line."""
        lane = dict(zip(("model", "version", "variant"), self.lane, strict=True))
        lane["routed_by"] = self.reason or ""
        fields = {
            "request_id": self.request_id,
            "trace_id": trace_id(self.traceparent) if self.traceparent else None,
            "method": self.method[:16],
            "path": self.path[:128],
            "status": self.status,
            "outcome": self.outcome,
            "key": self.key,
            **(lane if self.is_ranking else {}),
            "candidates": self.candidates,
            "tokens": self.tokens,
            **{f"{stage}_ms": round(1000 * s, 3) for stage, s in self.stages_s.items()},
            "total_ms": round(1000 * self.elapsed_s, 3),
        }
        level = logging.INFO if self.is_ranking or self.path == COMPARING_PATH else logging.DEBUG
        log.log(level, "request", extra={"fields": fields})


def record_of(request: Request) -> RequestRecord:
    """Return the record of a request."""
    return cast(RequestRecord, request.state.record)
