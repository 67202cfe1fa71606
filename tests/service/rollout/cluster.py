"""A Kubernetes API of one ConfigMap on loopback, by HTTP as kubectl proxy has it or by HTTPS."""

from __future__ import annotations

import contextlib
import json
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from service.rollout.desired import WEIGHTS, Desired

PLACE = "search/disranker-rollout"
PATH = "/api/v1/namespaces/search/configmaps/disranker-rollout"

Failure = Callable[[BaseHTTPRequestHandler], None]


class Cluster:
    """What is in it, who may ask, and what was asked.

    Attributes:
        data: Of the ConfigMap, None before anybody wrote.
        bearer: The token that is wanted; none where it is None.
        failure: Answers in the API's place, where there is one.
        asked: Method, path and headers of each request.
    """

    def __init__(self) -> None:
        self.data: dict[str, str] | None = None
        self.bearer: str | None = None
        self.failure: Failure | None = None
        self.asked: list[tuple[str, str, dict[str, str]]] = []
        self.url = ""

    @property
    def desired(self) -> Desired:
        """What replicas are told."""
        assert self.data is not None
        return Desired.model_validate_json(self.data[WEIGHTS])

    def methods(self) -> list[str]:
        """Return the methods of what was asked."""
        return [method for method, _, _ in self.asked]

    def reply(self, handler: BaseHTTPRequestHandler) -> None:
        """Answer as the API does."""
        status, found = self._answer(handler)
        reply(handler, status, json.dumps(found).encode())

    def _answer(self, handler: BaseHTTPRequestHandler) -> tuple[int, Any]:
        length = int(handler.headers.get("content-length", 0))
        body: dict[str, Any] = json.loads(handler.rfile.read(length) or "{}")
        if self.bearer and handler.headers.get("authorization") != f"Bearer {self.bearer}":
            return 401, failed(401, "Unauthorized")
        if handler.path.partition("?")[0] != PATH:
            return 404, failed(404, 'configmaps "other" not found')
        if handler.command == "PATCH":
            if handler.headers["content-type"] != "application/merge-patch+json":
                return 415, failed(415, "the body of the request was in an unknown format")
            assert body.keys() == {"data"}
            self.data = (self.data or {}) | body["data"]
        found = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "disranker-rollout"}}
        return 200, found if self.data is None else {**found, "data": self.data}


def failed(code: int, message: str) -> dict[str, Any]:
    """Return the body of a refusal."""
    return {"kind": "Status", "status": "Failure", "code": code, "message": message}


def refusing(code: int, message: str = "because") -> Failure:
    """Return a failure with a status, as Kubernetes words it."""
    return lambda handler: reply(handler, code, json.dumps(failed(code, message)).encode())


def reply(handler: BaseHTTPRequestHandler, status: int, content: bytes, **headers: str) -> None:
    """Answer a request."""
    handler.send_response(status)
    for name, value in {"content-length": str(len(content)), **headers}.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.end_headers()
    handler.wfile.write(content)


@contextmanager
def running_cluster(certificate: Path | None = None) -> Iterator[Cluster]:
    """Serve a cluster until the block ends, by HTTPS where there is a certificate with its key."""
    cluster = Cluster()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            cluster.asked.append((self.command, self.path, dict(self.headers)))
            with contextlib.suppress(ConnectionError):  # whoever asked may have been killed
                (cluster.failure or cluster.reply)(self)

        def do_PATCH(self) -> None:
            self.do_GET()

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        server.socket = context.wrap_socket(
            server.socket, server_side=True, do_handshake_on_connect=False
        )
    scheme = "http" if certificate is None else "https"
    cluster.url = f"{scheme}://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield cluster
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
