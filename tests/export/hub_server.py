"""A hub on loopback: the few endpoints by which huggingface_hub downloads a model."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import unquote

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass(frozen=True)
class Hub:
    """A running hub with one model, whose only revision is `v1`.

    Attributes:
        url: Where it listens.
        downloads: Files that were sent, in order.
        tokens: `Authorization` headers that were seen.
    """

    url: str
    downloads: list[str] = field(default_factory=list)
    tokens: set[str | None] = field(default_factory=set)


@contextmanager
def serving_hub(model: str, folder: Path) -> Iterator[Hub]:
    """Serve a folder as a model of the hub."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            hub.tokens.add(self.headers["Authorization"])
            name, _, rest = unquote(self.path).removeprefix("/api/models/").partition("/revision/")
            if rest:
                self._tell(name, rest)
            else:
                self._send_file(body=True)

        def do_HEAD(self) -> None:
            self._send_file(body=False)

        def _tell(self, name: str, revision: str) -> None:
            if name != model:
                self._refuse("RepoNotFound")
            elif revision not in ("v1", "main", COMMIT):
                self._refuse("RevisionNotFound")
            else:
                files = [{"rfilename": path.name} for path in folder.iterdir()]
                told = {"id": model, "modelId": model, "sha": COMMIT, "siblings": files}
                self._send(json.dumps(told).encode(), {}, body=True)

        def _send_file(self, *, body: bool) -> None:
            name = unquote(self.path).removeprefix(f"/{model}/resolve/{COMMIT}/")
            content = (folder / name).read_bytes()
            if body:
                hub.downloads.append(name)
            etag = hashlib.sha1(content, usedforsecurity=False).hexdigest()
            self._send(content, {"ETag": f'"{etag}"', "X-Repo-Commit": COMMIT}, body=body)

        def _refuse(self, code: str) -> None:
            self._send(b"", {"X-Error-Code": code}, body=True, status=404)

        def _send(
            self, content: bytes, headers: dict[str, str], *, body: bool, status: int = 200
        ) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if body:
                self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub = Hub(f"http://127.0.0.1:{server.server_address[1]}")
    thread = Thread(target=server.serve_forever)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
