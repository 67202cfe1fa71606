"""uvicorn, with a stop that loses nothing and exits 0."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Generator
from types import FrameType

import uvicorn
from fastapi import FastAPI

from service.connections import bounded_protocol
from service.ranking.readiness import Readiness
from service.settings import Settings

KEEP_ALIVE_S = 75
"""Longer than the idle time of the usual proxies, so that they close first."""

SETTLE_S = 0.2
"""For requests already on their way over open connections when the stop begins."""

BACKLOG = 2048
"""Connections the kernel may hold for us while the event loop is busy."""


class GracefulServer(uvicorn.Server):
    """Stops on SIGTERM and SIGINT: red, no new connections, accepted requests answered."""

    def __init__(self, config: uvicorn.Config, readiness: Readiness) -> None:
        super().__init__(config)
        self._readiness = readiness

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Handle the signals without raising them again afterwards, as uvicorn would."""
        with super().capture_signals():
            yield
            self._captured_signals.clear()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Turn the readiness red at once; a second SIGINT gives up on open requests."""
        self._readiness.stopping = True
        super().handle_exit(sig, frame)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop listening, let what is on its way arrive, then close idle connections."""
        for server in self.servers:
            server.close()
        self.server_state.default_headers.append((b"connection", b"close"))
        await asyncio.sleep(SETTLE_S)
        await super().shutdown(sockets)


def listen(host: str, port: int) -> socket.socket:
    """Return a listening socket.

    Raises:
        OSError: The address cannot be taken.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as error:
        raise OSError(f"cannot listen on {host}:{port}: {error.strerror or error}") from error


def build_server(app: FastAPI, settings: Settings, readiness: Readiness) -> GracefulServer:
    """Return the server of an app."""
    config = uvicorn.Config(
        app,
        loop="uvloop",
        http=bounded_protocol(2 * settings.max_requests),
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=settings.stop_timeout_s,  # type: ignore[arg-type]
    )
    return GracefulServer(config, readiness)
