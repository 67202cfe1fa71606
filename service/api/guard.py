"""Who may pass: every path needs a key but those known to be for everybody."""

from __future__ import annotations

from collections.abc import Sequence

from starlette.types import ASGIApp, Receive, Send
from starlette.types import Scope as AsgiScope

from service.api.keys import Keys, Scope
from service.api.operations import LIVE, READY
from service.api.problems import rank_problem
from service.api.record import RequestRecord
from service.ranking.errors import RankError

OPEN_PATHS = frozenset(
    {"/", *LIVE, *READY, "/docs", "/docs/oauth2-redirect", "/openapi.json"},
)
"""For everybody: probes, which send no key, and what is public anyway."""

POLICY_VIOLATION = 1008
"""Of RFC 6455: why a WebSocket is closed."""


def scope_of(path: str) -> Scope | None:
    """Return the scope that a path needs, None for one that is for everybody.

    A path nobody knows needs `rank`: a route that is forgotten here is closed, not open.
    """
    if path in OPEN_PATHS:
        return None
    if path == "/metrics":
        return "metrics"
    if path == "/admin" or path.startswith("/admin/"):
        return "admin"
    return "rank"


def needed_scopes(path: str, keys: Keys, *, override: bool = False) -> set[Scope]:
    """Return the scopes that a key must have for a path, none where no key is needed.

    Args:
        path: What is asked for.
        keys: All keys.
        override: Whether the request chooses its lane.
    """
    scopes: set[Scope | None] = {scope_of(path), "variant" if override else None}
    return {scope for scope in scopes if scope is not None and keys.guard(scope)}


class Guard:
    """Refuses requests without a key that is good for their path, before their body is read."""

    def __init__(self, app: ASGIApp, keys: Keys) -> None:
        self._app = app
        self._keys = keys

    async def __call__(self, scope: AsgiScope, receive: Receive, send: Send) -> None:
        """Let a request pass, and charge its key; or answer 401, 403 or 429."""
        if scope["type"] == "websocket":  # none is served
            await send({"type": "websocket.close", "code": POLICY_VIOLATION})
            return
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        record: RequestRecord = scope["state"]["record"]
        override = record.is_ranking and record.wanted is not None
        needed = needed_scopes(record.path, self._keys, override=override)
        if not needed:
            await self._app(scope, receive, send)
            return
        try:
            holder = self._keys.holder(needed, _authorization(scope))
            record.key = holder.key.name
            if "rank" in needed and scope["method"] not in ("GET", "HEAD"):
                holder.require_allowance()
        except RankError as error:
            await rank_problem(error, record.request_id)(scope, receive, send)
            return
        try:
            await self._app(scope, receive, send)
        finally:
            holder.spend(record.tokens or 0)


def _authorization(scope: AsgiScope) -> Sequence[bytes]:
    return [value for name, value in scope["headers"] if name == b"authorization"]
