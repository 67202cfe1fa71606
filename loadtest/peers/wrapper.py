"""The least HTTP server around a library: one JSON request, one JSON answer, kept-alive.

Runs in a peer's own environment, so it needs the standard library alone. It costs well under a
millisecond a request, where the libraries take hundreds.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

Score = Callable[[str, Sequence[str]], Sequence[float]]


def options() -> argparse.Namespace:
    """Return what every peer is told: its model's folder, its port and the cores it has."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--workers", type=int, default=1)
    return parser.parse_args()


def results_of(scores: Sequence[float]) -> dict[str, Any]:
    """Return an answer of Infinity's `/rerank`, in input order."""
    rows = [{"index": i, "relevance_score": float(score)} for i, score in enumerate(scores)]
    return {"results": rows}


def serve(score: Score, port: int) -> None:
    """Answer `POST /rerank` with score until killed, a request at a time."""
    # One thread for the library: it takes all cores for one request, and each thread that calls
    # torch would have threads of its own beside it.
    alone = ThreadPoolExecutor(max_workers=1)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_GET(self) -> None:
            self._answer({"ready": True})

        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            scores = alone.submit(score, asked["query"], asked["documents"])
            self._answer(results_of(scores.result()))

        def _answer(self, value: dict[str, Any]) -> None:
            body = json.dumps(value).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            """Log nothing."""

    ThreadingHTTPServer(("127.0.0.1", port), Handler).serve_forever()
